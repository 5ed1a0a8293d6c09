"""Processes by identity, never by number alone: a pid is reused, a pid with its birth is not.

Imported by the standby supervisor, so it needs the standard library and psutil only.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

OWNER_VARIABLE = "AIA_SERVICE"
"""Environment variable by which a stack finds its own processes when its records are lost."""

LOG_BYTES = 20_000_000
"""A log larger than this moves aside (one generation) at the next start of its service."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this process started: only a parent can learn how a child ended, and must ask."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process. `birth` tells it from a later process with the same pid."""

    pid: int
    birth: str


def identify(pid: int) -> Identity | None:
    """The identity of a running process; None when there is none (a zombie does not run)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid, _birth(process))
    except (psutil.Error, OSError):
        return None


def is_alive(identity: Identity | None) -> bool:
    return identity is not None and identify(identity.pid) == identity


def _birth(process: psutil.Process) -> str:
    if sys.platform != "linux":
        return f"{process.create_time():.3f}"
    # psutil's create_time moves when the clock is set, which would disown every service at once.
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return f"{_boot_id()}:{fields[19]}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    nice: int = 0,
) -> Identity:
    """Start `command` in a session of its own, detached from this terminal, with its output in `log`.

    `env` is the whole environment; ours by default.
    Raises OSError when the program cannot be started or the log cannot be opened.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=os.environ if env is None else env,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    _children[process.pid] = process
    if nice:
        with contextlib.suppress(psutil.Error, OSError):
            psutil.Process(process.pid).nice(nice)
    return identify(process.pid) or Identity(process.pid, "ended at once")


def send(identity: Identity | None, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone."""
    if identity is None or not is_alive(identity):
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_all(identity: Identity | None, marker: str = "") -> list[int]:
    """SIGKILL a service whole: its process, its session, and whatever names `marker` in its command line.

    A session outlives its leader, so leftovers of a dead service are found too. A session whose number
    now belongs to another process is left alone. Returns the pids that were killed.
    """
    killed: list[int] = []
    for _ in range(3):
        members = [p for p in _members(identity, marker) if p.pid != os.getpid()]
        for process in members:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
                killed.append(process.pid)
        _, left = psutil.wait_procs(members, timeout=3)
        if not members or not left:
            break
    return list(dict.fromkeys(killed))


def members(identity: Identity | None, marker: str = "") -> list[psutil.Process]:
    """The running processes of a service: see `kill_all`."""
    return list(_members(identity, marker))


def _members(identity: Identity | None, marker: str) -> Iterator[psutil.Process]:
    session = identity.pid if identity and not _is_reused(identity) else None
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            own_session = session is not None and os.getsid(process.pid) == session
            if own_session or (
                marker
                and process.uids().real == os.getuid()
                and any(marker in argument for argument in process.cmdline())
            ):
                yield process
        except (psutil.Error, OSError):
            continue


def _is_reused(identity: Identity) -> bool:
    now = identify(identity.pid)
    return now is not None and now != identity


def stop(
    identity: Identity | None, number: int = signal.SIGTERM, timeout_s: float = 10.0, marker: str = ""
) -> bool:
    """Ask a service to end by a signal, then kill what is left of it. True when it ended by itself."""
    asked = send(identity, number)
    deadline = time.monotonic() + timeout_s
    while asked and time.monotonic() < deadline and is_alive(identity):
        reap(identity)
        time.sleep(0.05)
    by_itself = not is_alive(identity)
    kill_all(identity, marker)
    reap(identity)
    return by_itself


def reap(identity: Identity | None) -> int | None:
    """The exit status of a dead child of ours (negative: a signal); None when unknown or not ours."""
    child = _children.get(identity.pid) if identity else None
    if child is None:
        return None
    status = child.poll()
    if status is not None:
        del _children[child.pid]
    return status


def find_owned(owner: str) -> dict[str, Identity]:
    """Session leaders that carry `owner` in their environment: service name → identity.

    Finds services when their record was lost: a supervisor died between a start and its note of it.
    """
    found: dict[str, Identity] = {}
    for process in psutil.process_iter():
        try:
            value = process.environ().get(OWNER_VARIABLE, "")
            if not value.startswith(f"{owner}:") or os.getsid(process.pid) != process.pid:
                continue
        except (psutil.Error, OSError):
            continue
        identity = identify(process.pid)
        if identity:
            found[value.removeprefix(f"{owner}:")] = identity
    return found
