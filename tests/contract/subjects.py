"""The places that can answer, each behind the two calls that the contract suite needs.

llama.cpp and vLLM are real engines with real weights. `openai_compatible` talks over HTTP to llama.cpp's
own server, `ollama` to a local server that speaks Ollama's protocol in front of our llama.cpp engine: no
Ollama binary is to be had from a registry.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from assistant.errors import ContextTooLong, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine
from assistant.llm.providers import create_backend
from assistant.llm.types import BackendHealth, ChatRequest, Engine, Message, Piece
from assistant.types import Principal, RequestContext
from cluster import weights

SLOTS = 8
CONTEXT = 1024
PHRASE = "alpha beta gamma"
PHRASE_SCHEMA = {"type": "string", "enum": [PHRASE]}
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
    # vLLM computes every adapter at the highest rank that it was told of.
    options = {"max_adapter_rank": 8} if engine == "vllm" else {}
    model = create_engine(spec(engine, path="smollm2-135m-instruct", options=options), models_dir)
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

    async def chat(http: Request) -> Response:
        body = await http.json()
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

    async def tags(http: Request) -> Response:
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
