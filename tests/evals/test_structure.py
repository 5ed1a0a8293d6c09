"""Structural metrics: high for what authors wrote, clearly lower for the same text spoilt."""

import random
from statistics import mean

import pytest

from assistant.errors import InvalidInput
from assistant.settings import EvalSettings, Settings
from evals.documents import DesignDocument, parse
from evals.structure import TEMPLATES, family_of, kendall_tau, structure
from evals.suites.structure import run

RUST = """# A feature

## Summary

One paragraph to explain what the feature does and for whom it does that.

## Motivation

Because people ask for it again and again, in every survey of the last years.

## Detailed design

It is done in the simplest of all ways that anybody could think of at all.

## Drawbacks

None.

## Rationale and alternatives

Doing nothing was thought about, and found to be worse than doing this here.

## Unresolved questions

The name of the flag has to be settled before the release gets stabilised.
"""


def spoil(text: str, how: str, seed: int) -> str:
    """The document with its second-level sections shuffled, emptied or repeated."""
    head, *sections = text.split("\n## ")
    if how == "shuffled":
        random.Random(seed).shuffle(sections)
    elif how == "emptied":
        sections = [s.partition("\n")[0] + "\n\nTBD\n" for s in sections]
    elif how == "repeated":
        sections += sections
    return "\n## ".join([head, *sections])


def test_a_whole_document_has_everything() -> None:
    found = structure(parse("a.md", RUST))
    assert (found.family, found.recall, found.filled, found.order, found.distinct) == ("rust", 1, 1, 1, 1)
    assert found.score == 1
    assert found.words["drawbacks"] == 1


@pytest.mark.parametrize("how", ["shuffled", "emptied", "repeated"])
def test_a_spoilt_document_scores_lower(how: str) -> None:
    assert structure(parse("a.md", spoil(RUST, how, 1))).score < 0.75


@pytest.mark.parametrize(
    ("body", "filled"),
    [
        ("None.", True),
        ("TBD", False),
        ("", False),
        ("TODO: write this", False),
        ("- \n- ", False),
        ("Нет.", True),
    ],
)
def test_short_is_not_empty(body: str, filled: bool) -> None:
    text = RUST.replace("None.", body)
    assert structure(parse("a.md", text)).filled == (1.0 if filled else 0.8)


def test_kendall_tau() -> None:
    assert kendall_tau([1, 2, 3, 4]) == 1
    assert kendall_tau([4, 3, 2, 1]) == -1
    assert kendall_tau([1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1]) is None
    assert kendall_tau([1]) is None


FIGURES = {"rust": (0.93, 0.95), "kubernetes": (0.84, 0.9), "grpc": (0.94, 0.9)}
"""Mean recall of the template, and the share of documents in its order, over all that authors wrote."""


@pytest.mark.parametrize("family", FIGURES)
def test_authors_score_as_they_should(proposals: dict[str, list[DesignDocument]], family: str) -> None:
    scores = [structure(d, family) for d in proposals[family]]
    recall, in_order = FIGURES[family]
    assert mean(s.recall for s in scores) >= recall - 0.03
    orders = [s.order for s in scores if s.order is not None]
    assert mean(order == 1 for order in orders) >= in_order
    assert mean(s.filled for s in scores) >= 0.93
    assert mean(s.distinct for s in scores) >= 0.97
    assert mean(family_of(d) == family for d in proposals[family]) >= 0.9


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("how", ["shuffled", "emptied", "repeated"])
def test_real_documents_score_clearly_lower_when_spoilt(
    proposals: dict[str, list[DesignDocument]], family: str, how: str
) -> None:
    documents = proposals[family][:12]
    spoilt = [parse(d.path, spoil(d.text, how, n)) for n, d in enumerate(documents)]
    written = mean(structure(d, family).score for d in documents)
    assert mean(structure(d, family).score for d in spoilt) < written - 0.15


def test_a_folder_of_documents_is_scored() -> None:
    settings = Settings(evals=EvalSettings(draws=200))
    spoilt = parse("b.md", spoil(RUST, "emptied", 1))
    result = run([parse("a.md", RUST), spoilt, parse("c.md", "# Notes")], settings)
    whole, emptied = result.per_case
    assert whole.values["document/score"] == 1.0
    assert emptied.values["document/filled"] == 0.0
    assert result.meta["families"] == {"rust": 2, "other": 1}
    with pytest.raises(InvalidInput, match="None of 1 documents"):
        run([parse("c.md", "# Notes")], settings)
