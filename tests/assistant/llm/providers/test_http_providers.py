"""Trouble on the wire, played to both HTTP providers: each gives a clear error, none hangs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.errors import AssistantError, BackendFailed, ContextTooLong, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import check_request
from assistant.llm.providers import create_backend
from assistant.llm.providers.http import retry_after_s
from assistant.llm.providers.ollama import OllamaBackend, OllamaOptions
from assistant.llm.providers.openai_compatible import OpenAICompatibleBackend, OpenAIOptions
from assistant.llm.types import ChatRequest, Message, Piece
from assistant.types import Principal, RequestContext

KEY = "sk-very-secret"
ENGINES = ["openai_compatible", "ollama"]
Handler = Callable[[httpx.Request], httpx.Response]


def backend(
    engine: str, handler: Handler | None = None, *, options: dict[str, Any] | None = None, **fields: Any
) -> Any:
    spec = ModelSpec.model_validate(
        {
            "name": "remote",
            "engine": engine,
            "base_url": "http://model.test/v1",
            "remote_model": "big:8b",
            "api_key_env": "REMOTE_KEY",
            **fields,
        }
    )
    transport = httpx.MockTransport(handler) if handler else None
    environ = {"REMOTE_KEY": KEY}
    if engine == "ollama":
        return OllamaBackend(spec, OllamaOptions(**(options or {})), transport, environ)
    return OpenAICompatibleBackend(spec, OpenAIOptions(**(options or {})), transport, environ)


def answers(body: bytes, status: int = 200, **headers: str) -> Handler:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, content=body, headers=names)


def ask(**knobs: Any) -> ChatRequest:
    return ChatRequest("remote", (Message("system", "Be brief."), Message("user", "Hello")), **knobs)


async def pieces(subject: Any, request: ChatRequest | None = None) -> list[Piece]:
    context = RequestContext("r", Principal("ada"), time.time() + 60)
    try:
        return [piece async for piece in subject.stream(request or ask(), context)]
    finally:
        await subject.aclose()


async def error_of(subject: Any, request: ChatRequest | None = None) -> AssistantError:
    with pytest.raises(AssistantError) as caught:
        await pieces(subject, request)
    assert KEY not in f"{caught.value} {caught.value.problem()}"
    return caught.value


def delta(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def line(text: str, **extra: Any) -> bytes:
    return (
        json.dumps({"message": {"role": "assistant", "content": text}, "done": False, **extra}).encode()
        + b"\n"
    )


GOOD = {
    "openai_compatible": delta("Hel")
    + b": ping\r\n\r\n"
    + delta("lo", "stop")
    + b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, '
    b'"prompt_tokens_details": {"cached_tokens": 4}}}\n\ndata: [DONE]\n\n',
    "ollama": line("Hel")
    + b"\n"
    + line("lo")
    + line("", done=True, done_reason="stop", prompt_eval_count=9, eval_count=2),
}
HALF = {"openai_compatible": delta("Hel"), "ollama": line("Hel")}


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_good_stream_is_read(engine: str) -> None:
    *middle, last = await pieces(backend(engine, answers(GOOD[engine])))
    assert [p.text for p in middle] == ["Hel", "lo"]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (9, 2)
    assert last.usage.cached_tokens == (4 if engine == "openai_compatible" else None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from(ENGINES))
async def test_the_stream_may_be_cut_into_blocks_anywhere(sizes: list[int], engine: str) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        rest, turn = GOOD[engine], 0
        while rest:
            size = sizes[turn % len(sizes)]
            yield rest[:size]
            rest, turn = rest[size:], turn + 1

    got = await pieces(backend(engine, lambda _: httpx.Response(200, content=blocks())))
    assert "".join(p.text for p in got) == "Hello"
    assert got[-1].finish_reason == "stop"


@pytest.mark.parametrize("engine", ENGINES)
async def test_unusual_line_separators_inside_json_are_text(engine: str) -> None:
    text = "a\u2028b\u0085c"
    raw = (delta if engine == "openai_compatible" else line)("SEP").replace(b"SEP", text.encode())
    tail = GOOD[engine].removeprefix(HALF[engine])
    got = await pieces(backend(engine, answers(raw + tail)))
    assert "".join(p.text for p in got) == text + "lo"


async def test_openai_knobs_go_out_and_unset_ones_do_not() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=GOOD["openai_compatible"])

    subject = backend(
        "openai_compatible",
        handler,
        options={"max_tokens_field": "max_completion_tokens", "extra_body": {"user": "x"}},
    )
    await pieces(subject, ask(max_tokens=5, seed=3, stop=("END",), json_schema={"type": "object"}))
    body = json.loads(seen[0].content)
    assert str(seen[0].url) == "http://model.test/v1/chat/completions"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["model"], body["max_completion_tokens"], body["seed"]) == ("big:8b", 5, 3)
    assert (body["stop"], body["user"], body["stream"]) == (["END"], "x", True)
    assert body["stream_options"] == {"include_usage": True}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert not {"max_tokens", "temperature", "top_p"} & set(body)


async def test_ollama_is_told_the_context_and_not_to_cut() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=GOOD["ollama"])

    subject = backend("ollama", handler, context_tokens=512, options={"parameters": {"num_gpu": 1}})
    await pieces(subject, ask(max_tokens=5, temperature=0.0, stop=("END",), json_schema={"type": "object"}))
    body = json.loads(seen[0].content)
    assert (body["truncate"], body["shift"], body["stream"]) == (False, False, True)
    assert body["options"] == {
        "num_ctx": 512,
        "num_gpu": 1,
        "num_predict": 5,
        "temperature": 0.0,
        "stop": ["END"],
    }
    assert body["format"] == {"type": "object"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("status", "cause", "retryable"),
    [
        (401, "auth", False),
        (402, "auth", False),
        (403, "auth", False),
        (404, "unknown_model", False),
        (408, "server_error", True),
        (429, "rate_limited", True),
        (418, "rejected", False),
        (500, "server_error", True),
        (503, "server_error", True),
    ],
)
async def test_a_status_becomes_a_cause(engine: str, status: int, cause: str, retryable: bool) -> None:
    body = json.dumps(
        {"error": {"message": f"no {KEY}"}} if engine == "openai_compatible" else {"error": "no"}
    )
    if status not in {401, 402, 403}:
        body = body.replace(KEY, "way")
    error = await error_of(backend(engine, answers(body.encode(), status)))
    assert isinstance(error, BackendFailed)
    assert error.extra["cause"] == cause
    assert error.extra["retryable"] is retryable
    assert error.detail.startswith("remote: ")


@pytest.mark.parametrize("engine", ENGINES)
async def test_retry_after_is_kept(engine: str) -> None:
    error = await error_of(backend(engine, answers(b"slow down", 429, retry_after="7")))
    assert error.extra["retry_after_s"] == 7.0
    assert "slow down" in error.detail


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_refused_request_is_the_callers_to_mend(engine: str) -> None:
    body = (
        b'{"error": {"message": "bad stop"}}' if engine == "openai_compatible" else b'{"error": "bad stop"}'
    )
    error = await error_of(backend(engine, answers(body, 400)))
    assert isinstance(error, InvalidInput)
    assert "bad stop" in error.detail


@pytest.mark.parametrize(
    ("engine", "status", "body"),
    [
        ("openai_compatible", 400, {"error": {"code": "context_length_exceeded", "message": "too much"}}),
        (
            "openai_compatible",
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens"}},
        ),
        ("openai_compatible", 400, {"error": {"type": "exceed_context_size_error", "message": "3 > 2"}}),
        ("ollama", 400, {"error": "the input length exceeds the context length"}),
        ("ollama", 500, {"error": "input length exceeds maximum context length"}),
    ],
)
async def test_a_too_long_prompt_is_recognised(engine: str, status: int, body: dict[str, Any]) -> None:
    assert isinstance(
        await error_of(backend(engine, answers(json.dumps(body).encode(), status))), ContextTooLong
    )


MALFORMED = {
    "openai_compatible": [
        b"data: {not json}\n\n",
        b"data: []\n\n",
        b'data: {"object": "nothing"}\n\n',
        b'data: {"choices": [7]}\n\n',
        b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        b"data: \xff\xfe\n\n",
        delta("Hel") + b"data: [DONE]\n\n",
    ],
    "ollama": [
        b"{not json}\n",
        b"[]\n",
        b'{"done": false}\n',
        b'{"message": {"content": 7}}\n',
        b"\xff\xfe\n",
    ],
}


@pytest.mark.parametrize(("engine", "body"), [(e, b) for e in ENGINES for b in MALFORMED[e]])
async def test_a_malformed_body_is_named(engine: str, body: bytes) -> None:
    error = await error_of(backend(engine, answers(body)))
    assert isinstance(error, BackendFailed)
    assert error.extra["cause"] == "malformed"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("body", [b"", b"half"])
async def test_a_stream_that_just_ends_is_truncated(engine: str, body: bytes) -> None:
    error = await error_of(backend(engine, answers(HALF[engine] if body else b"")))
    assert error.extra["cause"] == "truncated"


async def test_an_html_page_is_no_answer() -> None:
    error = await error_of(backend("openai_compatible", answers(b"<html>login</html>")))
    assert error.extra["cause"] == "truncated"
    error = await error_of(backend("ollama", answers(b"<html>login</html>")))
    assert error.extra["cause"] == "malformed"


async def test_a_line_without_end_is_not_collected_for_ever() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_000_000

    error = await error_of(backend("ollama", lambda _: httpx.Response(200, content=endless())))
    assert error.extra["cause"] == "malformed"


@pytest.mark.parametrize(
    ("engine", "body", "kind"),
    [
        ("openai_compatible", delta("Hel") + b'data: {"error": {"message": "boom"}}\n\n', "server_error"),
        ("openai_compatible", b'data: {"error": {"code": 429, "message": "busy"}}\n\n', "rate_limited"),
        ("openai_compatible", b'data: {"error": "boom"}\n\n', "server_error"),
        ("ollama", line("Hel") + b'{"error": "boom"}\n', "server_error"),
    ],
)
async def test_an_error_inside_the_stream_is_raised(engine: str, body: bytes, kind: str) -> None:
    assert (await error_of(backend(engine, answers(body)))).extra["cause"] == kind


@asynccontextmanager
async def wire(behave: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A real socket that answers a request as `behave` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await behave(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_connection_cut_in_the_middle_is_truncated(engine: str) -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        data = HALF[engine]
        writer.write(HEAD + b"%x\r\n" % len(data) + data + b"\r\n")
        await writer.drain()

    async with wire(cut) as url:
        error = await error_of(backend(engine, base_url=url))
    assert error.extra["cause"] == "truncated"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("head", [b"", HEAD])
async def test_a_server_that_hangs_is_given_up(engine: str, head: bytes) -> None:
    over = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await over.wait()

    limits = {"first_token_timeout_s": 0.2, "stall_timeout_s": 0.2}
    async with wire(hang) as url:
        error = await error_of(backend(engine, base_url=url, **limits))
        over.set()
    assert error.extra["cause"] == "timeout"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_server_that_speaks_no_http_is_a_failure(engine: str) -> None:
    async def noise(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01 nonsense\r\n\r\n")
        await writer.drain()

    async with wire(noise) as url:
        error = await error_of(backend(engine, base_url=url))
    assert error.extra["cause"] == "truncated"


@pytest.mark.parametrize("engine", ENGINES)
async def test_nobody_listening_is_a_failed_connection(engine: str) -> None:
    subject = backend(engine, base_url="http://127.0.0.1:9")
    assert (await subject.health()).state == "down"
    assert (await error_of(subject)).extra["cause"] == "connect"


@pytest.mark.parametrize("engine", ENGINES)
async def test_without_its_key_a_backend_is_down_and_says_which_variable(engine: str) -> None:
    spec = {
        "name": "remote",
        "engine": engine,
        "base_url": "http://h",
        "remote_model": "m",
        "api_key_env": "NO_KEY",
    }
    subject = create_backend(ModelSpec.model_validate(spec), environ={})
    health = await subject.health()
    assert (health.state, "NO_KEY" in (health.detail or "")) == ("down", True)
    assert (await error_of(subject)).extra["cause"] == "auth"


async def test_health_reads_the_servers_list() -> None:
    ready = backend("openai_compatible", answers(b'{"data": []}'))
    assert (await ready.health()).state == "ready"
    sick = await backend("openai_compatible", answers(b"", 503)).health()
    assert (sick.state, "503" in (sick.detail or "")) == ("down", True)
    assert (await backend("openai_compatible", answers(b"<html>")).health()).state == "down"
    has = await backend("ollama", answers(b'{"models": [{"name": "big:8b"}]}')).health()
    assert has.state == "ready"
    lacks = await backend("ollama", answers(b'{"models": [{"name": "other"}]}')).health()
    assert (lacks.state, "ollama pull big:8b" in (lacks.detail or "")) == ("down", True)


def test_retry_after_takes_seconds_and_dates_and_ignores_nonsense() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("12", at) == 12.0
    assert retry_after_s(format_datetime(at + timedelta(seconds=30), usegmt=True), at) == 30.0
    assert retry_after_s(format_datetime(at - timedelta(days=1), usegmt=True), at) == 0.0
    assert retry_after_s("86400", at) == 600.0
    assert retry_after_s("nan", at) is None
    assert retry_after_s("soon", at) is None
    assert retry_after_s(None, at) is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChatRequest("m", ()), "messages"),
        (ChatRequest("m", (Message("user", "  "),)), "messages"),
        (ChatRequest("m", (Message("robot", "x"),)), "messages[0].role"),  # type: ignore[arg-type]
        (ask(max_tokens=0), "max_tokens"),
        (ask(temperature=-1), "temperature"),
        (ask(temperature=float("nan")), "temperature"),
        (ask(top_p=0), "top_p"),
        (ask(stop=tuple("abcdefghijklmnopq")), "stop"),
        (ask(json_schema={"type": 7}), "json_schema"),
    ],
)
def test_wrong_requests_are_refused_by_field(request_: ChatRequest, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_request(request_)
    assert caught.value.extra["field"] == field
