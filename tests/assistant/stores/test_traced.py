"""Statements as spans: their text with placeholders, never the values."""

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncCursor, sql

from assistant import tracing
from assistant.clock import new_id
from assistant.stores.jobs import JobRepository
from assistant.stores.llm_metrics import LlmMetricLog, LlmMetricRecord
from assistant.stores.postgres import Database
from assistant.stores.traced import statement, summary
from tests.tracing import Spans, traced


def test_a_statement_is_summed_up() -> None:
    text = statement(b"\n  select *\n  from ai_assistant.jobs where id = %s")
    assert text == "select * from ai_assistant.jobs where id = %s"
    assert summary(text) == "select ai_assistant.jobs"
    assert summary(statement("commit")) == "commit"
    assert summary(statement(sql.SQL("select {}").format(sql.Literal("secret")))) == "statement"


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[tuple[Database, Spans]]:
    """The database of this test once more, opened while traces are recorded."""
    with traced() as spans:
        again = Database(database._settings)
        await again.open()
        yield again, spans
        await again.close()


@pytest.mark.integration
async def test_statements_within_a_request_are_its_children(watched: tuple[Database, Spans]) -> None:
    database, spans = watched
    jobs = JobRepository(database)
    await jobs.get(new_id())
    assert spans.all() == []
    with tracing.span("request"):
        await jobs.enqueue("rfc.draft", {"brief": "a secret brief"})
    assert all(parent in {"request", None} for _, parent in spans.tree())
    (inserted,) = [span for span in spans.all() if "insert" in span.name or "with" in span.name]
    attributes = dict(inserted.attributes or {})
    assert attributes["db.system.name"] == "postgresql"
    assert "ai_assistant.jobs" in str(attributes["db.query.text"])
    assert not any("secret" in span.to_json() for span in spans.all())


@pytest.mark.integration
async def test_rows_still_arrive_by_copy(watched: tuple[Database, Spans]) -> None:
    database, spans = watched
    log = LlmMetricLog(database)
    log.record(LlmMetricRecord("p", "m"))
    with tracing.span("request"):
        await log.flush()
    assert ("copy", "request") in spans.tree()
    assert await database.ping() > 0


@pytest.mark.integration
async def test_off_leaves_the_drivers_own_cursor(database: Database) -> None:
    async with database.transaction() as connection:
        assert connection.cursor_factory is AsyncCursor
