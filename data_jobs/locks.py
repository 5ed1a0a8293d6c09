"""Who may write, and who may move the alias: an alias never moves under a running ingestion."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from assistant.errors import Conflict
from assistant.settings import Settings
from assistant.stores.locks import HeldLock, lock

MOVE_WAIT_S = 600.0
"""How long an ingestion waits for an alias that moves: the last catch-up, usually seconds."""


@asynccontextmanager
async def writing(
    settings: Settings, alias: str, busy: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Held by an ingestion, among others. Conflict when the alias has been about to move for ten minutes."""
    async with lock(
        settings.postgres, f"writing {alias}", shared=True, wait_s=MOVE_WAIT_S, busy=busy
    ) as held:
        if held is None:
            raise Conflict(
                f"Another embedder's collection has been about to go live for {MOVE_WAIT_S:.0f} s.",
                hint="Run it again when `ai-assistant collections promote` is through.",
            )
        yield


@asynccontextmanager
async def moving(
    settings: Settings, alias: str, busy: Callable[[], None] | None = None
) -> AsyncIterator[HeldLock]:
    """Nobody writes meanwhile. Waits, however long, until the ingestions that run have ended."""
    async with lock(settings.postgres, f"writing {alias}", wait_s=math.inf, busy=busy) as held:
        assert held is not None
        yield held


@asynccontextmanager
async def managing(settings: Settings, alias: str) -> AsyncIterator[None]:
    """One build, promotion, rollback or removal at a time. Conflict when another is at work."""
    async with lock(settings.postgres, f"managing {alias}") as held:
        if held is None:
            raise Conflict(
                f"Another `ai-assistant collections` command is at work on {alias!r}.",
                hint="Wait for its end, or end it: what it has built so far is kept.",
            )
        yield
