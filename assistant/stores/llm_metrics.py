"""What calls to models took and cost, written behind the request."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from assistant.clock import new_id, now
from assistant.stores.buffer import CAPACITY, RecordBuffer
from assistant.stores.postgres import Database
from assistant.stores.values import storable
from assistant.telemetry import Meter

COLUMNS = (
    *("id", "provider", "model", "request_type", "principal_id", "request_id", "response_time_ms"),
    *("first_token_ms", "tokens_input", "tokens_output", "cost_usd", "success", "error_message"),
    *("adapter", "created_at"),
)


@dataclass(frozen=True, slots=True)
class LlmMetricRecord:
    """One attempt at one backend. `request_type`: generation, search or evaluation. None: not known.

    `adapter` is the one that answered; None is a base model, a remote one, or nobody.
    """

    provider: str
    model: str
    request_type: str = "generation"
    response_time_ms: float = 0.0
    first_token_ms: float | None = None
    tokens_input: int | None = None
    tokens_output: int | None = None
    cost_usd: Decimal | None = None
    success: bool = True
    error_message: str | None = None
    principal_id: str | None = None
    request_id: str | None = None
    adapter: str | None = None
    id: UUID = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)


class LlmMetricLog(RecordBuffer[LlmMetricRecord]):
    """Fills `llm_metrics`: `record` costs a request nothing, `close` writes what waits."""

    def __init__(self, database: Database, meter: Meter | None = None, capacity: int = CAPACITY) -> None:
        super().__init__(database, "llm_metrics", COLUMNS, _values, meter, capacity)


def _values(record: LlmMetricRecord) -> tuple[Any, ...]:
    return (
        record.id,
        storable(record.provider, 50),
        storable(record.model, 100),
        storable(record.request_type, 50),
        record.principal_id,
        record.request_id,
        round(record.response_time_ms),
        None if record.first_token_ms is None else round(record.first_token_ms),
        record.tokens_input,
        record.tokens_output,
        record.cost_usd,
        record.success,
        None if record.error_message is None else storable(record.error_message, 4000),
        record.adapter,
        record.created_at,
    )
