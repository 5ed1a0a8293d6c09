"""/api/v1/rfc: drafts are jobs. Creating one answers 202; events tell how far it is, from any point on."""

import asyncio
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Header, Response, status

from assistant.errors import AssistantError, Conflict, NotFound
from assistant.markup import render_html
from assistant.rfc.artefacts import STAGES
from assistant.rfc.export import export_markdown
from assistant.rfc.templates import template, templates
from assistant.stores.jobs import Job
from assistant.stores.rfcs import RfcRecord, StageRecord
from assistant.types import Principal
from serve_app.api import sse
from serve_app.api.auth import Caller, Context, Graph
from serve_app.api.errors import problem
from serve_app.api.job_events import job_events, seq_of
from serve_app.api.knowledge import Limit
from serve_app.api.schemas import (
    RfcAccepted,
    RfcAnswer,
    RfcBody,
    RfcLinks,
    RfcPage,
    RfcStage,
    RfcSummary,
    TemplateItem,
    TemplateList,
)
from serve_app.api.services import Services

MAX_KEY = 200

router = APIRouter(prefix="/api/v1/rfc", tags=["RFC"])


@router.post("", status_code=status.HTTP_202_ACCEPTED, summary="Draft an RFC")
async def create(
    body: RfcBody,
    graph: Graph,
    context: Context,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=MAX_KEY)] = None,
) -> RfcAccepted:
    principal = context.principal
    template(body.template)
    rfc = await graph.rfcs.submit(
        body.title,
        body.brief,
        body.template,
        principal.id,
        owned_by(principal),
        body.answers,
        payload={
            "principal": principal_json(principal),
            "request_id": context.request_id,
            "traceparent": context.traceparent,
        },
        idempotency_key=f"{principal.id}:{idempotency_key}" if idempotency_key else None,
    )
    if rfc.title != " ".join(body.title.split()) or rfc.brief != body.brief or rfc.template != body.template:
        raise Conflict(
            "This Idempotency-Key was used for another RFC.",
            hint="Use a new key for a new request.",
            id=str(rfc.id),
        )
    await graph.writing.notify()
    links = _links(rfc.id)
    response.headers["location"] = links.self
    return RfcAccepted(id=rfc.id, job_id=rfc.job_id, status=rfc.status, links=links)


@router.get("", summary="The caller's RFCs, newest first")
async def page(graph: Graph, caller: Caller, cursor: UUID | None = None, limit: Limit = 20) -> RfcPage:
    found = await graph.rfcs.page(caller.acl_terms(), cursor, limit)
    return RfcPage(items=[_summary(r) for r in found.items], next_cursor=found.next_cursor)


@router.get("/templates", summary="The templates")
async def list_templates(caller: Caller) -> TemplateList:
    return TemplateList(
        items=[
            TemplateItem(
                name=t.name, title=t.title, description=t.description, sections=[s.title for s in t.sections]
            )
            for t in templates()
        ]
    )


@router.get("/{rfc_id}", summary="One RFC with its stages and citations")
async def get(rfc_id: UUID, graph: Graph, caller: Caller) -> RfcAnswer:
    rfc = await _rfc(graph, rfc_id, caller)
    stages, citations = await asyncio.gather(graph.rfcs.stages(rfc_id), graph.rfcs.citations(rfc_id))
    return RfcAnswer(
        **_summary(rfc).model_dump(),
        brief=rfc.brief,
        answers=rfc.answers,
        stages=_stages(rfc, stages),
        markdown=rfc.content_markdown,
        html=render_html(rfc.content_markdown, citations),
        citations=citations,
        model=rfc.llm_provider,
        tokens_used=rfc.tokens_used,
        generation_time_ms=rfc.generation_time_ms,
    )


