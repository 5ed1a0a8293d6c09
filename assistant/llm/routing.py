"""One request, one answer, whichever model can give it: order, time limits, fallback, and the record of it.

The first backend that sends a token keeps the request. Before that a failure is silent and the next one
is tried; after it the error goes to the caller, because text that was sent cannot be taken back.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from assistant.errors import (
    BackendFailed,
    ContextTooLong,
    DeadlineExceeded,
    InvalidInput,
    NoBackend,
    NotFound,
)
from assistant.llm.attempts import Attempt, Line, Trials, Watch, cooldown_s
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.messages import check_request
from assistant.llm.spans import AttemptSpan
from assistant.llm.strategies import Strategy, priority
from assistant.llm.types import Backend, BackendHealth, ChatRequest, Completion, FinishReason, Piece
from assistant.llm.variants import split_name
from assistant.telemetry import Meter
from assistant.types import RequestContext, Usage

AUTO = "auto"
HEALTH_TIMEOUT_S = 5.0
DOWN_S = 30.0
"""How long a backend that called itself down is put last."""

AVERAGE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class RoutedPiece:
    """A piece of the stream and who sent it."""

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None
    model: str
    backend: str
    adapter: str | None = None


class LlmRouter:
    """Sends requests to the backends of a catalogue.

    `record` is called once per attempt, on the event loop; it must neither block nor raise.
    """

    def __init__(
        self,
        catalog: Catalog,
        backends: Sequence[Backend],
        meter: Meter,
        record: Callable[[Attempt], None],
        *,
        strategy: Strategy = priority,
        default_max_tokens: int = 1024,
    ) -> None:
        self._catalog = catalog
        lines = [Line(catalog.get(backend.model), backend) for backend in backends]
        lines.sort(key=lambda line: catalog.models.index(line.spec))
        self._lines = {line.backend.name: line for line in lines}
        self._meter = meter
        self._record = record
        self._strategy = strategy
        self._default_max_tokens = default_max_tokens

    async def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[RoutedPiece]:
        """Pieces of the answer; the last has `finish_reason` and usage where known.

        Raises NotFound (unknown model), InvalidInput, ContextTooLong, NoBackend, DeadlineExceeded; and
        BackendFailed when the backend broke off after its first token.
        """
        request = self._complete_request(request)
        trials = Trials(request.model, self._plan(request))
        for line, another in trials:
            sent = False
            try:
                async with aclosing(self._attempt(line, another, request, context)) as pieces:
                    async for piece in pieces:
                        sent = sent or bool(piece.text)
                        yield self._routed(line, piece)
                return
            except (BackendFailed, ContextTooLong) as error:
                if sent:
                    raise
                trials.note(line, error)
        raise trials.outcome()

    async def complete(self, request: ChatRequest, context: RequestContext) -> Completion:
        """The whole answer. Raises as `stream`, but a backend that breaks off is replaced too."""
        request = self._complete_request(request)
        trials = Trials(request.model, self._plan(request))
        for line, another in trials:
            texts, last = [], Piece()
            try:
                async with aclosing(self._attempt(line, another, request, context)) as pieces:
                    async for piece in pieces:
                        texts.append(piece.text)
                        last = piece
            except (BackendFailed, ContextTooLong) as error:
                trials.note(line, error)
                continue
            return Completion(
                "".join(texts),
                line.spec.name,
                line.backend.name,
                last.finish_reason or "stop",
                last.usage or Usage(),
                last.adapter,
            )
        raise trials.outcome()

    async def health(self) -> list[BackendHealth]:
        """Every backend's state, in the order of the catalogue. Backends that are down are put last for a while."""
        return list(await asyncio.gather(*(self._health(line) for line in self._lines.values())))

    def spec_for(self, model: str) -> ModelSpec:
        """The model that would be tried first now. Raises NotFound and NoBackend."""
        plan = self._plan(ChatRequest(model, ()))
        if not plan:
            raise NoBackend.after(model, [])
        return plan[0].spec

    def _plan(self, request: ChatRequest) -> list[Line]:
        name = request.model if request.model == AUTO else self._named(request.model)
        fitting = [line for line in self._lines.values() if name in {AUTO, line.spec.name}]
        ordered = self._strategy(request, [line.candidate() for line in fitting])
        return [self._lines[candidate.backend] for candidate in ordered]

    def _named(self, model: str) -> str:
        """The catalogue name in `model`; whether a variant of it exists now, its replica knows."""
        name, variant = split_name(model, [spec.name for spec in self._catalog.models])
        spec = self._catalog.get(name)
        if variant != "live" and not spec.is_local:
            raise NotFound(
                f"{name} is served elsewhere and has no {variant} here.", hint=f"Use {name}.", field="model"
            )
        return name

    def _complete_request(self, request: ChatRequest) -> ChatRequest:
        check_request(request)
        if request.max_tokens is not None:
            return request
        return replace(request, max_tokens=self._default_max_tokens)

    async def _attempt(
        self, line: Line, another: bool, request: ChatRequest, context: RequestContext
    ) -> AsyncGenerator[Piece, None]:
        """One backend's answer within its time limits, metered and recorded whatever happens."""
        watch = Watch(line, context, another)
        line.in_flight += 1
        span = AttemptSpan(line.spec, request, context)
        pieces = line.backend.stream(request, span.context)
        try:
            async with aclosing(watch.watched(pieces)) as watched:
                async for piece in watched:
                    span.said(piece.text)
                    yield piece
        except BackendFailed as error:
            watch.ended("failed", error)
            line.rest(cooldown_s(error))
            raise
        except (InvalidInput, NotFound) as error:
            watch.ended("refused", error)
            raise
        except DeadlineExceeded as error:
            watch.ended("deadline", error)
            raise
        finally:
            line.in_flight -= 1
            await _close(pieces)
            attempt = watch.attempt()
            span.end(attempt)
            self._finish(attempt)

    def _finish(self, attempt: Attempt) -> None:
        line = self._lines[attempt.backend]
        self._meter.add(
            "ai_assistant_backend_attempts_total", backend=attempt.backend, outcome=attempt.outcome
        )
        if attempt.first_token_s is not None:
            self._meter.observe(
                "ai_assistant_first_token_seconds", attempt.first_token_s, model=attempt.model
            )
            old = attempt.first_token_s if line.first_token_s is None else line.first_token_s
            line.first_token_s = old + AVERAGE_WEIGHT * (attempt.first_token_s - old)
        for kind in ("prompt", "completion", "cached"):
            count = getattr(attempt.usage, f"{kind}_tokens")
            if count:
                self._meter.add(
                    "ai_assistant_tokens_total",
                    count,
                    model=attempt.model,
                    backend=attempt.backend,
                    kind=kind,
                )
        if attempt.cost_usd is not None and attempt.cost_usd > 0:
            self._meter.add(
                "ai_assistant_cost_usd_total",
                float(attempt.cost_usd),
                model=attempt.model,
                backend=attempt.backend,
            )
        elif attempt.cost_usd is None and attempt.first_token_s is not None:
            self._meter.add(
                "ai_assistant_unpriced_attempts_total", model=attempt.model, backend=attempt.backend
            )
        self._record(attempt)

    async def _health(self, line: Line) -> BackendHealth:
        detail: str | None = None
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                health = await line.backend.health()
        except TimeoutError:
            detail = f"no answer within {HEALTH_TIMEOUT_S:.0f} s"
        except Exception as error:
            # The report about what is broken must not break, whatever a backend raises.
            detail = f"{type(error).__name__}: {error}"
        if detail is not None:
            health = BackendHealth(line.backend.name, line.spec.name, line.spec.engine, "down", detail=detail)
        if health.state != "ready":
            line.rest(DOWN_S)
        return health

    @staticmethod
    def _routed(line: Line, piece: Piece) -> RoutedPiece:
        return RoutedPiece(
            piece.text, piece.finish_reason, piece.usage, line.spec.name, line.backend.name, piece.adapter
        )


async def _close(pieces: AsyncIterator[Piece]) -> None:
    """Free the engine's slot now, not when the generator is collected."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
