"""Streams: keep-alives in pauses, errors by where they happen, sources that are always closed."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from assistant.errors import AssistantError, NotFound
from serve_app.api import sse


def told(error: AssistantError) -> bytes:
    return sse.event({"code": error.code}, name="error")


class Source:
    """Yields `items`; numbers are pauses, exceptions are raised."""

    def __init__(self, *items: bytes | float | Exception) -> None:
        self.items = items
        self.closed = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, bytes):
                    yield item
                else:
                    await asyncio.sleep(item)
        finally:
            self.closed = True


async def collect(response: sse.EventStream) -> list[bytes]:
    sent: list[bytes] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])

    await response.stream_response(send)  # type: ignore[arg-type]
    return sent


def test_event_is_one_line_of_json_whatever_is_in_it() -> None:
    assert sse.event({"a": "x\ny"}, name="stage", id=7) == b'id: 7\nevent: stage\ndata: {"a":"x\\ny"}\n\n'


async def test_pauses_are_filled() -> None:
    source = Source(b"1", 0.1, b"2")
    sent = await collect(await sse.open_stream(source.events(), told, keep_alive_s=0.02))
    assert sent[0] == b"1"
    assert sent[-1] == b"2"
    assert sse.KEEP_ALIVE in sent
    assert source.closed


async def test_slow_first_event_starts_the_stream_with_a_keep_alive() -> None:
    source = Source(0.05, b"1")
    sent = await collect(await sse.open_stream(source.events(), told, keep_alive_s=0.01))
    assert sent[0] == sse.KEEP_ALIVE
    assert sent[-1] == b"1"


async def test_error_before_the_first_event_is_raised() -> None:
    source = Source(NotFound("no"))
    with pytest.raises(NotFound):
        await sse.open_stream(source.events(), told)
    assert source.closed


async def test_later_errors_are_told_in_band() -> None:
    known = Source(b"1", NotFound("no"))
    assert await collect(await sse.open_stream(known.events(), told)) == [b"1", told(NotFound("no"))]
    unknown = Source(b"1", KeyError("secret"))
    assert await collect(await sse.open_stream(unknown.events(), told)) == [b"1", told(AssistantError("x"))]


async def test_empty_source_is_an_empty_stream() -> None:
    assert await collect(await sse.open_stream(Source().events(), told)) == []


async def test_source_is_closed_when_the_client_leaves_between_events() -> None:
    source = Source(b"1", 60.0)
    response = await sse.open_stream(source.events(), told)
    started = asyncio.Event()

    async def send(message: object) -> None:
        started.set()

    task = asyncio.create_task(response.stream_response(send))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed


async def test_source_is_closed_when_sending_fails() -> None:
    source = Source(b"1", b"2")
    response = await sse.open_stream(source.events(), told)

    async def send(message: object) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await response.stream_response(send)  # type: ignore[arg-type]
    assert source.closed


async def test_source_is_closed_when_the_caller_leaves_before_the_first_event() -> None:
    source = Source(60.0)
    task = asyncio.create_task(sse.open_stream(source.events(), told))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed
