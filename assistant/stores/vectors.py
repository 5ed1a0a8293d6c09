"""Chunks in Qdrant: collections behind aliases, hybrid candidates, payloads.

A collection is named `alias__embedder__n`; searches and ingestion use the alias. Changing the embedder builds
the next collection beside it (`create_collection`) and moves the alias in one step (`move_alias`).
Points have two named vectors: `dense` (cosine) and `sparse` (BM25 weights, Qdrant multiplies the IDF).
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from assistant.errors import InvalidInput, NotFound
from assistant.settings import QdrantSettings
from assistant.stores.vector_collections import CollectionInfo, VectorCollections
from assistant.stores.vector_filters import (
    FILTER_FIELDS,
    Range,
    SearchFilter,
    any_of,
    equals,
)
from assistant.stores.vector_wire import QdrantWire, translated

__all__ = [
    "FILTER_FIELDS",
    "Candidates",
    "ChunkPoint",
    "CollectionInfo",
    "Range",
    "Scored",
    "SearchFilter",
    "SparseWeights",
    "StoredChunk",
    "VectorStore",
]

UPSERT_BATCH = 256
"""Points per request: Qdrant Edge answers nothing else meanwhile (about 30 ms)."""
DELETE_BATCH = 500
PAGE = 256
SCAN_PAGE = 1000


@dataclass(frozen=True, slots=True)
class SparseWeights:
    """A sparse vector: token ids, unique, and a weight for each."""

    indices: tuple[int, ...]
    values: tuple[float, ...]

    def as_json(self) -> dict[str, list[Any]]:
        return {"indices": list(self.indices), "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class ChunkPoint:
    """One chunk to store. `dense` has the collection's dimension."""

    id: UUID
    dense: Sequence[float] | NDArray[np.floating[Any]]
    sparse: SparseWeights
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk without its dense vector: what another embedder's collection takes over."""

    id: UUID
    sparse: SparseWeights
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate. Dense scores are cosines, sparse scores BM25 sums."""

    id: UUID
    score: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """Both sides of a hybrid search, each best first; equal scores are in order of id."""

    dense: list[Scored]
    sparse: list[Scored]


class VectorStore:
    """Every method takes an alias or a collection's own name.

    Raises StoreUnavailable when Qdrant is away, NotFound for an unknown collection, ConfigurationError for
    a refused key, InvalidInput for what the collection cannot hold or the filter does not know.
    """

    def __init__(self, settings: QdrantSettings, client: AsyncQdrantClient | None = None) -> None:
        self._wire = QdrantWire(settings, client)
        self._client = self._wire.client
        self._collections = VectorCollections(self._wire)

    async def ping(self) -> float:
        """Milliseconds of one authenticated round trip."""
        started = time.perf_counter()
        async with translated(""):
            await self._client.get_collections()
        return (time.perf_counter() - started) * 1000

    async def close(self) -> None:
        await self._client.close()

    async def ensure_collection(
        self, alias: str, embedder: str, dimension: int, parameters: Mapping[str, Any]
    ) -> str:
        """The name of the collection behind `alias`, made when there is none.

        `parameters` are whatever else shapes stored vectors (BM25's language and mean length). Conflict when
        the existing collection was made with another embedder, dimension or parameters. Safe to call from
        several processes at once.
        """
        return await self._collections.ensure(alias, embedder, dimension, parameters)

    async def create_collection(
        self, alias: str, embedder: str, dimension: int, parameters: Mapping[str, Any]
    ) -> str:
        """A new, empty collection `alias__embedder__n` with its payload indexes; the alias does not move."""
        return await self._collections.create(alias, embedder, dimension, parameters)

    async def move_alias(self, alias: str, collection: str) -> None:
        """Point `alias` at `collection` in one atomic step; running searches see the one or the other.

        In the same step, what was live before becomes the alias's previous collection.
        """
        await self._collections.move_alias(alias, collection)

    async def collections(self, alias: str) -> list[CollectionInfo]:
        """Every collection `alias__embedder__n`, in order of n, live or not."""
        return await self._collections.all(alias)

    async def live(self, alias: str) -> CollectionInfo | None:
        """The collection behind `alias`, None before the first ingestion."""
        return await self._collections.live(alias)

    async def live_name(self, alias: str) -> str | None:
        """As `live`, but the name only, in one request."""
        return await self._collections.target(alias)

    async def is_live(self, collection: str) -> bool:
        """Whether some alias leads to this collection, by its own name, now."""
        return await self._collections.is_live(collection)

    async def drop_collection(self, collection: str) -> None:
        """Remove a collection, by its own name, with all its points and aliases."""
        await self._collections.drop(collection)

    async def scan(self, collection: str) -> AsyncIterator[tuple[UUID, str]]:
        """(id, content hash) of every chunk in order of id, whoever may see it. For maintenance only.

        What is written meanwhile may or may not come.
        """
        offset: Any = None
        while True:
            async with translated(collection):
                page, offset = await self._client.scroll(
                    collection, limit=SCAN_PAGE, offset=offset, with_payload=["content_hash"]
                )
            for record in page:
                yield UUID(str(record.id)), str((record.payload or {}).get("content_hash", ""))
            if offset is None:
                return

    async def read(self, collection: str, ids: Sequence[UUID]) -> list[StoredChunk]:
        """Those of `ids` that exist, whoever may see them. For maintenance only."""
        async with translated(collection):
            found = await self._client.retrieve(
                collection, [str(i) for i in ids], with_payload=True, with_vectors=["sparse"]
            )
        return [_stored(record) for record in found]

    async def delete(self, collection: str, ids: Sequence[UUID]) -> None:
        """Remove these chunks; an id that is not there is none too many."""
        for start in range(0, len(ids), DELETE_BATCH):
            batch: list[Any] = [str(i) for i in ids[start : start + DELETE_BATCH]]
            async with translated(collection):
                await self._client.delete(collection, models.PointIdsList(points=batch), wait=True)

    async def upsert(self, alias: str, points: Sequence[ChunkPoint]) -> None:
        """Write or overwrite points. All are checked first; when this returns, they survive a crash."""
        if not points:
            return
        dimension = await self._dimension(alias)
        structs = [_struct(point, dimension) for point in points]
        for start in range(0, len(structs), UPSERT_BATCH):
            async with translated(alias):
                await self._client.upsert(alias, structs[start : start + UPSERT_BATCH], wait=True)

    async def delete_stale(self, alias: str, document_id: UUID | str, keep_hash: str) -> None:
        """Remove the chunks of a document that do not belong to the version with this content hash."""
        await self._delete(
            alias,
            {
                "must": [equals("document_id", str(document_id))],
                "must_not": [equals("content_hash", keep_hash)],
            },
        )

    async def delete_documents(self, alias: str, document_ids: Sequence[UUID | str]) -> None:
        """Remove all chunks of these documents."""
        for start in range(0, len(document_ids), DELETE_BATCH):
            batch = [str(i) for i in document_ids[start : start + DELETE_BATCH]]
            await self._delete(alias, {"must": [any_of("document_id", batch)]})

    async def count(self, alias: str, where: SearchFilter | None = None) -> int:
        """How many chunks match, exactly; without a filter all of them, whoever may see them."""
        wanted = None if where is None else models.Filter.model_validate({"must": where.clauses()})
        async with translated(alias):
            return (await self._client.count(alias, count_filter=wanted, exact=True)).count

    async def candidates(
        self,
        alias: str,
        *,
        dense: Sequence[float] | NDArray[np.floating[Any]] | None,
        sparse: SparseWeights | None,
        limit: int,
        where: SearchFilter,
    ) -> Candidates:
        """The best `limit` chunks of each side that `where` permits, in one request; ids and scores only.

        A side without a query (None, or a sparse vector without tokens) is empty.
        """
        common = {"filter": {"must": where.clauses()}, "limit": limit, "with_payload": False}
        searches: dict[str, dict[str, Any]] = {}
        if dense is not None:
            searches["dense"] = {"query": _finite("query", dense), "using": "dense", **common}
        if sparse is not None and sparse.indices:
            searches["sparse"] = {"query": _sparse("query", sparse), "using": "sparse", **common}
        found: dict[str, list[Scored]] = {"dense": [], "sparse": []}
        if searches and where.acl_terms:
            answers = await self._wire.query_batch(alias, list(searches.values()))
            for side, hits in zip(searches, answers, strict=True):
                # The engine leaves the order of equal scores open.
                hits.sort(key=lambda hit: (-hit[1], hit[0]))
                found[side] = [Scored(*hit) for hit in hits]
        return Candidates(**found)

    async def fetch(self, alias: str, ids: Sequence[UUID], where: SearchFilter) -> dict[UUID, dict[str, Any]]:
        """The payloads of those of `ids` that exist and that `where` permits."""
        if not (ids and where.acl_terms):
            return {}
        wanted = {"must": [{"has_id": [str(i) for i in ids]}, *where.clauses()]}
        page, _ = await self._wire.scroll(alias, wanted, len(ids))
        return dict(page)

    async def document_chunks(
        self, alias: str, document_id: UUID | str, where: SearchFilter, first: int, last: int
    ) -> list[tuple[UUID, dict[str, Any]]]:
        """(id, payload) of a document's chunks with `first` <= chunk_index <= `last`, in order of index."""
        if last < first or not where.acl_terms:
            return []
        wanted = {
            "must": [
                equals("document_id", str(document_id)),
                {"key": "chunk_index", "range": {"gte": first, "lte": last}},
                *where.clauses(),
            ]
        }
        chunks: list[tuple[UUID, dict[str, Any]]] = []
        offset: UUID | None = None
        while True:
            page, offset = await self._wire.scroll(alias, wanted, PAGE, offset)
            chunks += page
            if offset is None:
                return sorted(chunks, key=lambda chunk: (chunk[1]["chunk_index"], chunk[0]))

    async def _delete(self, alias: str, condition: Mapping[str, Any]) -> None:
        selector = models.FilterSelector(filter=models.Filter.model_validate(condition))
        async with translated(alias):
            await self._client.delete(alias, selector, wait=True)

    async def _dimension(self, alias: str) -> int:
        async with translated(alias):
            vectors = (await self._client.get_collection(alias)).config.params.vectors
        if not isinstance(vectors, dict) or "dense" not in vectors:
            raise NotFound(f"The collection {alias!r} has no vector named 'dense'.", collection=alias)
        return vectors["dense"].size


def _struct(point: ChunkPoint, dimension: int) -> models.PointStruct:
    dense = _finite(f"chunk {point.id}", point.dense)
    if len(dense) != dimension:
        raise InvalidInput(
            f"The dense vector of chunk {point.id} has {len(dense)} values, the collection holds {dimension}.",
            hint="Embed with the model that the collection was made for.",
            field="dense",
        )
    sparse = models.SparseVector(**_sparse(f"chunk {point.id}", point.sparse))
    return models.PointStruct(
        id=str(point.id), vector={"dense": dense, "sparse": sparse}, payload=dict(point.payload)
    )


def _stored(record: models.Record) -> StoredChunk:
    vectors = record.vector if isinstance(record.vector, dict) else {}
    sparse = vectors.get("sparse")
    weights = SparseWeights((), ())
    if isinstance(sparse, models.SparseVector):
        weights = SparseWeights(tuple(sparse.indices), tuple(sparse.values))
    return StoredChunk(UUID(str(record.id)), weights, record.payload or {})


def _finite(owner: str, dense: Sequence[float] | NDArray[np.floating[Any]]) -> list[float]:
    vector = np.asarray(dense, dtype=np.float32)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise InvalidInput(
            f"The dense vector of {owner} is not one list of finite numbers.",
            hint="Look at the text: an empty one can embed to NaN.",
            field="dense",
        )
    values: list[float] = vector.tolist()
    return values


def _sparse(owner: str, sparse: SparseWeights) -> dict[str, list[Any]]:
    same = len(sparse.indices) == len(sparse.values) == len(set(sparse.indices))
    if not (same and np.isfinite(sparse.values).all()):
        raise InvalidInput(
            f"The sparse vector of {owner} needs unique indices and one finite value for each.",
            field="sparse",
        )
    return sparse.as_json()
