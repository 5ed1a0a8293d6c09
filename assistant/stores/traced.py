"""A cursor whose statements are spans, for processes that record traces."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from psycopg import AsyncCopy, AsyncCursor
from psycopg.rows import DictRow

from assistant import tracing

TEXT_CHARS = 1000
TABLE = re.compile(r"\bai_assistant\.\w+")


class TracedCursor(AsyncCursor[DictRow]):
    """A span per statement, only inside another span: what runs in the background is not traced.

    Spans hold the statement with its placeholders, never the values.
    """

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        text = statement(query)
        with tracing.span(
            summary(text),
            kind="client",
            nested=True,
            db__system__name="postgresql",
            db__operation__name=_operation(text),
            db__query__text=text[:TEXT_CHARS] or None,
        ):
            return await super().execute(query, params, **options)

    @asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[AsyncCopy]:
        with tracing.span(
            "copy", kind="client", nested=True, db__system__name="postgresql", db__operation__name="copy"
        ):
            async with super().copy(statement, params, **options) as copying:
                yield copying


def statement(query: Any) -> str:
    """The text with placeholders, in one line. Composed statements may hold literals, so they have none."""
    if isinstance(query, bytes):
        query = query.decode()
    return " ".join(query.split()) if isinstance(query, str) else ""


def summary(text: str) -> str:
    """What a statement does and to which table, as far as one can see."""
    table = TABLE.search(text)
    return f"{_operation(text)} {table.group()}" if table else _operation(text)


def _operation(text: str) -> str:
    return text.partition(" ")[0].lower() or "statement"
