"""The HTTP contract of the product with canned answers, so that the page can be worked on and tested alone.

    python -m tests.browser.stub --port 8010

`Stub` is the switchboard of a test: it makes calls fail, and holds streams until the test lets them go on.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import uvicorn
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from assistant.errors import AssistantError, Conflict, InvalidInput, NotFound, StoreUnavailable
from assistant.markup import render_html
from assistant.types import Citation, Hit
from serve_app.api.middleware import SECURITY_HEADERS
from tests.browser import stub_data as data
from tests.browser.stub_learning import ROUTES as LEARNING_ROUTES
from tests.browser.stub_learning import Learning

WEB = Path(__file__).resolve().parents[2] / "serve_app" / "web"
STATES = {True: "done", False: "pending"}
FIGURES: dict[str, dict[str, Any]] = {
    "brief": {"sentences": 6},
    "questions": {"open": 1, "questions": ["Which measurement shows that it works?"]},
    "evidence": {"passages": 18, "searches": 9},
    "outline": {"sections": [title for title, _ in data.SECTIONS]},
    "checks": {"dropped": 2, "open_points": 1},
    "render": {"citations": 4},
}
STAGES = ("brief", "questions", "evidence", "outline", "sections", "checks", "render")
LIVE = ("queued", "running")

_hits = TypeAdapter(list[Hit])
_citations = TypeAdapter(list[Citation])


def as_json(hits: list[Hit]) -> list[dict[str, Any]]:
    dumped: list[dict[str, Any]] = _hits.dump_python(hits, mode="json")
    return dumped


@dataclass
class Rfc:
    id: str
    title: str
    brief: str
    template: str
    created_at: str
    status: str = "queued"
    stages: dict[str, int] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    error: str | None = None
    task: asyncio.Task[None] | None = None

    def markdown(self) -> str:
        body = "\n\n".join(f"## {title}\n\n{text}" for title, text in data.SECTIONS)
        return f"# {self.title}\n\n{body}\n"

    def public(self) -> dict[str, Any]:
        done = self.status == "done"
        cited = data.citations(*data.RFC_SOURCES)
        return {
            "id": self.id,
            "title": self.title,
            "brief": self.brief,
            "template": self.template,
            "status": self.status,
            "stages": [
                {"stage": s, "status": STATES[s in self.stages], "duration_ms": self.stages.get(s)}
                for s in STAGES
            ],
            "markdown": self.markdown() if done else "",
            "html": render_html(self.markdown(), cited) if done else "",
            "citations": _citations.dump_python(list(cited), mode="json") if done else [],
            "error": self.error,
            "model": "smollm2-135m-instruct" if done else None,
            "tokens_used": 1184 if done else None,
            "generation_time_ms": sum(self.stages.values()) if done else None,
            "created_at": self.created_at,
        }


@dataclass
class Stub:
    """What a test may turn: times in seconds, `failures` by path prefix, `hold` by name of the place."""

    token_s: float = 0.002
    stage_s: float = 0.02
    failures: dict[str, AssistantError] = field(default_factory=dict)
    health_status: str = "ok"
    hold: set[str] = field(default_factory=set)
    rfcs: dict[str, Rfc] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, Any] | None]] = field(default_factory=list)
    """Method, path and JSON body of every call to the API."""
    event_cuts: int = 0
    """How many event streams still break off after each event."""
    stream_errors: int = 0
    """How many event streams still end with an error of their own while the draft goes on."""
    resumed_after: list[str] = field(default_factory=list)
    """The Last-Event-ID of every event stream, empty for those from the start."""
    required_key: str | None = None
    learning: Learning = field(default_factory=Learning)

    async def pass_gate(self, place: str) -> None:
        # The test thread turns `hold`; an asyncio.Event belongs to the thread of its loop.
        while place in self.hold:
            await asyncio.sleep(0.01)


def stub_of(request: Request) -> Stub:
    stub: Stub = request.app.state.stub
    return stub


def problem(error: AssistantError, request_id: str) -> JSONResponse:
    return JSONResponse(
        error.problem() | {"instance": f"urn:ai-assistant:request:{request_id}"},
        error.status,
        media_type="application/problem+json",
    )


async def contract(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Request ids, the content policy, and the failures that a test asked for."""
    request_id = str(uuid4())
    stub = stub_of(request)
    path = request.url.path
    if path.startswith(("/api/", "/v1/")):
        body = await request.body() if request.method == "POST" else b""
        stub.requests.append((request.method, path, json.loads(body) if body else None))
    failure = next((e for prefix, e in stub.failures.items() if path.startswith(prefix)), None)
    if failure:
        response: Response = problem(failure, request_id)
    else:
        response = await call(request)
    response.headers["x-request-id"] = request_id
    response.headers.update(SECURITY_HEADERS)
    return response


