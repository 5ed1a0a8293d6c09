"""Server-sent events that say how they end: keep-alives, errors in band, and nothing left running."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Send

from assistant.errors import AssistantError
from serve_app.api.errors import unexpected

KEEP_ALIVE_S = 15.0
"""Proxies close connections that are silent for 30 to 60 seconds."""
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event(data: Any, *, name: str | None = None, id: int | None = None) -> bytes:  # noqa: A002
    """One event with JSON data."""
    head = (b"" if id is None else b"id: %d\n" % id) + (f"event: {name}\n".encode() if name else b"")
    return head + b"data: " + to_json(data) + b"\n\n"


class EventStream(StreamingResponse):
    """A stream that closes its source whichever way it ends, so that a slot is free at once."""

    media_type = "text/event-stream"

    def __init__(self, relay: "_Relay") -> None:
        super().__init__(relay.events(), headers=HEADERS)
        self._relay = relay

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self._relay.aclose()


async def open_stream(
    source: AsyncGenerator[bytes, None],
    error_event: Callable[[AssistantError], bytes],
    keep_alive_s: float = KEEP_ALIVE_S,
) -> EventStream:
    """The response for `source`, once its first event is there.

    What fails before that is raised, so that it gets a status of its own. After `keep_alive_s` without an
    event, or after the first one, the status is sent, and a failure becomes `error_event`.
    """
    relay = _Relay(source, error_event, keep_alive_s)
    try:
        await relay.wait_for_first()
    except BaseException:
        await relay.aclose()
        raise
    return EventStream(relay)


class _Relay:
    """Passes events on. The step that waits for the next one is a task, so that a pause can be filled."""

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        error_event: Callable[[AssistantError], bytes],
        keep_alive_s: float,
    ) -> None:
        self._source = source
        self._error_event = error_event
        self._keep_alive_s = keep_alive_s
        self._step: asyncio.Future[bytes] = asyncio.ensure_future(anext(source))

    async def wait_for_first(self) -> None:
        await asyncio.wait({self._step}, timeout=self._keep_alive_s)
        if self._step.done():
            error = self._step.exception()
            if error is not None and not isinstance(error, StopAsyncIteration):
                raise error

    async def events(self) -> AsyncGenerator[bytes, None]:
        if not self._step.done():
            yield KEEP_ALIVE
        while True:
            while not (await asyncio.wait({self._step}, timeout=self._keep_alive_s))[0]:
                yield KEEP_ALIVE
            try:
                item = self._step.result()
            except StopAsyncIteration:
                return
            except AssistantError as error:
                yield self._error_event(error)
                return
            except Exception as error:
                yield self._error_event(unexpected(error))
                return
            yield item
            self._step = asyncio.ensure_future(anext(self._source))

    async def aclose(self) -> None:
        """Stop waiting for the next event and let the source run its `finally`."""
        if not self._step.done():
            self._step.cancel()
        await asyncio.gather(self._step, return_exceptions=True)
        await self._source.aclose()
