"""Writer: drafts RFCs. Its work comes from the jobs table, so a killed Writer loses nothing."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import structlog
from ray.serve.handle import DeploymentHandle

from assistant import tracing
from assistant.clock import epoch_s
from assistant.errors import Unavailable
from assistant.llm.catalog import Catalog
from assistant.rfc.pipeline import RfcPipeline
from assistant.settings import Settings
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.llm_metrics import LlmMetricLog
from assistant.stores.postgres import Database
from assistant.stores.rfcs import JOB_KIND, RfcRepository
from assistant.telemetry import configure_logging
from assistant.tracing import configure_tracing
from assistant.types import Principal, RequestContext
from serve_app.closing import Closing
from serve_app.handles import RetrieverHandle
from serve_app.job_loop import JobLoop
from serve_app.metrics import RayMeter
from serve_app.models import open_models

JOB_TIME_S = 24 * 3600.0
"""A draft has no caller who waits; each call inside has limits of its own."""


class Writer(Closing):
    """Behind the handle: `notify` and `health`."""

    async def __init__(  # type: ignore[misc]
        self,
        settings: Settings,
        catalog: Catalog,
        retriever: DeploymentHandle,
        llms: Mapping[str, DeploymentHandle],
    ) -> None:
        configure_tracing(settings.telemetry, "writer")
        configure_logging(settings.telemetry, "writer")
        meter = RayMeter()
        self._database = Database(settings.postgres)
        await self._database.open()
        self._metrics = LlmMetricLog(self._database, meter)
        jobs = JobRepository(self._database)
        self._pipeline = RfcPipeline(
            RetrieverHandle(retriever, settings),
            open_models(catalog, llms, settings, meter, self._metrics),
            RfcRepository(self._database),
            jobs,
            settings,
            meter,
        )
        self._loop = JobLoop(
            jobs,
            JOB_KIND,
            f"writer-{uuid4()}",
            self._draft,
            lease_s=settings.rfc.lease_s,
            at_once=settings.serve.writer_jobs,
        )
        self._loop.start()
        self._open = True

    async def notify(self) -> None:
        """There may be a job: do not wait for the next look."""
        self._loop.notify()

    async def health(self) -> Mapping[str, Any]:
        return {"running": self._loop.running}

    async def check_health(self) -> None:
        """Raises when nobody looks for jobs any more."""
        if not self._loop.alive:
            raise Unavailable("The Writer has stopped looking for jobs.")

    async def close(self) -> None:
        await self._loop.stop()
        await self._metrics.close()
        await self._database.close()

    async def _draft(self, job: Job) -> None:
        request_id = str(job.payload.get("request_id") or job.id)
        asked = job.payload.get("traceparent")
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id, job_id=str(job.id)),
            tracing.span(
                "rfc.draft",
                kind="consumer",
                parent=asked,
                ai_assistant__job_id=str(job.id),
                ai_assistant__attempt=job.attempts,
            ),
        ):
            context = RequestContext(
                request_id, principal_of(job), epoch_s() + JOB_TIME_S, traceparent=tracing.traceparent()
            )
            await self._pipeline.run(job, context)


def principal_of(job: Job) -> Principal:
    """Who asked for the job: it sees what they may see, no more."""
    stored = job.payload.get("principal") or {}
    return Principal(
        str(stored.get("id", "local")), stored.get("kind", "anonymous"), tuple(stored.get("groups", ()))
    )
