"""Where the words of a query stand in a text, in any of their forms."""

import re

from assistant.retrieval.sparse import Bm25Encoder

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_BETWEEN = re.compile(r"[\s\-_./]{1,2}")


def highlights(text: str, query_terms: frozenset[int], encoder: Bm25Encoder) -> tuple[tuple[int, int], ...]:
    """(start, end) of each run of matching words; words that share a stem with the query match."""
    spans: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        if query_terms.isdisjoint(encoder.terms(word.group())):
            continue
        start, end = word.span()
        if spans and _BETWEEN.fullmatch(text, spans[-1][1], start):
            start = spans.pop()[0]
        spans.append((start, end))
    return tuple(spans)
