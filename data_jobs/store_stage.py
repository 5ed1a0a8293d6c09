"""Last stage: chunks into the vector store, then the document's completion into Postgres.

Everything is idempotent, so a store that is away for a moment is waited for and the write repeated, and a
run that died is simply run again. A document is complete only when all chunks of its version are stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

from assistant.clock import now
from assistant.errors import Conflict, InvalidInput, StoreUnavailable
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.stores.documents import DocumentRepository
from assistant.stores.postgres import Database
from assistant.stores.runs import RunRepository
from assistant.stores.vectors import ChunkPoint, SearchFilter, VectorStore
from data_jobs.job import Job, Part, payload, record

T = TypeVar("T")

RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses while a store is away: longer than the local stack needs to bring one back."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a write did: documents completed, those skipped with an error, chunks stored."""

    documents: int = 0
    failed: int = 0
    chunks: int = 0

    def __add__(self, other: "Stored") -> "Stored":
        return Stored(
            self.documents + other.documents, self.failed + other.failed, self.chunks + other.chunks
        )


class Stores:
    """The two stores as ingestion uses them.

    `collection` is the live collection's own name, never the alias: vectors of one embedder must not
    reach the collection of another when the alias moves.
    """

    def __init__(self, database: Database, vectors: VectorStore, collection: str) -> None:
        self.database = database
        self.vectors = vectors
        self.collection = collection
        self.documents = DocumentRepository(database)
        self.runs = RunRepository(database)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        database = Database(settings.postgres)
        vectors = VectorStore(settings.qdrant)
        try:
            await database.open()
            yield cls(database, vectors, settings.qdrant.collection)
        finally:
            await vectors.close()
            await database.close()

    async def check_live(self) -> None:
        """Before Postgres notes what was written: searches must find it. Conflict when they would not."""
        if not await self.vectors.is_live(self.collection):
            raise Conflict(
                f"{self.collection} is not live any more: another collection took its place meanwhile.",
                hint="Ingest again: it continues in the live collection, with that one's embedder.",
                collection=self.collection,
            )


class StoreStage:
    def __init__(self, stores: Stores, job: Job) -> None:
        self._stores = stores
        self._job = job
        self._encoder = Bm25Encoder(job.settings.retrieval)

    async def store(self, parts: Sequence[Part]) -> Stored:
        """Write parts of any documents. Raises StoreUnavailable when a store stays away."""
        good = [part for part in parts if not part.error]
        stored = Stored()
        for part in parts:
            if part.error:
                stored += await self._fail(part)
        try:
            return stored + await patiently(lambda: self._write(good))
        except InvalidInput as error:
            if len(good) == 1:
                return stored + await self._fail(good[0].failed("store", str(error)))
            # One document that the store refuses must not cost the others.
            for part in good:
                stored += await self.store([part])
            return stored

    async def _write(self, parts: Sequence[Part]) -> Stored:
        if not parts:
            return Stored()
        stores = self._stores
        # Again with the title that parsing found; a repeated part makes the document pending again.
        await stores.documents.begin([record(self._job, part.task, part.title) for part in parts])
        points = [point for part in parts for point in self._points(part)]
        await stores.vectors.upsert(stores.collection, points)
        complete: dict[tuple[str, str], Part] = {}
        for part in parts:
            if len(part.chunks) == part.chunk_count or await self._all_stored(part):
                complete[str(part.task.document_id), part.task.content_hash] = part
        for part in complete.values():
            if part.task.replaces:
                await stores.vectors.delete_stale(
                    stores.collection, part.task.document_id, keep_hash=part.task.content_hash
                )
        if complete:
            await stores.check_live()
        await stores.documents.complete(
            [(p.task.document_id, p.task.content_hash, p.chunk_count) for p in complete.values()]
        )
        return Stored(documents=len(complete), chunks=len(points))

    async def _all_stored(self, part: Part) -> bool:
        where = SearchFilter(
            self._job.source.acl,
            {"document_id": str(part.task.document_id), "content_hash": part.task.content_hash},
        )
        return await self._stores.vectors.count(self._stores.collection, where) == part.chunk_count

    async def _fail(self, part: Part) -> Stored:
        item, stores = part.task.item, self._stores
        await patiently(lambda: stores.documents.fail(part.task.document_id, f"{part.stage}: {part.error}"))
        await patiently(lambda: stores.runs.error(self._job.run_id, item.external_id, part.stage, part.error))
        return Stored(failed=1)

    def _points(self, part: Part) -> list[ChunkPoint]:
        if part.vectors is None:
            return []
        stamp = now()
        return [
            ChunkPoint(
                e.chunk.id, vector, self._encoder.document(e.text), payload(self._job, part, e.chunk, stamp)
            )
            for e, vector in zip(part.chunks, part.vectors, strict=True)
        ]


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """The result of idempotent work, repeated while a store is away."""
    for delay in RETRY_DELAYS_S:
        try:
            return await work()
        except StoreUnavailable:
            await asyncio.sleep(delay)
    return await work()
