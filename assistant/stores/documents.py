"""The documents of the sources: identity, lineage and whether their chunks are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import Page, from_row, identifier, jsonb, page_of, page_size, plain, storable
from assistant.types import PUBLIC

DocumentStatus = Literal["pending", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document without its text.

    As read from the store, `content_hash` is that of the content whose chunks are stored, "" before the
    first time. What follows `metadata` is the store's to fill and ignored by `begin`.
    """

    id: UUID
    source_id: UUID
    external_id: str
    title: str
    content_hash: str
    content_type: str
    url: str | None = None
    version: str | None = None
    acl: tuple[str, ...] = (PUBLIC,)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: DocumentStatus = "pending"
    chunk_count: int = 0
    error: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What is stored of one document. Unchanged means: status ready and the same `content_hash`."""

    document_id: UUID
    content_hash: str
    status: DocumentStatus
    chunk_count: int


class DocumentRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def manifest(self, source_id: UUID) -> dict[str, ManifestEntry]:
        """Every document of the source, by external id."""

        async def work(connection: Connection) -> dict[str, ManifestEntry]:
            found = await rows(
                connection,
                "select external_id, id, content_hash, status, chunk_count"
                " from ai_assistant.documents where source_id = %s",
                (source_id,),
            )
            return {
                row["external_id"]: ManifestEntry(
                    row["id"], row["content_hash"], row["status"], row["chunk_count"]
                )
                for row in found
            }

        return await self._database.repeatable(work)

    async def begin(self, docs: Sequence[DocumentRecord]) -> list[UUID]:
        """Note that these documents are being written: they are pending until `complete`.

        An existing (source_id, external_id) keeps its id; the ids that count are returned, in the order
        of `docs`. The last of two records for one document wins. InvalidInput names a bad external id.
        """
        if not docs:
            return []
        latest = {(doc.source_id, identifier(doc.external_id, "external_id")): doc for doc in docs}
        payload = jsonb([_values(doc) for doc in latest.values()])

        async def work(connection: Connection) -> list[UUID]:
            found = await rows(
                connection,
                """
                insert into ai_assistant.documents
                    (id, source_id, external_id, title, url, version, content_type, acl, metadata)
                select id, source_id, external_id, title, url, version, content_type, acl, metadata
                from jsonb_to_recordset(%s) as d (
                    id uuid, source_id uuid, external_id text, title text, url text, version text,
                    content_type text, acl text[], metadata jsonb)
                order by source_id, external_id
                on conflict (source_id, external_id) do update set
                    title = excluded.title, url = excluded.url, version = excluded.version,
                    content_type = excluded.content_type, acl = excluded.acl,
                    metadata = excluded.metadata, status = 'pending', error = null, updated_at = now()
                returning id, source_id, external_id
                """,
                (payload,),
            )
            ids = {(row["source_id"], row["external_id"]): row["id"] for row in found}
            return [ids[doc.source_id, doc.external_id] for doc in docs]

        return await self._database.repeatable(work)

    async def complete(self, items: Sequence[tuple[UUID, str, int]]) -> None:
        """Mark (document id, content hash, chunk count) as ready: all their chunks are in the vector store."""
        if not items:
            return
        ids, hashes, chunks = (list(column) for column in zip(*items, strict=True))

        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                update ai_assistant.documents d set status = 'ready', content_hash = i.content_hash,
                    chunk_count = i.chunk_count, error = null, updated_at = now()
                from unnest(%s::uuid[], %s::text[], %s::int[]) as i (id, content_hash, chunk_count)
                where d.id = i.id
                """,
                (ids, hashes, chunks),
            )

        await self._database.repeatable(work)

    async def fail(self, document_id: UUID, reason: str) -> None:
        """Mark a document as failed. Chunks of an earlier version stay searchable."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "update ai_assistant.documents set status = 'failed', error = %s, updated_at = now()"
                " where id = %s",
                (storable(reason, 4000), document_id),
            )

        await self._database.repeatable(work)

    async def forget(self, document_ids: Sequence[UUID]) -> None:
        """Remove documents. Call it after their chunks are gone: the row is what remembers them."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "delete from ai_assistant.documents where id = any(%s)", (list(document_ids),)
            )

        await self._database.repeatable(work)

    async def get(self, document_id: UUID) -> DocumentRecord | None:
        async def work(connection: Connection) -> DocumentRecord | None:
            row = await one(connection, "select * from ai_assistant.documents where id = %s", (document_id,))
            return _document(row) if row else None

        return await self._database.repeatable(work)

    async def page(
        self,
        cursor: UUID | None,
        limit: int,
        source_id: UUID | None = None,
        acl_terms: Sequence[str] | None = None,
    ) -> Page[DocumentRecord]:
        """Documents by id, descending. With `acl_terms`, only those that share a term."""
        size = page_size(limit)
        terms = None if acl_terms is None else list(acl_terms)

        async def work(connection: Connection) -> Page[DocumentRecord]:
            found = await rows(
                connection,
                """
                select * from ai_assistant.documents
                where (%(cursor)s::uuid is null or id < %(cursor)s)
                    and (%(source)s::uuid is null or source_id = %(source)s)
                    and (%(terms)s::text[] is null or acl && %(terms)s)
                order by id desc limit %(limit)s
                """,
                {"cursor": cursor, "source": source_id, "terms": terms, "limit": size + 1},
            )
            records = [_document(row) for row in found]
            return page_of(records, [record.id for record in records], size)

        return await self._database.repeatable(work)

    async def counts(self) -> dict[str, int]:
        """Ready documents, their chunks, and sources."""

        async def work(connection: Connection) -> dict[str, int]:
            row = await one(
                connection,
                """
                select count(*)::int as documents, coalesce(sum(chunk_count), 0)::int as chunks,
                    (select count(*) from ai_assistant.data_sources)::int as sources
                from ai_assistant.documents where status = 'ready'
                """,
            )
            assert row is not None
            return dict(row)

        return await self._database.repeatable(work)


def _values(doc: DocumentRecord) -> dict[str, Any]:
    return {
        "id": str(doc.id),
        "source_id": str(doc.source_id),
        "external_id": doc.external_id,
        "title": doc.title,
        "url": doc.url,
        "version": doc.version,
        "content_type": doc.content_type,
        "acl": list(doc.acl),
        "metadata": plain(doc.metadata),
    }


def _document(row: DictRow) -> DocumentRecord:
    return from_row(DocumentRecord, row)
