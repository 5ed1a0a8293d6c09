"""The data of one fine-tuning: examples, design documents and general rows, split by document.

The same input gives the same bytes, and the hash of those bytes names the dataset. Nothing of a document
that is trained on stands in the validation, frozen or guard rows, nor does a text that is nearly the same.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from assistant.errors import InvalidInput
from assistant.settings import TrainingSettings
from assistant.stores.examples import LearningExample
from assistant.types import Message
from evals.splits import Split, split_of
from training.folders import whole_folder
from training.leakage import leaking
from training.licences import licence_of
from training.replay import parted
from training.rows import Row, write_rows
from training.sections import read_sections

Side = Literal["train", "validation", "frozen", "guard"]
SIDES: tuple[Side, ...] = get_args(Side)
SIDE_OF: Mapping[Split, Side] = {"train": "train", "dev": "validation", "test": "frozen"}
VERSION = 1
CARD = "card.json"


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset holds. `rows`: side → source → count; `left_out`: reason → count."""

    hash: str
    rows: Mapping[Side, Mapping[str, int]]
    documents: Mapping[Side, int]
    left_out: Mapping[str, int]
    sources: Sequence[Mapping[str, Any]]
    folder: Path = field(compare=False)
    version: int = VERSION

    def count(self, side: Side) -> int:
        return sum(self.rows[side].values())

    def as_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "folder"}


def build_dataset(
    out: Path,
    examples: Sequence[LearningExample],
    documents: Sequence[Path],
    settings: TrainingSettings,
    replay: Sequence[Row],
    left_out: Mapping[str, int] | None = None,
) -> DatasetCard:
    """Write the four JSONL files, card.json and CARD.md to `out`, whole or not at all.

    `documents` are folders, `replay` general rows (half learned, half the guard set), `left_out` what the
    caller already left out (say, examples of deleted documents), for the card. Doing it again changes nothing.

    Raises InvalidInput when nothing is left to learn from, or nothing to validate with.
    """
    dropped: Counter[str] = Counter({k: v for k, v in (left_out or {}).items() if v})
    limits: dict[Split, int] = {
        "train": settings.max_sections,
        "dev": settings.max_validation_rows,
        "test": settings.max_frozen_rows,
    }
    sections = read_sections(
        documents, limits, settings.max_sections_per_document, settings.min_section_words
    )
    dropped.update(sections.left_out)
    sides: dict[Side, list[Row]] = {side: [] for side in SIDES}
    _place_examples(sides, _example_rows(examples, dropped))
    for split, side in SIDE_OF.items():
        sides[side] += sections.rows[split]
    _fill_held_out(sides)
    mixed, sides["guard"] = parted(replay)
    _without_leaks(sides, dropped)
    _check(sides, dropped, len(examples), documents)
    share = settings.general_share
    sides["train"] += mixed[: math.ceil(len(sides["train"]) * share / (1 - share))]
    return _write(out, sides, dropped, documents)


def read_card(folder: Path) -> DatasetCard:
    """InvalidInput when the folder holds no dataset."""
    path = folder / CARD
    if not path.is_file():
        raise InvalidInput(f"{folder} holds no dataset ({CARD} is missing).", field="dataset")
    return DatasetCard(**json.loads(path.read_text(encoding="utf-8")), folder=folder)


def _example_rows(examples: Sequence[LearningExample], dropped: Counter[str]) -> list[tuple[Row, set[str]]]:
    """Each example as a row, with the keys that tie it to others: its documents and its question."""
    best: dict[str, tuple[Row, set[str]]] = {}
    for example in sorted(examples, key=lambda e: (-e.quality, str(e.id))):
        if not example.response.strip() or not example.messages or example.quality <= 0:
            dropped["example without answer or quality"] += 1
            continue
        row = Row(
            (*example.messages, Message("assistant", example.response)),
            f"examples/{example.kind}",
            round(min(1.0, example.quality), 4),
        )
        text = " ".join(f"{m.role} {m.content}" for m in row.messages).split()
        if (key := " ".join(text)) in best:
            dropped["repeated text"] += 1
            continue
        question = str(example.metadata.get("split_hash") or example.id)
        best[key] = row, {f"question:{question}", *(f"document:{d}" for d in example.document_ids)}
    return list(best.values())


def _place_examples(sides: dict[Side, list[Row]], rows: Sequence[tuple[Row, set[str]]]) -> None:
    """Rows that share a document or a question, even through a third row, go to one side together."""
    group: dict[str, str] = {}

    def root(key: str) -> str:
        while group.setdefault(key, key) != key:
            key = group[key]
        return key

    for _, keys in rows:
        first, *others = sorted(keys)
        for other in others:
            low, high = sorted((root(first), root(other)))
            group[high] = low
    for row, keys in rows:
        key = root(min(keys))
        sides[SIDE_OF[split_of(key)]].append(replace(row, document=key))


