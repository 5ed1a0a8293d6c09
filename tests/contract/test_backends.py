"""What every place that can answer has to do, run against all of them.

llama.cpp and vLLM are real engines with real weights. `openai_compatible` talks over HTTP to llama.cpp's
own server, `ollama` to a local server that speaks Ollama's protocol in front of our llama.cpp engine: no
Ollama binary is to be had from a registry.
"""

import asyncio
import importlib.util
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from assistant.errors import BackendFailed, ContextTooLong, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine
from assistant.llm.providers import create_backend
from assistant.llm.types import BackendHealth, ChatRequest, Engine, Message, Piece
from assistant.types import Principal, RequestContext
from cluster import weights

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.integration,
    pytest.mark.timeout(420),
    # vLLM and torch: a zmq context that its start-up leaves to the collector, and deprecations inside.
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning:zmq"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

SLOTS = 8
CONTEXT = 1024
PHRASE = "alpha beta gamma"
PHRASE_SCHEMA = {"type": "string", "enum": [PHRASE]}
CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Porto", "Lyon"]}, "visits": {"type": "integer"}},
    "required": ["city", "visits"],
    "additionalProperties": False,
}
UNICODE = "naïve café ☕ — 東京\u2028end"


@dataclass
class Subject:
    """One implementation, behind the two calls that the suite needs; `running` counts busy slots."""

    name: str
    stream: Callable[[ChatRequest], AsyncIterator[Piece]]
    health: Callable[[], Awaitable[BackendHealth]]
    running: Callable[[], Awaitable[int]]
    engine: Engine | None = None
    older: frozenset[psutil.Process] = frozenset()
    """Our children from before it started: the shared servers of a test session."""


def ask(text: str, **knobs: Any) -> ChatRequest:
    return ChatRequest("subject", (Message("user", text),), **knobs)


def context() -> RequestContext:
    return RequestContext("request", Principal("tester"), time.time() + 300)


async def collect(subject: Subject, request: ChatRequest) -> tuple[str, Piece, int]:
    """The text, the last piece, and how many pieces had text."""
    pieces = [piece async for piece in subject.stream(request)]
    return "".join(p.text for p in pieces), pieces[-1], sum(bool(p.text) for p in pieces)


def spec(engine: str, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"name": "subject", "engine": engine, "context_tokens": CONTEXT, "slots": SLOTS, **fields}
    )


@asynccontextmanager
async def engine_subject(engine: str, models_dir: Path) -> AsyncIterator[Subject]:
    model = create_engine(spec(engine, path="smollm2-135m-instruct"), models_dir)
    older = frozenset(psutil.Process().children(recursive=True))
    await model.start()

    async def running() -> int:
        return int((await model.health()).info["running"])

    try:
        yield Subject(
            engine, lambda r: model.stream(r, os.urandom(4).hex()), model.health, running, model, older
        )
    finally:
        await model.stop()


@asynccontextmanager
async def scripted_subject(models_dir: Path) -> AsyncIterator[Subject]:
    replies = [
        {"match": "alpha", "text": json.dumps(PHRASE)},
        {"match": "naïve", "text": json.dumps(UNICODE)},
        {"match": "city", "text": '{"city": "Porto", "visits": 3}'},
        {"match": "long", "text": "word " * 5000, "token_s": 0.001, "first_token_s": 0.05},
        {"text": "one two three four five six seven eight nine ten " * 5},
    ]
    backend = create_backend(spec("scripted", options={"replies": replies}))

    async def running() -> int:
        return int((await backend.health()).info["running"])

    yield Subject("scripted", lambda r: backend.stream(r, context()), backend.health, running)


@asynccontextmanager
async def openai_subject(models_dir: Path) -> AsyncIterator[Subject]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights.ensure_gguf(models_dir))
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = ["sesame"]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.n_batch = params.n_ubatch = 128
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.kv_unified = params.ui = params.fit_params = False
    params.verbosity = 1
    holder = [await asyncio.to_thread(xllamacpp.Server, params)]
    backend = create_backend(
        spec(
            "openai_compatible",
            base_url=f"{holder[0].listening_address}/v1",
            remote_model="smollm2",
            api_key_env="SUBJECT_KEY",
        ),
        environ={"SUBJECT_KEY": "sesame"},
    )

    async def running() -> int:
        metrics = (await asyncio.to_thread(holder[0].handle_metrics)).splitlines()
        return sum(
            int(float(line.split()[-1]))
            for line in metrics
            if line.startswith(("llamacpp:requests_processing", "llamacpp:requests_deferred"))
        )

    try:
        yield Subject("openai_compatible", lambda r: backend.stream(r, context()), backend.health, running)
    finally:
        await backend.aclose()
        await asyncio.to_thread(holder.clear)


