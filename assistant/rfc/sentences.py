"""Sentences of Markdown-like text, cleaned of markup, with their offsets in the source.

Headings, tables, code, images and comments are no sentences. A citation quotes `source[start:end]`; what a
reader sees is the cleaned `text`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

from assistant.retrieval.sentences import sentence_spans

LIST_MARK = re.compile(r"\s*(?:(?:[-*+>]|\d{1,9}[.)])\s+)*(?:\[[ xX]\]\s+)?")
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`block` numbers the paragraph or list item it stands in; `item` says that it is a list item.

    `heading` is the last heading above it inside the text, or None.
    """

    text: str
    start: int
    end: int
    block: int
    item: bool
    heading: str | None = None


def sentences(source: str) -> list[Sentence]:
    """The sentences of `source`, in order."""
    found: list[Sentence] = []
    for number, (start, end, item, heading) in enumerate(_blocks(source)):
        for first, last in _split(source, start, end):
            text = clean(source[first:last])
            if text:
                found.append(Sentence(text, first, last, number, item, heading))
    return found


def clean(raw: str) -> str:
    """The words of one Markdown fragment on one line: links become their text, emphasis disappears,
    inline code keeps single backticks, reStructuredText roles become code."""
    raw = re.sub(r":[a-zA-Z:+-]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`", r"`\1`", raw)
    raw = re.sub(r"`([^`<]+?)\s*<[^`>]*>`__?", r"\1", raw)
    tokens = MARKDOWN.parseInline(" ".join(raw.split()))
    words = "".join(_plain(child) for token in tokens for child in token.children or [])
    words = re.sub(r"\[\^?\d{1,3}\]|\{[%#][^}]*\}|\{:[^}]*\}", "", words)
    return re.sub(r"\s+([.,;:!?])(?=\s|$)", r"\1", " ".join(words.split()))


def _plain(token: Token) -> str:
    if token.type == "text":
        return re.sub(r"(?<![\w\]])\[(?!\^?\d{1,3}\])([^\[\]]+)\](?:\[[^\]]*\])?", r"\1", token.content)
    if token.type == "code_inline":
        return f"`{token.content.replace('`', '')}`"
    return " " if token.type in {"softbreak", "hardbreak"} else ""


def _blocks(source: str) -> Iterator[tuple[int, int, bool, str | None]]:
    """Start, end, whether in a list, and the heading above, of each paragraph of prose."""
    lines = [0, *(m.end() for m in re.finditer(r"\r\n?|\n", source)), len(source)]
    heading: str | None = None
    depth, quoted = 0, 0
    previous = ""
    for token in MARKDOWN.parse(source):
        if token.type in {"list_item_open", "list_item_close"}:
            depth += token.nesting
        elif token.type in {"table_open", "table_close"}:
            quoted += token.nesting
        elif token.type == "inline" and token.map:
            if previous == "heading_open":
                heading = clean(token.content)
            elif not quoted and not _markup_only(token):
                yield lines[token.map[0]], lines[min(token.map[1], len(lines) - 1)], depth > 0, heading
        previous = token.type


def _markup_only(token: Token) -> bool:
    kinds = {child.type for child in token.children or []}
    return not kinds & {"text", "code_inline"} or token.content.lstrip().startswith((".. ", "|", ":::", "{%"))


def _split(source: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    lead = LIST_MARK.match(source, start, end)
    begin: int | None = None
    for first, last in sentence_spans(source, lead.end() if lead else start, end):
        begin = first if begin is None else begin
        # An odd number of backticks means that the boundary lies inside inline code.
        if source.count("`", begin, last) % 2 == 0 or last == end:
            yield begin, last
            begin = None
    if begin is not None:
        yield begin, begin + len(source[begin:end].rstrip())
