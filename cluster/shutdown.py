"""Stop one stack: its supervisors first, then its services in reverse order, and nothing else."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from assistant.errors import AssistantError, ConfigurationError
from cluster.files import FileLock, write_private
from cluster.layout import Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.processes import Identity, find_owned, identify, is_alive, kill_all, members, send, stop
from cluster.state import ServiceRecord, State

OWNER_WAIT_S = 10.0

Report = Callable[[str, str, float], None]
"""Called with a service's name, how it ended, and the seconds that took."""


@dataclass(frozen=True, slots=True)
class Stopped:
    name: str
    by_itself: bool
    took_s: float


def stop_stack(layout: Layout, report: Report | None = None) -> list[Stopped]:
    """Stop everything that `up` of this state folder started. Safe to repeat, and after any crash.

    Raises ConfigurationError when another process keeps the stack's lock.
    """
    if not layout.home.is_dir():
        return []
    with contextlib.suppress(OSError):
        write_private(layout.stop_request, "")
    owner = FileLock(layout.owner_lock)
    try:
        state = _read_state(layout)
        _end_supervisors(layout, state, owner)
        state = _read_state(layout) or state or State(str(layout.home))
        stopped = _stop_services(layout, state, report)
        state.leader = state.standby = None
        with contextlib.suppress(OSError):
            state.write(layout.state)
        shutil.rmtree(layout.ray_shelter, ignore_errors=True)
        return stopped
    finally:
        owner.release()


def _end_supervisors(layout: Layout, state: State | None, owner: FileLock) -> None:
    deadline = time.monotonic() + OWNER_WAIT_S
    while not owner.acquire(timeout_s=0.2):
        # The standby may have become the leader meanwhile, and a new one started: look again each time.
        state = _read_state(layout) or state
        if state is not None:
            for process in (state.standby, state.leader):
                send(process, signal.SIGTERM)
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"Another process keeps {layout.owner_lock}.",
                hint="Look for `python -m cluster.supervisor` processes of this state folder.",
            )
    for process in supervisors(layout):
        kill_all(process)


def supervisors(layout: Layout) -> list[Identity]:
    """The supervisor processes of this state folder, leader and standby."""
    tail = ["-m", "cluster.supervisor", "--home", str(layout.home)]
    found = []
    for candidate in members(None, str(layout.home)):
        with contextlib.suppress(psutil.Error):
            if candidate.cmdline()[1:] == tail and (identity := identify(candidate.pid)):
                found.append(identity)
    return found


def _stop_services(layout: Layout, state: State, report: Report | None) -> list[Stopped]:
    try:
        specs = {spec.name: spec for spec in Plan.read(layout.plan).services}
    except (FileNotFoundError, AssistantError):
        specs = {}
    found = find_owned(layout.owner)
    names = list(dict.fromkeys([*state.services, *found]))
    stopped = []
    for name in reversed(names):
        record = state.services.setdefault(name, ServiceRecord(name))
        spec = specs.get(name) or ServiceSpec(name, ("unknown",), Probe("tcp", ""))
        process = record.process if is_alive(record.process) else found.get(name, record.process)
        was_alive = is_alive(process)
        leftovers = bool(members(process, spec.marker))
        if record.external or not (was_alive or leftovers):
            record.phase, record.process, record.ready_at = "stopped", None, None
            continue
        started = time.monotonic()
        by_itself = stop(process, spec.stop_signal, spec.stop_timeout_s, spec.marker)
        took = time.monotonic() - started
        record.phase, record.process, record.ready_at = "stopped", None, None
        record.restarts = record.failures = 0
        record.failure = record.detail = ""
        stopped.append(Stopped(name, by_itself, took))
        if report:
            report(name, "stopped" if by_itself else "killed", took)
    return stopped


def _read_state(layout: Layout) -> State | None:
    try:
        return State.read(layout.state)
    except ConfigurationError:
        return None
