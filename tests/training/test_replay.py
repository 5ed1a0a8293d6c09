"""General rows: answered once per base, and again only where an answer is missing."""

from pathlib import Path

import pytest

import training.replay
from training.replay import general_rows, parted, prompts
from training.rows import Row

QUESTIONS = [f"Question {i}?" for i in range(10)]


def test_the_prompts_are_many_short_and_different() -> None:
    found = prompts()
    assert len(found) >= 160
    assert len(set(found)) == len(found)
    assert all(3 <= len(p.split()) <= 25 for p in found)


def test_answers_are_made_once_per_base(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = general_rows(tiny_base, "f" * 64, tmp_path, questions=QUESTIONS)
    assert [r.messages[0].content for r in first] == QUESTIONS
    assert all(r.answer and r.source == "general" for r in first)

    def never(*_: object) -> None:
        raise AssertionError("the base was loaded again")

    monkeypatch.setattr(training.replay, "_Answers", never)
    assert general_rows(tiny_base, "f" * 64, tmp_path, questions=QUESTIONS) == first
    with pytest.raises(AssertionError, match="loaded again"):
        general_rows(tiny_base, "0" * 64, tmp_path, questions=QUESTIONS)


def test_an_interrupted_call_goes_on_where_it_was(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.replay, "BATCH", 4)
    figures: list[tuple[int, int]] = []
    whole = general_rows(
        tiny_base, "a", tmp_path / "whole", questions=QUESTIONS, counted=lambda *some: figures.append(some)
    )
    assert figures == [(4, 10), (8, 10), (10, 10)]
    asked: list[str] = []
    real = training.replay._Answers.__call__

    def until_the_second(self: training.replay._Answers, questions: list[str]) -> list[str]:
        if asked:
            raise KeyboardInterrupt
        asked.extend(questions)
        return real(self, questions)

    with monkeypatch.context() as patched:
        patched.setattr(training.replay._Answers, "__call__", until_the_second)
        with pytest.raises(KeyboardInterrupt):
            general_rows(tiny_base, "a", tmp_path, questions=QUESTIONS)
    assert len(asked) == training.replay.BATCH
    figures.clear()
    again = general_rows(
        tiny_base, "a", tmp_path, questions=QUESTIONS, counted=lambda *some: figures.append(some)
    )
    assert again == whole
    assert figures == [(8, 10), (10, 10)]


def test_half_is_learned_and_half_guards() -> None:
    rows = [Row((), str(i)) for i in range(7)]
    learned, guard = parted(rows)
    assert (len(learned), len(guard)) == (4, 3)
    assert not set(learned) & set(guard)
