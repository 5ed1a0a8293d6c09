"""Retriever: the embedder and the vector store client in one replica. Queries that wait are embedded together.

It follows the alias: when another collection goes live, its embedder is loaded beside the old one, and searches
change over to both at once (`live_index`).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import numpy as np
from ray import serve

from assistant import tracing
from assistant.errors import InvalidInput, NotFound
from assistant.retrieval.embedders import Embedder
from assistant.retrieval.search import Passage, SearchQuery, SearchResult
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from assistant.telemetry import configure_logging, get_logger
from assistant.tracing import configure_tracing
from assistant.types import Principal
from serve_app.api.services import Embeddings
from serve_app.closing import Closing
from serve_app.live_index import LiveIndex
from serve_app.metrics import RayMeter

log = get_logger("retriever")


class Retriever(Closing):
    """Behind the handle: `search`, `passage`, `embed`, `embeddings`, `health`."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        configure_tracing(settings.telemetry, "retriever")
        configure_logging(settings.telemetry, "retriever")
        self._settings = settings
        self._meter = RayMeter()
        # Torch blocks whoever calls it, and the replica's loop also answers health checks.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._store = VectorStore(settings.qdrant)
        self._live = LiveIndex(settings, self._store, self._embed_query)
        # No wait for company: what came while the last batch was worked on is the next batch.
        self._embed_queries = serve.batch(
            max_batch_size=settings.embedder.batch_size, batch_wait_timeout_s=0
        )(self._embed_batch)
        await self._live.open()
        self._open = True

    async def search(
        self, query: SearchQuery, principal: Principal, traceparent: str | None = None
    ) -> SearchResult:
        """The hits this principal may see. Nothing ingested yet is no error: there are no hits."""
        with tracing.span(
            "retrieval.search", kind="server", parent=traceparent, ai_assistant__search__mode=query.mode
        ) as span:
            found = await self._found(query, principal)
            span.set_attribute("ai_assistant.search.hits", len(found.hits))
        self._meter.observe("ai_assistant_search_results", len(found.hits))
        for stage, ms in found.timings_ms.items():
            self._meter.observe("ai_assistant_search_seconds", ms / 1000, stage=stage)
        return found

    async def _found(self, query: SearchQuery, principal: Principal) -> SearchResult:
        try:
            return await self._live.use(lambda index: index.service.search(query, principal))
        except NotFound as error:
            log.warning("collection_missing", reason=error.detail)
            return SearchResult((), {})

    async def passage(self, chunk_id: UUID, principal: Principal, traceparent: str | None = None) -> Passage:
        with tracing.span("retrieval.passage", kind="server", parent=traceparent):
            return await self._live.use(lambda index: index.service.passage(chunk_id, principal))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self.embeddings(texts)).vectors.tolist()
        return vectors

    async def embeddings(
        self, texts: Sequence[str], model: str | None = None, traceparent: str | None = None
    ) -> Embeddings:
        """By the live embedder, or by the one that is named. InvalidInput for a text that it would cut."""
        with tracing.span(
            "retrieval.embeddings", kind="server", parent=traceparent, ai_assistant__texts=len(texts)
        ):
            return await self._embed_texts(texts, model)

    async def _embed_texts(self, texts: Sequence[str], model: str | None) -> Embeddings:
        embedder = await self._live.embedder(model)
        counts = await self._in_thread(lambda: [embedder.count_tokens(text) for text in texts])
        # Two tokens mark the start and the end of a text.
        limit = embedder.max_tokens - 2
        for index, count in enumerate(counts):
            if count > limit:
                raise InvalidInput(
                    f"input[{index}] has {count} tokens; {embedder.name} reads {limit}.",
                    hint="Split the text.",
                    field="input",
                )
        size = self._settings.embedder.batch_size
        parts = []
        # In parts, so that searches get their turn in between.
        for start in range(0, len(texts), size):
            part = list(texts[start : start + size])
            parts.append(await self._in_thread(lambda part=part: embedder.embed(part)))
        return Embeddings(np.concatenate(parts), sum(counts))

    async def health(self) -> Mapping[str, Any]:
        """Answers by itself: the stores have checks of their own."""
        index = self._live.current
        return {
            "collection": index.collection,
            "embedder": index.embedder.name,
            "embedders": self._live.embedders,
            "at": time.time(),
        }

    async def close(self) -> None:
        await self._live.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._store.close()

    async def _embed_query(self, embedder: Embedder, text: str) -> np.ndarray:
        vector: np.ndarray = await self._embed_queries((embedder, text))
        return vector

    async def _embed_batch(self, queries: list[tuple[Embedder, str]]) -> list[np.ndarray]:
        return list(await self._in_thread(lambda: _embedded(queries)))

    async def _in_thread(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _embedded(queries: Sequence[tuple[Embedder, str]]) -> list[np.ndarray]:
    """In the order of `queries`; one call per embedder, of which there are two only while the alias moves."""
    vectors: dict[int, np.ndarray] = {}
    for embedder in {id(embedder): embedder for embedder, _ in queries}.values():
        mine = [i for i, (by, _) in enumerate(queries) if by is embedder]
        vectors.update(zip(mine, embedder.embed([queries[i][1] for i in mine]), strict=True))
    return [vectors[i] for i in range(len(queries))]
