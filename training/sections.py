"""Rows from design documents: title, summary and a section's name → that section as its authors wrote it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from assistant.types import Message
from evals.cases import SectionCase, choose, load_sections
from evals.splits import SPLITS, Split, identity, split_of
from evals.targets import section_messages
from evals.text_metrics import words
from training.rows import Row

MAX_BRIEF_WORDS = 200
"""A summary longer than this would leave a small model no room to answer."""


@dataclass(frozen=True)
class Sections:
    """Rows by side of the split, and how many cases were left out for which reason."""

    rows: dict[Split, list[Row]]
    left_out: Counter[str] = field(default_factory=Counter)


def section_row(case: SectionCase, source: str) -> Row:
    """Asked as evaluation asks, so that what is learned is what is measured."""
    if len(case.summary.split()) > MAX_BRIEF_WORDS:
        case = replace(case, summary=" ".join(case.summary.split()[:MAX_BRIEF_WORDS]))
    return Row(
        (*section_messages(case), Message("assistant", case.reference)),
        source,
        document=document_key(case.document),
    )


def document_key(path: str) -> str:
    """What names a document of a folder in rows, wherever the folder lies."""
    return f"path:{identity(path)}"


def read_sections(
    folders: Sequence[Path], limits: dict[Split, int], per_document: int, min_words: int
) -> Sections:
    """As many documents as possible, evenly over the folders; deterministic.

    Raises InvalidInput naming a folder that is absent or holds no usable document.
    """
    found: dict[Split, list[list[Row]]] = {split: [] for split in SPLITS}
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for folder in folders:
        cases = []
        for case in load_sections(folder):
            if len(words(case.reference)) < min_words:
                left_out["short section"] += 1
            elif (text := " ".join(words(case.reference))) in seen:
                left_out["repeated text"] += 1
            else:
                seen.add(text)
                cases.append(case)
        for split in SPLITS:
            taken: Counter[str] = Counter()
            rows = []
            for case in choose([c for c in cases if split_of(c.document) == split], None, len(cases)):
                taken[case.document] += 1
                if taken[case.document] > per_document:
                    left_out["over the limit per document"] += 1
                else:
                    rows.append(section_row(case, f"documents/{folder.name}"))
            found[split].append(_documents_first(rows))
    chosen = {}
    for split in SPLITS:
        rows = _in_turn(found[split])
        chosen[split] = rows[: limits[split]]
        left_out["over the limit of sections"] += max(0, len(rows) - limits[split])
    return Sections(chosen, left_out)


def _documents_first(rows: Sequence[Row]) -> list[Row]:
    """The first section of every document before any second one."""
    turn: Counter[str] = Counter()
    placed = []
    for index, row in enumerate(rows):
        placed.append((turn[row.document], index, row))
        turn[row.document] += 1
    return [row for _, _, row in sorted(placed, key=lambda p: p[:2])]


def _in_turn(lists: Sequence[Sequence[Row]]) -> list[Row]:
    """One of each list after the other, until all are used up."""
    longest = max((len(rows) for rows in lists), default=0)
    return [rows[i] for i in range(longest) for rows in lists if i < len(rows)]
