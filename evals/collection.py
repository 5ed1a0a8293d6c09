"""A collection of the product's own making for an evaluation, and the search over it.

Points, sparse weights, payloads and searches are those of the product; only what is indexed and which vectors
it has come from the caller. Everything lies behind one alias, which `dropped` removes with its collections.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from assistant.clock import now, stable_id
from assistant.retrieval.embedders import Vectors
from assistant.retrieval.search import Mode, SearchQuery, SearchService
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.stores.vectors import UPSERT_BATCH, ChunkPoint, VectorStore
from assistant.types import PUBLIC, Chunk, Hit, Principal

ANYONE = Principal("evaluation", "service")
SOURCE = "evaluation"

Stored = Callable[[int, int], None]
"""(points stored, all points)."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A chunk with the text that stands for it in the index, and the document it belongs to."""

    external_id: str
    title: str
    content_hash: str
    chunk: Chunk
    text: str


def whole_document(external_id: str, text: str) -> Indexed:
    """A document as one chunk, as judged collections are published: the embedder reads its beginning."""
    content_hash = hashlib.sha256(text.encode()).hexdigest()
    document_id = stable_id(SOURCE, external_id)
    chunk = Chunk(
        id=stable_id(str(document_id), content_hash, "0"),
        document_id=document_id,
        index=0,
        text=text,
        start=0,
        end=len(text),
        headings=(),
        token_count=0,
    )
    return Indexed(external_id, "", content_hash, chunk, text)


async def fill(
    store: VectorStore,
    settings: Settings,
    items: Sequence[Indexed],
    vectors: Vectors | None,
    progress: Stored | None = None,
) -> None:
    """Make the collection behind `settings.qdrant.collection` anew and store `items`.

    Without vectors only the sparse side can be searched: every point gets the same dense one.
    """
    alias, dimension = settings.qdrant.collection, settings.embedder.dimension
    await dropped(store, alias)
    parameters = {
        "language": settings.retrieval.language,
        "average_length": settings.retrieval.average_length,
    }
    await store.ensure_collection(alias, settings.embedder.name, dimension, parameters)
    encoder = Bm25Encoder(settings.retrieval)
    alike = np.zeros(dimension, dtype=np.float32)
    alike[0] = 1.0
    for start in range(0, len(items), UPSERT_BATCH):
        batch = items[start : start + UPSERT_BATCH]
        dense = [alike] * len(batch) if vectors is None else vectors[start : start + UPSERT_BATCH]
        points = [
            ChunkPoint(item.chunk.id, vector, encoder.document(item.text), _payload(item, settings))
            for item, vector in zip(batch, dense, strict=True)
        ]
        await store.upsert(alias, points)
        if progress:
            progress(start + len(batch), len(items))


async def dropped(store: VectorStore, alias: str) -> None:
    """Remove the collections behind an alias, also those that a killed run left."""
    for found in await store.collections(alias):
        await store.drop_collection(found.name)


class Searcher:
    """`SearchService` over the collection, with the queries' vectors at hand."""

    def __init__(self, store: VectorStore, settings: Settings, vectors: Mapping[str, np.ndarray]) -> None:
        self._vectors = vectors
        self._service = SearchService(store, self._embed, settings)

    async def _embed(self, text: str) -> np.ndarray:
        return self._vectors[text.strip()]

    async def search(
        self, text: str, mode: Mode, limit: int, documents: Sequence[UUID] | None = None
    ) -> tuple[Hit, ...]:
        """The best chunks; with `documents` only theirs."""
        filters = {} if documents is None else {"document_id": [str(d) for d in documents]}
        found = await self._service.search(SearchQuery(text, limit, mode, filters), ANYONE)
        return found.hits


def _payload(item: Indexed, settings: Settings) -> dict[str, object]:
    chunk = item.chunk
    return {
        "text": chunk.text,
        "title": item.title,
        "url": None,
        "headings": list(chunk.headings),
        "start": chunk.start,
        "end": chunk.end,
        "chunk_index": chunk.index,
        "token_count": chunk.token_count,
        "document_id": str(chunk.document_id),
        "source_id": str(stable_id(SOURCE)),
        "source": SOURCE,
        "source_type": "search_sources",
        "external_id": item.external_id,
        "content_type": "text/plain",
        "content_hash": item.content_hash,
        "version": None,
        "acl": [PUBLIC],
        "embedder": settings.embedder.name,
        "created_date": now().isoformat(),
        "metadata": {},
    }
