"""Writes the Markdown that HTML and reST are turned into, block by block."""

import re
from collections.abc import Sequence
from textwrap import indent

_MARKUP = re.compile(r"^(#{1,6}(?=\s)|[-+*>](?=\s)|\d+[.)](?=\s)|```|~~~|\||={3,}|-{3,})")


class MarkdownWriter:
    """Collects blocks; text that would pass for markup at a line's start is escaped."""

    def __init__(self) -> None:
        self._blocks: list[str] = []

    def heading(self, level: int, text: str) -> None:
        if line := squeeze(text):
            self._blocks.append(f"{'#' * min(max(level, 1), 6)} {line}")

    def paragraph(self, text: str) -> None:
        if line := squeeze(text):
            self._blocks.append(_MARKUP.sub(r"\\\1", line))

    def code(self, text: str, language: str = "") -> None:
        if text.strip():
            fence = "````" if "```" in text else "```"
            self._blocks.append(f"{fence}{language}\n{text.strip(chr(10))}\n{fence}")

    def items(self, items: Sequence[str], ordered: bool = False) -> None:
        """A list; an item may hold several lines."""
        lines = []
        for number, item in enumerate((i.strip() for i in items if i.strip()), 1):
            mark = f"{number}. " if ordered else "- "
            lines.append(mark + indent(item, " " * len(mark)).lstrip())
        if lines:
            self._blocks.append("\n".join(lines))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table whose first row is its header."""
        cells = [[squeeze(c).replace("|", "\\|") for c in row] for row in rows if any(c.strip() for c in row)]
        if not cells:
            return
        width = max(map(len, cells))
        lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in cells]
        self._blocks.append("\n".join([lines[0], "|" + "---|" * width, *lines[1:]]))

    def quote(self, text: str) -> None:
        if text.strip():
            self._blocks.append("\n".join(f"> {line}".rstrip() for line in text.strip().split("\n")))

    def text(self) -> str:
        return "\n\n".join(self._blocks)


def squeeze(text: str) -> str:
    """The text on one line, its white space single."""
    return " ".join(text.split())
