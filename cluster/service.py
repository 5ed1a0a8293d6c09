"""One supervised service: started, watched, restarted, stopped. Its record is what outlives us."""

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from cluster.plan import ServiceSpec
from cluster.probes import check, resolve
from cluster.processes import (
    OWNER_VARIABLE,
    Identity,
    is_alive,
    kill_all,
    reap,
    spawn,
    stop,
)
from cluster.state import Phase, ServiceRecord

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
HEALTHY_S = 60.0
"""After this long in good health the next failure counts as the first again."""
PROBE_EVERY_S = 2.0
"""Between probes of a service in good health; one that is not is asked at every tick."""
FAILED_PROBES = 3
"""Patience alone does not condemn a service: our own process may have been the one asleep."""


@dataclass
class Clock:
    """Time that a test can turn. `monotonic` measures, `epoch` is for people."""

    monotonic: Callable[[], float] = time.monotonic
    epoch: Callable[[], float] = time.time


def pause_s(failures: int) -> float:
    """How long to wait before the next start, after so many failures in a row."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16)) if failures else 0.0


class Service:
    """The keeper of one service. Every change of its record goes through `changed`.

    Only the supervisor's thread calls it; probes run on `pool`.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        record: ServiceRecord,
        owner: str,
        pool: Executor,
        changed: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        self.spec = spec
        self.record = record
        self.owner = owner
        self.pool = pool
        self.changed = changed
        self.clock = clock or Clock()
        self._probe: Future[None] | None = None
        self._failed_probes = 0
        self._not_before = 0.0
        self._ask_at = 0.0
        self._answered_at = self.clock.monotonic()
        self._healthy_since: float | None = None

    @property
    def process(self) -> Identity | None:
        return self.record.process

    def adopt(self, found: Identity | None) -> None:
        """Take over a running process: the recorded one, or one found by its environment."""
        self.record.url, self.record.log = self.spec.url, self.spec.log
        self.record.external = self.spec.external
        if self.spec.external:
            return
        known = self.process if is_alive(self.process) else found
        stale = self.process
        if known is None:
            if stale is not None:
                kill_all(stale, self.spec.marker)
            self._set("waiting", process=None)
            self.retry_now()
        elif self.record.fingerprint not in {"", self.spec.fingerprint}:
            self.halt()
            self.retry_now()
        else:
            self._set("starting", process=known, fingerprint=self.spec.fingerprint)

    def retry_now(self) -> None:
        """Forget earlier failures: somebody may have removed their cause."""
        self._not_before = 0.0
        self._set("waiting" if self.process is None else self.record.phase, failures=0)

    def tick(self, ready: Callable[[str], bool]) -> None:
        """Look once; act once. `ready` says whether a service named in `after` answers."""
        if self.spec.external:
            self._take_answer()
            self._ask()
        elif self.process is None:
            if self.clock.monotonic() >= self._not_before and all(ready(name) for name in self.spec.after):
                self._start()
        elif not is_alive(self.process):
            status = reap(self.process)
            self._failed(f"ended{_describe(status)}")
        else:
            self._take_answer()
            if self._lost_patience():
                self._failed(f"did not answer for {self._silence():.0f} s: {self.record.detail}")
            else:
                self._ask()

    def halt(self) -> bool:
        """Stop it for good. True when it ended by itself."""
        by_itself = stop(self.process, self.spec.stop_signal, self.spec.stop_timeout_s, self.spec.marker)
        self._set("stopped", process=None, ready_at=None)
        return by_itself

    def _start(self) -> None:
        self._forget_probe()
        try:
            if self.spec.before:
                resolve(self.spec.before)(**self.spec.before_arguments)
            child = spawn(
                self.spec.command,
                log=Path(self.spec.log),
                env=self._environment(),
                cwd=Path(self.spec.cwd) if self.spec.cwd else None,
                nice=self.spec.nice,
            )
        except Exception as error:  # a hook may raise anything; the reason must reach `status`
            self._failed(f"could not be started: {error}")
            return
        self._answered_at = self.clock.monotonic()
        self._set(
            "starting",
            process=child,
            fingerprint=self.spec.fingerprint,
            started_at=self.clock.epoch(),
            ready_at=None,
        )

    def _environment(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(self.spec.env_drop or ("\0",))}
        return kept | dict(self.spec.env) | {OWNER_VARIABLE: f"{self.owner}:{self.spec.name}"}

    def _failed(self, reason: str) -> None:
        kill_all(self.process, self.spec.marker)
        reap(self.process)
        self._forget_probe()
        failures = self.record.failures + 1
        self._not_before = self.clock.monotonic() + pause_s(failures)
        self._set(
            "restarting",
            process=None,
            ready_at=None,
            failures=failures,
            restarts=self.record.restarts + 1,
            failure=reason,
            detail="",
        )

    def _ask(self) -> None:
        if self._probe is None and self.clock.monotonic() >= self._ask_at:
            self._probe = self.pool.submit(check, self.spec.probe)

    def _take_answer(self) -> None:
        if self._probe is None or not self._probe.done():
            return
        error = self._probe.exception()
        self._probe = None
        now = self.clock.monotonic()
        if error is None:
            self._ask_at = now + PROBE_EVERY_S
            self._answered_at, self._failed_probes = now, 0
            self._healthy_since = self._healthy_since or now
            failures = 0 if now - self._healthy_since >= HEALTHY_S else self.record.failures
            self._set(
                "ready", ready_at=self.record.ready_at or self.clock.epoch(), failures=failures, detail=""
            )
            return
        self._failed_probes += 1
        self._healthy_since = None
        was_ready = self.record.phase in {"ready", "unresponsive"} or self.spec.external
        self._set("unresponsive" if was_ready else self.record.phase, detail=str(error) or repr(error))

    def _lost_patience(self) -> bool:
        if self._failed_probes < FAILED_PROBES:
            return False
        patience = self.spec.start_patience_s if self.record.ready_at is None else self.spec.patience_s
        return self._silence() > patience

    def _silence(self) -> float:
        return self.clock.monotonic() - self._answered_at

    def _forget_probe(self) -> None:
        self._probe = None
        self._ask_at = 0.0
        self._failed_probes = 0
        self._healthy_since = None

    def _set(self, phase: Phase, **values: object) -> None:
        before = {name: getattr(self.record, name) for name in ("phase", *values)}
        self.record.phase = phase
        for name, value in values.items():
            setattr(self.record, name, value)
        if before != {"phase": phase, **values}:
            self.changed()


def _describe(status: int | None) -> str:
    if status is None:
        return ""
    return f" by signal {-status}" if status < 0 else f" with exit status {status}"
