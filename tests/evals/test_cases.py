"""Cases from folders and from JSON lines, and what is wrong with a broken line."""

import json
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from evals.cases import MAX_WORDS, choose, load_sections, sections_of
from evals.documents import DesignDocument
from evals.splits import split_of
from evals.text_metrics import words

LINE = {"title": "Cache", "summary": "Keep answers.", "section": "Motivation", "reference": "It is slow now."}


def test_real_proposals_become_cases(proposals: dict[str, list[DesignDocument]]) -> None:
    documents = [d for family in proposals.values() for d in family]
    cases = sections_of(documents)
    assert len({c.id for c in cases}) == len(cases) > 2 * len(documents)
    assert {c.family for c in cases} >= {"rust", "kubernetes", "grpc"}
    hashes = {d.path: d.text_hash for d in documents}
    for case in cases:
        assert len(words(case.summary)) >= 15
        assert len(words(case.reference)) <= MAX_WORDS
        assert case.summary not in case.reference
        assert "<!--" not in case.reference
        assert case.exclude_hash == hashes[case.document]
        assert case.section.casefold() not in {"summary", "abstract"}


def test_a_subset_is_repeatable_of_one_split_and_of_many_documents(
    proposals: dict[str, list[DesignDocument]],
) -> None:
    cases = sections_of([d for family in proposals.values() for d in family])
    chosen = choose(cases, "test", 20)
    assert choose(list(reversed(cases)), "test", 20) == chosen
    assert {split_of(c.document) for c in chosen} == {"test"}
    assert len({c.document for c in chosen}) == 20
    assert set(choose(cases, "test", 10)) < set(chosen)
    assert sorted(c.id for c in choose(cases, None)) == sorted(c.id for c in cases)


def test_an_own_folder_needs_no_template(tmp_path: Path) -> None:
    body = " ".join(["reason"] * 40)
    summary = " ".join(["short"] * 20)
    (tmp_path / "cache.md").write_text(
        f"# Cache\n\n## Summary\n\n{summary}\n\n## Why now\n\n{body}\n\n## Empty\n"
    )
    (case,) = load_sections(tmp_path)
    assert (case.title, case.family, case.section, case.reference) == ("Cache", "other", "Why now", body)
    (tmp_path / "cache.md").write_text("# Cache\n\nnothing else\n")
    with pytest.raises(InvalidInput, match="no document with a summary"):
        load_sections(tmp_path)


def test_cases_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(LINE) + "\n\n" + json.dumps(LINE | {"id": "own", "document": "d.md"}))
    first, second = load_sections(file)
    assert (first.id, first.document, first.family) == ("mine-1.md#Motivation", "mine-1.md", "other")
    assert (second.id, second.document) == ("own", "d.md")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"mine.jsonl, line 1: field 'title' must be text, and not empty"),
        (json.dumps(LINE) + "\n{broken", r"mine.jsonl, line 2: is no JSON"),
        ("[1]", r"mine.jsonl, line 1: holds a list, not an object"),
        (json.dumps(LINE | {"reference": 5}), r"line 1: field 'reference'"),
        (json.dumps(LINE | {"id": "x"}) + "\n" + json.dumps(LINE | {"id": "x"}), r"id 'x' is used twice"),
        ("\n", r"mine.jsonl holds no cases"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        load_sections(file)
