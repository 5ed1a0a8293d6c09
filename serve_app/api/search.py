"""POST /api/v1/search and GET /api/v1/chunks/{id}: passages of the knowledge base that the caller may read."""

import time
from uuid import UUID

from fastapi import APIRouter

from assistant.retrieval.search import SearchQuery
from assistant.stores.searches import SearchRecord
from serve_app.api.auth import Context, Graph
from serve_app.api.limits import before_deadline
from serve_app.api.schemas import PassageAnswer, SearchAnswer, SearchBody

router = APIRouter(prefix="/api/v1", tags=["Knowledge"])


@router.post("/search", summary="Hybrid search")
async def search(body: SearchBody, graph: Graph, context: Context) -> SearchAnswer:
    started = time.perf_counter()
    query = SearchQuery(body.query, body.limit, body.mode, body.filters)
    found = await before_deadline(graph.retrieval.search(query, context.principal), context)
    took_ms = round((time.perf_counter() - started) * 1000, 3)
    record = SearchRecord(
        query_text=body.query,
        principal_id=context.principal.id,
        request_id=context.request_id,
        mode=body.mode,
        filters=body.filters,
        results_count=len(found.hits),
        response_time_ms=took_ms,
        scores=tuple(hit.score for hit in found.hits),
        chunk_ids=tuple(hit.chunk_id for hit in found.hits),
        timings_ms=found.timings_ms,
    )
    graph.searches.record(record)
    return SearchAnswer(
        query_id=record.id, hits=found.hits, took_ms=took_ms, timings_ms=dict(found.timings_ms)
    )


@router.get("/chunks/{chunk_id}", summary="One passage with its neighbours")
async def chunk(chunk_id: UUID, graph: Graph, context: Context) -> PassageAnswer:
    passage = await before_deadline(graph.retrieval.passage(chunk_id, context.principal), context)
    return PassageAnswer(hit=passage.hit, before=passage.before, after=passage.after)