@asynccontextmanager
async def ollama_subject(models_dir: Path) -> AsyncIterator[Subject]:
    async with engine_subject("llama_cpp", models_dir) as inner, ollama_server(inner) as url:
        backend = create_backend(spec("ollama", base_url=url, remote_model="smollm2:135m"))
        try:
            yield Subject("ollama", lambda r: backend.stream(r, context()), backend.health, inner.running)
        finally:
            await backend.aclose()


@asynccontextmanager
async def ollama_server(inner: Subject) -> AsyncIterator[str]:
    """Ollama's chat protocol in front of an engine: NDJSON, its field names, its refusals."""

    async def chat(request: Request) -> Response:
        body = await request.json()
        options = body["options"]
        assert body["truncate"] is False, "a real server would cut the prompt silently"
        assert options["num_ctx"] == CONTEXT
        pieces = inner.stream(
            ChatRequest(
                "subject",
                tuple(Message(m["role"], m["content"]) for m in body["messages"]),
                options.get("num_predict"),
                options.get("temperature"),
                options.get("top_p"),
                options.get("seed"),
                tuple(options.get("stop", ())),
                body.get("format"),
            )
        )
        try:
            first = await anext(pieces)
        except ContextTooLong:
            return JSONResponse({"error": "the input length exceeds the context length"}, 400)
        except InvalidInput as error:
            return JSONResponse({"error": error.detail}, 400)

        async def lines() -> AsyncIterator[bytes]:
            async with aclosing(pieces):
                yield line(first)
                async for piece in pieces:
                    yield line(piece)

        def line(piece: Piece) -> bytes:
            data: dict[str, Any] = {
                "model": body["model"],
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": piece.text},
                "done": piece.finish_reason is not None,
            }
            if piece.finish_reason and piece.usage:
                data |= {
                    "done_reason": piece.finish_reason,
                    "prompt_eval_count": piece.usage.prompt_tokens,
                    "eval_count": piece.usage.completion_tokens,
                }
            return json.dumps(data, ensure_ascii=False).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def tags(request: Request) -> Response:
        return JSONResponse({"models": [{"name": "smollm2:135m", "size": 98362432}]})

    app = Starlette(
        routes=[Route("/api/chat", chat, methods=["POST"]), Route("/api/tags", tags, methods=["GET"])]
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


SUBJECTS: dict[str, Any] = {
    "llama_cpp": lambda models: engine_subject("llama_cpp", models),
    "scripted": scripted_subject,
    "openai_compatible": openai_subject,
    "ollama": ollama_subject,
    "vllm": lambda models: engine_subject("vllm", models),
}


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name == "vllm" else name for name in SUBJECTS],
)
async def subject(request: pytest.FixtureRequest, models_dir: Path) -> AsyncIterator[Subject]:
    if request.param == "vllm":
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vLLM is not installed here, so its engine was NOT tested (see engines/__init__.py)")
        weights.ensure_hf(models_dir)
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(SUBJECTS[request.param](models_dir))


async def idle(subject: Subject) -> None:
    """Wait until no slot is busy; the test's timeout is the limit."""
    async with asyncio.timeout(120):
        while await subject.running():
            await asyncio.sleep(0.05)


