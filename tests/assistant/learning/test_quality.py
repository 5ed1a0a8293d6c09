"""The quality score against its documented formula, and what it must never do."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.clock import new_id
from assistant.learning.quality import Cited, assess, edit_distance, stars_of
from assistant.stores.feedback import FeedbackRecord

TEXT = "Delete old snapshots first, then grow the volume by ten gigabytes [1]."
CITED = Cited(1, 1, expected=True)


def feedback(**said: Any) -> FeedbackRecord:
    values = {"thumb": None, "stars": None, "comment": None, "edited_text": None, "section": None} | said
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return FeedbackRecord(
        new_id(),
        "answer",
        new_id(),
        None,
        principal_id="ada",
        verified=True,
        created_at=at,
        updated_at=at,
        **values,
    )


@pytest.mark.parametrize(
    ("said", "score", "positive"),
    [
        ([{"thumb": 1}], 1.0, True),
        ([{"thumb": -1}], 0.0, False),
        ([{"stars": 5}], 1.0, True),
        ([{"stars": 4}], 0.75, True),
        ([{"stars": 3}], 0.5, False),
        ([{"stars": 1}], 0.0, False),
        ([{"thumb": 1, "stars": 4}], 0.75, True),
        ([{"thumb": 1}, {"thumb": -1}], 0.25, False),
        ([{"stars": 5}, {"stars": 4}], 0.875 * 0.875, True),
        ([{"thumb": 1}, {"comment": "fine"}], 1.0, True),
    ],
)
def test_opinions_and_their_agreement(said: list[dict[str, Any]], score: float, positive: bool) -> None:
    quality = assess(TEXT, CITED, [feedback(**one) for one in said])
    assert quality is not None
    assert quality.score == pytest.approx(score)
    assert quality.positive is positive


def test_a_comment_alone_says_nothing_of_the_quality() -> None:
    assert assess(TEXT, CITED, [feedback(comment="hm")]) is None
    assert assess(TEXT, CITED, []) is None


@pytest.mark.parametrize(
    ("cited", "factor"),
    [
        (Cited(2, 2, True), 1.0),
        (Cited(2, 1, True), 0.75),
        (Cited(2, 0, True), 0.5),
        (Cited(0, 0, True), 0.5),
        (Cited(0, 0, False), 1.0),
    ],
)
def test_citations_that_point_nowhere_cost(cited: Cited, factor: float) -> None:
    quality = assess(TEXT, cited, [feedback(thumb=1)])
    assert quality is not None
    assert quality.score == pytest.approx(factor)
    assert ("citations" in quality.areas) is (factor < 1)


@pytest.mark.parametrize(("words", "factor"), [(2, 0.25), (8, 1.0), (600, 1.0), (800, 0.75), (5000, 0.5)])
def test_too_short_and_too_long_cost(words: int, factor: float) -> None:
    quality = assess("word " * words, CITED, [feedback(thumb=1)])
    assert quality is not None
    assert quality.score == pytest.approx(factor)
    assert ("length" in quality.areas) is (factor < 1)


def test_an_edit_is_positive_even_under_a_thumb_down_and_costs_by_its_distance() -> None:
    edited = TEXT.replace("ten", "twenty")
    quality = assess(edited, CITED, [feedback(thumb=-1, edited_text=edited)], original=TEXT)
    assert quality is not None
    assert quality.positive
    assert quality.score == pytest.approx(1 - 0.3 * edit_distance(TEXT, edited))
    assert 0.9 < quality.score < 1
    rewritten = assess("Something else that shares no words with it at all.", CITED, [], original=TEXT)
    assert rewritten is not None
    assert rewritten.score == pytest.approx(0.7)
    assert "content" in rewritten.areas


def test_a_rating_of_the_whole_is_quieter() -> None:
    quality = assess(TEXT, CITED, [feedback(thumb=1)], whole=True)
    assert quality is not None
    assert quality.score == pytest.approx(0.85)


def test_comments_name_areas_and_contradiction_is_one() -> None:
    said = [feedback(thumb=-1, comment="The version is OUTDATED and the text too long"), feedback(thumb=1)]
    quality = assess(TEXT, CITED, said)
    assert quality is not None
    assert quality.areas == ("agreement", "freshness", "length")


def test_stars_are_the_mean_opinion() -> None:
    assert stars_of([feedback(thumb=1), feedback(stars=3)]) == 4
    assert stars_of([feedback(comment="x")]) is None


opinions = st.lists(
    st.fixed_dictionaries(
        {"thumb": st.sampled_from([None, 1, -1]), "stars": st.one_of(st.none(), st.integers(1, 5))}
    ),
    min_size=1,
    max_size=5,
)


@given(opinions, st.integers(0, 5), st.integers(0, 5), st.text(max_size=200), st.booleans())
def test_it_stays_between_0_and_1_and_one_more_good_word_never_hurts(
    said: list[dict[str, Any]], markers: int, resolved: int, text: str, whole: bool
) -> None:
    cited = Cited(max(markers, resolved), resolved, expected=True)
    before = assess(text, cited, [feedback(**one) for one in said], whole=whole)
    if before is None:
        assert all(one["thumb"] is None and one["stars"] is None for one in said)
        return
    assert 0 <= before.score <= 1
    better = [{"thumb": None, "stars": 5} for _ in said]
    after = assess(text, cited, [feedback(**one) for one in better], whole=whole)
    assert after is not None
    assert after.score >= before.score - 1e-9
