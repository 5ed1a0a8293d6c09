"""A passage taken apart into what an answer may quote: sentences, list items, commands, tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from assistant.retrieval.sentences import sentence_spans
from assistant.retrieval.structure import Block, heading_text, markdown_blocks
from assistant.types import Hit

ItemKind = Literal["sentence", "bullet", "verbatim"]
_PLACEHOLDER = re.compile(
    r"\W*(?:todo|tbd|n/?a|fixme|none|to be (?:done|written|defined))\b\W*", re.IGNORECASE
)
_BULLET = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
_NESTED = re.compile(r"\n\s*(?:\n|[-*+]\s|\d{1,3}[.)]\s|```|~~~)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_RELATIVE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|mailto:)[^)]*\)")
_FENCE = re.compile(r"^\s*(?:```+|~~~+)", re.MULTILINE)
_MARKS = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\](?!\()")


@dataclass(frozen=True, slots=True)
class Item:
    """One quotable piece. `path` is its headings, `start` its offset in the document.

    `paragraph` numbers the block it stands in: sentences with equal numbers belong on one line.
    """

    kind: ItemKind
    text: str
    path: tuple[str, ...]
    start: int
    marker: int
    paragraph: int

    @property
    def introduces(self) -> bool:
        return self.kind == "sentence" and self.text.endswith(":")


def items_of(hit: Hit, marker: int) -> Iterator[Item]:
    """The items of a passage in reading order, without placeholders such as TODO."""
    path = hit.headings
    for number, block in enumerate(markdown_blocks(hit.text)):
        if block.kind == "heading":
            # Short sections are stored joined, with their headings inside: the last one counts.
            path = (*hit.headings, block.title)
            continue
        for kind, start, end in _pieces(hit.text, block):
            text = hit.text[start:end]
            if _PLACEHOLDER.fullmatch(text):
                continue
            yield Item(kind, _shown(kind, text), path, hit.start + start, marker, number)


def render(item: Item) -> str:
    """The item as Markdown with its marker; a fence or table carries none, the caller sees to it."""
    if item.kind == "verbatim":
        return item.text
    first, newline, rest = item.text.partition("\n")
    return f"{first} [{item.marker}]{newline}{rest}"


def _pieces(text: str, block: Block) -> Iterator[tuple[ItemKind, int, int]]:
    if block.kind == "prose":
        for start, end in sentence_spans(text, block.start, block.end):
            yield "sentence", start, end
    elif block.kind == "group" and _BULLET.match(text, block.start):
        for child in block.children:
            yield "bullet", child.start, child.end
    elif not text.startswith("<", block.start):
        yield "verbatim", block.start, block.end


def _shown(kind: ItemKind, text: str) -> str:
    if kind == "verbatim":
        fences = len(_FENCE.findall(text))
        return f"{text}\n```" if fences % 2 else text
    # An image would be fetched from elsewhere, and a relative link lead nowhere from here.
    text = _RELATIVE.sub(r"\1", _IMAGE.sub(r"\1", text))
    bullet = _BULLET.match(text) if kind == "bullet" else None
    if bullet and _NESTED.search(text, bullet.end()):
        return text
    mark = f"{bullet[0].strip()} " if bullet else ""
    # A number in brackets in the source must not pass for one of our markers.
    return mark + _MARKS.sub(r"(\1)", " ".join(text[bullet.end() if bullet else 0 :].split()))


def display_path(title: str, path: tuple[str, ...]) -> str:
    """`title › headings` for a reader, without repeating a heading that says the title again."""
    squeezed = re.sub(r"\W", "", title).casefold()
    rest = [h for h in path if re.sub(r"\W", "", h).casefold() != squeezed]
    return " › ".join(heading_text(part) for part in [title, *rest] if part)
