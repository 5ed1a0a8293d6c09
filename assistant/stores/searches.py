"""What was searched and found, written behind the request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from assistant.clock import new_id, now
from assistant.stores.buffer import CAPACITY, RecordBuffer
from assistant.stores.postgres import Database
from assistant.stores.values import jsonb, storable
from assistant.telemetry import Meter

COLUMNS = (
    *("id", "session_id", "principal_id", "request_id", "query_text", "mode", "filters", "results_count"),
    *("response_time_ms", "relevance_scores", "chunk_ids", "timings_ms", "created_at"),
)
LARGEST_SCORE = 999_999.0


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """One search: `scores` and `chunk_ids` are of its hits, best first. `id` is the query id people see."""

    query_text: str
    principal_id: str | None = None
    session_id: UUID | None = None
    request_id: str | None = None
    mode: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    results_count: int = 0
    response_time_ms: float = 0.0
    scores: tuple[float, ...] = ()
    chunk_ids: tuple[UUID, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    id: UUID = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


class SearchLog(RecordBuffer[SearchRecord]):
    """Fills `search_queries`: `record` costs a request nothing, `close` writes what waits."""

    def __init__(self, database: Database, meter: Meter | None = None, capacity: int = CAPACITY) -> None:
        super().__init__(database, "search_queries", COLUMNS, _values, meter, capacity)


def _values(record: SearchRecord) -> tuple[Any, ...]:
    return (
        record.id,
        record.session_id,
        record.principal_id,
        record.request_id,
        storable(record.query_text),
        record.mode,
        jsonb(record.filters),
        record.results_count,
        round(record.response_time_ms),
        [max(-LARGEST_SCORE, min(LARGEST_SCORE, round(float(score), 6))) for score in record.scores],
        list(record.chunk_ids),
        jsonb(record.timings_ms),
        record.created_at,
    )
