"""The blocks of a text with their exact offsets: headings, prose, lists, tables, code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from assistant.retrieval.sentences import strip_span

Kind = Literal["heading", "prose", "lines", "group"]
_KINDS: dict[str, Kind] = {
    "heading": "heading",
    "paragraph": "prose",
    "fence": "lines",
    "code_block": "lines",
    "html_block": "lines",
    "table": "lines",
    "bullet_list": "group",
    "ordered_list": "group",
    "list_item": "group",
    "blockquote": "group",
}
_NEWLINE = re.compile(r"\r\n?|\n")
_BLANK_LINES = re.compile(r"(?:\r\n?|\n)[^\S\r\n]*(?:\r\n?|\n)\s*")


@dataclass(frozen=True, slots=True)
class Block:
    """`text[start:end]`. Prose breaks at sentences, lines at line ends, a group at its children.

    `level` and `title` belong to headings.
    """

    kind: Kind
    start: int
    end: int
    children: tuple["Block", ...] = ()
    level: int = 0
    title: str = ""


def markdown_blocks(text: str) -> list[Block]:
    """The top-level blocks of a CommonMark text with tables."""
    starts = [0, *(m.end() for m in _NEWLINE.finditer(text)), len(text)]
    return list(_convert(block_tree(text), text, starts, top=True))


def block_tree(text: str) -> SyntaxTreeNode:
    """markdown-it's tree of blocks with their line numbers; inline content is left as source."""
    return SyntaxTreeNode(_block_parser().parse(text))


def inline_tokens(source: str) -> list[Token]:
    """The inline tokens of a paragraph's or heading's source."""
    (inline,) = _inline_parser().parseInline(source)
    return inline.children or []


def plain_blocks(text: str) -> list[Block]:
    """The paragraphs of a text without markup: what stands between blank lines."""
    blocks, begin = [], 0
    for gap in [*_BLANK_LINES.finditer(text), None]:
        span = strip_span(text, begin, gap.start() if gap else len(text))
        if span:
            blocks.append(Block("prose", *span))
        begin = gap.end() if gap else len(text)
    return blocks


def heading_text(source: str) -> str:
    """What a reader sees of a heading's source: no emphasis marks, no link targets, no HTML."""
    parts = [t.content if t.type in {"text", "code_inline"} else " " for t in inline_tokens(source)]
    return " ".join("".join(parts).split())


def _convert(node: SyntaxTreeNode, text: str, starts: list[int], top: bool = False) -> Iterator[Block]:
    for child in node.children:
        kind = _KINDS.get(child.type)
        if kind is None or child.map is None:
            continue
        first, last = child.map
        span = strip_span(text, starts[first], starts[min(last, len(starts) - 1)])
        if span is None:
            continue
        if kind == "heading" and top:
            title = heading_text(child.children[0].content if child.children else "")
            yield Block("heading", *span, level=int(child.tag[1:]), title=title)
        elif kind == "heading":
            yield Block("prose", *span)
        else:
            children = tuple(_convert(child, text, starts)) if kind == "group" else ()
            yield Block(kind, *span, children=children)


@cache
def _block_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    # Offsets need blocks only; inline parsing is most of the time.
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


@cache
def _inline_parser() -> MarkdownIt:
    return MarkdownIt("commonmark")
