"""The span of an attempt: what the conventions ask for, and words only when they are wanted."""

import json
from typing import Any

import httpx
import pytest
from opentelemetry import trace

from assistant import tracing
from assistant.errors import NoBackend
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.providers.openai_compatible import OpenAICompatibleBackend, OpenAIOptions
from assistant.llm.providers.scripted import Reply
from assistant.llm.routing import LlmRouter
from assistant.telemetry import NullMeter
from tests.assistant.llm.test_routing import Stage, ask, context
from tests.tracing import traced


async def test_an_answer() -> None:
    prices = {"input_usd_per_1m": "1000000", "output_usd_per_1m": "1000000"}
    stage = Stage(["one two three"], specs=[prices])
    with traced() as spans, tracing.span("request"):
        await stage.run(ask(text="a secret question", max_tokens=50, temperature=0.2))
    span = spans.one("chat m0")
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert span.kind is trace.SpanKind.CLIENT
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "scripted"
    assert (attributes["gen_ai.request.max_tokens"], attributes["gen_ai.request.temperature"]) == (50, 0.2)
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["ai_assistant.cost_usd"] == attributes["gen_ai.usage.input_tokens"] + 3
    assert attributes["ai_assistant.request_id"] == "r-1"
    assert span.status.status_code is trace.StatusCode.UNSET
    assert "secret" not in span.to_json()
    assert "one two" not in span.to_json()
    assert spans.tree() == {("request", None), ("chat m0", "request")}


async def test_words_when_the_setting_says_so() -> None:
    with traced(content=True) as spans:
        await Stage(["one two"]).run(ask(text="a question"))
    attributes = dict(spans.one("chat m0").attributes or {})
    asked = json.loads(str(attributes["gen_ai.input.messages"]))
    said = json.loads(str(attributes["gen_ai.output.messages"]))
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "a question"}]}]
    assert said == [{"role": "assistant", "parts": [{"type": "text", "content": "one two"}]}]


async def test_each_attempt_is_a_span_and_a_failure_names_its_cause() -> None:
    stage = Stage([Reply("x", fail_after=0, failure="connect")], [Reply("x", fail_after=0, failure="auth")])
    with traced() as spans, pytest.raises(NoBackend):
        await stage.run()
    failed = {s.name: dict(s.attributes or {})["error.type"] for s in spans.all()}
    assert failed == {"chat m0": "connect", "chat m1": "auth"}


async def test_a_caller_who_leaves_is_no_error() -> None:
    stage = Stage(["one two three"])
    with traced() as spans:
        pieces = stage.router.stream(ask(), context())
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
    span = spans.one("chat m0")
    assert dict(span.attributes or {})["ai_assistant.outcome"] == "cancelled"
    assert span.status.status_code is trace.StatusCode.UNSET


async def test_a_provider_gets_the_traceparent() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("traceparent"))
        body = 'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})

    spec = ModelSpec.model_validate(
        {"name": "far", "engine": "openai_compatible", "base_url": "http://x/v1", "remote_model": "r"}
    )
    backend = OpenAICompatibleBackend(spec, OpenAIOptions(), httpx.MockTransport(answer), {})
    router = LlmRouter(Catalog((spec,)), [backend], NullMeter(), lambda attempt: None)
    with traced() as spans:
        await router.complete(ask(), context())
    await router.complete(ask(), context())
    (span,) = spans.all()
    handed, off = seen
    assert off is None
    assert handed is not None
    assert handed.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    await backend.aclose()
