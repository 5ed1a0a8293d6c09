"""Drafts one RFC: seven stages, each stored when it is done, so that a killed draft goes on where it was.

    brief → questions → evidence → outline → sections → checks → render

Whoever reads the job's events sees `stage`, `section`, then `done` or `error`. A job that was cancelled
stops at the next stage. A failure that may pass leaves the job to be claimed again; any other ends it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from assistant import tracing
from assistant.errors import AssistantError, ConfigurationError, NotFound
from assistant.retrieval.answer import Searcher
from assistant.rfc.artefacts import (
    STAGES,
    Artefact,
    BriefArtefact,
    ChecksArtefact,
    EvidenceArtefact,
    ModelUse,
    OutlineArtefact,
    QuestionsArtefact,
    RenderArtefact,
    SectionsArtefact,
)
from assistant.rfc.brief import BriefStage
from assistant.rfc.checks import ChecksStage
from assistant.rfc.evidence import EvidenceStage
from assistant.rfc.outline import OutlineStage
from assistant.rfc.questions import QuestionsStage
from assistant.rfc.render import Numbering, RenderStage, section_markdown
from assistant.rfc.sections import SectionsStage
from assistant.rfc.templates import template
from assistant.rfc.work import Llm, Work
from assistant.settings import Settings
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.rfcs import RfcRecord, RfcRepository, StageRecord
from assistant.telemetry import Meter, get_logger
from assistant.types import RequestContext

ARTEFACTS: Mapping[str, type[Artefact]] = {
    a.stage: a
    for a in (
        BriefArtefact,
        QuestionsArtefact,
        EvidenceArtefact,
        OutlineArtefact,
        SectionsArtefact,
        ChecksArtefact,
        RenderArtefact,
    )
}
RETRY_S = 5.0
log = get_logger("rfc")


class Stopped(Exception):
    """The job is no longer ours: cancelled, or another worker holds it."""


class RfcPipeline:
    """One instance per Writer; `run` may be called for several jobs at once."""

    def __init__(
        self,
        searcher: Searcher,
        llm: Llm,
        rfcs: RfcRepository,
        jobs: JobRepository,
        settings: Settings,
        meter: Meter,
    ) -> None:
        self._searcher = searcher
        self._llm = llm
        self._rfcs = rfcs
        self._jobs = jobs
        self._settings = settings
        self._meter = meter

    async def run(self, job: Job, context: RequestContext) -> None:
        """Write the RFC of a claimed job (`payload["rfc_id"]`), to its end or to where it must stop.

        Raises only what keeps it from writing down how it ended (StoreUnavailable): the lease then runs
        out and the job is claimed again.
        """
        rfc_id: UUID | None = None
        try:
            rfc_id = _rfc_id(job)
            async with self._lease(job):
                await self._write(job, rfc_id, context)
        except Stopped:
            await self._stopped(job, rfc_id)
        except AssistantError as error:
            if error.retryable and job.attempts < self._settings.rfc.max_attempts:
                await self._later(job, error)
            else:
                await self._failed(job, rfc_id, error)
        except Exception as error:
            log.exception("rfc_failed", job_id=str(job.id), rfc_id=str(rfc_id))
            unknown = AssistantError(
                f"Writing failed by a fault of this program ({type(error).__name__}).",
                hint="The log has the details under this job's id.",
            )
            await self._failed(job, rfc_id, unknown)

    async def _write(self, job: Job, rfc_id: UUID, context: RequestContext) -> None:
        rfc = await self._rfcs.get(rfc_id, context.principal.acl_terms())
        if rfc is None:
            raise NotFound(f"There is no RFC {rfc_id} that {context.principal.id!r} may see.")
        work = Work(
            title=rfc.title,
            brief=rfc.brief,
            answers=rfc.answers,
            template=template(rfc.template),
            context=context,
            settings=self._settings,
            searcher=self._searcher,
            llm=self._llm,
        )
        stored = await self._rfcs.stages(rfc_id)
        for name in STAGES:
            await self._still_ours(job)
            artefact = _load(name, stored.get(name))
            if artefact is not None:
                work.artefacts[name] = artefact
                await self._event(
                    job,
                    "stage",
                    stage=name,
                    status="done",
                    duration_ms=stored[name].duration_ms,
                    resumed=True,
                )
                continue
            await self._stage(job, rfc, name, work, stored.get(name))
        await self._still_ours(job)
        await self._finish(job, rfc, work)

    async def _stage(
        self, job: Job, rfc: RfcRecord, name: str, work: Work, partial: StageRecord | None
    ) -> None:
        await self._event(job, "stage", stage=name, status="started")
        began = time.perf_counter()
        with tracing.span(f"rfc.{name}", nested=True):
            if name == SectionsArtefact.stage:
                artefact: Artefact = await self._sections(job, rfc, work, partial)
            else:
                artefact = await self._plain_stage(name, work)
        seconds = time.perf_counter() - began
        duration_ms = round(seconds * 1000)
        await self._rfcs.save_stage(rfc.id, name, artefact.to_dict(), _model(artefact), duration_ms)
        work.artefacts[name] = artefact
        self._meter.observe("ai_assistant_rfc_stage_seconds", seconds, stage=name)
        await self._event(
            job, "stage", stage=name, status="done", duration_ms=duration_ms, **_figures(artefact)
        )

    async def _plain_stage(self, name: str, work: Work) -> Artefact:
        match name:
            case BriefStage.name:
                return await BriefStage().run(work)
            case QuestionsStage.name:
                return await QuestionsStage().run(work)
            case EvidenceStage.name:
                return await EvidenceStage().run(work)
            case OutlineStage.name:
                return await OutlineStage().run(work)
            case ChecksStage.name:
                return await ChecksStage().run(work)
            case _:
                return await RenderStage().run(work)

    async def _sections(
        self, job: Job, rfc: RfcRecord, work: Work, partial: StageRecord | None
    ) -> SectionsArtefact:
        numbering = Numbering(work.of(EvidenceArtefact).by_id())
        earlier = SectionsArtefact.from_dict(partial.artefact) if partial else None
        for draft in earlier.sections if earlier else ():
            section_markdown(draft, numbering)

        async def report(so_far: SectionsArtefact) -> None:
            draft = so_far.sections[-1]
            await self._rfcs.save_stage(rfc.id, so_far.stage, so_far.to_dict(), _model(so_far), None)
            if draft.blocks:
                await self._event(
                    job,
                    "section",
                    index=len(so_far.sections) - 1,
                    title=draft.title,
                    markdown=section_markdown(draft, numbering),
                )

        return await SectionsStage().run(work, report, earlier)

    async def _finish(self, job: Job, rfc: RfcRecord, work: Work) -> None:
        rendered = work.of(RenderArtefact)
        uses = [work.of(QuestionsArtefact).use, *(s.use for s in work.of(SectionsArtefact).sections)]
        called = [u for u in uses if u.calls]
        tokens = [u.tokens for u in called]
        stages = await self._rfcs.stages(rfc.id)
        await self._rfcs.finish(
            rfc.id,
            rendered.markdown,
            rendered.citations,
            next((u.model for u in called), None),
            None if None in tokens else sum(t for t in tokens if t is not None),
            None,
            sum(s.duration_ms or 0 for s in stages.values()),
        )
        await self._event(job, "done", rfc_id=str(rfc.id))
        await self._jobs.finish(job.id, str(job.worker), "done")

    async def _failed(self, job: Job, rfc_id: UUID | None, error: AssistantError) -> None:
        log.error("rfc_ended", job_id=str(job.id), rfc_id=str(rfc_id), code=error.code, detail=error.detail)
        if rfc_id is not None:
            await self._rfcs.fail(rfc_id, str(error))
        await self._event(job, "error", problem=error.problem())
        await self._jobs.finish(job.id, str(job.worker), "failed", str(error))

    async def _later(self, job: Job, error: AssistantError) -> None:
        """Give the job back: its lease becomes short, and whoever claims it then goes on."""
        delay_s = min(RETRY_S * 2 ** (job.attempts - 1), self._settings.rfc.lease_s)
        log.warning("rfc_retry", job_id=str(job.id), attempt=job.attempts, in_s=delay_s, code=error.code)
        await self._event(job, "retry", in_s=delay_s, attempt=job.attempts, problem=error.problem())
        await self._jobs.renew(job.id, str(job.worker), delay_s)

    async def _stopped(self, job: Job, rfc_id: UUID | None) -> None:
        now = await self._jobs.get(job.id)
        if now is None or now.status != "cancelled":
            log.warning("rfc_lease_lost", job_id=str(job.id), worker=job.worker)
            return
        if rfc_id is not None:
            await self._rfcs.cancel(rfc_id)
        problem = {
            "type": "urn:ai-assistant:problem:cancelled",
            "title": "cancelled",
            "status": 409,
            "code": "cancelled",
        }
        await self._event(
            job, "error", problem={**problem, "detail": "The draft was cancelled.", "retryable": False}
        )

    async def _still_ours(self, job: Job) -> None:
        if not await self._jobs.renew(job.id, str(job.worker), self._settings.rfc.lease_s):
            raise Stopped

    @asynccontextmanager
    async def _lease(self, job: Job) -> AsyncIterator[None]:
        """Renew the lease while the body works. A lost lease is noticed at the next stage."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._settings.rfc.lease_s / 3)
                try:
                    if not await self._jobs.renew(job.id, str(job.worker), self._settings.rfc.lease_s):
                        return
                except AssistantError as error:
                    log.warning("rfc_lease_not_renewed", job_id=str(job.id), code=error.code)

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _event(self, job: Job, kind: str, **data: Any) -> None:
        await self._jobs.append_event(job.id, kind, data)