async def failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, AssistantError)
    return problem(error, str(uuid4()))


async def page(request: Request) -> Response:
    return FileResponse(WEB / "index.html")


async def health(request: Request) -> Response:
    stub = stub_of(request)
    broken = stub.health_status != "ok"
    checks = {
        "postgres": {"state": "ready", "latency_ms": 0.8, "detail": "PostgreSQL 18.6"},
        "qdrant": {
            "state": "down" if broken else "ready",
            "latency_ms": None if broken else 2.1,
            "detail": "connection refused" if broken else "search_sources: 11,204 points",
        },
        "mlflow": {"state": "ready", "latency_ms": 6.4, "detail": "3.17"},
        "retriever": {"state": "ready", "latency_ms": 3.2, "detail": "all-MiniLM-L6-v2"},
        "writer": {"state": "ready", "latency_ms": 2.8, "detail": "no draft waits"},
        "smollm2-135m-instruct": {"state": "ready", "latency_ms": 1.9, "detail": "llama.cpp, 4 slots"},
    }
    body = {
        "status": stub.health_status,
        "version": "0.1.0",
        "uptime_s": 93784,
        "checks": checks,
        "models": [
            {
                "name": name,
                "engine": engine,
                "state": "ready",
                "writing": "extractive",
                "context_tokens": 8192,
            }
            for name, engine in (("smollm2-135m-instruct", "llama_cpp"), ("broken", "scripted"))
        ],
        "counts": {"documents": 1642, "chunks": 11204, "sources": 3},
    }
    return JSONResponse(body, 503 if broken else 200)


async def search(request: Request) -> Response:
    body = await request.json()
    await stub_of(request).pass_gate("search")
    query = body.get("query", "")
    if not query:
        raise InvalidInput("The query is empty.", field="query", hint="Type what you are looking for.")
    hits = [] if query == "nothing" else list(data.HITS)
    if "hostile" in query:
        hits.insert(0, data.HOSTILE)
    if wanted := body.get("filters", {}).get("source_type"):
        hits = [hit for hit in hits if hit.source_type in wanted]
    found = as_json(hits[: body.get("limit", 10)])
    timings = {"embed": 11.2, "search": 21.7, "fetch": 4.0}
    return JSONResponse({"query_id": str(uuid4()), "hits": found, "took_ms": 38.4, "timings_ms": timings})


async def chunk(request: Request) -> Response:
    try:
        hit = data.ALL_HITS[UUID(request.path_params["id"])]
    except (KeyError, ValueError):
        raise NotFound("There is no such passage, or you may not read it.") from None
    around = [data.HOSTILE_TEXT] if hit is data.HOSTILE else [data.BEFORE]
    return JSONResponse({"hit": as_json([hit])[0], "before": around, "after": [data.AFTER]})


async def sources(request: Request) -> Response:
    kinds = {hit.source: hit.source_type for hit in data.HITS}
    return JSONResponse(
        {"items": [{"name": n, "source_type": t, "kind": "folder"} for n, t in kinds.items()]}
    )


async def models(request: Request) -> Response:
    return JSONResponse(
        {"object": "list", "data": [{"id": m, "object": "model", "owned_by": "local"} for m in data.MODELS]}
    )


