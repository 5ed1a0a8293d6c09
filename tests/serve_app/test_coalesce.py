"""Pieces that travel together: nothing lost, nothing reordered, the first at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from assistant.errors import BackendFailed
from assistant.llm.types import Piece
from assistant.types import Usage
from serve_app.coalesce import coalesced, joined

END = Piece("", "stop", Usage(1, 2))


async def burst(*pieces: Piece | Exception) -> AsyncIterator[Piece]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def test_burst_travels_together() -> None:
    words = [Piece(f"{n} ") for n in range(50)]
    batches = [b async for b in coalesced(burst(*words, END), 0.05)]
    text = "".join(p.text for b in batches for p in b)
    assert text == "".join(w.text for w in words)
    assert batches[-1][-1] == END
    assert len(batches) <= 3


async def test_first_piece_does_not_wait_for_the_interval() -> None:
    release = asyncio.Event()

    async def source() -> AsyncIterator[Piece]:
        yield Piece("first")
        await release.wait()
        yield END

    batches = coalesced(source(), 3600)
    async with asyncio.timeout(5):
        assert await anext(batches) == [Piece("first")]
        release.set()
        assert await anext(batches) == [END]
    await batches.aclose()


async def test_zero_interval_passes_on_what_is_there() -> None:
    async def source() -> AsyncIterator[Piece]:
        for n in range(3):
            yield Piece(str(n))
            await asyncio.sleep(0.005)

    assert [b async for b in coalesced(source(), 0)] == [[Piece("0")], [Piece("1")], [Piece("2")]]


async def test_failure_comes_after_what_was_made_before_it() -> None:
    got: list[Piece] = []

    async def collect() -> None:
        async for batch in coalesced(burst(Piece("a"), Piece("b"), BackendFailed("x")), 0.02):
            got.extend(batch)

    with pytest.raises(BackendFailed):
        await collect()
    assert joined(got) == [Piece("ab")]


async def test_closing_closes_the_source() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[Piece]:
        try:
            yield Piece("a")
            await asyncio.sleep(60)
        finally:
            closed.set()

    batches = coalesced(source(), 0.01)
    await anext(batches)
    await batches.aclose()
    assert closed.is_set()


def test_only_plain_neighbours_are_joined() -> None:
    usage = Piece("c", None, Usage(1, 1))
    assert joined([Piece("a"), Piece("b"), usage, Piece("d"), END]) == [Piece("ab"), usage, Piece("d"), END]
