"""How good an example is: one number from 0 to 1, and what to improve.

    quality = opinion x citations x length x agreement

- *opinion* of a text that stands as it was written: the mean over raters of (stars - 1) / 4, or, without
  stars, 1 for a thumb up and 0 for a thumb down. A rating of a whole RFC says less about one of its
  sections, so it is drawn towards the middle: 0.5 + 0.7 x (opinion - 0.5).
  Of a text that somebody edited: 1 - 0.3 x distance, where distance is the share of words that the edit
  changed (0 to 1). People write what they want to read, but the further they went from a text that had been
  checked against its evidence, the less of theirs was checked.
- *citations*: 0.5 + 0.5 x the share of citation markers that point to something; 0.5 for a text without any
  where evidence was there to cite. 1 where citations do not apply.
- *length*: words / 8 below 8 words, 600 / words (at least 0.5) above 600, else 1.
- *agreement*: 1 - the standard deviation of the raters' opinions (0 to 0.5). One up and one down: 0.5.

An example is *positive*, that is, something to imitate, when somebody edited it or when the mean opinion is
above 0.5, better than "neither good nor bad". Comments alone make no example.

Areas to improve: words in comments (`AREAS`), markers that point nowhere or lack (citations), a length that
costs quality (length), more than 0.3 of the words edited (content), raters who contradict each other
(agreement).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean, pstdev

from assistant.stores.feedback import FeedbackRecord

EDIT_COST = 0.3
WHOLE_WEIGHT = 0.7
SHORT_WORDS = 8
LONG_WORDS = 600
MUCH_EDITED = 0.3
"""Share of changed words above which the content itself was wrong, not its wording."""
POSITIVE = 0.5
COMPARED_WORDS = 2_000
"""Words of a text that are compared: the comparison is quadratic."""
SPLIT = 0.3
"""Standard deviation of opinions above which raters contradict each other."""

AREAS = {
    "accuracy": r"wrong|incorrect|false|inaccurate|mistake|hallucinat\w*|made[ -]up|error",
    "freshness": r"outdated|out of date|obsolete|deprecated|old version|no longer|stale",
    "completeness": r"missing|incomplete|lacks?|forgot\w*|not enough|more detail\w*",
    "length": r"too long|too short|verbose|wordy|shorter|longer|brief",
    "clarity": r"unclear|confus\w*|hard to (?:read|follow|understand)|vague|ambiguous|structure",
    "citations": r"source|sources|citation\w*|cites?|reference\w*",
    "relevance": r"off[ -]?topic|irrelevant|unrelated|not what i asked|different question",
}
"""Words of a comment that name an area."""
_AREAS = {area: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for area, words in AREAS.items()}


@dataclass(frozen=True, slots=True)
class Cited:
    """Citation markers of a text: how many, and how many of them point to something."""

    markers: int
    resolved: int
    expected: bool
    """Whether there was evidence to cite."""


@dataclass(frozen=True, slots=True)
class Quality:
    """`opinion`, `citations`, `length` and `agreement` are the factors of `score`."""

    score: float
    positive: bool
    opinion: float
    citations: float
    length: float
    agreement: float
    distance: float
    areas: tuple[str, ...]


def assess(
    text: str,
    cited: Cited,
    feedback: Sequence[FeedbackRecord],
    *,
    original: str | None = None,
    whole: bool = False,
) -> Quality | None:
    """The quality of `text`; None when the feedback says nothing about it.

    `original` is what `text` was before somebody edited it, None for a text that stands as it was written.
    `whole`: the feedback is about the document that the text is a section of.
    """
    opinions = [o for f in feedback if (o := opinion_of(f)) is not None]
    edited = original is not None
    if not opinions and not edited:
        return None
    distance = edit_distance(original, text) if original is not None else 0.0
    said = fmean(opinions) if opinions else 1.0
    opinion = 1 - EDIT_COST * distance if edited else said
    if whole and not edited:
        opinion = 0.5 + WHOLE_WEIGHT * (opinion - 0.5)
    spread = pstdev(opinions) if len(opinions) > 1 else 0.0
    agreement = 1.0 if edited else 1 - spread
    citations = _citations(cited)
    length = _length(text)
    areas = _areas_of(feedback, cited, text, distance, spread)
    return Quality(
        score=opinion * citations * length * agreement,
        positive=edited or said > POSITIVE,
        opinion=opinion,
        citations=citations,
        length=length,
        agreement=agreement,
        distance=distance,
        areas=areas,
    )


def opinion_of(feedback: FeedbackRecord) -> float | None:
    """0 to 1; None when there is neither a star nor a thumb. Stars say more than a thumb."""
    if feedback.stars is not None:
        return (feedback.stars - 1) / 4
    if feedback.thumb is not None:
        return float(feedback.thumb > 0)
    return None


def stars_of(feedback: Sequence[FeedbackRecord]) -> int | None:
    """The mean opinion as 1 to 5 stars."""
    opinions = [o for f in feedback if (o := opinion_of(f)) is not None]
    return round(1 + 4 * fmean(opinions)) if opinions else None


def edit_distance(original: str, edited: str) -> float:
    """The share of words that differ, 0 (the same) to 1 (nothing in common)."""
    before, after = original.split()[:COMPARED_WORDS], edited.split()[:COMPARED_WORDS]
    return 1 - SequenceMatcher(None, before, after, autojunk=False).ratio()


def _citations(cited: Cited) -> float:
    if cited.markers:
        return 0.5 + 0.5 * cited.resolved / cited.markers
    return 0.5 if cited.expected else 1.0


def _length(text: str) -> float:
    words = len(text.split())
    if words < SHORT_WORDS:
        return words / SHORT_WORDS
    return max(0.5, LONG_WORDS / words) if words > LONG_WORDS else 1.0


def _areas_of(
    feedback: Sequence[FeedbackRecord], cited: Cited, text: str, distance: float, spread: float
) -> tuple[str, ...]:
    comments = "\n".join(f.comment or "" for f in feedback)
    found = {area for area, words in _AREAS.items() if words.search(comments)}
    if cited.markers > cited.resolved or (cited.expected and not cited.markers):
        found.add("citations")
    if _length(text) < 1:
        found.add("length")
    if distance > MUCH_EDITED:
        found.add("content")
    if spread > SPLIT:
        found.add("agreement")
    return tuple(sorted(found))
