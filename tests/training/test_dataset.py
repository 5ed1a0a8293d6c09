"""Datasets: split by document, without leaks, the same bytes for the same input."""

import json
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from assistant.clock import now
from assistant.errors import InvalidInput
from assistant.settings import TrainingSettings
from assistant.stores.examples import LearningExample
from assistant.types import Message
from evals.splits import split_of
from tests.training.tiny import row
from training.dataset import SIDES, build_dataset, read_card
from training.leakage import leaking
from training.licences import licence_of
from training.rows import Row, read_rows

SPACE = UUID(int=7)
SETTINGS = TrainingSettings(min_section_words=30, general_share=0.2)
GENERAL = [row(f"General {i}?", f"General answer number {i}.", "general") for i in range(10)]
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda")


def prose(seed: str, count: int = 45) -> str:
    """Words that no other seed shares five in a row of."""
    return " ".join(f"{WORDS[(i * i + len(seed)) % len(WORDS)]}{seed}{i % 9}" for i in range(count)) + "."


def example(
    number: int,
    documents: Sequence[str] = (),
    quality: float = 0.8,
    response: str | None = None,
    question: str = "",
) -> LearningExample:
    asked = question or f"Question {number}?"
    return LearningExample(
        id=uuid5(SPACE, f"example{number}"),
        kind="answer",
        messages=(Message("user", asked),),
        response=response if response is not None else prose(f"answer{number}x"),
        quality=quality,
        acl=("public",),
        document_ids=tuple(uuid5(SPACE, d) for d in documents),
        rfc_id=None,
        created_at=now(),
        metadata={"split_hash": asked},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty documents with two sections each, and a licence above them."""
    path = tmp_path / "designs" / "texts"
    path.mkdir(parents=True)
    (path.parent / "LICENSE").write_text("Apache License\n\nVersion 2.0, January 2004\n")
    for i in range(40):
        (path / f"doc{i}.md").write_text(
            f"# Design {i}\n\n## Summary\n\n{prose(f's{i}s', 20)}\n\n"
            f"## Motivation\n\n{prose(f'm{i}m')}\n\n## Drawbacks\n\n{prose(f'r{i}r')}\n"
        )
    return path


def sides(out: Path) -> dict[str, list[Row]]:
    return {side: read_rows(out / f"{side}.jsonl") for side in SIDES}


def test_no_document_stands_on_two_sides(folder: Path, tmp_path: Path) -> None:
    examples = [example(i, [f"d{i % 6}"]) for i in range(24)]
    card = build_dataset(tmp_path / "out", examples, [folder], SETTINGS, GENERAL)
    found = sides(tmp_path / "out")
    of_document: dict[str, set[str]] = {}
    for side, rows in found.items():
        for r in rows:
            if r.document:
                of_document.setdefault(r.document, set()).add(side)
    assert all(len(where) == 1 for where in of_document.values())
    assert all(card.count(side) == len(found[side]) > 0 for side in SIDES)
    for r in found["frozen"]:
        if r.source.startswith("documents/"):
            assert split_of(r.document.removeprefix("path:")) == "test"
    assert {r.weight for r in found["train"] if r.source == "examples/answer"} <= {0.8}


def test_examples_tied_by_a_document_or_a_question_stay_together(folder: Path, tmp_path: Path) -> None:
    tied = [
        example(1, ["a", "b"]),
        example(2, ["b", "c"]),
        example(3, ["x"], question="Same?"),
        example(4, ["c"], question="Same?"),
    ]
    build_dataset(tmp_path / "out", tied, [folder], SETTINGS, GENERAL)
    where = [
        (side, r.document)
        for side, rows in sides(tmp_path / "out").items()
        for r in rows
        if r.source.startswith("examples/")
    ]
    assert len(where) == 4
    assert len(set(where)) == 1


def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    examples = [example(i, [f"d{i}"]) for i in range(12)]
    first = build_dataset(tmp_path / "a", examples, [folder], SETTINGS, GENERAL)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    again = build_dataset(tmp_path / "a", list(reversed(examples)), [folder], SETTINGS, GENERAL)
    assert again == first
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before
    assert read_card(tmp_path / "a") == first
    other = build_dataset(tmp_path / "b", examples[1:], [folder], SETTINGS, GENERAL)
    assert other.hash != first.hash


def test_what_knows_a_held_out_text_is_not_learned_from(folder: Path, tmp_path: Path) -> None:
    clean = build_dataset(tmp_path / "clean", [], [folder], SETTINGS, GENERAL)
    secret = sides(tmp_path / "clean")["frozen"][0].answer
    spies = [example(i, [f"spy{i}"], response=f"As written: {secret} Indeed.") for i in range(30)]
    card = build_dataset(tmp_path / "out", spies, [folder], SETTINGS, GENERAL)
    found = sides(tmp_path / "out")
    assert not any(secret in r.answer for side in ("train", "validation") for r in found[side])
    assert card.left_out["knows a held-out text"] > clean.left_out.get("knows a held-out text", 0)
    held = found["validation"] + found["frozen"] + found["guard"]
    assert leaking(found["train"], held) == {}


def test_a_passage_in_the_prompt_counts_as_known() -> None:
    held = row("Why?", prose("held"))
    shown = row(f"Use this: {held.answer}", "Something else altogether.")
    assert leaking([row("Hm?", prose("other")), shown], [held]) == {1: 0}


def test_repeats_and_empty_examples_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    examples = [
        example(1, ["a"]),
        example(2, ["b"], response=prose("answer1x"), question="Question 1?"),
        example(3, ["c"], response="  "),
        example(4, ["d"], quality=0.0),
    ]
    (folder / "copy.md").write_text((folder / "doc1.md").read_text())
    card = build_dataset(
        tmp_path / "out", examples, [folder], SETTINGS, GENERAL, {"document was deleted": 2, "none": 0}
    )
    assert card.left_out["example without answer or quality"] == 2
    assert card.left_out["repeated text"] >= 1
    assert card.left_out["document was deleted"] == 2
    assert "none" not in card.left_out
    assert sum(rows.get("examples/answer", 0) for rows in card.rows.values()) == 1


def test_sections_are_capped_evenly(folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_sections": 10, "max_sections_per_document": 1})
    card = build_dataset(tmp_path / "out", [], [folder], settings, GENERAL)
    rows = [r for r in sides(tmp_path / "out")["train"] if r.source == "documents/texts"]
    assert len(rows) == len({r.document for r in rows}) == 10
    assert card.left_out["over the limit per document"] > 0
    assert card.left_out["over the limit of sections"] > 0
    general = card.rows["train"]["general"]
    assert general == 3, "a fifth of the rows"


def test_the_card_tells_people_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    card = build_dataset(tmp_path / "out", [example(1, ["a"])], [folder], SETTINGS, GENERAL)
    text = (tmp_path / "out" / "CARD.md").read_text()
    assert card.hash in text
    assert "documents/texts: Apache-2.0" in text
    assert json.loads((tmp_path / "out" / "card.json").read_text())["hash"] == card.hash


def test_few_documents_still_give_validation_and_frozen_rows(tmp_path: Path) -> None:
    training_side = [f"t{i}" for i in range(100) if split_of(f"document:{uuid5(SPACE, f't{i}')}") == "train"]
    examples = [example(i, [name]) for i, name in enumerate(training_side[:3])]
    for e in examples:
        e.metadata["split_hash"] = "zzz" + str(e.id)  # type: ignore[index]
    card = build_dataset(tmp_path / "out", examples, [], SETTINGS, GENERAL)
    assert [card.documents[side] for side in ("train", "validation", "frozen")] == [1, 1, 1]


def test_nothing_to_learn_from_is_said_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing to learn from: 1 examples.*1 left out: example without"):
        build_dataset(tmp_path / "out", [example(1, response="")], [], SETTINGS, GENERAL)
    assert not (tmp_path / "out").exists()


def test_one_document_alone_is_one_sided(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="one-sided"):
        build_dataset(tmp_path / "out", [example(i, ["only"]) for i in range(12)], [], SETTINGS, GENERAL)


def test_a_folder_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="missing"):
        build_dataset(tmp_path / "out", [], [tmp_path / "missing"], SETTINGS, GENERAL)


def test_licences_are_recognised_near_the_folder(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a" / "LICENSE-MIT").write_text("Permission is hereby granted, free of charge, to any person")
    (tmp_path / "a" / "LICENSE-OWN").write_text("Ask us.")
    assert licence_of(deep) == "MIT, see LICENSE-OWN"


def test_real_design_documents_give_sections_of_many_documents(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "design-docs" / "grpc-proposals"
    card = build_dataset(tmp_path / "out", [], [folder], TrainingSettings(), GENERAL)
    assert card.rows["train"] == {"documents/grpc-proposals": card.count("train") - 5, "general": 5}
    assert card.documents["train"] > 30
    assert card.count("validation") > 5
    assert card.count("frozen") > 10
