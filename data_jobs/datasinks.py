"""The end of the Ray Data pipeline: a write task opens the stores where it runs and closes them again."""

import asyncio
from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource.datasink import WriteResult

from data_jobs.job import Job, Part
from data_jobs.store_stage import Stored, Stores, StoreStage

ROWS_PER_WRITE = 16
"""Document parts per write task: enough to pay for opening the stores, few enough to lose little."""


class ChunkSink(Datasink[Stored]):
    """Idempotent: a repeated write task overwrites what it wrote before. `total` is known at the end."""

    def __init__(self, job: Job, progress: Any) -> None:
        self._job = job
        self._progress = progress
        self.total = Stored()

    @property
    def min_rows_per_write(self) -> int:
        return ROWS_PER_WRITE

    def write(self, blocks: Iterable[Block], ctx: Any) -> Stored:
        return asyncio.run(self._write(blocks))

    def on_write_complete(self, write_result: WriteResult[Stored]) -> None:
        self.total = sum(write_result.write_returns, Stored())

    async def _write(self, blocks: Iterable[Block]) -> Stored:
        total = Stored()
        async with Stores.open(self._job.settings) as stores:
            stage = StoreStage(stores, self._job)
            for block in blocks:
                rows = BlockAccessor.for_block(block).iter_rows(public_row_format=False)
                parts = [Part.of(row) for row in rows]
                for start in range(0, len(parts), ROWS_PER_WRITE):
                    stored = await stage.store(parts[start : start + ROWS_PER_WRITE])
                    self._progress.add.remote(stored)
                    total += stored
        return total
