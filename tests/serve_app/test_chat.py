"""Chat completions on OpenAI's wire, with the stock client where it can say it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from assistant.llm.providers.scripted import Reply
from tests.serve_app.conftest import Bench, make_hit, served, stock_client, until

ASK: list[Any] = [{"role": "user", "content": "What should I do when the volume fills up?"}]
EVIDENCE = "When the volume fills up, delete old snapshots and grow the claim. Then watch the usage."


def extra_of(answer: Any) -> dict[str, Any]:
    """The member that answers from the knowledge base have."""
    found: dict[str, Any] = answer.model_extra["assistant"]
    return found


def events_of(body: str) -> list[Any]:
    data = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
    return [d if d == "[DONE]" else json.loads(d) for d in data]


async def test_whole_answer_has_text_usage_and_ids(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench()) as client:
        answer = await client.chat.completions.create(model="small", messages=ASK)
    assert answer.choices[0].message.content == "Hello from the model."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "small"


async def test_stream_equals_whole_and_ends_with_done(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(["one two three four"])
    body = {"model": "small", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    async with bench.client() as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    *chunks, usage, done = events_of(response.text)
    assert done == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one two three four"
    assert [c["choices"][0]["delta"].get("role") for c in chunks].count("assistant") == 1
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert len({c["id"] for c in chunks}) == 1


async def test_stream_has_no_usage_chunk_unless_asked(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench()) as client:
        stream = await client.chat.completions.create(model="auto", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)


async def test_knobs_reach_the_model(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = {
        "model": "small",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Hi"},
        ],
        "max_completion_tokens": 7,
        "temperature": 0.25,
        "top_p": 0.5,
        "seed": 3,
        "stop": "END",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "frequency_penalty": 1.0,
        "user": "somebody",
    }
    async with bench.client() as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    (seen,) = bench.backends["small"].requests
    assert [(m.role, m.content) for m in seen.messages] == [("system", "Be brief."), ("user", "Hi")]
    assert (seen.max_tokens, seen.temperature, seen.top_p, seen.seed, seen.stop) == (
        7,
        0.25,
        0.5,
        3,
        ("END",),
    )
    assert seen.json_schema == schema


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("logprobs", True),
        ("functions", [{"name": "f"}]),
    ],
)
async def test_unsupported_features_are_refused_by_name(
    make_bench: Callable[..., Bench], field: str, value: Any
) -> None:
    async with make_bench().client() as client:
        response = await client.post(
            "/v1/chat/completions", json={"model": "small", "messages": ASK, field: value}
        )
    assert response.status_code == 400
    assert response.json()["field"] == field
    assert response.json()["error"]["param"] == field


async def test_requests_for_nothing_special_pass(make_bench: Callable[..., Bench]) -> None:
    harmless = {"n": 1, "tools": [], "tool_choice": "none", "logprobs": False, "modalities": ["text"]}
    async with make_bench().client() as client:
        response = await client.post(
            "/v1/chat/completions", json={"model": "small", "messages": ASK, **harmless}
        )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0]"),
    ],
)
async def test_messages_that_no_model_here_reads(
    make_bench: Callable[..., Bench], message: dict[str, Any], field: str
) -> None:
    async with make_bench().client() as client:
        response = await client.post("/v1/chat/completions", json={"model": "small", "messages": [message]})
    assert (response.status_code, response.json()["field"]) == (400, field)


async def test_unknown_model_names_the_known_ones(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench()) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="gpt-0", messages=ASK)
    assert "small" in str(caught.value)
    assert caught.value.param == "model"


async def test_failure_before_the_first_token_falls_back(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply("lost", fail_after=0)], others={"spare": ["From the spare."]})
    async with stock_client(bench) as client:
        answer = await client.chat.completions.create(model="auto", messages=ASK)
    assert (answer.model, answer.choices[0].message.content) == ("spare", "From the spare.")


async def test_failure_before_the_first_token_is_a_problem_also_when_streaming(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench([Reply("lost", fail_after=0)])
    async with bench.client() as client:
        response = await client.post(
            "/v1/chat/completions", json={"model": "small", "messages": ASK, "stream": True}
        )
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "no_backend"
    assert response.json()["causes"][0]["backend"] == "small"


async def test_failure_after_the_first_token_comes_in_band(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply("one two three", fail_after=2, failure="truncated")])
    async with bench.client() as client:
        response = await client.post(
            "/v1/chat/completions", json={"model": "small", "messages": ASK, "stream": True}
        )
    assert response.status_code == 200
    *chunks, last = events_of(response.text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one two"
    assert last["error"]["code"] == "backend_failed"
    assert last["error"]["instance"].endswith(response.headers["x-request-id"])


async def test_stock_client_raises_the_in_band_error(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply("one two three", fail_after=2, failure="truncated")])
    async with stock_client(bench) as client:
        stream = await client.chat.completions.create(model="small", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="small"):
            async for _ in stream:
                pass


async def test_assistant_cites_and_says_that_it_is_extractive(make_bench: Callable[..., Bench]) -> None:
    hit = make_hit(EVIDENCE)
    async with stock_client(make_bench(hits=[hit])) as client:
        answer = await client.chat.completions.create(model="assistant", messages=ASK)
    extra = extra_of(answer)
    assert extra["grounded"] is True
    assert extra["extractive"] is True
    assert extra["citations"][0]["chunk_id"] == str(hit.chunk_id)
    assert f'href="#passage-{hit.chunk_id}"' in extra["html"]
    assert "[1]" in (answer.choices[0].message.content or "")
    assert answer.usage is not None


async def test_assistant_stream_carries_the_answer_in_its_last_chunk(
    make_bench: Callable[..., Bench],
) -> None:
    async with stock_client(make_bench(hits=[make_hit(EVIDENCE)])) as client:
        stream = await client.chat.completions.create(model="assistant", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]
    *earlier, last = chunks
    assert all("assistant" not in (c.model_extra or {}) for c in earlier)
    assert last.choices[0].finish_reason == "stop"
    assert extra_of(last)["citations"]
    assert "snapshots" in "".join(c.choices[0].delta.content or "" for c in chunks)


async def test_assistant_without_evidence_says_so(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench()) as client:
        answer = await client.chat.completions.create(model="assistant", messages=ASK)
    assert extra_of(answer) == {
        "id": extra_of(answer)["id"],
        "citations": [],
        "grounded": False,
        "extractive": True,
        "model": "extractive",
        "adapter": None,
        "html": extra_of(answer)["html"],
    }


async def test_assistant_refuses_a_schema_by_name(make_bench: Callable[..., Bench]) -> None:
    body = {"model": "assistant", "messages": ASK, "response_format": {"type": "json_object"}}
    async with make_bench().client() as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["field"]) == (400, "response_format")


@pytest.mark.parametrize("stream", [False, True])
async def test_deadline_is_the_servers(make_bench: Callable[..., Bench], stream: bool) -> None:
    bench = make_bench(
        [Reply("never", failure="hang", fail_after=0)], overrides={"llm": {"request_timeout_s": 0.2}}
    )
    async with bench.client(**{"x-request-timeout-seconds": "0"}) as client:
        response = await client.post(
            "/v1/chat/completions", json={"model": "small", "messages": ASK, "stream": stream}
        )
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


async def test_client_that_leaves_frees_the_model(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply("word " * 2000, token_s=0.01)])
    body = {"model": "small", "messages": ASK, "stream": True}
    async with served(bench.app) as url, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line:
                    break
            assert bench.backends["small"].running == 1
        await until(lambda: bench.backends["small"].running == 0)


async def test_concurrent_streams_do_not_mix(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply(f"answer {n} " * 20, match=f"question {n}$", token_s=0.001) for n in range(5)])

    async def ask(client: openai.AsyncOpenAI, n: int) -> str:
        stream = await client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": f"question {n}"}], stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    async with stock_client(bench) as client:
        texts = await asyncio.gather(*(ask(client, n) for n in range(5)))
    assert texts == [f"answer {n} " * 20 for n in range(5)]
