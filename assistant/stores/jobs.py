"""Long work: queued once, claimed under a lease, reported by events.

A worker holds a job until its lease runs out; `renew` extends it and tells, by False, that the job was
cancelled or taken over. All times are the database's, so workers' clocks do not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.errors import InvalidInput, NotFound
from assistant.stores.postgres import Connection, Database, one, rows, scalar
from assistant.stores.values import from_row, identifier, jsonb, storable

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
FinishedJob = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """`attempts` counts claims: above 1, an earlier worker died or lost its lease."""

    id: UUID
    kind: str
    payload: Mapping[str, Any]
    status: JobStatus
    worker: str | None
    attempts: int
    error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        return self.status in get_args(FinishedJob)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """`seq` counts from 1 within a job and only grows; it may skip numbers."""

    seq: int
    type: str
    data: Mapping[str, Any]
    created_at: datetime


class JobRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, kind: str, payload: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Put a job into the queue; the same kind and key return the job that is there already."""
        job_id = new_id()

        async def work(connection: Connection) -> Job:
            return (await insert_job(connection, job_id, kind, payload, idempotency_key))[0]

        return await self._database.repeatable(work)

    async def claim(self, kind: str, worker: str, lease_s: float) -> Job | None:
        """The oldest job of this kind that is queued or whose lease ran out, now held by `worker`.

        No two workers get the same one. None: nothing to do.
        """

        async def work(connection: Connection) -> Job | None:
            row = await one(
                connection,
                """
                with due as (
                    select id from ai_assistant.jobs
                    where kind = %s and (status = 'queued' or (status = 'running' and lease_until < now()))
                    order by id limit 1 for update skip locked
                )
                update ai_assistant.jobs set status = 'running', worker = %s, attempts = attempts + 1,
                    lease_until = now() + make_interval(secs => %s), updated_at = now()
                where id = (select id from due)
                returning *
                """,
                (kind, identifier(worker, "worker", 255), lease_s),
            )
            return _job(row) if row else None

        return await self._database.repeatable(work)

    async def renew(self, job_id: UUID, worker: str, lease_s: float) -> bool:
        """Extend the lease. False: the job is no longer this worker's, which must stop working on it."""

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                "update ai_assistant.jobs set lease_until = now() + make_interval(secs => %s)"
                " where id = %s and worker = %s and status = 'running' returning id",
                (lease_s, job_id, worker),
            )
            return row is not None

        return await self._database.repeatable(work)

    async def finish(self, job_id: UUID, worker: str, status: FinishedJob, error: str | None = None) -> bool:
        """End a job. False: it was cancelled or taken over, and keeps the state that it has."""
        if status not in get_args(FinishedJob):
            raise InvalidInput(
                f"A job ends as one of {', '.join(get_args(FinishedJob))}, not {status!r}.", field="status"
            )

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                "update ai_assistant.jobs set status = %(status)s, error = %(error)s, lease_until = null,"
                " finished_at = coalesce(finished_at, now()), updated_at = now()"
                " where id = %(id)s and worker = %(worker)s and status in ('running', %(status)s)"
                " returning id",
                {
                    "status": status,
                    "error": None if error is None else storable(error, 4000),
                    "id": job_id,
                    "worker": worker,
                },
            )
            return row is not None

        return await self._database.repeatable(work)

    async def cancel(self, job_id: UUID) -> bool:
        """Cancel a job that has not ended; its worker learns it from `renew`. False: nothing to cancel."""

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                "update ai_assistant.jobs set status = 'cancelled', finished_at = now(), lease_until = null,"
                " updated_at = now() where id = %s and status in ('queued', 'running') returning id",
                (job_id,),
            )
            return row is not None

        return await self._database.repeatable(work)

    async def get(self, job_id: UUID) -> Job | None:
        async def work(connection: Connection) -> Job | None:
            row = await one(connection, "select * from ai_assistant.jobs where id = %s", (job_id,))
            return _job(row) if row else None

        return await self._database.repeatable(work)

    async def append_event(self, job_id: UUID, type: str, data: Mapping[str, Any]) -> int:  # noqa: A002
        """Add an event and return its `seq`. NotFound for an unknown job.

        The job's row stays locked until commit, so readers never see a later event before an earlier one.
        """
        event_id = new_id()

        async def work(connection: Connection) -> int:
            seq = await scalar(
                connection,
                "update ai_assistant.jobs set event_seq = event_seq + 1 where id = %s returning event_seq",
                (job_id,),
            )
            if seq is None:
                raise NotFound(f"There is no job {job_id}.")
            written = await scalar(
                connection,
                "insert into ai_assistant.job_events (job_id, seq, id, type, data)"
                " values (%s, %s, %s, %s, %s) on conflict (id) do nothing returning seq",
                (job_id, seq, event_id, storable(type), jsonb(data)),
            )
            if written is None:
                written = await scalar(
                    connection, "select seq from ai_assistant.job_events where id = %s", (event_id,)
                )
            return int(written)

        return await self._database.repeatable(work)

    async def events_after(self, job_id: UUID, seq: int, limit: int = 100) -> list[JobEvent]:
        """Events with a greater `seq`, in order: 0 reads from the start."""

        async def work(connection: Connection) -> list[JobEvent]:
            found = await rows(
                connection,
                "select seq, type, data, created_at from ai_assistant.job_events"
                " where job_id = %s and seq > %s order by seq limit %s",
                (job_id, seq, limit),
            )
            return [from_row(JobEvent, row) for row in found]

        return await self._database.repeatable(work)


async def insert_job(
    connection: Connection,
    job_id: UUID,
    kind: str,
    payload: Mapping[str, Any],
    idempotency_key: str | None,
) -> tuple[Job, bool]:
    """The job of this id or key, and whether it is new. For other repositories' transactions."""
    if idempotency_key is not None:
        identifier(idempotency_key, "idempotency_key", 500)
    made = await one(
        connection,
        "insert into ai_assistant.jobs (id, kind, payload, idempotency_key) values (%s, %s, %s, %s)"
        " on conflict do nothing returning *",
        (job_id, identifier(kind, "kind", 100), jsonb(payload), idempotency_key),
    )
    row = made or await one(
        connection,
        "select * from ai_assistant.jobs where id = %s or (kind = %s and idempotency_key = %s)",
        (job_id, kind, idempotency_key),
    )
    assert row is not None
    return _job(row), made is not None


def _job(row: DictRow) -> Job:
    return from_row(Job, row)
