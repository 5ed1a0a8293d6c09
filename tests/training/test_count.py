"""Figures of work in another process reach the one that waits."""

import threading
from pathlib import Path

import pytest

import training.count
from training.count import CountFile


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.count, "LOOK_S", 0.01)


def test_each_new_figure_is_told_once(tmp_path: Path) -> None:
    counted, told, heard = CountFile(tmp_path / "counted"), list[tuple[int, int]](), threading.Event()

    def tell(done: int, whole: int) -> None:
        told.append((done, whole))
        heard.set()

    with counted.followed(tell):
        for done in (1, 1, 2):
            heard.clear()
            counted(done, 3)
            if (done, 3) not in told:
                assert heard.wait(30)
    assert told == [(1, 3), (2, 3)]


def test_the_last_figure_is_told_even_when_all_was_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.count, "LOOK_S", 30.0)
    counted, told = CountFile(tmp_path / "counted"), list[tuple[int, int]]()
    with counted.followed(lambda *figures: told.append(figures)):
        counted(2, 3)
        counted(3, 3)
    assert told == [(3, 3)]


def test_nothing_of_a_run_before_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    counted, told = CountFile(tmp_path / "counted"), list[tuple[int, int]]()
    counted(9, 9)
    with pytest.raises(KeyError), counted.followed(lambda *figures: told.append(figures)):
        raise KeyError
    assert told == []
    assert list(tmp_path.iterdir()) == []
