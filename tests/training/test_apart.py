"""Work in a process of its own: what it gives, what it raises, and what its death means."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

import training.count
from assistant.errors import ConfigurationError, Unavailable
from tests.fixtures_cluster import RayCluster
from tests.training.tiny import QUICK
from training.apart import RETRIES, apart
from training.count import CountFile
from training.priority import NICENESS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def whoami(first: int, *, second: int) -> tuple[int, int, int]:
    return first + second, os.getpid(), os.getpriority(os.PRIO_PROCESS, 0)


def refusing(field: str) -> None:
    raise ConfigurationError(f"{field} is wrong.", hint="Mend it.")


def dying(times: int, deaths: Path) -> int:
    with deaths.open("a") as file:
        file.write("x")
    if deaths.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return deaths.stat().st_size


def counting(counted: CountFile, heard: Path) -> bool:
    counted(1, 2)
    for _ in range(3000):
        if heard.exists():
            break
        time.sleep(0.01)
    counted(2, 2)
    return heard.exists()


def test_a_process_of_its_own_that_ends_with_the_work(ray_cluster: RayCluster) -> None:
    total, pid, niceness = apart(QUICK, whoami, 1, second=2)
    assert total == 3
    assert niceness >= NICENESS
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not psutil.pid_exists(pid)


def test_what_is_done_over_there_is_told_here(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.count, "LOOK_S", 0.01)
    counted, told, heard = CountFile(tmp_path / "counted"), list[tuple[int, int]](), tmp_path / "heard"

    def tell(done: int, whole: int) -> None:
        told.append((done, whole))
        heard.touch()

    with counted.followed(tell):
        assert apart(QUICK, counting, counted, heard), "the first figure came while the work went on"
    assert told == [(1, 2), (2, 2)]


def test_what_the_work_raises_is_raised_here(ray_cluster: RayCluster) -> None:
    with pytest.raises(ConfigurationError, match=r"x is wrong\.") as raised:
        apart(QUICK, refusing, "x")
    assert raised.value.hint == "Mend it."


def test_a_death_is_survived_and_many_are_told(ray_cluster: RayCluster, tmp_path: Path) -> None:
    assert apart(QUICK, dying, 1, tmp_path / "once") == 2
    with pytest.raises(Unavailable, match=f"died {RETRIES + 1} times"):
        apart(QUICK, dying, 99, tmp_path / "always")
    assert (tmp_path / "always").stat().st_size == RETRIES + 1
