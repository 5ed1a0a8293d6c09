"""The adapters that are in an engine now: swapped under load, each freed with its last request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from assistant.llm.adapters import Adapter
from assistant.telemetry import get_logger

T = TypeVar("T")

log = get_logger("adapters")


@dataclass(eq=False)
class Resident(Generic[T]):
    """A loaded adapter. `inside` is the engine's own handle of it; `users` run or wait with it."""

    adapter: Adapter
    inside: T
    users: int = 0
    retired: bool = False


class Residents(Generic[T]):
    """`load` raises ConfigurationError; `unload` is called once per loaded adapter, when nobody uses it."""

    def __init__(
        self, load: Callable[[Adapter], Awaitable[T]], unload: Callable[[T], Awaitable[None]]
    ) -> None:
        self._load = load
        self._unload = unload
        self._here: dict[str, Resident[T]] = {}
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._here)

    def all(self) -> list[T]:
        return [resident.inside for resident in self._here.values()]

    async def change(self, adapters: Sequence[Adapter]) -> None:
        """Have exactly these, loading before anything leaves. When one cannot be loaded nothing changes."""
        async with self._changing:
            kept = {a.name: self._here[a.name] for a in adapters if self._has(a)}
            new: dict[str, Resident[T]] = {}
            try:
                for adapter in adapters:
                    if adapter.name not in kept and adapter.name not in new:
                        new[adapter.name] = Resident(adapter, await self._load(adapter))
            except BaseException:
                self._retire(new.values())
                raise
            gone = [resident for resident in self._here.values() if resident not in kept.values()]
            self._here = kept | new
            self._retire(gone)

    def hold(self, name: str) -> Resident[T]:
        """Keep it from leaving until `release`. KeyError when it is not loaded."""
        resident = self._here[name]
        resident.users += 1
        return resident

    def release(self, resident: Resident[T]) -> None:
        resident.users -= 1
        if resident.retired and not resident.users:
            self._start_leaving(resident)

    async def close(self) -> None:
        """Unload all. Nobody may hold one any more."""
        async with self._changing:
            # One change may have been under way; what it loaded is here by now.
            self._retire(self._here.values())
            self._here = {}
        await asyncio.gather(*self._leaving)

    def _has(self, adapter: Adapter) -> bool:
        resident = self._here.get(adapter.name)
        return resident is not None and resident.adapter.card == adapter.card

    def _retire(self, residents: Iterable[Resident[T]]) -> None:
        for resident in residents:
            resident.retired = True
            if not resident.users:
                self._start_leaving(resident)

    def _start_leaving(self, resident: Resident[T]) -> None:
        task = asyncio.create_task(self._leave(resident))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, resident: Resident[T]) -> None:
        try:
            await self._unload(resident.inside)
        except Exception as error:
            # Its memory stays taken; requests do not suffer from that.
            log.warning("adapter_not_unloaded", adapter=resident.adapter.name, reason=str(error))
