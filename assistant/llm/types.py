"""What a chat request, a streamed piece and a backend are, whatever engine or vendor is behind.

A backend is one place that can answer: a local engine behind a Serve handle, or a remote server over
HTTP. It has one verb, `stream`; a complete answer is the collected stream. Cancelling the iterator
(closing it) must free the engine's slot.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from assistant.llm.adapters import Adapter
from assistant.types import Message as Message
from assistant.types import RequestContext, Usage
from assistant.types import Role as Role

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One completion. None leaves a knob at the backend's default.

    `json_schema` asks for output that the schema accepts, where the backend can constrain it. `adapter` names
    an adapter that the engine has loaded; None is the base model. Requests from outside do not set it: they
    name a variant in `model` (`assistant.llm.variants`).
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of a stream. The last piece has `finish_reason` and, where known, `usage`.

    `adapter` is the one that wrote it; None is a base model.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: which model, adapter and backend gave it, how it ended, what it used."""

    text: str
    model: str
    backend: str
    finish_reason: FinishReason
    usage: Usage
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """`state`: ready answers; loading will; down does not (`detail` says why)."""

    backend: str
    model: str
    engine: str
    state: Literal["ready", "loading", "down"]
    latency_ms: float | None = None
    detail: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """One place that can answer. Raises BackendFailed, ContextTooLong, InvalidInput."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[Piece]: ...

    async def health(self) -> BackendHealth: ...


class Engine(Protocol):
    """A model loaded in this process (llama.cpp, vLLM). The same contract as a backend, plus its life.

    `stream` applies the chat template and stop strings, counts tokens, and refuses a prompt that does not
    fit (`ContextTooLong`) or an adapter that is not loaded (`NotFound`).
    """

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        ...

    async def start(self) -> None: ...

    def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]: ...

    async def set_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Load exactly these, without a pause: requests that came before finish on what they began with.

        Raises ConfigurationError when one cannot be loaded; then what served goes on serving.
        """
        ...

    async def health(self) -> BackendHealth: ...

    async def stop(self) -> None: ...