@router.get("/{rfc_id}/export", summary="The RFC as a Markdown file", response_model=None)
async def export(rfc_id: UUID, graph: Graph, caller: Caller, format: Literal["md"] = "md") -> Response:  # noqa: A002
    rfc = await _rfc(graph, rfc_id, caller)
    if rfc.status != "done":
        raise Conflict(f"The RFC is {rfc.status}, not done.", hint="Follow its events and try again.")
    name = quote(f"{rfc.title[:80]}.{format}", safe=" ")
    return Response(
        export_markdown(rfc.content_markdown, await graph.rfcs.citations(rfc_id)),
        media_type="text/markdown; charset=utf-8",
        headers={"content-disposition": f"attachment; filename=\"rfc.{format}\"; filename*=UTF-8''{name}"},
    )


@router.post("/{rfc_id}/cancel", summary="Stop drafting")
async def cancel(rfc_id: UUID, graph: Graph, caller: Caller) -> RfcSummary:
    rfc = await _rfc(graph, rfc_id, caller)
    if rfc.job_id is None or not await graph.jobs.cancel(rfc.job_id):
        raise Conflict(f"The RFC is {rfc.status} already.", hint="Only a draft in work can be cancelled.")
    await graph.rfcs.cancel(rfc_id)
    return _summary(await _rfc(graph, rfc_id, caller))


@router.get("/{rfc_id}/events", summary="Progress as server-sent events", response_model=None)
async def events(
    rfc_id: UUID,
    graph: Graph,
    context: Context,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """`stage`, `section`, `retry`, then `done` or `error`. Reconnecting with Last-Event-ID goes on from there;
    after the last event the answer is 204, which tells browsers to stop."""
    after = seq_of(last_event_id)
    rfc = await _rfc(graph, rfc_id, context.principal)
    job = await graph.jobs.get(rfc.job_id) if rfc.job_id else None
    if job is None:
        raise NotFound(f"The RFC {rfc_id} has no job.")
    if after and job.finished and not await graph.jobs.events_after(job.id, after, 1):
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    def failed(error: AssistantError) -> bytes:
        return sse.event({"problem": problem(error, context.request_id)}, name="error")

    return await sse.open_stream(job_events(graph.jobs, job, after, _ended), failed)


def _ended(job: Job | None) -> bytes:
    """What to tell of a job that ended without a word, such as one cancelled while it was queued."""
    state = job.status if job else "gone"
    return sse.event({"problem": Conflict(f"The draft is {state}.", state=state).problem()}, name="error")


async def _rfc(graph: Services, rfc_id: UUID, caller: Principal) -> RfcRecord:
    rfc = await graph.rfcs.get(rfc_id, caller.acl_terms())
    if rfc is None:
        raise NotFound(f"There is no RFC {rfc_id} that you may read.")
    return rfc


def owned_by(principal: Principal) -> tuple[str, ...]:
    """Who may read a draft: its author alone, since it may quote what only the author may read."""
    if principal.kind == "anonymous":
        return principal.acl_terms()[:1]
    return (f"user:{principal.id}",)


def principal_json(principal: Principal) -> dict[str, Any]:
    return {"id": principal.id, "kind": principal.kind, "groups": list(principal.groups)}


def _summary(rfc: RfcRecord) -> RfcSummary:
    return RfcSummary.model_validate(rfc, from_attributes=True)


def _links(rfc_id: UUID) -> RfcLinks:
    return RfcLinks(self=f"/api/v1/rfc/{rfc_id}", events=f"/api/v1/rfc/{rfc_id}/events")


def _stages(rfc: RfcRecord, done: dict[str, StageRecord]) -> list[RfcStage]:
    stages = []
    running = rfc.status == "running"
    for name in STAGES:
        record = done.get(name)
        # A stage without a duration is only half stored: its work goes on.
        if record is not None and record.duration_ms is not None:
            stages.append(RfcStage(stage=name, status="done", duration_ms=record.duration_ms))
            continue
        stages.append(RfcStage(stage=name, status="started" if running else "pending"))
        running = False
    return stages