def _rfc_id(job: Job) -> UUID:
    try:
        return UUID(str(job.payload["rfc_id"]))
    except (KeyError, ValueError):
        raise ConfigurationError(f"The job {job.id} names no RFC: its payload needs `rfc_id`.") from None


def _load(name: str, record: StageRecord | None) -> Artefact | None:
    """The artefact of a finished stage. One that an older program wrote otherwise is made again."""
    if record is None:
        return None
    try:
        artefact = ARTEFACTS[name].from_dict(record.artefact)
    except ValueError:
        log.warning("rfc_artefact_unreadable", stage=name)
        return None
    return None if isinstance(artefact, SectionsArtefact) and not artefact.complete else artefact


def _model(artefact: Artefact) -> str | None:
    uses: list[ModelUse] = []
    if isinstance(artefact, QuestionsArtefact):
        uses = [artefact.use]
    elif isinstance(artefact, SectionsArtefact):
        uses = [s.use for s in artefact.sections]
    return next((u.model for u in uses if u.model), None)


def _figures(artefact: Artefact) -> dict[str, Any]:
    """A few numbers for whoever watches."""
    match artefact:
        case BriefArtefact():
            return {"sentences": len(artefact.sentences) - 1}
        case QuestionsArtefact():
            return {"open": len(artefact.open()), "questions": [q.text for q in artefact.open()]}
        case EvidenceArtefact():
            return {"passages": len(artefact.passages), "searches": artefact.searches}
        case OutlineArtefact():
            return {"sections": [s.title for s in artefact.kept()]}
        case ChecksArtefact():
            return {"dropped": len(artefact.dropped), "open_points": len(artefact.open_points)}
        case RenderArtefact():
            return {"citations": len(artefact.citations)}
        case _:
            return {}
