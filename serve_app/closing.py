"""How a replica ends: Serve calls `__del__` when it drains one, and awaits what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable

from assistant import tracing


class Closing(ABC):
    """Set `_open` at the end of the constructor; then `close` runs once when the replica drains.

    Python's collector calls `__del__` too, also on objects whose constructor failed: nothing happens then.
    """

    _open = False

    @abstractmethod
    async def close(self) -> None: ...

    def __del__(self) -> Awaitable[None] | None:
        if not self._open:
            return None
        self._open = False
        return self._end()

    async def _end(self) -> None:
        try:
            await self.close()
        finally:
            await tracing.flush()
