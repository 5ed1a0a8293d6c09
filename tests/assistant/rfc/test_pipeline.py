"""The pipeline on the real repositories, with a scripted model behind the real router."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from assistant.errors import InvalidInput, StoreUnavailable
from assistant.llm.providers.scripted import Reply
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.rfc.artefacts import STAGES
from assistant.rfc.pipeline import RfcPipeline
from assistant.settings import Settings
from assistant.stores.jobs import Job, JobEvent, JobRepository
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRecord, RfcRepository
from assistant.telemetry import NullMeter
from assistant.types import Principal
from tests.assistant.rfc.world import BRIEF, CALLER, TITLE, WordSearcher, context, router, settings

pytestmark = pytest.mark.integration
LEAD = "Every rollout needs a rollback of less than 5 minutes."


class Crash(BaseException):
    """A process that dies: nothing above it may catch it."""


class CrashingRfcs(RfcRepository):
    """Dies right before or right after it has stored a stage."""

    def __init__(self, database: Database, stage: str, *, after: bool) -> None:
        super().__init__(database)
        self._crash = (stage, after)

    async def save_stage(self, rfc_id: Any, stage: str, artefact: Any, model: Any, duration_ms: Any) -> None:
        if (stage, False) == self._crash and duration_ms is not None:
            raise Crash
        await super().save_stage(rfc_id, stage, artefact, model, duration_ms)
        if (stage, True) == self._crash and duration_ms is not None:
            raise Crash


class Desk:
    """One database, one searcher, one model, and everything that is needed to run a job on them."""

    def __init__(self, database: Database, writing: str = "extractive", replies: Any = (LEAD,)) -> None:
        self.database = database
        self.jobs = JobRepository(database)
        self.rfcs = RfcRepository(database)
        self.searcher: Any = WordSearcher()
        self.llm = router(replies, writing)
        (self.backend,) = [line.backend for line in self.llm._lines.values()]

    async def submit(self, brief: str = BRIEF, template: str = "new_feature") -> RfcRecord:
        return await self.rfcs.submit(TITLE, brief, template, CALLER.id, [f"user:{CALLER.id}"], {})

    async def claim(self, lease_s: float = 60) -> Job:
        job = await self.jobs.claim("rfc", "writer-1", lease_s)
        assert job is not None
        return job

    def pipeline(
        self, rfcs: RfcRepository | None = None, with_settings: Settings | None = None
    ) -> RfcPipeline:
        return RfcPipeline(
            self.searcher,
            self.llm,
            rfcs or self.rfcs,
            self.jobs,
            with_settings or settings(lead_sentences=True),
            NullMeter(),
        )

    async def events(self, job: Job) -> list[JobEvent]:
        return await self.jobs.events_after(job.id, 0, 1000)

    async def read(self, rfc: RfcRecord) -> RfcRecord:
        found = await self.rfcs.get(rfc.id, CALLER.acl_terms())
        assert found is not None
        return found


async def test_a_job_becomes_a_document_with_events_and_stored_citations(database: Database) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    job = await desk.claim()
    await desk.pipeline().run(job, context())

    done = await desk.read(rfc)
    assert done.status == "done"
    assert done.content_markdown.startswith(f"# {TITLE}")
    assert done.llm_provider == "script"
    assert done.tokens_used
    assert done.generation_time_ms is not None
    citations = await desk.rfcs.citations(rfc.id)
    assert citations
    assert all(f"[{c.marker}]" in done.content_markdown for c in citations)
    assert list(await desk.rfcs.stages(rfc.id)) == list(STAGES)

    finished = await desk.jobs.get(job.id)
    assert finished is not None
    assert finished.status == "done"
    events = await desk.events(job)
    stages = [(e.data["stage"], e.data["status"]) for e in events if e.type == "stage"]
    assert stages == [(s, status) for s in STAGES for status in ("started", "done")]
    sections = [e.data for e in events if e.type == "section"]
    assert [s["title"] for s in sections][:3] == ["Summary", "Motivation", "Goals"]
    assert all(s["markdown"].startswith(f"## {s['title']}") for s in sections)
    assert (events[-1].type, events[-1].data) == ("done", {"rfc_id": str(rfc.id)})


@pytest.mark.parametrize("after", [False, True], ids=["before it is stored", "after it is stored"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_draft_killed_at_any_stage_goes_on_where_it_was(
    database: Database, stage: str, after: bool
) -> None:
    whole = Desk(database)
    reference = await whole.submit()
    await whole.pipeline().run(await whole.claim(), context())

    desk = Desk(database)
    rfc = await desk.submit()
    job = await desk.claim(lease_s=0.05)
    with pytest.raises(Crash):
        await desk.pipeline(CrashingRfcs(database, stage, after=after)).run(job, context())
    assert (await desk.read(rfc)).status != "done"
    stored = await desk.rfcs.stages(rfc.id)
    searches, calls = len(desk.searcher.queries), len(desk.backend.requests)

    await desk.jobs.renew(job.id, "writer-1", -1)
    again = await desk.claim()
    assert again.id == job.id
    assert again.attempts == 2
    await desk.pipeline().run(again, context())

    finished = await desk.read(rfc)
    assert finished.status == "done"
    assert finished.content_markdown == (await whole.read(reference)).content_markdown
    more_searches = len(desk.searcher.queries) - searches
    assert more_searches == (0 if "evidence" in stored else len(whole.searcher.queries))
    if "sections" in stored:
        assert len(desk.backend.requests) == calls, "sections that were written are not written again"
    else:
        assert len(desk.backend.requests) == len(whole.backend.requests)
    resumed = [e.data["stage"] for e in await desk.events(job) if e.type == "stage" and e.data.get("resumed")]
    assert resumed == [s for s in STAGES if s in stored and stored[s].duration_ms is not None]


async def test_a_draft_killed_between_two_sections_keeps_the_finished_ones(database: Database) -> None:
    class Dies(JobRepository):
        async def append_event(self, job_id: Any, type: str, data: Any) -> int:  # noqa: A002
            if type == "section" and data["title"] == "Test plan":
                raise Crash
            return await super().append_event(job_id, type, data)

    desk = Desk(database, "free", ["NOTHING"])
    one_by_one = settings(parallel_sections=1, max_questions=0)
    await desk.submit()
    job = await desk.claim()
    dying = RfcPipeline(desk.searcher, desk.llm, desk.rfcs, Dies(database), one_by_one, NullMeter())
    with pytest.raises(Crash):
        await dying.run(job, context())
    before = len(desk.backend.requests)
    await desk.jobs.renew(job.id, "writer-1", -1)
    await desk.pipeline(with_settings=one_by_one).run(await desk.claim(), context())
    titles = [e.data["title"] for e in await desk.events(job) if e.type == "section"]
    assert titles.count("Summary") == 1
    # At most the section in flight is written twice.
    assert len(desk.backend.requests) <= 11 + 2
    assert before < len(desk.backend.requests)


async def test_a_cancelled_job_stops_at_the_next_stage(database: Database) -> None:
    desk = Desk(database)

    class CancelsDuringSearch(WordSearcher):
        async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
            await desk.jobs.cancel(job.id)
            return await super().search(query, principal)

    rfc = await desk.submit()
    job = await desk.claim()
    desk.searcher = CancelsDuringSearch()
    await desk.pipeline().run(job, context())
    assert (await desk.read(rfc)).status == "cancelled"
    assert "outline" not in await desk.rfcs.stages(rfc.id)
    events = await desk.events(job)
    assert events[-1].type == "error"
    assert events[-1].data["problem"]["code"] == "cancelled"
    ended = await desk.jobs.get(job.id)
    assert ended is not None
    assert ended.status == "cancelled"


async def test_a_job_that_another_worker_took_over_is_left_alone(database: Database) -> None:
    desk = Desk(database)

    class Steals(WordSearcher):
        async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
            found = await super().search(query, principal)
            if len(self.queries) == 1:
                await desk.jobs.renew(job.id, "writer-1", -1)
                assert await desk.jobs.claim("rfc", "writer-2", 60)
            return found

    rfc = await desk.submit()
    job = await desk.claim()
    desk.searcher = Steals()
    await desk.pipeline().run(job, context())
    now = await desk.jobs.get(job.id)
    assert now is not None
    assert (now.status, now.worker) == ("running", "writer-2")
    assert (await desk.read(rfc)).status == "running"
    assert all(e.type != "error" for e in await desk.events(job))


async def test_the_lease_is_renewed_while_a_stage_works(database: Database) -> None:
    desk = Desk(database)
    renewed = asyncio.Event()

    class Counts(JobRepository):
        background = 0

        async def renew(self, job_id: Any, worker: str, lease_s: float) -> bool:
            Counts.background += 1
            if Counts.background > 6:
                renewed.set()
            return await super().renew(job_id, worker, lease_s)

    class WaitsForRenewals(WordSearcher):
        async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
            await renewed.wait()
            return await super().search(query, principal)

    rfc = await desk.submit()
    job = await desk.claim()
    pipeline = RfcPipeline(
        WaitsForRenewals(), desk.llm, desk.rfcs, Counts(database), settings(lease_s=0.3), NullMeter()
    )
    await pipeline.run(job, context())
    assert (await desk.read(rfc)).status == "done"


def broken(error: Exception) -> Callable[[], WordSearcher]:
    class Broken(WordSearcher):
        async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
            raise error

    return Broken


async def test_a_failure_that_may_pass_gives_the_job_back(database: Database) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    job = await desk.claim()
    working, desk.searcher = desk.searcher, broken(StoreUnavailable("Qdrant does not answer."))()
    await desk.pipeline().run(job, context())
    assert (await desk.read(rfc)).status == "running"
    assert (await desk.events(job))[-1].type == "retry"
    assert await desk.jobs.claim("rfc", "writer-1", 60) is None, "not at once"
    await desk.jobs.renew(job.id, "writer-1", -1)
    desk.searcher = working
    await desk.pipeline().run(await desk.claim(), context())
    assert (await desk.read(rfc)).status == "done"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable("Qdrant does not answer."), "Qdrant does not answer"),
        (InvalidInput("The query is empty.", field="query"), "The query is empty"),
        (ZeroDivisionError("division by zero"), "fault of this program"),
    ],
)
async def test_what_does_not_pass_ends_the_job_with_an_error(
    database: Database, error: Exception, told: str
) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    job = await desk.claim()
    desk.searcher = broken(error)()
    with capture_logs() as logs:
        await desk.pipeline(with_settings=settings(max_attempts=1)).run(job, context())
    assert logs[-1]["event"] == "rfc_ended"
    failed = await desk.read(rfc)
    assert failed.status == "failed"
    assert told in str(failed.error)
    ended = await desk.jobs.get(job.id)
    assert ended is not None
    assert ended.status == "failed"
    last = (await desk.events(job))[-1]
    assert last.type == "error"
    assert told in last.data["problem"]["detail"]


async def test_unknown_templates_foreign_rfcs_and_empty_payloads_fail_clearly(database: Database) -> None:
    desk = Desk(database)
    await desk.submit(template="novel")
    job = await desk.claim()
    await desk.pipeline().run(job, context())
    assert "new_feature" in (await desk.events(job))[-1].data["problem"]["hint"]

    await desk.submit()
    job = await desk.claim()
    await desk.pipeline().run(job, context(Principal("mallory")))
    assert (await desk.events(job))[-1].data["problem"]["code"] == "not_found"

    await desk.jobs.enqueue("rfc", {})
    job = await desk.claim()
    await desk.pipeline().run(job, context())
    assert "rfc_id" in (await desk.events(job))[-1].data["problem"]["detail"]


async def test_a_model_that_always_fails_still_gives_a_document(database: Database) -> None:
    desk = Desk(database, "free", [Reply("x", fail_after=0)])
    rfc = await desk.submit()
    await desk.pipeline().run(await desk.claim(), context())
    done = await desk.read(rfc)
    assert done.status == "done"
    assert "none was available" in done.content_markdown
    assert await desk.rfcs.citations(rfc.id)


async def test_the_stage_keeps_its_model_and_the_hash_of_its_prompt(database: Database) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    await desk.pipeline().run(await desk.claim(), context())
    record = (await desk.rfcs.stages(rfc.id))["sections"]
    assert record.model == "script"
    uses = [s["use"] for s in record.artefact["sections"] if s["use"]["calls"]]
    assert uses
    assert all(len(u["prompts"]["lead"]) == 16 for u in uses)


async def test_a_stage_can_have_its_own_model(database: Database) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    own = settings(lead_sentences=True, stage_models={"sections": "script", "questions": "no-such-model"})
    await desk.pipeline(with_settings=own).run(await desk.claim(), context())
    stages = await desk.rfcs.stages(rfc.id)
    assert stages["sections"].model == "script"
    assert "no-such-model" in stages["questions"].artefact["use"]["failures"][0]


async def test_an_artefact_of_another_shape_is_made_again(database: Database) -> None:
    desk = Desk(database)
    rfc = await desk.submit()
    await desk.rfcs.save_stage(rfc.id, "brief", {"of": "an older version"}, None, 3)
    await desk.pipeline().run(await desk.claim(), context())
    assert (await desk.read(rfc)).status == "done"
    assert "sentences" in (await desk.rfcs.stages(rfc.id))["brief"].artefact