def _fill_held_out(sides: dict[Side, list[Row]]) -> None:
    """Few documents may all fall on the training side: give one each to validation and to the frozen set."""
    for side in ("validation", "frozen"):
        groups = defaultdict(list)
        for row in sides["train"]:
            groups[row.document].append(row)
        if not sides[side] and len(groups) > 1:  # type: ignore[index]
            chosen = min(groups, key=lambda key: hashlib.sha256(key.encode()).digest())
            sides[side] = groups[chosen]  # type: ignore[index]
            sides["train"] = [row for row in sides["train"] if row.document != chosen]


def _without_leaks(sides: dict[Side, list[Row]], dropped: Counter[str]) -> None:
    """Held-out rows stay as they are; what knows them is not learned from, nor validated with."""
    for side, held in (
        ("train", ("validation", "frozen", "guard")),
        ("validation", ("frozen", "guard")),
    ):
        known = leaking(sides[side], [row for other in held for row in sides[other]])  # type: ignore[index]
        dropped["knows a held-out text"] += len(known)
        sides[side] = [row for i, row in enumerate(sides[side]) if i not in known]  # type: ignore[index]


def _check(
    sides: Mapping[Side, Sequence[Row]], dropped: Counter[str], examples: int, documents: Sequence[Path]
) -> None:
    why = "; ".join(f"{n} left out: {reason}" for reason, n in sorted(dropped.items()) if n)
    given = f"{examples} examples and {len(documents)} folders of documents{f' ({why})' if why else ''}"
    if not sides["train"] and not sides["validation"]:
        raise InvalidInput(
            f"There is nothing to learn from: {given}.",
            hint="Rate answers and RFCs, or name folders of design documents in training.documents.",
            field="examples",
        )
    if not sides["train"] or not sides["validation"]:
        empty = "validation" if sides["train"] else "training"
        raise InvalidInput(
            f"The dataset is one-sided: rows are split by document, and no document is left for {empty} "
            f"({given}).",
            hint="Rate answers that rest on other documents, or name folders in training.documents.",
            field=empty,
        )


def _write(
    out: Path, sides: Mapping[Side, Sequence[Row]], dropped: Counter[str], documents: Sequence[Path]
) -> DatasetCard:
    with whole_folder(out) as made:
        digest = hashlib.sha256(f"dataset v{VERSION}\n".encode())
        for side in SIDES:
            file = made / f"{side}.jsonl"
            write_rows(file, sides[side])
            digest.update(f"{side} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        card = DatasetCard(
            hash=digest.hexdigest(),
            rows={side: dict(sorted(Counter(row.source for row in sides[side]).items())) for side in SIDES},
            documents={side: len({row.document for row in sides[side] if row.document}) for side in SIDES},
            left_out={reason: count for reason, count in sorted(dropped.items()) if count},
            sources=[
                {"name": f"documents/{folder.name}", "licence": licence_of(folder)} for folder in documents
            ],
            folder=out,
        )
        text = json.dumps(card.as_json(), indent=1, ensure_ascii=False)
        (made / CARD).write_text(f"{text}\n", encoding="utf-8")
        (made / "CARD.md").write_text(_markdown(card), encoding="utf-8")
    return card


def _markdown(card: DatasetCard) -> str:
    names = sorted({name for rows in card.rows.values() for name in rows})
    lines = [
        "# Dataset",
        "",
        f"Content hash `{card.hash}` (sha256 over the rows), format {card.version}.",
        "",
        f"| source | {' | '.join(SIDES)} |",
        f"|---|{'---|' * len(SIDES)}",
        *(f"| {n} | {' | '.join(str(card.rows[s].get(n, 0)) for s in SIDES)} |" for n in names),
        f"| **rows** | {' | '.join(str(card.count(s)) for s in SIDES)} |",
        f"| **documents** | {' | '.join(str(card.documents[s]) for s in SIDES)} |",
        "",
        "`train` is learned from, `validation` tells when to stop, `frozen` and `guard` decide about promotion:",
        "the first on what was to be learned, the second on what must not be forgotten. Rows are split by",
        "document, and training rows that contain half of a held-out answer were left out.",
        "",
        "## Left out",
        "",
        *(f"- {reason}: {count}" for reason, count in card.left_out.items()),
        *([] if card.left_out else ["Nothing."]),
        "",
        "## Sources and licences",
        "",
        *(f"- {s['name']}: {s['licence']}" for s in card.sources),
        "- examples: written by this installation's users and models, under their documents' access lists",
        "- general: prompts of this repository (Apache-2.0), answers by the base model",
        "",
    ]
    return "\n".join(lines)
