"""One service and its keeper under a clock that the test turns."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.plan import Probe, ServiceSpec
from cluster.processes import OWNER_VARIABLE, is_alive, kill_all
from cluster.service import HEALTHY_S, LONGEST_PAUSE_S, PROBE_EVERY_S, Clock, Service, pause_s
from cluster.state import ServiceRecord


class Answers(Executor):
    """Answers every probe at once: None is health, text is a failure."""

    def __init__(self) -> None:
        self.next: str | None = None
        self.asked = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.asked += 1
        future: Future[Any] = Future()
        if self.next is None:
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(self.next))
        return future


class Bench:
    def __init__(self, folder: Path, **spec: Any) -> None:
        self.now = 1000.0
        self.answers = Answers()
        self.changes = 0
        values: dict[str, Any] = {"command": ("sleep", "1000"), "log": str(folder / "s.log")} | spec
        self.spec = ServiceSpec("s", probe=Probe("tcp", "127.0.0.1:1"), **values)
        self.record = ServiceRecord("s")
        self.service = Service(
            self.spec,
            self.record,
            "owner",
            self.answers,
            self._changed,
            Clock(lambda: self.now, lambda: self.now),
        )

    def _changed(self) -> None:
        self.changes += 1

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.service.tick(lambda name: False)

    def until_ready(self) -> None:
        self.answers.next = None
        for _ in range(3):
            self.tick(PROBE_EVERY_S)
        assert self.record.phase == "ready"

    def pid(self) -> int:
        assert self.record.process is not None
        return self.record.process.pid


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**spec: Any) -> Bench:
        made.append(Bench(tmp_path, **spec))
        return made[-1]

    yield make
    for bench in made:
        bench.service.halt()


def test_pauses_grow_and_have_a_limit() -> None:
    pauses = [pause_s(n) for n in range(9)]
    assert pauses[:4] == [0.0, 0.25, 0.5, 1.0]
    assert pauses == sorted(pauses)
    assert pause_s(10_000) == LONGEST_PAUSE_S


def test_a_start_is_noted_before_anything_else_happens(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.tick()
    assert bench.record.phase == "starting"
    assert is_alive(bench.record.process)
    assert bench.changes == 1
    assert environ_of(bench.pid())[OWNER_VARIABLE] == "owner:s"


def test_failures_in_a_row_wait_longer_and_good_health_forgives_them(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.tick()
    for failures in (1, 2, 3):
        bench.until_ready()
        kill_all(bench.record.process)
        bench.tick()
        assert (bench.record.phase, bench.record.failures) == ("restarting", failures)
        bench.tick(pause_s(failures) - 0.01)
        assert bench.record.process is None
        bench.tick(0.02)
        assert is_alive(bench.record.process)
    bench.until_ready()
    bench.tick(HEALTHY_S)
    bench.tick(PROBE_EVERY_S)
    assert bench.record.failures == 0
    assert bench.record.restarts == 3


def test_patience_ends_with_the_service(benches: Callable[..., Bench]) -> None:
    bench = benches(patience_s=10.0, start_patience_s=100.0)
    bench.tick()
    bench.until_ready()
    first = bench.record.process
    bench.answers.next = "no answer"
    for _ in range(4):
        bench.tick(2.0)
    assert bench.record.phase == "unresponsive"
    assert is_alive(first)
    for _ in range(3):
        bench.tick(2.0)
    assert not is_alive(first)
    assert "no answer" in bench.record.failure


def test_a_start_may_take_longer_than_a_pause(benches: Callable[..., Bench]) -> None:
    bench = benches(patience_s=10.0, start_patience_s=100.0)
    bench.answers.next = "not yet"
    bench.tick()
    first = bench.record.process
    for _ in range(9):
        bench.tick(10.0)
    assert bench.record.phase == "starting"
    assert is_alive(first)
    bench.tick(11.0)
    bench.tick(11.0)
    assert not is_alive(first)


def test_our_own_sleep_is_not_held_against_a_service(benches: Callable[..., Bench]) -> None:
    bench = benches(patience_s=10.0)
    bench.tick()
    bench.until_ready()
    first = bench.record.process
    bench.answers.next = "the first answer after we slept"
    bench.tick(3600.0)
    bench.tick(0.5)
    assert is_alive(first)
    bench.until_ready()
    assert bench.record.process == first


def test_good_health_is_asked_for_less_often(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.tick()
    bench.until_ready()
    before = bench.answers.asked
    for _ in range(8):
        bench.tick(PROBE_EVERY_S / 8)
    assert bench.answers.asked - before <= 2


def test_a_hook_that_fails_is_the_reason(benches: Callable[..., Bench]) -> None:
    bench = benches(before="cluster.plan:Plan.missing")
    bench.tick()
    assert bench.record.phase == "restarting"
    assert "could not be started" in bench.record.failure
    assert bench.record.process is None


def test_variables_are_dropped_by_prefix(
    benches: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    bench = benches(env={"OWN": "1"}, env_drop=("PG",))
    bench.tick()
    environ = environ_of(bench.pid())
    assert environ["OWN"] == "1"
    assert "PGHOST" not in environ


def environ_of(pid: int) -> dict[str, str]:
    """A process that has just begun shows no environment for a moment."""
    while not (found := psutil.Process(pid).environ()):
        os.sched_yield()
    return found


def test_halt_asks_first_and_kills_then(benches: Callable[..., Bench]) -> None:
    polite = benches()
    polite.tick()
    assert polite.service.halt() is True
    deaf = benches(
        command=("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"), stop_timeout_s=0.5
    )
    deaf.tick()
    log = Path(deaf.spec.log)
    while "deaf" not in log.read_text():
        os.sched_yield()
    process = deaf.record.process
    assert deaf.service.halt() is False
    assert not is_alive(process)
    assert deaf.record.phase == "stopped"


def test_the_signal_of_an_end_is_told(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.tick()
    os.kill(bench.pid(), signal.SIGTERM)
    psutil.Process(bench.pid()).wait(timeout=10)
    bench.tick()
    assert bench.record.failure.startswith("ended")
