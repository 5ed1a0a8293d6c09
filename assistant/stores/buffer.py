"""Records that are written behind the request: queued in memory, copied to Postgres about once a second.

What waits here when the process is killed is lost; that is the price of costing a request nothing, and
why only observations go this way, never anything that somebody was promised.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import sql

from assistant.errors import AssistantError, ConfigurationError, StoreUnavailable
from assistant.stores.postgres import Connection, Database
from assistant.telemetry import Meter, NullMeter, get_logger

T = TypeVar("T")
Row = tuple[Any, ...]

CAPACITY = 10_000
BATCH = 1_000
FLUSH_S = 1.0
CLOSE_LIMIT_S = 5.0

log = get_logger("stores.buffer")


class RecordBuffer(Generic[T]):
    """Writes records of one kind into one table.

    `values` gives a record's columns, read at once: what the record refers to may change later.

    `columns` must start with `id`, made by the caller: a batch whose fate is unknown is written again
    without doubling. While Postgres is away records wait, at most `capacity`; newer ones are then dropped
    and counted in `dropped` and in ai_assistant_records_dropped_total.
    """

    def __init__(
        self,
        database: Database,
        table: str,
        columns: Sequence[str],
        values: Callable[[T], Row],
        meter: Meter | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._database = database
        self._name = table
        self._values = values
        self._meter = meter or NullMeter()
        self._capacity = capacity
        self._waiting: deque[Row] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self.dropped = 0
        """Records lost: Postgres was away too long, or refused them."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        target = sql.SQL("{} ({})").format(sql.Identifier("ai_assistant", table), names)
        self._copy = sql.SQL("copy {} from stdin").format(target)
        self._insert = sql.SQL("insert into {} values ({}) on conflict (id) do nothing").format(
            target, sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        )

    @property
    def waiting(self) -> int:
        """Records not written yet."""
        return len(self._waiting)

    def record(self, record: T) -> None:
        """Queue a record. Never waits and never raises; call it from the event loop's thread."""
        if len(self._waiting) >= self._capacity:
            self._drop(1)
            return
        try:
            row = self._values(record)
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            log.warning("record_refused", table=self._name, reason=str(error))
            self._drop(1)
            return
        self._waiting.append(row)
        if self._task is None or self._task.done():
            with suppress(RuntimeError):
                self._task = asyncio.get_running_loop().create_task(self._run())

    async def flush(self) -> None:
        """Write everything that waits. Raises StoreUnavailable or ConfigurationError; nothing is lost then."""
        async with self._writing:
            while self._waiting:
                batch = list(islice(self._waiting, BATCH))
                await self._write(batch)
                for _ in batch:
                    self._waiting.popleft()

    async def close(self) -> None:
        """Write what waits, for a few seconds at most; what remains then is dropped and counted."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self.flush()
        except (AssistantError, TimeoutError) as error:
            log.warning("records_lost_at_close", table=self._name, records=self.waiting, reason=str(error))
            self._drop(self.waiting)
            self._waiting.clear()

    async def _run(self) -> None:
        """Ends when nothing waits; the next record starts it again."""
        while self._waiting:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except (StoreUnavailable, ConfigurationError) as error:
                log.warning("records_wait", table=self._name, records=self.waiting, reason=str(error))

    async def _write(self, batch: Sequence[Row]) -> None:
        try:
            await self._database.repeatable(lambda connection: self._copy_in(connection, batch))
        except (StoreUnavailable, ConfigurationError):
            raise
        except (AssistantError, psycopg.Error):
            await self._write_singly(batch)

    async def _copy_in(self, connection: Connection, batch: Sequence[Row]) -> None:
        async with connection.cursor().copy(self._copy) as copy:
            for row in batch:
                await copy.write_row(row)

    async def _write_singly(self, batch: Sequence[Row]) -> None:
        """One bad record must not take the others with it, nor one that was written before."""
        for row in batch:
            try:
                await self._database.repeatable(lambda c, r=row: c.execute(self._insert, r))  # type: ignore[misc]
            except (StoreUnavailable, ConfigurationError):
                raise
            except (AssistantError, psycopg.Error) as error:
                log.warning("record_refused", table=self._name, reason=str(error))
                self._drop(1)

    def _drop(self, count: int) -> None:
        self.dropped += count
        if count:
            self._meter.add("ai_assistant_records_dropped_total", count, record=self._name)
