"""How much there is and how old it is: a few counts for metrics, each one statement."""

from collections.abc import Mapping
from dataclasses import dataclass

from assistant.stores.postgres import Connection, Database, rows


@dataclass(frozen=True, slots=True)
class Overview:
    """`ages_s`: seconds since a source was last read without failure, or since it was made, by its name.

    `documents` are by source and status, `jobs` by kind and status.
    """

    ages_s: Mapping[str, float]
    documents: Mapping[tuple[str, str], int]
    jobs: Mapping[tuple[str, str], int]


class OverviewRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> Overview:
        """Raises as every method of Database."""

        async def work(connection: Connection) -> Overview:
            ages = await rows(
                connection,
                """
                select s.source_name, extract(epoch from now() - coalesce(
                    (select max(r.finished_at) from ai_assistant.ingestion_runs r
                        where r.source_id = s.id and r.status = 'done'),
                    s.created_at))::float8 as age_s
                from ai_assistant.data_sources s
                """,
            )
            documents = await rows(
                connection,
                """
                select s.source_name, d.status, count(*) as count
                from ai_assistant.documents d join ai_assistant.data_sources s on s.id = d.source_id
                group by s.source_name, d.status
                """,
            )
            jobs = await rows(
                connection,
                "select kind, status, count(*) as count from ai_assistant.jobs group by kind, status",
            )
            return Overview(
                {row["source_name"]: row["age_s"] for row in ages},
                {(row["source_name"], row["status"]): row["count"] for row in documents},
                {(row["kind"], row["status"]): row["count"] for row in jobs},
            )

        return await self._database.repeatable(work)
