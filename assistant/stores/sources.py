"""The sources that knowledge comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import identifier, jsonb


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """`source_type` is the collection it belongs to by the product's plan, `kind` the connector that reads it."""

    id: UUID
    name: str
    source_type: str
    kind: str
    config: Mapping[str, Any]
    status: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Documents by state, and the chunks of those that are ready."""

    source_id: UUID
    documents: int
    chunks: int
    pending: int
    failed: int


class SourceRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, name: str, source_type: str, kind: str, config: Mapping[str, Any]) -> SourceRecord:
        """The source called `name`, made or brought to this type, kind and configuration."""
        parameters = (
            new_id(),
            identifier(name, "name", 255),
            identifier(source_type, "source_type", 50),
            identifier(kind, "kind", 50),
            jsonb(config),
        )

        async def work(connection: Connection) -> SourceRecord:
            row = await one(
                connection,
                """
                insert into ai_assistant.data_sources (id, source_name, source_type, kind, config)
                values (%s, %s, %s, %s, %s)
                on conflict (source_name) do update set
                    source_type = excluded.source_type, kind = excluded.kind,
                    config = excluded.config, updated_at = now()
                returning *
                """,
                parameters,
            )
            assert row is not None
            return _source(row)

        return await self._database.repeatable(work)

    async def list(self) -> list[SourceRecord]:
        """All sources by name."""

        async def work(connection: Connection) -> list[SourceRecord]:
            found = await rows(connection, "select * from ai_assistant.data_sources order by source_name")
            return [_source(row) for row in found]

        return await self._database.repeatable(work)

    async def counts(self) -> dict[str, SourceCounts]:
        """What each source holds, by its name."""

        async def work(connection: Connection) -> dict[str, SourceCounts]:
            found = await rows(
                connection,
                """
                select s.source_name, s.id,
                    count(d.id) filter (where d.status = 'ready') as ready,
                    coalesce(sum(d.chunk_count) filter (where d.status = 'ready'), 0) as chunks,
                    count(d.id) filter (where d.status = 'pending') as pending,
                    count(d.id) filter (where d.status = 'failed') as failed
                from ai_assistant.data_sources s
                left join ai_assistant.documents d on d.source_id = s.id
                group by s.id order by s.source_name
                """,
            )
            return {
                row["source_name"]: SourceCounts(
                    row["id"], row["ready"], int(row["chunks"]), row["pending"], row["failed"]
                )
                for row in found
            }

        return await self._database.repeatable(work)


def _source(row: DictRow) -> SourceRecord:
    return SourceRecord(
        id=row["id"],
        name=row["source_name"],
        source_type=row["source_type"],
        kind=row["kind"],
        config=row["config"],
        status=row["processing_status"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
