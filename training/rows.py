"""One chat to learn from, and the JSONL files that hold them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput
from assistant.types import Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Row:
    """`messages` end with the assistant's turn, which alone is learned; `weight` scales its loss.

    `document` names what the row was made from: rows of one document never stand on two sides of a split.
    """

    messages: tuple[Message, ...]
    source: str
    weight: float = 1.0
    document: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    def as_json(self) -> dict[str, Any]:
        return {
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "source": self.source,
            "weight": self.weight,
            "document": self.document,
        }


def chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The shape that chat templates take."""
    return [{"role": m.role, "content": m.content} for m in messages]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line, keys in a fixed order, so that equal rows give equal bytes."""
    lines = (json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """InvalidInput names the file and line that is no row."""
    if not path.is_file():
        raise InvalidInput(f"The rows {path} do not exist.", hint="Build the dataset first.", field=str(path))
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InvalidInput(
                    f"{path}, line {number}: {error}.",
                    hint='A line is {"messages": [… ending with an assistant turn], "source": …, "weight": …}.',
                    field=str(path),
                ) from None
    return rows


def _row(found: Mapping[str, Any]) -> Row:
    messages = tuple(Message(m["role"], m["content"]) for m in found["messages"])
    wrong = [m.role for m in messages if m.role not in ROLES]
    if wrong:
        raise ValueError(f"unknown role {wrong[0]!r}")
    if len(messages) < 2 or messages[-1].role != "assistant" or not messages[-1].content.strip():
        raise ValueError("the messages do not end with a written assistant turn after a question")
    weight = float(found.get("weight", 1.0))
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}, it must be 0 to 1")
    return Row(messages, str(found["source"]), weight, str(found.get("document", "")))
