"""Cut a document into passages that the embedder can read whole.

Sections follow the headings. Inside a section neighbouring blocks are packed up to the limit; a block
that fits is never torn, so code fences, tables and lists stay in one piece where they can. Every chunk
is a slice: `document.text[chunk.start:chunk.end] == chunk.text`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from assistant.clock import stable_id
from assistant.errors import ConfigurationError
from assistant.retrieval.embedders import TokenCounter
from assistant.retrieval.sentences import sentence_spans, strip_span
from assistant.retrieval.structure import Block, markdown_blocks, plain_blocks
from assistant.settings import ChunkSettings
from assistant.types import Chunk, Document

VERSION = 1
"""Part of every content hash: raise it when the same text would be cut differently."""

_MARKS = 2
"""Tokens that the embedder puts around a text."""
_PREFIX_ROOM = 16
_CHARS_PER_TOKEN = 10
"""A run of characters that the tokenizer does not know is one token, however long: this bounds it."""
_WORD = re.compile(r"\S+")
_LINE = re.compile(r"[^\r\n]+")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that is not torn further. `prose` may be repeated as overlap; `alone` is never joined."""

    start: int
    end: int
    tokens: int
    prose: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Section:
    headings: tuple[str, ...]
    heading: Block | None
    blocks: tuple[Block, ...]
    leaf: bool


@dataclass(frozen=True, slots=True)
class _Draft:
    """A chunk before numbering. `opening` is where its section's heading starts, for the first of a section.

    `joined` holds whole sections with their heading lines; its headings are their common parents.
    """

    headings: tuple[str, ...]
    start: int
    end: int
    opening: int | None
    joined: bool = False


