"""One attempt at one backend: what the router knows about the backend, the time limits, the record."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from assistant.clock import now
from assistant.errors import (
    BackendFailed,
    ContextTooLong,
    DeadlineExceeded,
    InvalidInput,
    NoBackend,
    NotFound,
)
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import failed
from assistant.llm.prices import cost_usd
from assistant.llm.strategies import Candidate
from assistant.llm.types import Backend, Piece
from assistant.types import RequestContext, Usage

Outcome = Literal["ok", "failed", "refused", "deadline", "cancelled"]

Ending = BackendFailed | InvalidInput | DeadlineExceeded | NotFound
"""What ends an attempt and is recorded with it."""

COOLDOWN_S = {"auth": 60.0, "unknown_model": 60.0, "rate_limited": 5.0, "rejected": 0.0}
DEFAULT_COOLDOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one backend, for metrics and the `llm_metrics` table.

    `cause` is the word of a BackendFailed. Times are in seconds; `first_token_s` is None when none came.
    `adapter` is the one that answered, as far as pieces came. `cost_usd` None: not known.
    """

    request_id: str
    principal_id: str
    model: str
    backend: str
    engine: str
    started_at: datetime
    outcome: Outcome
    cause: str | None
    detail: str | None
    first_token_s: float | None
    duration_s: float
    usage: Usage
    adapter: str | None = None
    cost_usd: Decimal | None = None


@dataclass
class Line:
    """A backend and what the router knows about it. Times are of the monotonic clock."""

    spec: ModelSpec
    backend: Backend
    resting_until: float = 0.0
    in_flight: int = 0
    first_token_s: float | None = None

    def rest(self, seconds: float) -> None:
        # A shorter rest never ends a longer one.
        self.resting_until = max(self.resting_until, time.monotonic() + seconds)

    def candidate(self) -> Candidate:
        return Candidate(
            self.spec,
            self.backend.name,
            time.monotonic() >= self.resting_until,
            self.in_flight,
            self.first_token_s,
        )


class Trials:
    """The backends still worth trying, and why the others failed."""

    def __init__(self, model: str, plan: Sequence[Line]) -> None:
        self._model = model
        self._plan = plan
        self._causes: list[dict[str, Any]] = []
        self._too_long: ContextTooLong | None = None
        self._too_small = 0

    def __iter__(self) -> Iterator[tuple[Line, bool]]:
        """Each backend, and whether another one could follow it."""
        for position, line in enumerate(self._plan):
            if self._fits(line):
                yield line, any(self._fits(other) for other in self._plan[position + 1 :])

    def _fits(self, line: Line) -> bool:
        return line.spec.context_tokens > self._too_small

    def note(self, line: Line, error: BackendFailed | ContextTooLong) -> None:
        if isinstance(error, ContextTooLong):
            self._too_long = error
            self._too_small = max(self._too_small, line.spec.context_tokens)
        self._causes.append(
            {
                "backend": line.backend.name,
                "cause": error.extra.get("cause", error.code),
                "detail": error.detail,
            }
        )

    def outcome(self) -> NoBackend | ContextTooLong:
        """When all have failed: a prompt that fits nowhere is the caller's to mend, so it is said first."""
        return self._too_long or NoBackend.after(self._model, self._causes)


class Watch:
    """Times one attempt and holds it to its limits.

    A slow first token is given up only when `another` backend could do better; the last one has until the
    deadline, since a late answer beats none.
    """

    def __init__(self, line: Line, context: RequestContext, another: bool) -> None:
        self._line = line
        self._another = another
        self._context = context
        self._started_at = now()
        self._started = time.monotonic()
        self._first_token_s: float | None = None
        self._usage = Usage()
        self._outcome: Outcome = "cancelled"
        self._error: Ending | None = None
        self._adapter: str | None = None

    async def watched(self, pieces: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
        """The pieces that carry something, up to the last. Raises BackendFailed, DeadlineExceeded."""
        while True:
            piece = await self._next(pieces)
            if piece.text and self._first_token_s is None:
                self._first_token_s = time.monotonic() - self._started
            self._adapter = piece.adapter or self._adapter
            if piece.usage is not None:
                self._usage = piece.usage
            if piece.finish_reason == "error":
                raise failed(self._line.backend.name, "engine", "the answer ended in an error")
            if piece.finish_reason is not None:
                self._outcome = "ok"
            if piece.text or piece.finish_reason is not None:
                yield piece
            if piece.finish_reason is not None:
                return

    def ended(
        self,
        outcome: Outcome,
        error: Ending,
    ) -> None:
        self._outcome = outcome
        self._error = error

    def attempt(self) -> Attempt:
        return Attempt(
            request_id=self._context.request_id,
            principal_id=self._context.principal.id,
            model=self._line.spec.name,
            backend=self._line.backend.name,
            engine=self._line.spec.engine,
            started_at=self._started_at,
            outcome=self._outcome,
            cause=str(self._error.extra.get("cause", self._error.code)) if self._error else None,
            detail=self._error.detail if self._error else None,
            first_token_s=self._first_token_s,
            duration_s=time.monotonic() - self._started,
            usage=self._usage,
            adapter=self._adapter,
            cost_usd=cost_usd(self._line.spec, self._usage),
        )

    async def _next(self, pieces: AsyncIterator[Piece]) -> Piece:
        spec, name = self._line.spec, self._line.backend.name
        waiting_for_first = self._first_token_s is None
        limit = spec.first_token_timeout_s if waiting_for_first else spec.stall_timeout_s
        remaining = self._context.remaining_s()
        patient = waiting_for_first and not self._another
        try:
            async with asyncio.timeout(remaining if patient else min(limit, remaining)):
                return await anext(pieces)
        except StopAsyncIteration:
            raise failed(name, "truncated", "the stream ended before the answer did") from None
        except TimeoutError:
            if self._context.remaining_s() <= 0:
                raise DeadlineExceeded(
                    f"{name} had not finished when the time of the request was over.",
                    hint="Ask for less (max_tokens), or raise llm.request_timeout_s.",
                ) from None
            what = "no first token" if waiting_for_first else "no token"
            raise failed(name, "timeout", f"{what} within {limit:.0f} s") from None


def cooldown_s(error: BackendFailed) -> float:
    """How long a backend rests after this failure: what it asked for, else by cause.

    Independent of whether the request may be repeated: a wrong key is not worth a second try, but worth a rest.
    """
    asked = error.extra.get("retry_after_s")
    if isinstance(asked, int | float):
        return float(asked)
    return COOLDOWN_S.get(str(error.extra.get("cause")), DEFAULT_COOLDOWN_S)
