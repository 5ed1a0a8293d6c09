"""llama.cpp in this process, through xllamacpp: the engine for machines without an NVIDIA GPU.

Requests go to the library's handlers, not over a socket: one thread per running request sits in
llama.cpp without the GIL and hands each chunk to the event loop. The chat template and the tokenizer
come from the GGUF file. At most `slots` requests are inside; the others wait here, where giving up
costs nothing.

Each adapter has a server of its own beside the base, over the same mapped weights. One server could hold
them all and take the adapter per request, but it batches only requests of one adapter, and those of another
wait until the last of them has ended (docs/decisions/0004-adapters.md).
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import ConfigurationError
from assistant.llm.adapters import GGUF, Adapter, check_base
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines.llama_stream import LlamaStream
from assistant.llm.engines.residents import Resident, Residents
from assistant.llm.messages import check_request, failed
from assistant.llm.providers.openai_wire import chat_body
from assistant.llm.types import BackendHealth, ChatRequest, Piece

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
    """One GGUF model. All calls come from one event loop; `start` and `stop` are called once.

    `fingerprint` is that of the base's transformers form, where it lies beside the GGUF.
    """

    def __init__(
        self, spec: ModelSpec, model: Path, options: LlamaCppOptions, fingerprint: str | None = None
    ) -> None:
        self._spec = spec
        self._model = model
        self._options = options
        self._fingerprint = fingerprint
        self._residents = Residents[list[Any]](self._load_adapter, _free)
        self._server: Any = None
        self._state: Literal["loading", "ready", "stopped"] = "loading"
        self._pool = ThreadPoolExecutor(spec.slots + 1, thread_name_prefix=f"llama-{spec.name}")
        self._slots = asyncio.Semaphore(spec.slots)
        self._running: set[LlamaStream] = set()
        self._waiting = 0
        self._heard_s = 0.0
        self._probe: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Load the model. Raises ConfigurationError when llama.cpp does not take the file."""
        try:
            self._server = await asyncio.to_thread(self._load, None)
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
        await _free(last_reference)
        await self._residents.close()

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._residents.names

    async def set_adapters(self, adapters: Sequence[Adapter]) -> None:
        """As `Engine` says. A new one costs a second of CPU and a key-value cache of its own."""
        if self._state != "ready":
            raise failed(self._spec.name, "stopped", f"the engine is {self._state}")
        await self._residents.change(adapters)

    async def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]:
        """Pieces of the answer. Raises InvalidInput, ContextTooLong, NotFound, BackendFailed."""
        del request_id
        check_request(request, self.adapters)
        # Before the first pause, so that what is asked for now stays until it is answered.
        resident = self._residents.hold(request.adapter) if request.adapter is not None else None
        try:
            await self._take_slot()
        except BaseException:
            self._release(resident)
            raise
        server = resident.inside[0] if resident is not None else self._server
        stream = LlamaStream(self._spec, json.dumps(self._body(request), ensure_ascii=False), self._heard)
        work = asyncio.get_running_loop().run_in_executor(self._pool, stream.run, server)
        # The slot is free when llama.cpp has let go, which may be a step after the caller has.
        work.add_done_callback(lambda _: self._free_slot(stream, resident))
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
                "adapters": list(self.adapters),
            },
        )

    async def _load_adapter(self, adapter: Adapter) -> list[Any]:
        """The only reference to its server, in a list."""
        check_base(adapter, self._fingerprint)
        path = adapter.file(GGUF)
        try:
            return [await asyncio.to_thread(self._load, path)]
        except RuntimeError:
            raise ConfigurationError(
                f"llama.cpp could not load the adapter {adapter.name} from {path}; its log on stderr says why.",
                hint="It is damaged, or was made for another base model; or memory lacks for its context "
                f"times slots ({self._spec.context_tokens} x {self._spec.slots}).",
            ) from None

    def _load(self, adapter: Path | None) -> Any:
        import xllamacpp

        params = common_params(self._spec, self._model, self._options)
        if adapter is not None:
            info = xllamacpp.CommonAdapterLoraInfo()
            info.path, info.scale = str(adapter), 1.0
            params.lora_adapters = [info]
        # The library always opens its own HTTP server, without a key. A socket that nobody else can reach,
        # and whose name is gone once it is open, keeps it from being a way in.
        folder = tempfile.mkdtemp(prefix="llama-")
        try:
            params.hostnames = [f"{folder}/s.sock"]
            server = xllamacpp.Server(params)
            # Only a server whose loop runs can be ended: before that its destructor waits for ever, and
            # holds the interpreter while it waits. An answer proves that it runs.
            server.handle_metrics()
            return server
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

    def _free_slot(self, stream: LlamaStream, resident: Resident[list[Any]] | None) -> None:
        self._running.discard(stream)
        self._slots.release()
        self._release(resident)

    def _release(self, resident: Resident[list[Any]] | None) -> None:
        if resident is not None:
            self._residents.release(resident)

    async def _alive(self) -> tuple[Literal["ready", "loading", "down"], str | None]:
        if self._state != "ready":
            return ("loading", None) if self._state == "loading" else ("down", "the engine was stopped")
        if self._running and time.monotonic() - self._heard_s < FRESH_S:
            return "ready", None
        if self._probe is None or self._probe.done():
            servers = [[self._server], *self._residents.all()]
            self._probe = asyncio.get_running_loop().run_in_executor(self._pool, _ask, servers)
        try:
            await asyncio.wait_for(asyncio.shield(self._probe), PROBE_TIMEOUT_S)
        except TimeoutError:
            return "down", f"llama.cpp did not answer within {PROBE_TIMEOUT_S:.0f} s"
        return "ready", None


def _ask(servers: Sequence[list[Any]]) -> None:
    """Returns when each of them has answered; one that was freed meanwhile is not asked."""
    for holder in servers:
        for server in tuple(holder):
            server.handle_metrics()


async def _free(last_reference: list[Any]) -> None:
    # The destructor joins llama.cpp's own threads, so it must not run on the event loop.
    await asyncio.to_thread(last_reference.clear)


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
