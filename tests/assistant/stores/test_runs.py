"""Runs tell how ingestion went, also when its process died."""

from uuid import UUID, uuid4

import pytest

from assistant.errors import InvalidInput, NotFound
from assistant.stores.postgres import Database
from assistant.stores.runs import RunRepository
from assistant.stores.sources import SourceRepository

pytestmark = pytest.mark.integration


@pytest.fixture
async def source_id(database: Database) -> UUID:
    return (await SourceRepository(database).ensure("docs", "search_sources", "folder", {})).id


@pytest.fixture
def runs(database: Database) -> RunRepository:
    return RunRepository(database)


async def test_a_run_from_start_to_end(database: Database, runs: RunRepository, source_id: UUID) -> None:
    assert await runs.latest(source_id) is None
    run_id = await runs.start(source_id)
    await runs.error(run_id, "a\x00.pdf", "parse", "no text\ud800")
    await runs.error(run_id, "b.pdf", "read", "too large")
    await runs.finish(run_id, "done", {"new": 3, "failed": 2})
    run = await runs.latest(source_id)
    assert run is not None
    assert (run.id, run.status, run.counts, run.error) == (run_id, "done", {"new": 3, "failed": 2}, None)
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
    errors = [(e.external_id, e.stage, e.message) for e in await runs.errors(run_id)]
    assert errors == [("a.pdf", "parse", "no text?"), ("b.pdf", "read", "too large")]
    (source,) = await SourceRepository(database).list()
    assert source.status == "done"


async def test_a_run_left_by_a_crash_is_closed_by_the_next(
    database: Database, runs: RunRepository, source_id: UUID
) -> None:
    crashed = await runs.start(source_id)
    current = await runs.start(source_id)
    async with database.transaction() as connection:
        cursor = await connection.execute("select id, status from ai_assistant.ingestion_runs order by id")
        found = [(row["id"], row["status"]) for row in await cursor.fetchall()]
    assert found == [(crashed, "interrupted"), (current, "running")]


async def test_a_failed_run_says_why(runs: RunRepository, source_id: UUID) -> None:
    await runs.finish(await runs.start(source_id), "failed", {}, "The folder is gone.")
    run = await runs.latest(source_id)
    assert run is not None
    assert (run.status, run.error) == ("failed", "The folder is gone.")


async def test_wrong_references_and_ends_are_refused(runs: RunRepository, source_id: UUID) -> None:
    with pytest.raises(NotFound):
        await runs.start(uuid4())
    with pytest.raises(NotFound):
        await runs.error(uuid4(), "a", "read", "x")
    with pytest.raises(InvalidInput, match="done, failed, cancelled"):
        await runs.finish(await runs.start(source_id), "ok", {})  # type: ignore[arg-type]
