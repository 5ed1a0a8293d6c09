"""An answer out of the sources' own words, for models too small to be trusted with writing.

When the question asks for a kind of section ("what should I do …" → mitigation) and the best document has
it, that section is shown in reading order. Otherwise the sentences that share most with the question are
shown under the passage they come from. Every sentence carries the number of its passage.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from uuid import UUID

from assistant.retrieval.intents import Intent, intent_of
from assistant.retrieval.passages import Item, display_path, items_of, render
from assistant.retrieval.sparse import Bm25Encoder
from assistant.types import Hit

LABEL = "*Quoted word for word from the sources; no language model wrote this answer.*"
SECTION_CHARS = 4_000
"""Room for the sections of one document, shared evenly where they do not all fit."""
SENTENCE_CHARS = 1_400
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-/.]")


def best_document(hits: Sequence[Hit]) -> UUID:
    """The document with the best passages: its first counts whole, each further one half of the one before."""
    scores: dict[UUID, list[float]] = {}
    for hit in hits:
        scores.setdefault(hit.document_id, []).append(hit.score)
    worth = {
        d: sum(s / 2**i for i, s in enumerate(sorted(found, reverse=True))) for d, found in scores.items()
    }
    return min(worth, key=lambda d: (-worth[d], str(d)))


def asked_section(
    question: str, hits: Sequence[Hit], encoder: Bm25Encoder
) -> tuple[Intent, Sequence[Hit]] | None:
    """The passages of one document, in order, that stand under a heading the question asks for.

    `hits` are all passages of that document. None when it is not about the question's subject, or when the
    question asks for no kind of section.
    """
    intent = intent_of(question)
    if intent is None or not hits:
        return None
    subject = encoder.terms(intent.asked.sub(" ", question))
    names = (
        {hit.title for hit in hits}
        | {hit.external_id for hit in hits}
        | {h for hit in hits for h in hit.headings[:1]}
    )
    if subject.isdisjoint(encoder.terms(" ".join([*names, *(_CAMEL.sub(" ", n) for n in names)]))):
        return None
    wanted = [h for h in hits if any(_asked(intent, path) for path in {i.path for i in items_of(h, 0)})]
    return (intent, sorted(wanted, key=lambda h: h.start)) if wanted else None


def section_answer(intent: Intent, hits: Sequence[Hit]) -> str:
    """The asked sections of one document in reading order, shortened evenly to `SECTION_CHARS`."""
    items, end = [], -1
    for marker, hit in enumerate(hits, 1):
        for item in items_of(hit, marker):
            # Passages overlap by a sentence: what was shown is not shown again.
            if item.start >= end and _asked(intent, item.path):
                items.append(item)
        end = max(end, hit.end)
    sections = [list(group) for _, group in groupby(items, key=lambda i: i.path)]
    allowed = _shares([sum(len(i.text) for i in s) for s in sections], SECTION_CHARS)
    parts, shared = [], _common([s[0].path for s in sections])
    parts.append(f"**{display_path(hits[0].title, shared)}**")
    for section, share in zip(sections, allowed, strict=True):
        below = section[0].path[len(shared) :]
        if below:
            parts.append(f"**{' › '.join(below)}**")
        shown = _first(section, share)
        parts += _paragraphs(shown)
        if len(shown) < len(section):
            parts.append(f"… [{section[-1].marker}]")
    return "\n\n".join(parts)


def sentence_answer(question: str, hits: Sequence[Hit], encoder: Bm25Encoder) -> str:
    """The items that share most with the question, by passage; markers are positions in `hits`."""
    items = [item for marker, hit in enumerate(hits, 1) for item in items_of(hit, marker)]
    chosen = _choose(items, hits, encoder.terms(question), encoder)
    by_marker: dict[int, list[Item]] = {}
    for item in chosen:
        by_marker.setdefault(item.marker, []).append(item)
    parts = []
    for marker, own in sorted(by_marker.items()):
        parts.append(f"**{display_path(hits[marker - 1].title, own[0].path)}**")
        parts += _paragraphs(sorted(own, key=lambda i: i.start))
    return "\n\n".join(parts)


def _asked(intent: Intent, path: Sequence[str]) -> bool:
    return any(intent.headings.search(heading) for heading in path)


def _choose(
    items: Sequence[Item], hits: Sequence[Hit], terms: frozenset[int], encoder: Bm25Encoder
) -> list[Item]:
    words = [encoder.terms(item.text) & terms for item in items]
    spread = Counter(term for found in words for term in found)
    top = max((hit.score for hit in hits), default=0.0) or 1.0
    first = {
        hit.chunk_id: min((i.start for i in items if i.marker == m), default=-1)
        for m, hit in enumerate(hits, 1)
    }

    def worth(index: int) -> float:
        item, hit = items[index], hits[items[index].marker - 1]
        overlap = sum(math.log(1 + len(items) / spread[term]) for term in words[index])
        lead = 0.5 if item.start == first[hit.chunk_id] else 0.0
        kind = 0.5 if item.kind == "verbatim" else 1.0  # Code and tables hold many words and say less.
        return (overlap + lead) * kind * (0.25 + hit.score / top)

    ranked = sorted(range(len(items)), key=lambda i: (-worth(i), i))
    chosen: dict[int, Item] = {}
    used = 0
    for index in ranked:
        if used >= SENTENCE_CHARS or (chosen and worth(index) < worth(ranked[0]) / 4):
            break
        for follower in _with_followers(items, index):
            if follower not in chosen:
                chosen[follower] = items[follower]
                used += len(items[follower].text)
    return list(chosen.values())


def _with_followers(items: Sequence[Item], index: int) -> Iterator[int]:
    """A sentence that ends in a colon brings the list or command that it introduces; a command its sentence."""
    if items[index].kind == "verbatim" and index and items[index - 1].introduces:
        yield index - 1
    yield index
    if not items[index].introduces:
        return
    for follower in range(index + 1, len(items)):
        same = items[follower].paragraph == items[index].paragraph + 1
        if not same or items[follower].marker != items[index].marker:
            return
        yield follower


def _first(section: Sequence[Item], chars: int) -> list[Item]:
    shown: list[Item] = []
    used = 0
    for item in section:
        if shown and used + len(item.text) > chars:
            break
        shown.append(item)
        used += len(item.text)
    while len(shown) > 1 and len(shown) < len(section) and shown[-1].introduces:
        shown.pop()
    return shown


def _paragraphs(items: Sequence[Item]) -> Iterator[str]:
    before: int | None = None
    for (kind, marker, _), group in groupby(items, key=lambda i: (i.kind, i.marker, i.paragraph)):
        yield ("\n" if kind == "bullet" else " " if kind == "sentence" else "\n\n").join(map(render, group))
        if kind == "verbatim" and marker != before:
            yield f"[{marker}]"
        before = marker


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """`total` divided evenly, what a small one does not need going to the others."""
    result: dict[int, int] = {}
    left, order = total, sorted(range(len(sizes)), key=lambda i: sizes[i])
    for position, index in enumerate(order):
        share = left // (len(order) - position)
        result[index] = min(sizes[index], share)
        left -= result[index]
    return [result[i] for i in range(len(sizes))]


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)
