"""Texts that are nearly the same on both sides of a split would be tested on by heart: find them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from evals.text_metrics import words
from training.rows import Row

SHINGLE = 5
"""Words in a row that count as shared text."""
CONTAINED = 0.5
"""A held-out answer of which this share stands in a training row is known to whoever learned the row."""


def leaking(train: Sequence[Row], held: Sequence[Row]) -> dict[int, int]:
    """Index of every training row that knows a held-out answer → the index of that held-out row.

    A row knows an answer when it comes from the same document, or when its prompt or answer contains half
    of the answer's shingles. Answers shorter than a shingle are compared as a whole.
    """
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    documents: dict[str, int] = {}
    for index, row in enumerate(held):
        own = set(_shingles(row.answer))
        sizes.append(len(own))
        for shingle in own:
            where[shingle].append(index)
        if row.document:
            documents.setdefault(row.document, index)
    found = {}
    for index, row in enumerate(train):
        if row.document in documents:
            found[index] = documents[row.document]
            continue
        shared: dict[int, int] = defaultdict(int)
        for shingle in {s for message in row.messages for s in _shingles(message.content)}:
            for other in where.get(shingle, ()):
                shared[other] += 1
        known = [other for other, count in shared.items() if count >= CONTAINED * sizes[other]]
        if known:
            found[index] = min(known)
    return found


def _shingles(text: str) -> Iterable[tuple[str, ...]]:
    found = words(text)
    if len(found) < SHINGLE:
        return [tuple(found)] if found else []
    return (tuple(found[i : i + SHINGLE]) for i in range(len(found) - SHINGLE + 1))
