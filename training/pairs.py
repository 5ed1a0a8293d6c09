"""Pairs that belong together, to teach an embedder: a question and the passage that answers it."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import InvalidInput
from evals.documents import read_folder
from evals.splits import identity, split_of
from evals.text_metrics import words

MIN_WORDS = 40
PER_DOCUMENT = 8
MAX_CHARS = 2_000
"""Embedders read some hundred tokens; the rest of a section would only be tokenised."""


@dataclass(frozen=True, slots=True)
class Pair:
    """`document` names where the passage stands: all pairs of one document stay on one side of a split."""

    query: str
    passage: str
    document: str


def pairs_from_documents(folders: Sequence[Path], per_document: int = PER_DOCUMENT) -> list[Pair]:
    """(title and heading, section) pairs of Markdown folders, each passage once.

    Sections in which all words of the question stand are left out: words alone would find them. Raises
    InvalidInput naming a folder that is absent or without documents.
    """
    found: dict[str, Pair] = {}
    for folder in folders:
        for document in read_folder(folder):
            taken: Counter[str] = Counter()
            for section in document.sections:
                query = f"{document.title}: {section.title}"
                given = words(section.text)
                if len(given) < MIN_WORDS or set(words(query)) <= set(given):
                    continue
                key = " ".join(given)
                if key not in found and taken[document.path] < per_document:
                    taken[document.path] += 1
                    found[key] = Pair(query, section.text[:MAX_CHARS], identity(document.path))
    return list(found.values())


def pairs_from_feedback(rated: Iterable[tuple[str, str, str]]) -> list[Pair]:
    """Pairs of (query, text of a chunk that somebody found helpful, its document); repeats are dropped."""
    cleaned = ((q.strip(), text.strip()[:MAX_CHARS], document) for q, text, document in rated)
    return list(dict.fromkeys(Pair(q, text, document) for q, text, document in cleaned if q and text))


def read_pairs(file: Path) -> list[Pair]:
    """JSON lines of `query`, `passage` and `document`. InvalidInput names file and line."""
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            pair = Pair(record["query"].strip(), record["passage"].strip(), str(record["document"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{file}, line {number}: {error!r}.",
                hint='A line is {"query": …, "passage": …, "document": …}.',
                field=str(file),
            ) from None
        pairs.append(pair)
    return pairs


def parted(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(to learn from, held out), by document. InvalidInput when one side is empty."""
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[split_of(pair.document) != "train"].append(pair)
    for side, name in zip(sides, ("to learn from", "to measure with"), strict=True):
        if not side:
            raise InvalidInput(
                f"None of the {len(pairs)} pairs is left {name}: they are split by document.",
                hint="Give pairs of more documents.",
                field="pairs",
            )
    return sides
