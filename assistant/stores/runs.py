"""Runs of ingestion: when, how it ended, how much, and what was skipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.errors import InvalidInput
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import from_row, jsonb, storable

RunStatus = Literal["running", "done", "failed", "cancelled", "interrupted"]
FinishedRun = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """`interrupted`: the process died, and a later run of the source noticed."""

    id: UUID
    source_id: UUID
    status: RunStatus
    counts: Mapping[str, int]
    error: str | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class IngestionError:
    """One document that a run skipped, the stage that refused it, and why."""

    external_id: str
    stage: str
    message: str
    created_at: datetime


class RunRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, source_id: UUID) -> UUID:
        """Open a run; one that was left open by a crash is closed as interrupted."""
        run_id = new_id()

        async def work(connection: Connection) -> UUID:
            await connection.execute(
                "update ai_assistant.ingestion_runs set status = 'interrupted', finished_at = now()"
                " where source_id = %s and status = 'running' and id <> %s",
                (source_id, run_id),
            )
            await connection.execute(
                "insert into ai_assistant.ingestion_runs (id, source_id) values (%s, %s)"
                " on conflict (id) do nothing",
                (run_id, source_id),
            )
            await _mark_source(connection, source_id, "running")
            return run_id

        return await self._database.repeatable(work)

    async def finish(
        self, run_id: UUID, status: FinishedRun, counts: Mapping[str, int], error: str | None = None
    ) -> None:
        """Close a run with what it did. A document that was skipped does not make it failed."""
        if status not in get_args(FinishedRun):
            raise InvalidInput(
                f"A run ends as one of {', '.join(get_args(FinishedRun))}, not {status!r}.", field="status"
            )

        async def work(connection: Connection) -> None:
            row = await one(
                connection,
                "update ai_assistant.ingestion_runs"
                " set status = %s, counts = %s, error = %s, finished_at = now()"
                " where id = %s returning source_id",
                (status, jsonb(counts), None if error is None else storable(error, 4000), run_id),
            )
            if row is not None:
                await _mark_source(connection, row["source_id"], status)

        await self._database.repeatable(work)

    async def error(self, run_id: UUID, external_id: str, stage: str, message: str) -> None:
        """Note a document that was skipped."""
        parameters = (new_id(), run_id, storable(external_id), storable(stage, 100), storable(message, 4000))

        async def work(connection: Connection) -> None:
            await connection.execute(
                "insert into ai_assistant.ingestion_errors (id, run_id, external_id, stage, message)"
                " values (%s, %s, %s, %s, %s) on conflict (id) do nothing",
                parameters,
            )

        await self._database.repeatable(work)

    async def latest(self, source_id: UUID) -> RunRecord | None:
        async def work(connection: Connection) -> RunRecord | None:
            row = await one(
                connection,
                "select * from ai_assistant.ingestion_runs where source_id = %s order by id desc limit 1",
                (source_id,),
            )
            return _run(row) if row else None

        return await self._database.repeatable(work)

    async def errors(self, run_id: UUID) -> list[IngestionError]:
        """What the run skipped, in order."""

        async def work(connection: Connection) -> list[IngestionError]:
            found = await rows(
                connection,
                "select external_id, stage, message, created_at from ai_assistant.ingestion_errors"
                " where run_id = %s order by id",
                (run_id,),
            )
            return [from_row(IngestionError, row) for row in found]

        return await self._database.repeatable(work)


async def _mark_source(connection: Connection, source_id: UUID, status: str) -> None:
    await connection.execute(
        "update ai_assistant.data_sources set processing_status = %s, updated_at = now() where id = %s",
        (status, source_id),
    )


def _run(row: DictRow) -> RunRecord:
    return from_row(RunRecord, row)
