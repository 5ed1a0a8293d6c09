"""Counts for metrics, from a real Postgres."""

import pytest

from assistant.clock import stable_id
from assistant.stores.documents import DocumentRecord, DocumentRepository
from assistant.stores.jobs import JobRepository
from assistant.stores.overview import OverviewRepository
from assistant.stores.postgres import Database
from assistant.stores.runs import RunRepository
from assistant.stores.sources import SourceRepository

pytestmark = pytest.mark.integration


async def test_ages_documents_and_jobs(database: Database) -> None:
    overview = OverviewRepository(database)
    assert (await overview.now()).jobs == {}
    sources, runs = SourceRepository(database), RunRepository(database)
    docs = await sources.ensure("docs", "search_sources", "folder", {})
    await sources.ensure("never-read", "search_sources", "folder", {})
    for status in ("done", "failed"):
        await runs.finish(await runs.start(docs.id), status, {})  # type: ignore[arg-type]
    async with database.transaction() as connection:
        await connection.execute(
            "update ai_assistant.ingestion_runs set finished_at = now() - interval '2 hours'"
            " where status = 'done'"
        )
        await connection.execute(
            "update ai_assistant.data_sources set created_at = now() - interval '1 hour'"
        )
    record = DocumentRecord(stable_id("docs", "a"), docs.id, "a", "a", "hash", "text/plain", acl=("public",))
    await DocumentRepository(database).begin([record])
    jobs = JobRepository(database)
    await jobs.enqueue("rfc.draft", {})
    await jobs.enqueue("rfc.draft", {})
    found = await overview.now()
    assert found.ages_s == pytest.approx({"docs": 7200, "never-read": 3600}, abs=60)
    assert found.documents == {("docs", "pending"): 1}
    assert found.jobs == {("rfc.draft", "queued"): 2}
