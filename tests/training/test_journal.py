"""The points of a run survive workers that die in the middle of a line."""

from pathlib import Path

import pytest

from assistant.errors import ConfigurationError, InvalidInput
from training import journal
from training.journal import Follower, Point
from training.lora_step import Step
from training.progress import progress_of


def step(number: int, nll: float = 1.0, validation: float | None = None) -> Step:
    return Step(number, 10, 0.1, nll, 0.01, 0.5, 200, 2.0, 1, validation)


def test_a_repeated_step_counts_once_and_an_unfinished_line_not_at_all(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        journal.append(tmp_path, step(number))
    with (tmp_path / journal.POINTS).open("a") as broken:
        broken.write('{"step": 4, "st')
    assert [p.step for p in journal.read(tmp_path)] == [1, 2, 3]
    journal.mend(tmp_path)
    for number in (2, 3, 4):
        journal.append(tmp_path, step(number, nll=9.0))
    points = journal.read(tmp_path)
    assert [p.step for p in points] == [1, 2, 3, 4]
    assert [p.metrics["train_nll"] for p in points] == [1.0, 1.0, 1.0, 9.0]
    assert [p.step for p in journal.read(tmp_path, after=3)] == [4]


def test_a_run_without_points_has_none(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == []
    journal.mend(tmp_path)


def test_the_follower_tells_everything_once(tmp_path: Path) -> None:
    told: list[Point] = []
    with Follower(tmp_path, told.extend):
        for number in range(1, 6):
            journal.append(tmp_path, step(number))
    assert [p.step for p in told] == [1, 2, 3, 4, 5]


def test_progress_tells_speed_and_time_left(tmp_path: Path) -> None:
    journal.append(tmp_path, step(1, validation=2.5))
    journal.append(tmp_path, step(2))
    now = progress_of(journal.read(tmp_path))
    assert (now.step, now.steps, now.validation_nll) == (2, 10, 2.5)
    assert now.tokens_per_s == 100
    assert now.eta_s == 16


@pytest.mark.parametrize("kind", [ConfigurationError, InvalidInput])
def test_a_failure_comes_back_as_it_was(tmp_path: Path, kind: type[ConfigurationError]) -> None:
    assert journal.recorded_failure(tmp_path) is None
    journal.record_failure(tmp_path, kind("It broke.", hint="Mend it.", step=3))
    found = journal.recorded_failure(tmp_path)
    assert type(found) is kind
    assert str(found) == "It broke. Mend it."
    assert found.extra == {"step": 3}
