"""Learning runs: jobs of one kind of which at most one is alive, and who may start them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.stores.jobs import Job, JobEvent, JobStatus
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import Page, from_row, jsonb, page_of, page_size, storable

JOB_KIND = "learning.run"
LEASE = "learning.scheduler"


@dataclass(frozen=True, slots=True)
class RunAlive:
    """The run that is alive. `launches` counts the processes started for it, `launch` names the last one.

    `abandoned`: a process claimed it and has not been heard of since its lease ran out.
    """

    job: Job
    launches: int
    launch: str | None
    launched_at: datetime | None
    abandoned: bool


@dataclass(frozen=True, slots=True)
class RunHistory:
    """`learned_at`: begin of the last run that ended well. `last_at`: begin of the last run whatever its end.
    `failed_at`: end of the last run, when that failed."""

    learned_at: datetime | None
    last_at: datetime | None
    failed_at: datetime | None


class LearningRunRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def lead(self, holder: str, lease_s: float) -> bool:
        """Take or extend the scheduler's lease. False: somebody else has it."""

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                """
                insert into ai_assistant.leases as l (name, holder, until)
                values (%(name)s, %(holder)s, now() + make_interval(secs => %(lease)s))
                on conflict (name) do update set holder = excluded.holder, until = excluded.until
                where l.holder = excluded.holder or l.until < now()
                returning name
                """,
                {"name": LEASE, "holder": holder, "lease": lease_s},
            )
            return row is not None

        return await self._database.repeatable(work)

    async def resign(self, holder: str) -> None:
        """Give the lease back, so that the next scheduler need not wait for its end."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "delete from ai_assistant.leases where name = %s and holder = %s", (LEASE, holder)
            )

        await self._database.repeatable(work)

    async def start(self, payload: Mapping[str, Any]) -> tuple[Job, bool]:
        """A new run, queued, and True; or the one that is alive, and False."""
        job_id = new_id()

        async def work(connection: Connection) -> tuple[Job, bool]:
            while True:
                made = await one(
                    connection,
                    "insert into ai_assistant.jobs (id, kind, payload) values (%s, %s, %s)"
                    " on conflict do nothing returning *",
                    (job_id, JOB_KIND, jsonb(payload)),
                )
                row = made or await one(
                    connection,
                    "select * from ai_assistant.jobs where id = %s"
                    " or (kind = %s and status in ('queued', 'running')) order by id = %s desc limit 1",
                    (job_id, JOB_KIND, job_id),
                )
                # None: the one that was in the way has ended in between.
                if row is not None:
                    return from_row(Job, row), row["id"] == job_id

        return await self._database.repeatable(work)

    async def alive(self) -> RunAlive | None:
        async def work(connection: Connection) -> RunAlive | None:
            row = await one(
                connection,
                "select *, (payload ->> 'launched_at')::timestamptz as launched_at,"
                " status = 'running' and lease_until < now() as abandoned"
                " from ai_assistant.jobs where kind = %s and status in ('queued', 'running')",
                (JOB_KIND,),
            )
            if row is None:
                return None
            payload = row["payload"]
            return RunAlive(
                job=from_row(Job, row),
                launches=int(payload.get("launches", 0)),
                launch=payload.get("launch"),
                launched_at=row["launched_at"],
                abandoned=bool(row["abandoned"]),
            )

        return await self._database.repeatable(work)

    async def note_launch(self, job_id: UUID, launch: str | None, number: int) -> None:
        """Remember that a process is about to be started: noted first, so that it is never lost sight of.

        `launch` None takes that back: none was started.
        """

        async def work(connection: Connection) -> None:
            await connection.execute(
                "update ai_assistant.jobs set updated_at = now(), payload = payload"
                " || jsonb_build_object('launch', %s::text, 'launches', %s::int, 'launched_at', now())"
                " where id = %s",
                (launch, number, job_id),
            )

        await self._database.repeatable(work)

    async def give_up(self, job_id: UUID, error: str) -> bool:
        """End a run that nobody works on as failed. False: it is not abandoned, or has ended."""

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                "update ai_assistant.jobs set status = 'failed', error = %s, finished_at = now(),"
                " lease_until = null, updated_at = now() where id = %s"
                " and (status = 'queued' or (status = 'running' and lease_until < now())) returning id",
                (storable(error, 4000), job_id),
            )
            return row is not None

        return await self._database.repeatable(work)

    async def history(self) -> RunHistory:
        async def work(connection: Connection) -> RunHistory:
            row = await one(
                connection,
                """
                with runs as (
                    select * from ai_assistant.jobs where kind = %s and status <> 'cancelled'
                ), last as (select * from runs order by id desc limit 1)
                select (select max(created_at) from runs where status = 'done') as learned_at,
                    (select created_at from last) as last_at,
                    (select finished_at from last where status = 'failed') as failed_at
                """,
                (JOB_KIND,),
            )
            assert row is not None
            return from_row(RunHistory, row)

        return await self._database.repeatable(work)

    async def get(self, job_id: UUID) -> Job | None:
        """The run of this id; None for jobs of other kinds."""

        async def work(connection: Connection) -> Job | None:
            row = await one(
                connection,
                "select * from ai_assistant.jobs where id = %s and kind = %s",
                (job_id, JOB_KIND),
            )
            return from_row(Job, row) if row else None

        return await self._database.repeatable(work)

    async def page(self, cursor: UUID | None, limit: int, status: JobStatus | None = None) -> Page[Job]:
        """Runs, newest first."""
        size = page_size(limit)

        async def work(connection: Connection) -> Page[Job]:
            found = await rows(
                connection,
                "select * from ai_assistant.jobs where kind = %(kind)s"
                " and (%(cursor)s::uuid is null or id < %(cursor)s)"
                " and (%(status)s::text is null or status = %(status)s) order by id desc limit %(limit)s",
                {"kind": JOB_KIND, "cursor": cursor, "status": status, "limit": size + 1},
            )
            jobs = [from_row(Job, row) for row in found]
            return page_of(jobs, [job.id for job in jobs], size)

        return await self._database.repeatable(work)

    async def steps(self, job_ids: Sequence[UUID]) -> dict[UUID, list[JobEvent]]:
        """Per run the last word on each of its steps, in the order in which they began."""

        async def work(connection: Connection) -> list[DictRow]:
            return await rows(
                connection,
                """
                select distinct on (job_id, data ->> 'name') job_id, seq, type, data, created_at,
                    min(seq) over (partition by job_id, data ->> 'name') as began
                from ai_assistant.job_events
                where job_id = any(%s) and type = 'step' order by job_id, data ->> 'name', seq desc
                """,
                (list(job_ids),),
            )

        found = await self._database.repeatable(work)
        steps: dict[UUID, list[JobEvent]] = {job_id: [] for job_id in job_ids}
        for row in sorted(found, key=lambda r: r["began"]):
            steps[row["job_id"]].append(from_row(JobEvent, row))
        return steps
