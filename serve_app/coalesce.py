"""Tokens that travel together: a message over a handle costs about as much as a token takes to make."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from assistant.llm.types import Piece


async def coalesced(source: AsyncIterator[Piece], interval_s: float) -> AsyncGenerator[list[Piece], None]:
    """Lists of pieces, at most one per `interval_s`; the first piece goes at once, and so does the end.

    Texts within a list are joined. Closing the generator closes the source.
    """
    waiting: list[Piece] = []
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def read() -> None:
        try:
            async for piece in source:
                waiting.append(piece)
                arrived.set()
        finally:
            arrived.set()

    reader = asyncio.create_task(read())
    sent_at = -interval_s
    try:
        while True:
            await arrived.wait()
            if not reader.done() and (pause := sent_at + interval_s - loop.time()) > 0:
                await asyncio.wait({reader}, timeout=pause)
            arrived.clear()
            if waiting:
                batch = joined(waiting)
                waiting.clear()
                sent_at = loop.time()
                yield batch
            if reader.done() and not waiting:
                reader.result()
                return
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours that carry only text become one piece."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        plain = piece.finish_reason is None and piece.usage is None
        if last is not None and plain and last.finish_reason is None and last.usage is None:
            result[-1] = Piece(last.text + piece.text)
        else:
            result.append(piece)
    return result
