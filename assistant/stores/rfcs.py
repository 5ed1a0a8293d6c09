"""RFC drafts with their stages and citations, visible to those who share a term of their `acl`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.errors import InvalidInput
from assistant.stores.jobs import insert_job
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import Page, from_row, jsonb, page_of, page_size, storable
from assistant.types import Citation

RfcStatus = Literal["queued", "running", "done", "failed", "cancelled"]
MAX_TITLE = 500
JOB_KIND = "rfc"


@dataclass(frozen=True, slots=True)
class RfcRecord:
    """`content_markdown` is empty until the status is done."""

    id: UUID
    title: str
    brief: str
    template: str
    answers: Mapping[str, str]
    principal_id: str
    acl: tuple[str, ...]
    job_id: UUID | None
    status: RfcStatus
    error: str | None
    content_markdown: str
    llm_provider: str | None
    tokens_used: int | None
    cost_usd: Decimal | None
    generation_time_ms: int | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage made; kept so that an interrupted draft goes on where it was."""

    stage: str
    artefact: Mapping[str, Any]
    model: str | None
    duration_ms: int | None
    created_at: datetime


class RfcRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(
        self,
        title: str,
        brief: str,
        template: str,
        principal_id: str,
        acl: Sequence[str],
        answers: Mapping[str, str],
        payload: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> RfcRecord:
        """A new RFC and its job (kind "rfc", payload + `rfc_id`) in one transaction.

        No worker can see the job before the RFC. The same idempotency key returns the first RFC; put the
        principal into the key. Raises InvalidInput naming the field.
        """
        rfc_id, job_id = new_id(), new_id()
        body = {**(payload or {}), "rfc_id": str(rfc_id)}
        values = _checked(title, brief, template, principal_id, acl, answers)

        async def work(connection: Connection) -> RfcRecord:
            job, new = await insert_job(connection, job_id, JOB_KIND, body, idempotency_key)
            if new:
                await _insert(connection, rfc_id, job.id, values)
            row = await one(
                connection, "select * from ai_assistant.rfcs where id = %s", (UUID(job.payload["rfc_id"]),)
            )
            assert row is not None
            return _rfc(row)

        return await self._database.repeatable(work)

    async def create(
        self,
        id: UUID,  # noqa: A002
        title: str,
        brief: str,
        template: str,
        principal_id: str,
        acl: Sequence[str],
        job_id: UUID | None,
        answers: Mapping[str, str],
    ) -> RfcRecord:
        """A new RFC for a job that exists; a second call with the same id changes nothing."""
        values = _checked(title, brief, template, principal_id, acl, answers)

        async def work(connection: Connection) -> RfcRecord:
            await _insert(connection, id, job_id, values)
            row = await one(connection, "select * from ai_assistant.rfcs where id = %s", (id,))
            assert row is not None
            return _rfc(row)

        return await self._database.repeatable(work)

    async def get(self, rfc_id: UUID, acl_terms: Sequence[str]) -> RfcRecord | None:
        """The RFC; None when there is none or none that these terms may see."""

        async def work(connection: Connection) -> RfcRecord | None:
            row = await one(
                connection,
                "select * from ai_assistant.rfcs where id = %s and acl && %s::text[]",
                (rfc_id, list(acl_terms)),
            )
            return _rfc(row) if row else None

        return await self._database.repeatable(work)

    async def page(self, acl_terms: Sequence[str], cursor: UUID | None, limit: int) -> Page[RfcRecord]:
        """RFCs that these terms may see, newest first."""
        size = page_size(limit)

        async def work(connection: Connection) -> Page[RfcRecord]:
            found = await rows(
                connection,
                "select * from ai_assistant.rfcs where acl && %(terms)s::text[]"
                " and (%(cursor)s::uuid is null or id < %(cursor)s) order by id desc limit %(limit)s",
                {"terms": list(acl_terms), "cursor": cursor, "limit": size + 1},
            )
            records = [_rfc(row) for row in found]
            return page_of(records, [record.id for record in records], size)

        return await self._database.repeatable(work)

    async def save_stage(
        self,
        rfc_id: UUID,
        stage: str,
        artefact: Mapping[str, Any],
        model: str | None,
        duration_ms: int | None,
    ) -> None:
        """Keep what a stage made, in place of what it made before. A queued RFC becomes running."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                insert into ai_assistant.rfc_stages (rfc_id, stage, artefact, model, duration_ms)
                values (%s, %s, %s, %s, %s)
                on conflict (rfc_id, stage) do update set artefact = excluded.artefact,
                    model = excluded.model, duration_ms = excluded.duration_ms, updated_at = now()
                """,
                (rfc_id, storable(stage), jsonb(artefact), model, duration_ms),
            )
            await connection.execute(
                "update ai_assistant.rfcs set status = 'running', updated_at = now()"
                " where id = %s and status = 'queued'",
                (rfc_id,),
            )

        await self._database.repeatable(work)

    async def stages(self, rfc_id: UUID) -> dict[str, StageRecord]:
        """The stages kept so far, in the order in which they were first done."""

        async def work(connection: Connection) -> dict[str, StageRecord]:
            found = await rows(
                connection,
                "select stage, artefact, model, duration_ms, created_at from ai_assistant.rfc_stages"
                " where rfc_id = %s order by created_at, stage",
                (rfc_id,),
            )
            return {row["stage"]: from_row(StageRecord, row) for row in found}

        return await self._database.repeatable(work)

    async def finish(
        self,
        rfc_id: UUID,
        content_markdown: str,
        citations: Sequence[Citation],
        llm_provider: str | None,
        tokens_used: int | None,
        cost_usd: Decimal | None,
        generation_time_ms: int | None,
    ) -> None:
        """Store the document and its citations together; the status becomes done."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "update ai_assistant.rfcs set content = %s, llm_provider = %s, tokens_used = %s,"
                " cost_usd = %s, generation_time_ms = %s, status = 'done', error = null,"
                " finished_at = now(), updated_at = now() where id = %s",
                (
                    storable(content_markdown),
                    None if llm_provider is None else storable(llm_provider, 50),
                    tokens_used,
                    cost_usd,
                    generation_time_ms,
                    rfc_id,
                ),
            )
            await connection.execute("delete from ai_assistant.rfc_citations where rfc_id = %s", (rfc_id,))
            cursor = connection.cursor()
            await cursor.executemany(
                "insert into ai_assistant.rfc_citations (rfc_id, marker, chunk_id, document_id, title,"
                " headings, start_offset, end_offset, quote, content_hash, url, version)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [_citation_values(rfc_id, citation) for citation in citations],
            )

        await self._database.repeatable(work)

    async def fail(self, rfc_id: UUID, error: str) -> None:
        """Mark as failed, with a reason safe to show. A finished document stays finished."""
        await self._end(rfc_id, "failed", storable(error, 4000))

    async def cancel(self, rfc_id: UUID) -> None:
        """Mark as cancelled. A finished document stays finished."""
        await self._end(rfc_id, "cancelled", None)

    async def citations(self, rfc_id: UUID) -> tuple[Citation, ...]:
        """The citations of the stored document, by marker."""

        async def work(connection: Connection) -> tuple[Citation, ...]:
            found = await rows(
                connection,
                "select * from ai_assistant.rfc_citations where rfc_id = %s order by marker",
                (rfc_id,),
            )
            return tuple(_citation(row) for row in found)

        return await self._database.repeatable(work)

    async def _end(self, rfc_id: UUID, status: RfcStatus, error: str | None) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(
                "update ai_assistant.rfcs set status = %s, error = %s, finished_at = now(), updated_at = now()"
                " where id = %s and status in ('queued', 'running')",
                (status, error, rfc_id),
            )

        await self._database.repeatable(work)


def _checked(
    title: str, brief: str, template: str, principal_id: str, acl: Sequence[str], answers: Mapping[str, str]
) -> tuple[Any, ...]:
    clean = " ".join(storable(title).split())
    if not 1 <= len(clean) <= MAX_TITLE:
        raise InvalidInput(f"title must have 1 to {MAX_TITLE} characters, not {len(clean)}.", field="title")
    if not acl:
        raise InvalidInput("acl must name at least one term, or nobody could see the RFC.", field="acl")
    return clean, storable(brief), template, principal_id, list(acl), jsonb(answers)


async def _insert(connection: Connection, rfc_id: UUID, job_id: UUID | None, values: tuple[Any, ...]) -> None:
    await connection.execute(
        "insert into ai_assistant.rfcs"
        " (id, job_id, title, brief, template_used, principal_id, acl, answers)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (id) do nothing",
        (rfc_id, job_id, *values),
    )


def _rfc(row: DictRow) -> RfcRecord:
    return RfcRecord(
        id=row["id"],
        title=row["title"],
        brief=row["brief"],
        template=row["template_used"],
        answers=row["answers"],
        principal_id=row["principal_id"],
        acl=tuple(row["acl"]),
        job_id=row["job_id"],
        status=row["status"],
        error=row["error"],
        content_markdown=row["content"],
        llm_provider=row["llm_provider"],
        tokens_used=row["tokens_used"],
        cost_usd=row["cost_usd"],
        generation_time_ms=row["generation_time_ms"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
    )


def _citation_values(rfc_id: UUID, citation: Citation) -> tuple[Any, ...]:
    return (
        rfc_id,
        citation.marker,
        citation.chunk_id,
        citation.document_id,
        storable(citation.title),
        [storable(heading) for heading in citation.headings],
        citation.start,
        citation.end,
        storable(citation.quote),
        citation.content_hash,
        citation.url,
        citation.version,
    )


def _citation(row: DictRow) -> Citation:
    return Citation(
        marker=row["marker"],
        chunk_id=row["chunk_id"],
        document_id=row["document_id"],
        title=row["title"],
        headings=tuple(row["headings"]),
        start=row["start_offset"],
        end=row["end_offset"],
        quote=row["quote"],
        content_hash=row["content_hash"],
        url=row["url"],
        version=row["version"],
    )
