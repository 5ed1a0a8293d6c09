"""Where sentences end, by offsets. A plain rule that needs no language data."""

import re
from collections.abc import Iterator

_BOUNDARY = re.compile(r"(?<=[.!?。！？])[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_`]*[^\W_a-z])|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|approx|fig|no|mr|mrs|ms|dr|st|inc|ltd)|\b[A-Z])\.$", re.I
)
_NUMBER = re.compile(r"\W*\d{1,3}\.")
"""The number of a step, as in "1. Start the server": not a sentence."""


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence of `text[start:end]`, without the white space around it."""
    stop = len(text) if end is None else end
    begin = start
    for boundary in _BOUNDARY.finditer(text, start, stop):
        near = max(begin, boundary.start() - 12)
        if _ABBREVIATION.search(text, near, boundary.start()) or _NUMBER.fullmatch(
            text, begin, boundary.start()
        ):
            continue
        if (span := strip_span(text, begin, boundary.end())) is not None:
            yield span
        begin = boundary.end()
    if (span := strip_span(text, begin, stop)) is not None:
        yield span


def strip_span(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space at its ends, or None when nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if end > start else None
