"""A trace goes from the HTTP request over the handles to what answers it."""

from collections.abc import Callable

import pytest
from opentelemetry import trace

from assistant import tracing
from assistant.clock import epoch_s
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest, Message, Piece
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.types import Principal, RequestContext, Usage
from serve_app.handles import HandleBackend
from tests.serve_app.conftest import Bench, make_hit
from tests.serve_app.test_handles import FakeHandle, retriever
from tests.tracing import traced

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ME = Principal("local", "anonymous")
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_request_continues_the_callers_trace(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with traced() as spans:
        async with bench.client(traceparent=PARENT) as client:
            done = await client.post("/v1/chat/completions", json=CHAT)
    assert done.status_code == 200
    server, attempt = spans.one("POST /v1/chat/completions"), spans.one("chat small")
    assert server.kind is trace.SpanKind.SERVER
    assert server.parent is not None
    assert f"{server.context.trace_id:032x}" == PARENT[3:35]
    assert f"{server.parent.span_id:016x}" == PARENT[36:52]
    attributes = dict(server.attributes or {})
    assert (attributes["http.route"], attributes["http.response.status_code"]) == (
        "/v1/chat/completions",
        200,
    )
    assert attributes["ai_assistant.request_id"] == done.headers["x-request-id"]
    assert attempt.parent is not None
    assert attempt.parent.span_id == server.context.span_id


async def test_a_streamed_answer_is_one_trace(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with traced() as spans:
        async with bench.client() as client:
            done = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert "[DONE]" in done.text
    assert spans.tree() == {
        ("POST /v1/chat/completions", None),
        ("chat small", "POST /v1/chat/completions"),
    }


async def test_failures_probes_and_files(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(hits=[make_hit("text")])
    bench.retrieval.failure = RuntimeError("secret words")
    with traced() as spans:
        async with bench.client() as client:
            assert (await client.post("/api/v1/search", json={"query": "x"})).status_code == 500
            assert (await client.get("/api/v1/nowhere/4711")).status_code == 404
            await client.get("/health/live")
            await client.get("/static/app.js")
    failed, missing = spans.all()
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert missing.status.status_code is trace.StatusCode.UNSET
    assert (failed.name, missing.name) == ("POST /api/v1/search", "GET unmatched")
    assert not any("secret" in span.to_json() for span in spans.all())


async def test_handles_pass_the_trace_on() -> None:
    found = SearchResult((), {})
    handle = FakeHandle(search=[[found]], embeddings=[[None]], passage=[[None]], health=[[{}]])
    search = retriever(handle)
    await search.search(SearchQuery("x"), ME)
    with traced() as spans, tracing.span("request"):
        await search.search(SearchQuery("x"), ME)
    hop = spans.one("Retriever.search")
    before, handed = [call[2] for call in handle.arguments]
    assert before is None
    assert handed.startswith(f"00-{hop.context.trace_id:032x}-{hop.context.span_id:016x}-")
    assert spans.tree() == {("request", None), ("Retriever.search", "request")}


async def test_a_model_behind_a_handle_gets_the_attempts_trace() -> None:
    handle = FakeHandle(stream=[[[Piece("", "stop", Usage(1, 1))]]], health=[[{}]])
    spec = ModelSpec(name="small", engine="scripted")
    backend = HandleBackend(spec, handle, only=True)  # type: ignore[arg-type]
    context = RequestContext("r1", ME, epoch_s() + 30, traceparent=PARENT)
    _ = [piece async for piece in backend.stream(ChatRequest("small", (Message("user", "Hi"),)), context)]
    (arguments,) = handle.arguments
    assert arguments[3] == PARENT


@pytest.fixture(autouse=True)
def _off_again() -> None:
    assert not tracing.enabled()