async def chat(request: Request) -> Response:
    stub = stub_of(request)
    if stub.required_key and request.headers.get("authorization") != f"Bearer {stub.required_key}":
        error = AssistantError("An API key is needed.", hint="Enter one below.")
        error.status = 401
        raise error
    body = await request.json()
    question = body["messages"][-1]["content"]
    model = body["model"]
    hits: tuple[Hit, ...] = (data.VOLUME, data.RESIZE, data.REBALANCE)
    text = data.ANSWER
    if "hostile" in question:
        text, hits = data.HOSTILE_ANSWER, (data.HOSTILE,)
    elif "unknown" in question:
        text, hits = data.NOTHING, ()
    return StreamingResponse(_chat(stub, model, text, hits), media_type="text/event-stream")


async def _chat(stub: Stub, model: str, text: str, hits: tuple[Hit, ...]) -> AsyncIterator[str]:
    def chunk_of(delta: Mapping[str, Any], **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
        body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
        return f"data: {json.dumps(body | more)}\n\n"

    yield chunk_of({"role": "assistant", "content": ""})
    words = text.split(" ")
    for n, word in enumerate(words):
        if n == 6:
            await stub.pass_gate("chat")
            if model == "broken":
                problem = {"message": "The model stopped answering.", "code": "backend_failed"}
                yield f"data: {json.dumps({'error': problem})}\n\n"
                return
        await asyncio.sleep(stub.token_s)
        yield chunk_of({"content": word + (" " if n < len(words) - 1 else "")})
    cited = data.citations(*hits)
    extra: dict[str, Any] = {"usage": {"prompt_tokens": 812, "completion_tokens": len(words)}}
    if model == "assistant":
        extra["assistant"] = {
            "id": str(uuid4()),
            "citations": _citations.dump_python(list(cited), mode="json"),
            "html": render_html(text, cited),
            "grounded": bool(hits),
            "extractive": bool(hits),
            "model": "smollm2-135m-instruct",
        }
    yield chunk_of({}, finish_reason="stop", **extra)
    yield "data: [DONE]\n\n"


async def write(stub: Stub, rfc: Rfc) -> None:
    """Play the pipeline: stages with times, sections one by one."""
    rfc.status = "running"
    for n, stage in enumerate(STAGES):
        rfc.events.append(("stage", {"stage": stage, "status": "started"}))
        await asyncio.sleep(stub.stage_s)
        if stage == "sections":
            for index, (title, text) in enumerate(data.SECTIONS):
                section = {"index": index, "title": title, "markdown": f"## {title}\n\n{text}"}
                rfc.events.append(("section", section))
                await asyncio.sleep(stub.stage_s)
                await stub.pass_gate(f"section {index}")
        await stub.pass_gate(stage)
        rfc.stages[stage] = 180 + 410 * n
        done = {"stage": stage, "status": "done", "duration_ms": rfc.stages[stage], **FIGURES.get(stage, {})}
        rfc.events.append(("stage", done))
        if rfc.title == "stumbles" and stage == "evidence":
            away = StoreUnavailable("Qdrant does not answer.").problem()
            rfc.events.append(("retry", {"in_s": 5, "attempt": 1, "problem": away}))
            await stub.pass_gate("retry")
        if rfc.title == "fails" and stage == "evidence":
            error = AssistantError("Qdrant does not answer.", hint="Look at Health.").problem()
            rfc.error, rfc.status = "Qdrant does not answer.", "failed"
            rfc.events.append(("error", {"problem": error}))
            return
    rfc.status = "done"
    rfc.events.append(("done", {"rfc_id": rfc.id}))


async def create_rfc(request: Request) -> Response:
    body = await request.json()
    if len(body["title"]) > 120:
        raise InvalidInput("The title is longer than 120 characters.", field="title", hint="Make it shorter.")
    stub = stub_of(request)
    now = datetime.now(UTC).isoformat()
    rfc = Rfc(str(uuid4()), body["title"], body["brief"], body["template"], now)
    stub.rfcs[rfc.id] = rfc
    rfc.task = asyncio.create_task(write(stub, rfc))
    links = {"self": f"/api/v1/rfc/{rfc.id}", "events": f"/api/v1/rfc/{rfc.id}/events"}
    return JSONResponse({"id": rfc.id, "job_id": str(uuid4()), "status": "queued", "links": links}, 202)


def rfc_of(request: Request) -> Rfc:
    rfc = stub_of(request).rfcs.get(request.path_params["id"])
    if rfc is None:
        raise NotFound("There is no such RFC.", hint="It may have been drafted by somebody else.")
    return rfc


async def list_rfcs(request: Request) -> Response:
    rfcs = sorted(stub_of(request).rfcs.values(), key=lambda r: r.created_at, reverse=True)
    short = [{k: r.public()[k] for k in ("id", "title", "template", "status", "created_at")} for r in rfcs]
    return JSONResponse({"items": short, "next_cursor": None})


async def get_rfc(request: Request) -> Response:
    return JSONResponse(rfc_of(request).public())


async def cancel_rfc(request: Request) -> Response:
    rfc = rfc_of(request)
    if rfc.task:
        rfc.task.cancel()
    rfc.status = "cancelled"
    return JSONResponse({"id": rfc.id, "status": rfc.status}, 202)


async def export_rfc(request: Request) -> Response:
    return PlainTextResponse(rfc_of(request).markdown(), media_type="text/markdown")


async def rfc_events(request: Request) -> Response:
    stub = stub_of(request)
    rfc = rfc_of(request)
    last = request.headers.get("last-event-id", "")
    stub.resumed_after.append(last)

    async def events() -> AsyncIterator[str]:
        at = int(last or 0)
        yield ": hello\n\n"
        while True:
            while at < len(rfc.events):
                kind, body = rfc.events[at]
                at += 1
                yield f"id: {at}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"
                if kind in ("done", "error"):
                    return
                if stub.event_cuts:
                    stub.event_cuts -= 1
                    return
            if rfc.status not in LIVE:
                ended = Conflict(f"The draft is {rfc.status}.").problem()
                yield f"event: error\ndata: {json.dumps({'problem': ended})}\n\n"
                return
            if stub.stream_errors:
                stub.stream_errors -= 1
                away = StoreUnavailable("Postgres does not answer.").problem()
                yield f"event: error\ndata: {json.dumps({'problem': away})}\n\n"
                return
            await asyncio.sleep(0.01)

    return StreamingResponse(events(), media_type="text/event-stream")


async def templates(request: Request) -> Response:
    about = "Propose something that does not exist yet: why it is needed, what it does, how it is built."
    return JSONResponse({"items": [{"name": "new_feature", "title": "New feature", "description": about}]})


def create_app(stub: Stub | None = None) -> Starlette:
    rfc = "/api/v1/rfc"
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/health", health),
            Route("/api/v1/search", search, methods=["POST"]),
            Route("/api/v1/chunks/{id}", chunk),
            Route("/api/v1/sources", sources),
            Route("/v1/models", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route(rfc, create_rfc, methods=["POST"]),
            Route(rfc, list_rfcs),
            Route(f"{rfc}/templates", templates),
            Route(f"{rfc}/{{id}}", get_rfc),
            Route(f"{rfc}/{{id}}/events", rfc_events),
            Route(f"{rfc}/{{id}}/cancel", cancel_rfc, methods=["POST"]),
            Route(f"{rfc}/{{id}}/export", export_rfc),
            *LEARNING_ROUTES,
            Mount("/static", StaticFiles(directory=WEB)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=contract)],
        exception_handlers={AssistantError: failed},
    )
    app.state.stub = stub or Stub()
    return app


def with_history(stub: Stub) -> Stub:
    """Some earlier drafts, runs and adapters, for pictures."""
    drafts = (("Single sign-on for internal dashboards", 3), ("Rate limits per tenant at the edge", 26))
    for title, hours in drafts:
        made = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        stages = dict.fromkeys(STAGES, 240)
        rfc = Rfc(str(uuid4()), title, "", "new_feature", made, "done", stages)
        stub.rfcs[rfc.id] = rfc
    stub.learning.with_history()
    return stub


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8010)
    app = create_app(with_history(Stub(token_s=0.03, stage_s=0.7)))
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning")
