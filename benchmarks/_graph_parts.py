"""Deployments that only measure: what a handle costs per call and per streamed token."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ray.serve.handle import DeploymentHandle

from assistant.llm.types import Piece
from serve_app.coalesce import coalesced


async def paced(tokens: int, per_s: float) -> AsyncIterator[Piece]:
    """Pieces as an engine makes them: evenly, whatever happens to the earlier ones."""
    started = time.perf_counter()
    for number in range(tokens):
        ahead = number / per_s - (time.perf_counter() - started)
        if ahead > 0:
            await asyncio.sleep(ahead)
        yield Piece(" word")
    yield Piece("", "stop")


class Source:
    """Stands for LocalLLM without a model. `coalesce_ms` below zero sends each piece alone."""

    async def stream(
        self, tokens: int, per_s: float, coalesce_ms: float
    ) -> AsyncGenerator[list[Piece], None]:
        if coalesce_ms < 0:
            async for piece in paced(tokens, per_s):
                yield [piece]
            return
        async for batch in coalesced(paced(tokens, per_s), coalesce_ms / 1000):
            yield batch

    async def make(self, tokens: int, per_s: float) -> int:
        """The same pieces, kept here: what making them costs without a handle."""
        count = 0
        async for _ in paced(tokens, per_s):
            count += 1
        return count

    async def nothing(self) -> None:
        """One hop."""


class Drain:
    """Stands for the Router: it reads streams of `Source`."""

    def __init__(self, source: DeploymentHandle) -> None:
        self._stream = source.options(method_name="stream", stream=True)
        self._make = source.options(method_name="make")
        self._nothing = source.options(method_name="nothing")

    async def drain(self, streams: int, *arguments: Any) -> int:
        """Messages received over `streams` streams at once."""
        return sum(await asyncio.gather(*(self._one(arguments) for _ in range(streams))))

    async def make(self, streams: int, tokens: int, per_s: float) -> int:
        return sum(await asyncio.gather(*(self._make.remote(tokens, per_s) for _ in range(streams))))

    async def hops(self, calls: int, at_once: int) -> list[float]:
        """Milliseconds of each of `calls` calls."""
        times: list[float] = []

        async def one() -> None:
            for _ in range(calls // at_once):
                started = time.perf_counter()
                await self._nothing.remote()
                times.append((time.perf_counter() - started) * 1000)

        await asyncio.gather(*(one() for _ in range(at_once)))
        return times

    async def _one(self, arguments: tuple[Any, ...]) -> int:
        messages = 0
        async for _ in self._stream.remote(*arguments):
            messages += 1
        return messages
