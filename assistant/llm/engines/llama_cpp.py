"""llama.cpp in this process, through xllamacpp: the engine for machines without an NVIDIA GPU.

Requests go to the library's handlers, not over a socket: one thread per running request sits in
llama.cpp without the GIL and hands each chunk to the event loop. The chat template and the tokenizer
come from the GGUF file. At most `slots` requests are inside; the others wait here, where giving up
costs nothing.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import AssistantError, ConfigurationError, InvalidInput
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import check_request, failed, too_long
from assistant.llm.providers.openai_wire import chat_body, read_chunk
from assistant.llm.types import BackendHealth, ChatRequest, Piece
from assistant.types import Usage

PROBE_TIMEOUT_S = 15.0
"""The engine answers between two steps, and one step on a crowded machine can take seconds."""

FRESH_S = 5.0
"""An engine that spoke this recently is not asked whether it lives."""

BATCH_TOKENS = 512 if sys.platform == "darwin" else 128
"""Prompt tokens per step. On a CPU a step of 128 already takes seconds, and other streams and
cancellations wait for its end; Metal needs larger ones to be busy."""


class LlamaCppOptions(BaseModel):
    """`options` of a llama_cpp model in models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    gpu_layers: int = Field(-1, ge=-1)
    """Layers kept on a GPU where the build has one; -1 is all that fit."""
    batch_tokens: int = Field(BATCH_TOKENS, ge=32, le=8192)
    prompt_cache_mib: int = Field(0, ge=0)
    """Memory for prompts of finished requests, beyond the last one that each slot keeps anyway."""


class LlamaCppEngine:
    """One GGUF model. Streams may come from any event loop; `start` and `stop` are called once."""

    def __init__(self, spec: ModelSpec, model: Path, options: LlamaCppOptions) -> None:
        self._spec = spec
        self._model = model
        self._options = options
        self._server: Any = None
        self._state: Literal["loading", "ready", "stopped"] = "loading"
        self._pool = ThreadPoolExecutor(spec.slots + 1, thread_name_prefix=f"llama-{spec.name}")
        self._slots = asyncio.Semaphore(spec.slots)
        self._running: set[_Stream] = set()
        self._waiting = 0
        self._heard_s = 0.0
        self._probe: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Load the model. Raises ConfigurationError when llama.cpp does not take the file."""
        try:
            self._server = await asyncio.to_thread(self._load)
        except RuntimeError:
            raise ConfigurationError(
                f"llama.cpp could not load {self._model}; its log on stderr says why.",
                hint="The file must be a whole GGUF of a supported model, and its context times slots "
                f"({self._spec.context_tokens} x {self._spec.slots}) must fit into memory.",
            ) from None
        self._state = "ready"

    async def stop(self) -> None:
        """End running requests, with BackendFailed for their callers, and free the model."""
        self._state = "stopped"
        for stream in list(self._running):
            stream.end(failed(self._spec.name, "stopped", "the engine was stopped", retryable=False))
        await asyncio.to_thread(self._pool.shutdown)
        last_reference, self._server = [self._server], None
        # The destructor joins llama.cpp's own threads, so it must not run on the event loop.
        await asyncio.to_thread(last_reference.clear)

    async def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]:
        """Pieces of the answer. Raises InvalidInput, ContextTooLong, BackendFailed."""
        del request_id
        check_request(request)
        await self._take_slot()
        stream = _Stream(self._spec, json.dumps(self._body(request), ensure_ascii=False), self._heard)
        work = asyncio.get_running_loop().run_in_executor(self._pool, stream.run, self._server)
        # The slot is free when llama.cpp has let go, which may be a step after the caller has.
        work.add_done_callback(lambda _: self._free_slot(stream))
        self._running.add(stream)
        try:
            async with aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            stream.end(None)

    async def health(self) -> BackendHealth:
        """Ready means that the engine's loop moved or answered just now."""
        started = time.monotonic()
        state, detail = await self._alive()
        return BackendHealth(
            backend=self._spec.name,
            model=self._spec.name,
            engine="llama_cpp",
            state=state,
            latency_ms=(time.monotonic() - started) * 1000,
            detail=detail,
            info={
                "slots": self._spec.slots,
                "running": len(self._running),
                "waiting": self._waiting,
                "context_tokens": self._spec.context_tokens,
            },
        )

    def _load(self) -> Any:
        import xllamacpp

        params = common_params(self._spec, self._model, self._options)
        # The library always opens its own HTTP server, without a key. A socket that nobody else can reach,
        # and whose name is gone once it is open, keeps it from being a way in.
        folder = tempfile.mkdtemp(prefix="llama-")
        try:
            params.hostnames = [f"{folder}/s.sock"]
            return xllamacpp.Server(params)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        # Progress chunks during the prompt are where a cancelled request is let go before its first token.
        return chat_body(request, self._spec.name) | {"return_progress": True, "cache_prompt": True}

    async def _take_slot(self) -> None:
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        if self._state != "ready":
            self._slots.release()
            raise failed(self._spec.name, "stopped", f"the engine is {self._state}")

    def _heard(self) -> None:
        self._heard_s = time.monotonic()

    def _free_slot(self, stream: "_Stream") -> None:
        self._running.discard(stream)
        self._slots.release()

    async def _alive(self) -> tuple[Literal["ready", "loading", "down"], str | None]:
        if self._state != "ready":
            return ("loading", None) if self._state == "loading" else ("down", "the engine was stopped")
        if self._running and time.monotonic() - self._heard_s < FRESH_S:
            return "ready", None
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().run_in_executor(self._pool, self._server.handle_metrics)
        try:
            await asyncio.wait_for(asyncio.shield(self._probe), PROBE_TIMEOUT_S)
        except TimeoutError:
            return "down", f"llama.cpp did not answer within {PROBE_TIMEOUT_S:.0f} s"
        return "ready", None


