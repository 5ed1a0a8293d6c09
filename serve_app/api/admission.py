"""How many requests are worked on at once, and how many may wait."""

import asyncio
from types import TracebackType

from assistant.errors import RateLimited


class Admission:
    """At most `running` inside and `waiting` before the door; everybody else is refused at once.

    Refusing early keeps the answer a problem body of ours; Serve's own limit behind it answers plain text.
    """

    def __init__(self, running: int, waiting: int, retry_after_s: float = 1.0) -> None:
        self._slots = asyncio.Semaphore(running)
        self._room = waiting
        self._waiting = 0
        self._retry_after_s = retry_after_s

    @property
    def waiting(self) -> int:
        return self._waiting

    async def __aenter__(self) -> None:
        """Raises RateLimited when even the waiting room is full."""
        if self._slots.locked():
            if self._waiting >= self._room:
                raise RateLimited(
                    "Too many requests are being worked on.",
                    hint="Try again in a moment.",
                    retry_after_s=self._retry_after_s,
                )
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._slots.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slots.release()
