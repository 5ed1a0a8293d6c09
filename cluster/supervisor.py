"""Keeps the services of one state folder running: `python -m cluster.supervisor --home .local`.

Two such processes run. The leader holds the owner lock, the standby waits for it; when the leader dies,
by kill -9 too, the kernel frees the lock, the standby reads the state file, adopts what runs and starts
the next standby. Services live in sessions of their own, so nothing of this touches them.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from assistant.errors import ConfigurationError
from cluster.files import FileLock
from cluster.layout import ROOT, Layout
from cluster.plan import Plan
from cluster.processes import Identity, find_owned, identify, is_alive, kill_all, reap, spawn
from cluster.service import Service
from cluster.state import ServiceRecord, State

TICK_S = 0.25
STANDBY_PAUSE_S = 1.0

log = logging.getLogger("supervisor")


class Supervisor:
    """The leader's work. Build it only while holding the owner lock."""

    def __init__(self, layout: Layout, lock: FileLock) -> None:
        self.layout = layout
        self.lock = lock
        self.pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe")
        self.state = _read_state(layout)
        self.state.leader = identify(os.getpid())
        if self.state.standby == self.state.leader:
            self.state.standby = None
        self.services: dict[str, Service] = {}
        self._plan_seen: tuple[int, int] | None = None
        self._standby_at = 0.0
        self._dirty = True

    def run(self) -> None:
        """Work until the stack is to stop or its folder is gone."""
        while True:
            if self.layout.stop_request.exists():
                log.info("asked to stop")
                return
            if not self.lock.is_current() or not self.layout.plan.exists():
                log.warning("the state folder is gone: stopping everything")
                self.abandon()
                return
            self.tick()
            time.sleep(TICK_S)

    def tick(self) -> None:
        self._read_plan()
        for service in self.services.values():
            before = (service.record.phase, service.record.failure)
            service.tick(self._is_ready)
            after = (service.record.phase, service.record.failure)
            if after != before:
                log.info("%s: %s %s", service.spec.name, after[0], service.record.detail or after[1])
        self._keep_standby()
        if self._dirty:
            self._write()

    def abandon(self) -> None:
        """Stop every service and the standby, in reverse order."""
        for service in reversed(list(self.services.values())):
            if not service.spec.external:
                service.halt()
        kill_all(self.state.standby)

    def _read_plan(self) -> None:
        try:
            info = self.layout.plan.stat()
            if self._plan_seen == (info.st_ino, info.st_mtime_ns):
                return
            plan = Plan.read(self.layout.plan)
        except (FileNotFoundError, ConfigurationError) as error:
            log.error("plan not read: %s", error)
            return
        self._plan_seen = (info.st_ino, info.st_mtime_ns)
        self._apply(plan)
        self.state.urls, self.state.version, self.state.plan = plan.urls, plan.version, plan.id
        self._dirty = True

    def _apply(self, plan: Plan) -> None:
        wanted = {spec.name for spec in plan.services}
        found = find_owned(self.layout.owner)
        for name in [n for n in self.state.services if n not in wanted]:
            record = self.state.services.pop(name)
            kill_all(record.process)
            self.services.pop(name, None)
        for name, identity in found.items():
            if name not in wanted and name != "supervisor":
                kill_all(identity)
        services: dict[str, Service] = {}
        for spec in plan.services:
            record = self.state.services.setdefault(spec.name, ServiceRecord(spec.name))
            service = self.services.get(spec.name)
            if service is None:
                service = Service(spec, record, self.layout.owner, self.pool, self._mark)
            elif service.spec == spec:
                service.retry_now()
                services[spec.name] = service
                continue
            service.spec = spec
            service.adopt(found.get(spec.name))
            services[spec.name] = service
        self.services = services

    def _is_ready(self, name: str) -> bool:
        service = self.services.get(name)
        return service is None or service.record.phase == "ready"

    def _keep_standby(self) -> None:
        if is_alive(self.state.standby) or time.monotonic() < self._standby_at:
            return
        reap(self.state.standby)
        self._standby_at = time.monotonic() + STANDBY_PAUSE_S
        self.state.standby = start_process(self.layout)
        self._mark()

    def _mark(self) -> None:
        # Written at once: a start that is not on disk could be made twice by the next leader.
        self._dirty = True
        self._write()

    def _write(self) -> None:
        try:
            self.state.write(self.layout.state)
            self._dirty = False
        except OSError as error:
            log.error("state not written: %s", error)


def start_process(layout: Layout) -> Identity | None:
    """Start one supervisor, detached; it leads or stands by as the lock decides."""
    command = [sys.executable, "-m", "cluster.supervisor", "--home", str(layout.home)]
    try:
        return spawn(command, log=layout.log("supervisor"), cwd=ROOT)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("supervisor not started: %s", error)
        return None


def _read_state(layout: Layout) -> State:
    home = str(layout.home)
    try:
        state = State.read(layout.state)
    except ConfigurationError as error:
        log.error("%s; starting from what runs", error)
        state = None
    return state or State(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    layout = Layout(parser.parse_args().home.absolute())
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    lock = FileLock(layout.owner_lock)
    lock.acquire()
    if layout.stop_request.exists() or not lock.is_current():
        return
    log.info("leading")
    supervisor = Supervisor(layout, lock)
    try:
        supervisor.run()
    except Exception:
        # The standby takes over from a clean start; staying with a broken loop would help nobody.
        log.exception("the supervisor failed")
        time.sleep(STANDBY_PAUSE_S)
        os._exit(1)


if __name__ == "__main__":
    main()