class _Stream:
    """One request on its way through llama.cpp: chunks cross from the engine's thread to the loop."""

    def __init__(self, spec: ModelSpec, body: str, heard: Callable[[], None]) -> None:
        self._spec = spec
        self._heard = heard
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | AssistantError | None] = asyncio.Queue()
        self._ended = False

    def run(self, server: Any) -> None:
        """In a worker thread, until the answer is complete, refused, or `end` was called."""
        try:
            if not self._ended:
                server.handle_chat_completions(self._body, self._on_chunk)
            self._put(None)
        except ValueError as error:
            # What the request asks for and the template or grammar cannot do.
            self._put(InvalidInput(f"The model cannot serve this request: {error}", field="messages"))
        except Exception as error:
            self._put(failed(self._spec.name, "engine", f"llama.cpp failed: {error}"))

    def end(self, error: AssistantError | None) -> None:
        """On the loop. llama.cpp lets go at its next chunk; a reader gets `error`."""
        self._ended = True
        if error is not None:
            self._queue.put_nowait(error)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        finish, usage = None, None
        while (item := await self._queue.get()) is not None:
            if isinstance(item, AssistantError):
                raise item
            chunk = read_chunk(json.loads(item))
            if chunk.error is not None:
                raise self._refusal(chunk.error)
            usage = chunk.usage or usage
            finish = chunk.finish_reason or finish
            if chunk.text:
                yield Piece(chunk.text)
        if finish is None:
            raise failed(self._spec.name, "truncated", "llama.cpp ended the answer without a reason")
        yield Piece("", finish, usage or Usage())

    def _on_chunk(self, chunk: str) -> bool:
        """True makes llama.cpp drop the request."""
        self._heard()
        return self._ended or not self._put(chunk)

    def _put(self, item: str | AssistantError | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            # The loop is closed: nobody reads any more.
            return False
        return True

    def _refusal(self, error: Any) -> AssistantError:
        message = str(error.get("message", "no message"))
        if error.get("type") == "exceed_context_size_error":
            return too_long(self._spec.name, int(error["n_prompt_tokens"]), self._spec.context_tokens)
        if error.get("code") == 400:
            return InvalidInput(f"llama.cpp refused the request: {message}", field="messages")
        return failed(self._spec.name, "engine", message)


def common_params(spec: ModelSpec, model: Path, options: LlamaCppOptions) -> Any:
    """llama.cpp's parameters for `spec`, without an address to listen on."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_parallel = spec.slots
    params.n_ctx = spec.context_tokens * spec.slots
    params.n_gpu_layers = options.gpu_layers
    params.n_batch = options.batch_tokens
    params.n_ubatch = options.batch_tokens
    params.cpuparams.n_threads = spec.threads
    params.cpuparams_batch.n_threads = spec.threads
    params.cache_ram_mib = options.prompt_cache_mib
    # Fitting would silently shrink the context that the catalogue promises.
    params.fit_params = False
    params.kv_unified = False
    params.ctx_shift = False
    params.endpoint_metrics = True
    params.ui = False
    # One idle thread instead of one per core: nobody talks to that server.
    params.n_threads_http = 1
    params.verbosity = 1
    return params