async def test_the_answer_comes_in_pieces_and_the_last_says_how_it_ended(subject: Subject) -> None:
    pieces = [p async for p in subject.stream(ask("Say hello to the team.", max_tokens=12))]
    assert sum(bool(p.text) for p in pieces) > 3
    assert [p.finish_reason for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason in {"stop", "length"}


async def test_max_tokens_ends_the_answer_with_length_and_usage_counts_it(subject: Subject) -> None:
    _, last, _ = await collect(subject, ask("Tell a story.", max_tokens=6))
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 6
    assert last.usage.prompt_tokens
    assert last.usage.total_tokens == last.usage.prompt_tokens + 6


async def test_a_longer_prompt_counts_more_tokens(subject: Subject) -> None:
    _, short, _ = await collect(subject, ask("Hi.", max_tokens=1))
    _, longer, _ = await collect(subject, ask("Hi. " + "one two three four " * 10, max_tokens=1))
    assert short.usage
    assert longer.usage
    assert (longer.usage.prompt_tokens or 0) - (short.usage.prompt_tokens or 0) >= 40


@pytest.mark.parametrize("stop", ["beta", "ta gam", " "])
async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(subject: Subject, stop: str) -> None:
    request = ask("Write alpha.", json_schema=PHRASE_SCHEMA, max_tokens=40, temperature=0, stop=(stop,))
    text, last, _ = await collect(subject, request)
    assert text.strip() == json.dumps(PHRASE).partition(stop)[0].strip()
    assert last.finish_reason == "stop"


async def test_output_follows_the_json_schema(subject: Subject) -> None:
    text, last, _ = await collect(
        subject, ask("Which city, how many visits?", json_schema=CITY_SCHEMA, max_tokens=80, temperature=0)
    )
    assert last.finish_reason == "stop", text
    jsonschema.validate(json.loads(text), CITY_SCHEMA)


async def test_characters_of_several_tokens_arrive_whole(subject: Subject) -> None:
    schema = {"type": "string", "enum": [UNICODE]}
    text, _, _ = await collect(subject, ask("Write naïve.", json_schema=schema, max_tokens=80, temperature=0))
    assert json.loads(text) == UNICODE


async def test_unicode_in_the_prompt_is_accepted(subject: Subject) -> None:
    _, last, _ = await collect(subject, ask('Привет 👋\u2028東京 \x07 \\ "quoted"', max_tokens=2))
    assert last.finish_reason in {"stop", "length"}


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(subject: Subject) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await collect(subject, ask("word " * (CONTEXT + 200), max_tokens=2))
    if subject.name != "ollama":
        assert str(CONTEXT) in caught.value.detail
    if subject.engine or subject.name == "scripted":
        assert caught.value.extra["prompt_tokens"] > CONTEXT
        assert caught.value.extra["context_tokens"] == CONTEXT
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"temperature": 7.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": ("",)}, "stop"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
    ],
)
async def test_a_wrong_knob_is_refused_by_name(subject: Subject, knobs: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await collect(subject, ask("Hello.", **knobs))
    assert caught.value.extra["field"] == field


async def test_a_schema_that_cannot_be_enforced_is_refused_and_harms_nothing(subject: Subject) -> None:
    if subject.name == "scripted":
        pytest.skip("the scripted backend enforces no schema, so it can refuse none")
    with pytest.raises((InvalidInput, BackendFailed)):
        await collect(subject, ask("Hello.", json_schema={"$ref": "#/definitions/none"}, max_tokens=4))
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


async def test_cancelled_streams_free_their_slots(subject: Subject) -> None:
    first_tokens = asyncio.Semaphore(0)

    async def endless() -> None:
        async with aclosing(subject.stream(ask("Tell a very long story.", max_tokens=900))) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if piece.text:
                    first_tokens.release()

    tasks = [asyncio.create_task(endless()) for _ in range(SLOTS)]
    for _ in range(SLOTS):
        await first_tokens.acquire()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results), results
    await idle(subject)
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


async def test_cancelling_before_the_first_token_frees_the_slot(subject: Subject) -> None:
    task = asyncio.create_task(collect(subject, ask("long " * 700, max_tokens=20)))
    async with asyncio.timeout(60):
        while not await subject.running():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(subject)


async def test_closing_the_stream_early_frees_the_slot(subject: Subject) -> None:
    stream = subject.stream(ask("Tell a very long story.", max_tokens=900))
    async with aclosing(stream):  # type: ignore[type-var]
        async for piece in stream:
            if piece.text:
                break
    await idle(subject)


async def test_eight_streams_at_once_all_end_with_their_own_answer(subject: Subject) -> None:
    words = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]

    async def one(word: str) -> str:
        schema = {"type": "string", "enum": [f"alpha {word}"]}
        text, last, _ = await collect(
            subject, ask(f"Write alpha {word}.", json_schema=schema, max_tokens=30, temperature=0)
        )
        assert last.finish_reason == "stop"
        return str(json.loads(text))

    answers = await asyncio.gather(*(one(word) for word in words))
    expected = [PHRASE] * 8 if subject.name == "scripted" else [f"alpha {word}" for word in words]
    assert answers == expected


async def test_more_requests_than_slots_wait_and_finish(subject: Subject) -> None:
    results = await asyncio.gather(
        *(collect(subject, ask(f"Hello {n}.", max_tokens=3)) for n in range(SLOTS + 3))
    )
    assert all(last.finish_reason in {"stop", "length"} for _, last, _ in results)


async def test_a_ready_backend_says_so(subject: Subject) -> None:
    health = await subject.health()
    assert health.state == "ready", health
    assert health.detail is None
    assert health.latency_ms is not None


async def test_a_stopped_engine_ends_its_streams_and_says_that_it_is_down(subject: Subject) -> None:
    """Last on purpose: it takes the engine away."""
    if subject.engine is None:
        pytest.skip("only engines are stopped by us")
    # Python's own resource tracker lives as long as this process.
    children = [
        p
        for p in set(psutil.Process().children(recursive=True)) - subject.older
        if "resource_tracker" not in " ".join(p.cmdline())
    ]
    started = asyncio.Event()

    async def endless() -> None:
        async for piece in subject.stream(ask("Tell a very long story.", max_tokens=900)):
            if piece.text:
                started.set()

    task = asyncio.create_task(endless())
    await started.wait()
    await subject.engine.stop()
    with pytest.raises(BackendFailed) as caught:
        await task
    assert caught.value.extra["cause"] == "stopped"
    assert (await subject.health()).state == "down"
    with pytest.raises(BackendFailed):
        await collect(subject, ask("Hello.", max_tokens=2))
    _, left = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert left == []
