"""A request's deadline around whatever it waits for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import TypeVar

from assistant.errors import DeadlineExceeded
from assistant.types import RequestContext

T = TypeVar("T")
HINT = "Ask for less (max_tokens), or raise llm.request_timeout_s."


async def before_deadline(work: Awaitable[T], context: RequestContext) -> T:
    """The result of `work`. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(context.remaining_s()):
            return await work
    except TimeoutError:
        raise _over(context) from None


async def until_deadline(source: AsyncIterator[T], context: RequestContext) -> AsyncGenerator[T, None]:
    """The items of `source` until the deadline, then DeadlineExceeded. Closes the source."""
    try:
        while True:
            try:
                async with asyncio.timeout(context.remaining_s()):
                    item = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _over(context) from None
            yield item
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def _over(context: RequestContext) -> Exception:
    if context.remaining_s() > 0:
        # Somebody else's timeout: saying that the deadline passed would be wrong.
        return TimeoutError("A part of the request timed out.")
    return DeadlineExceeded("The answer was not complete when the time of the request was over.", hint=HINT)
