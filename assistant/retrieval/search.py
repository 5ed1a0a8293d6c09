"""Search: embed the query, ask the store for both rankings at once, fuse, fetch the winners, highlight."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import numpy as np

from assistant import tracing
from assistant.errors import InvalidInput, NotFound
from assistant.retrieval.fusion import Fused, reciprocal_rank, weighted
from assistant.retrieval.highlight import highlights
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.stores.vectors import Candidates, SearchFilter, VectorStore
from assistant.types import Hit, Principal

Mode = Literal["hybrid", "dense", "sparse"]
MODES: tuple[Mode, ...] = ("hybrid", "dense", "sparse")
MAX_QUERY_CHARS = 8_000
MAX_LIMIT = 100
NEIGHBOURS = 2
"""Chunks shown before and after a passage."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """`limit` None means the setting; `filters` map payload fields to a value, a list of them, or
    a range as `{"gte": …, "lt": …}`."""

    text: str
    limit: int | None = None
    mode: Mode = "hybrid"
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`timings_ms` has one entry per stage (embed, candidates, fusion, fetch, highlight) and `total`."""

    hits: tuple[Hit, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Passage:
    """One chunk and the texts of its neighbours in the same version of the document."""

    hit: Hit
    before: tuple[str, ...]
    after: tuple[str, ...]


class SearchService:
    def __init__(
        self, store: VectorStore, embed: Callable[[str], Awaitable[np.ndarray]], settings: Settings
    ) -> None:
        self._store = store
        self._embed = embed
        self._settings = settings.retrieval
        self._alias = settings.qdrant.collection
        self._encoder = Bm25Encoder(settings.retrieval)

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        """The best chunks that this principal may see. InvalidInput names a wrong field."""
        text, limit = self._checked(query)
        where = SearchFilter(principal.acl_terms(), query.filters)
        weight = {"dense": 1.0, "sparse": 0.0}.get(query.mode, self._settings.dense_weight)
        ranked = query.mode == "hybrid" and self._settings.fusion == "rrf"
        timings: dict[str, float] = {}
        with _timed(timings, "total"):
            with _timed(timings, "embed"):
                dense = (await self._embed(text)).tolist() if weight > 0 or ranked else None
            sparse = self._encoder.query(text) if weight < 1 or ranked else None
            with _timed(timings, "candidates"):
                found = await self._store.candidates(
                    self._alias,
                    dense=dense,
                    sparse=sparse,
                    limit=max(limit, self._settings.candidates),
                    where=where,
                )
            with _timed(timings, "fusion"):
                fused = self._fuse(found, weight, ranked)
            with _timed(timings, "fetch"):
                payloads = await self._fetch(fused, limit, where)
            with _timed(timings, "highlight"):
                terms = self._encoder.terms(text)
                hits = tuple(
                    hit_of(
                        f.id,
                        payloads[f.id],
                        f,
                        highlights(payloads[f.id]["text"], terms, self._encoder),
                    )
                    for f in fused
                    if f.id in payloads
                )
        return SearchResult(hits, timings)

    async def passage(self, chunk_id: UUID, principal: Principal) -> Passage:
        """A chunk with its neighbours. NotFound when it is absent or this principal may not see it."""
        where = SearchFilter(principal.acl_terms())
        payload = (await self._store.fetch(self._alias, [chunk_id], where)).get(chunk_id)
        if payload is None:
            raise NotFound(
                f"There is no passage {chunk_id} that you may read.",
                hint="Its document may have changed since: search again.",
            )
        index = int(payload["chunk_index"])
        around = await self._store.document_chunks(
            self._alias,
            UUID(payload["document_id"]),
            where,
            first=max(0, index - NEIGHBOURS),
            last=index + NEIGHBOURS,
        )
        same = [p for _, p in around if p["content_hash"] == payload["content_hash"]]
        return Passage(
            hit_of(chunk_id, payload),
            tuple(p["text"] for p in same if p["chunk_index"] < index),
            tuple(p["text"] for p in same if p["chunk_index"] > index),
        )

    def _checked(self, query: SearchQuery) -> tuple[str, int]:
        text = query.text.strip()
        if not text:
            raise InvalidInput("The query is empty.", hint="Write what you are looking for.", field="query")
        if len(text) > MAX_QUERY_CHARS:
            raise InvalidInput(
                f"The query has {len(text)} characters, at most {MAX_QUERY_CHARS} are allowed.", field="query"
            )
        if query.mode not in MODES:
            raise InvalidInput(f"Unknown mode {query.mode!r}.", hint=f"Use {', '.join(MODES)}.", field="mode")
        limit = self._settings.limit if query.limit is None else query.limit
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInput(f"limit is {limit}, it must be 1 to {MAX_LIMIT}.", field="limit")
        return text, limit

    def _fuse(self, found: Candidates, weight: float, ranked: bool) -> list[Fused]:
        if ranked:
            return reciprocal_rank(found.dense, found.sparse, self._settings.rrf_k)
        return weighted(found.dense, found.sparse, weight)

    async def _fetch(
        self, fused: Sequence[Fused], limit: int, where: SearchFilter
    ) -> dict[UUID, Mapping[str, Any]]:
        """The first `limit` payloads in order; a chunk replaced since the ranking makes room for the next."""
        payloads: dict[UUID, Mapping[str, Any]] = {}
        position = 0
        while len(payloads) < limit and position < len(fused):
            ids = [f.id for f in fused[position : position + limit - len(payloads)]]
            payloads.update(await self._store.fetch(self._alias, ids, where))
            position += len(ids)
        return payloads


def hit_of(
    chunk_id: UUID,
    payload: Mapping[str, Any],
    fused: Fused | None = None,
    marks: tuple[tuple[int, int], ...] = (),
) -> Hit:
    """A stored chunk as a search result."""
    return Hit(
        chunk_id=chunk_id,
        document_id=UUID(payload["document_id"]),
        score=fused.score if fused else 0.0,
        text=payload["text"],
        title=payload["title"],
        headings=tuple(payload["headings"]),
        start=payload["start"],
        end=payload["end"],
        source=payload["source"],
        source_type=payload["source_type"],
        external_id=payload["external_id"],
        content_hash=payload["content_hash"],
        url=payload.get("url"),
        version=payload.get("version"),
        dense=fused.dense if fused else None,
        sparse=fused.sparse if fused else None,
        highlights=marks,
        metadata=payload.get("metadata") or {},
    )


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        # The whole is the span of whoever searches.
        with tracing.OFF if stage == "total" else tracing.span(f"retrieval.{stage}", nested=True):
            yield
    finally:
        timings[stage] = round((time.perf_counter() - began) * 1000, 3)
