"""Markers `[n]` in a text: check them against the passages, number them anew, make them citations."""

import re
from collections.abc import Sequence

from assistant.retrieval.sentences import sentence_spans
from assistant.types import Citation, Hit

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\](?!\()")
_MAYBE_MARKER = re.compile(r" ?\[[\d\s,]*\]?$| $")
_TICKS = re.compile(r"`+")
_QUOTE_CHARS = 300


class MarkerResolver:
    """Rewrites markers while a text streams. `hits[n - 1]` is what `[n]` points to in the input.

    Known markers are numbered 1, 2, … in order of first appearance, unknown ones vanish, and what stands in
    code spans and fences is left alone. `citations` grows as markers appear.
    """

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        self._numbers: dict[int, int] = {}
        self._pending = ""
        self._code = ""

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(citation(self._hits[old - 1], new) for old, new in self._numbers.items())

    def feed(self, text: str) -> str:
        """The resolved text that is certain by now; an unfinished marker waits for the next piece."""
        buffer = self._pending + text
        keep = len(buffer) - len(buffer.rstrip("`"))
        if not keep and not self._code_after(buffer) and (tail := _MAYBE_MARKER.search(buffer)):
            # A closed marker waits too: "(" may follow, and then it is a link.
            keep = len(buffer) - tail.start()
        self._pending = buffer[len(buffer) - keep :]
        return self._resolve(buffer[: len(buffer) - keep])

    def flush(self) -> str:
        """What is left at the end of the stream."""
        rest, self._pending = self._pending, ""
        return self._resolve(rest)

    def _code_after(self, text: str) -> str:
        code = self._code
        for ticks in _TICKS.findall(text):
            code = _toggled(code, ticks)
        return code

    def _resolve(self, text: str) -> str:
        out, position = [], 0
        for ticks in [*_TICKS.finditer(text), None]:
            part = text[position : ticks.start() if ticks else len(text)]
            if 0 < len(self._code) < 3 and "\n\n" in part:
                self._code = ""
            out.append(part if self._code else self._renumber(part))
            if ticks:
                out.append(ticks.group())
                self._code = _toggled(self._code, ticks.group())
                position = ticks.end()
        return "".join(out)

    def _renumber(self, text: str) -> str:
        return re.sub(rf" ?{_MARKER.pattern}", self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        known = [n for n in map(int, match[1].split(",")) if 1 <= n <= len(self._hits)]
        numbers = [self._numbers.setdefault(n, len(self._numbers) + 1) for n in known]
        space = " " if match[0].startswith(" ") and numbers else ""
        return space + "".join(f"[{n}]" for n in dict.fromkeys(numbers))


def _toggled(code: str, ticks: str) -> str:
    if not code:
        return ticks
    closes = len(ticks) >= 3 if len(code) >= 3 else ticks == code
    return "" if closes else code


def resolve(text: str, hits: Sequence[Hit]) -> tuple[str, tuple[Citation, ...]]:
    """The text with its markers checked and renumbered, and the citations they point to."""
    resolver = MarkerResolver(hits)
    resolved = resolver.feed(text) + resolver.flush()
    return resolved, resolver.citations


def citation(hit: Hit, marker: int, quote: str | None = None) -> Citation:
    """A citation of the whole passage; `quote` is what to show of it, its first sentences by default."""
    return Citation(
        marker=marker,
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        title=hit.title,
        headings=hit.headings,
        start=hit.start,
        end=hit.end,
        quote=quote if quote is not None else _opening(hit.text),
        content_hash=hit.content_hash,
        url=hit.url,
        version=hit.version,
    )


def _opening(text: str) -> str:
    end = 0
    for _, stop in sentence_spans(text):
        if stop > _QUOTE_CHARS:
            break
        end = stop
    return text[:end] if end else text[:_QUOTE_CHARS].rstrip() + ("…" if len(text) > _QUOTE_CHARS else "")
