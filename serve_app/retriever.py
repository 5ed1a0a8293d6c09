"""Retriever: the embedder and the vector store client in one replica. Queries that wait are embedded together."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import numpy as np
from ray import serve

from assistant.errors import InvalidInput, NotFound
from assistant.retrieval.embedders import SentenceTransformerEmbedder
from assistant.retrieval.search import Passage, SearchQuery, SearchResult, SearchService
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from assistant.telemetry import configure_logging, get_logger
from assistant.types import Principal
from serve_app.api.services import Embeddings
from serve_app.closing import Closing

log = get_logger("retriever")


class Retriever(Closing):
    """Behind the handle: `search`, `passage`, `embed`, `embeddings`, `health`."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings.telemetry, "retriever")
        self._settings = settings
        self._embedder = SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)
        # Torch blocks whoever calls it, and the replica's loop also answers health checks.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._store = VectorStore(settings.qdrant)
        self._service = SearchService(self._store, self._embed_query, settings)
        self._embed_queries.set_max_batch_size(settings.embedder.batch_size)
        self._open = True

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        """The hits this principal may see. Nothing ingested yet is no error: there are no hits."""
        try:
            return await self._service.search(query, principal)
        except NotFound as error:
            log.warning("collection_missing", reason=error.detail)
            return SearchResult((), {})

    async def passage(self, chunk_id: UUID, principal: Principal) -> Passage:
        return await self._service.passage(chunk_id, principal)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self.embeddings(texts)).vectors.tolist()
        return vectors

    async def embeddings(self, texts: Sequence[str]) -> Embeddings:
        """Raises InvalidInput for a text that the embedder would cut."""
        counts = await self._in_thread(lambda: [self._embedder.count_tokens(text) for text in texts])
        # Two tokens mark the start and the end of a text.
        limit = self._embedder.max_tokens - 2
        for index, count in enumerate(counts):
            if count > limit:
                raise InvalidInput(
                    f"input[{index}] has {count} tokens; {self._embedder.name} reads {limit}.",
                    hint="Split the text.",
                    field="input",
                )
        size = self._settings.embedder.batch_size
        parts = []
        # In parts, so that searches get their turn in between.
        for start in range(0, len(texts), size):
            part = list(texts[start : start + size])
            parts.append(await self._in_thread(lambda part=part: self._embedder.embed(part)))
        return Embeddings(np.concatenate(parts), sum(counts))

    async def health(self) -> Mapping[str, Any]:
        """Answers by itself: the stores have checks of their own."""
        return {"embedder": self._embedder.name, "dimension": self._embedder.dimension, "at": time.time()}

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._store.close()

    async def _embed_query(self, text: str) -> np.ndarray:
        vector: np.ndarray = await self._embed_queries(text)
        return vector

    # No wait for company: what came while the last batch was worked on is the next batch.
    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0)
    async def _embed_queries(self, texts: list[str]) -> list[np.ndarray]:
        return list(await self._in_thread(lambda: self._embedder.embed(texts)))

    async def _in_thread(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
