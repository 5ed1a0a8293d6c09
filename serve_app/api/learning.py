"""/api/v1/learning: what was learned from, what is missing until the next run, and the runs."""

import asyncio
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Response, status

from assistant.clock import now
from assistant.errors import AssistantError, Conflict, Forbidden, NotFound
from assistant.learning.triggers import Trigger
from assistant.stores.jobs import Job
from assistant.types import Principal
from serve_app.api import sse
from serve_app.api.auth import Caller, Context, Graph
from serve_app.api.errors import problem
from serve_app.api.job_events import job_events, seq_of
from serve_app.api.knowledge import Limit
from serve_app.api.learning_schemas import (
    ExampleCounts,
    ExampleItem,
    ExamplePage,
    FeedbackCounts,
    LearningStats,
    NextRun,
    RunAccepted,
    RunItem,
    RunLinks,
    RunPage,
)
from serve_app.api.services import Services

ADMINS = "admins"
SHOWN_RUNS = 5

router = APIRouter(prefix="/api/v1/learning", tags=["Learning"])


@router.get("/stats", summary="Feedback, examples, and what is missing until the next run")
async def stats(graph: Graph, caller: Caller) -> LearningStats:
    learning, settings = graph.learning, graph.settings.learning
    feedback, examples, history, alive, runs = await asyncio.gather(
        learning.feedback.stats(),
        learning.examples.stats(settings.min_quality),
        learning.runs.history(),
        learning.runs.alive(),
        learning.runs.page(None, SHOWN_RUNS),
    )
    new, oldest = await asyncio.gather(
        learning.examples.new_since(history.learned_at, settings.min_quality),
        learning.examples.oldest_new(history.learned_at, settings.min_quality),
    )
    since = history.last_at or oldest
    uri = graph.settings.mlflow.tracking_uri
    return LearningStats(
        feedback=FeedbackCounts.model_validate(feedback),
        examples=ExampleCounts.model_validate(examples),
        next_run=NextRun(
            automatic=settings.automatic,
            new_examples=new,
            needed=settings.min_new_examples,
            missing=max(0, settings.min_new_examples - new),
            due=Trigger.due(new, since, now(), settings, failed_at=history.failed_at),
            due_at=Trigger.next_at(new, since, settings, failed_at=history.failed_at),
            running=alive.job.id if alive else None,
            last_run_at=history.last_at,
        ),
        mlflow_url=uri if uri is not None and uri.startswith(("http://", "https://")) else None,
        runs=await _items(graph, runs.items),
    )


@router.get("/examples", summary="Examples whose evidence the caller may see in full, newest ids first")
async def examples(
    graph: Graph, caller: Caller, cursor: UUID | None = None, limit: Limit = 20
) -> ExamplePage:
    page = await graph.learning.examples.page(caller.acl_terms(), cursor, limit)
    return ExamplePage(items=[ExampleItem.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/runs", summary="Learning runs, newest first")
async def runs(graph: Graph, caller: Caller, cursor: UUID | None = None, limit: Limit = 20) -> RunPage:
    page = await graph.learning.runs.page(cursor, limit)
    return RunPage(items=await _items(graph, page.items), next_cursor=page.next_cursor)


@router.post("/runs", status_code=status.HTTP_202_ACCEPTED, summary="Start a learning run")
async def start(graph: Graph, context: Context, response: Response) -> RunAccepted:
    """The Scheduler starts its process within seconds. One run at a time; the group `admins` may start it."""
    require_admin(graph, context.principal)
    payload = {
        "reason": f"asked for by {context.principal.id}",
        "principal_id": context.principal.id,
        "request_id": context.request_id,
    }
    job, new = await graph.learning.runs.start(payload)
    if not new:
        raise Conflict(
            f"The learning run {job.id} is {job.status} already.",
            hint="Follow it, or wait until it has ended.",
            id=str(job.id),
        )
    await graph.learning.wake()
    links = _links(job.id)
    response.headers["location"] = links.self
    return RunAccepted(id=job.id, status=job.status, links=links)


@router.get("/runs/{run_id}", summary="One run with its steps")
async def run(run_id: UUID, graph: Graph, caller: Caller) -> RunItem:
    return (await _items(graph, [await _run(graph, run_id)]))[0]


@router.get("/runs/{run_id}/events", summary="Steps as server-sent events", response_model=None)
async def events(
    run_id: UUID,
    graph: Graph,
    context: Context,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """`step` and whatever else the run tells, then `done` or `error`. Reconnecting with Last-Event-ID goes on
    from there; after the last event the answer is 204."""
    after = seq_of(last_event_id)
    job = await _run(graph, run_id)
    if after and job.finished and not await graph.jobs.events_after(job.id, after, 1):
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    def failed(error: AssistantError) -> bytes:
        return sse.event({"problem": problem(error, context.request_id)}, name="error")

    return await sse.open_stream(job_events(graph.jobs, job, after, _ended), failed)


def require_admin(graph: Services, principal: Principal) -> None:
    """Raises Forbidden for callers who may look but not act. Without authentication there is one person."""
    if graph.settings.security.auth != "none" and ADMINS not in principal.groups:
        raise Forbidden(
            "Only members of the group `admins` may do this.",
            hint="`ai-assistant keys create --group admins` makes a key that may.",
        )


async def _run(graph: Services, run_id: UUID) -> Job:
    job = await graph.learning.runs.get(run_id)
    if job is None:
        raise NotFound(f"There is no learning run {run_id}.")
    return job


async def _items(graph: Services, jobs: Sequence[Job]) -> list[RunItem]:
    steps = await graph.learning.runs.steps([job.id for job in jobs])
    return [RunItem.of(job, steps[job.id]) for job in jobs]


def _ended(job: Job | None) -> bytes:
    """The end of a run whose process wrote none itself, such as one that died for good."""
    if job is not None and job.status == "done":
        return sse.event({"status": job.status}, name="done")
    state = job.status if job else "gone"
    error = job.error if job else None
    return sse.event(
        {"problem": Conflict(error or f"The learning run is {state}.", state=state).problem()}, name="error"
    )


def _links(run_id: UUID) -> RunLinks:
    return RunLinks(self=f"/api/v1/learning/runs/{run_id}", events=f"/api/v1/learning/runs/{run_id}/events")