class Chunker:
    def __init__(self, settings: ChunkSettings, tokenizer: TokenCounter) -> None:
        if settings.max_tokens + _MARKS + _PREFIX_ROOM > tokenizer.max_tokens:
            raise ConfigurationError(
                f"chunk.max_tokens is {settings.max_tokens}, but the embedder reads {tokenizer.max_tokens} tokens.",
                hint=f"Set chunk.max_tokens to at most {tokenizer.max_tokens - _MARKS - _PREFIX_ROOM}.",
            )
        self._settings = settings
        self._tokenizer = tokenizer

    def split(self, document: Document) -> list[Chunk]:
        """The chunks of a document in order; none for a document without text."""
        text = document.text
        plain = document.content_type == "text/plain"
        blocks = plain_blocks(text) if plain else markdown_blocks(text)
        drafts = [d for section in _sections(blocks) for d in self._section_drafts(text, section)]
        return [
            Chunk(
                id=stable_id(str(document.id), document.content_hash, str(index)),
                document_id=document.id,
                index=index,
                text=text[draft.start : draft.end],
                start=draft.start,
                end=draft.end,
                headings=draft.headings,
                token_count=self._count(text, draft.start, draft.end),
            )
            for index, draft in enumerate(self._join_small(text, drafts))
        ]

    def embedding_text(self, title: str, chunk: Chunk) -> str:
        """`title > headings`, a line break, the body: what is embedded, within the embedder's window.

        A path that does not fit loses its middle first, then is cut.
        """
        room = self._tokenizer.max_tokens - _MARKS - chunk.token_count
        path = [title, *(h for h in chunk.headings if h.casefold() != title.casefold())]
        while len(path) > 2 and self._tokenizer.count_tokens(" > ".join(path)) > room:
            del path[1]
        prefix = " > ".join(path)
        if len(offsets := self._tokenizer.token_offsets(prefix)) > room:
            prefix = prefix[: offsets[room - 1][1]] if room > 0 else ""
            while prefix and self._tokenizer.count_tokens(prefix) > room:
                prefix = prefix[:-1]
        return f"{prefix}\n{chunk.text}" if prefix else chunk.text

    def _section_drafts(self, text: str, section: _Section) -> Iterator[_Draft]:
        blocks = section.blocks
        if not blocks and section.leaf and section.heading:
            blocks = (section.heading,)
        units = [u for block in blocks for u in self._units(text, block)]
        opening = section.heading.start if section.heading else None
        for pack in self._pack(text, units):
            yield _Draft(section.headings, pack[0].start, pack[-1].end, opening)
            opening = None

    def _units(self, text: str, block: Block) -> Iterator[_Unit]:
        prose = block.kind in {"prose", "heading"}
        if (unit := self._fitting(text, block.start, block.end, prose)) is not None:
            yield unit
        elif block.kind == "group" and block.children:
            begin = block.start
            for child in block.children:
                # From the end of the one before, so that a list's markers stay with their items.
                span = strip_span(text, begin, child.end)
                if span:
                    yield from self._units(text, replace(child, start=span[0], end=span[1]))
                begin = child.end
        else:
            lines = block.kind in {"lines", "group"}
            spans = _line_spans(text, block) if lines else sentence_spans(text, block.start, block.end)
            for start, end in spans:
                yield from self._words(text, start, end, prose)

    def _words(self, text: str, start: int, end: int, prose: bool) -> Iterator[_Unit]:
        """A sentence or line as one unit if it fits, else cut between words, else inside a word."""
        if (unit := self._fitting(text, start, end, prose)) is not None:
            yield unit
            return
        first = last = start
        tokens = 0
        for word in _WORD.finditer(text, start, end):
            count = (
                self._count(text, *word.span()) if word.end() - word.start() <= self._chars else self._limit
            )
            if tokens and (tokens + count > self._limit or word.end() - first > self._chars):
                yield _Unit(first, last, tokens, prose)
                tokens = 0
            if count >= self._limit:
                yield from self._pieces(text, *word.span())
                continue
            if not tokens:
                first = word.start()
            last, tokens = word.end(), tokens + count
        if tokens:
            yield _Unit(first, last, tokens, prose)

    def _pieces(self, text: str, start: int, end: int) -> Iterator[_Unit]:
        while start < end:
            stop = min(end, start + self._chars)
            while (tokens := self._count(text, start, stop)) > self._limit:
                stop = start + max(1, (stop - start) * self._limit // tokens)
            yield _Unit(start, stop, tokens, alone=True)
            start = stop

    def _pack(self, text: str, units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
        current: list[_Unit] = []
        for unit in units:
            if current and not self._together(current, unit):
                done, carried = self._close(text, current, unit)
                yield done
                current = carried
            current.append(unit)
        if current:
            yield current

    def _close(self, text: str, current: list[_Unit], following: _Unit) -> tuple[list[_Unit], list[_Unit]]:
        """The finished pack, and the units that the next one begins with."""
        last = current[-1]
        if len(current) > 1 and text[last.end - 1] == ":" and self._together([last], following):
            return current[:-1], [last]
        carried: list[_Unit] = []
        for unit in reversed(current[1:]):
            overlap = [unit, *carried]
            if not unit.prose or sum(u.tokens for u in overlap) > self._settings.overlap_tokens:
                break
            if not self._together(overlap, following):
                break
            carried = overlap
        return current, carried

    def _together(self, units: Sequence[_Unit], unit: _Unit) -> bool:
        if unit.alone or any(u.alone for u in units):
            return False
        return (
            sum(u.tokens for u in units) + unit.tokens <= self._limit
            and unit.end - units[0].start <= self._chars
        )

    def _join_small(self, text: str, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Join a very short section with the next one under the same parent, with their heading lines."""
        joined: list[_Draft] = []
        for draft in drafts:
            if joined and (both := self._joined(text, joined[-1], draft)) is not None:
                joined[-1] = both
            else:
                joined.append(draft)
        return joined

    def _joined(self, text: str, before: _Draft, draft: _Draft) -> _Draft | None:
        if before.opening is None or draft.opening is None:
            return None
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(before.headings, draft.headings, strict=False))
        parents = tuple(heading for heading, _ in pairs)
        if len(parents) < len(before.headings) - (not before.joined):
            return None
        if self._count(text, before.start, before.end) >= self._small:
            return None
        if self._fitting(text, before.opening, draft.end, False, self._small * 4) is None:
            return None
        return _Draft(parents, before.opening, draft.end, before.opening, joined=True)

    def _fitting(
        self, text: str, start: int, end: int, prose: bool, limit: int | None = None
    ) -> _Unit | None:
        if end - start > self._chars:
            return None
        tokens = self._count(text, start, end)
        return (
            _Unit(start, end, tokens, prose) if tokens <= (self._limit if limit is None else limit) else None
        )

    def _count(self, text: str, start: int, end: int) -> int:
        return self._tokenizer.count_tokens(text[start:end])

    @property
    def _limit(self) -> int:
        return self._settings.max_tokens

    @property
    def _small(self) -> int:
        return self._settings.min_tokens

    @property
    def _chars(self) -> int:
        return self._settings.max_tokens * _CHARS_PER_TOKEN


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    path: list[Block] = []
    heading: Block | None = None
    body: list[Block] = []
    for block in [*blocks, None]:
        if block is not None and block.kind != "heading":
            body.append(block)
            continue
        leaf = block is None or heading is None or block.level <= heading.level
        yield _Section(tuple(h.title for h in path if h.title), heading, tuple(body), leaf)
        if block is not None:
            path = [h for h in path if h.level < block.level] + [block]
        heading, body = block, []


def _line_spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    for line in _LINE.finditer(text, block.start, block.end):
        if (span := strip_span(text, *line.span())) is not None:
            yield span
