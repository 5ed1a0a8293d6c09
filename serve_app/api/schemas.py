"""The product API's bodies. OpenAI's wire has its own module; the nouns inside are those of `assistant.types`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from assistant.retrieval.search import Mode
from assistant.stores.documents import DocumentRecord
from assistant.types import Citation, Hit

DESCRIBED = ConfigDict(use_attribute_docstrings=True)
STRICT = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class SearchBody(BaseModel):
    model_config = STRICT

    query: str
    limit: int | None = None
    """Most hits to return; unset, the server's setting."""
    mode: Mode = "hybrid"
    filters: dict[str, Any] = Field(default_factory=dict)
    """Payload fields to a value, a list of values, or a range `{"gte": …, "lt": …}`."""


class SearchAnswer(BaseModel):
    model_config = DESCRIBED

    query_id: UUID
    """The row in `search_queries`."""
    hits: tuple[Hit, ...]
    took_ms: float
    timings_ms: Mapping[str, float]


class PassageAnswer(BaseModel):
    """A chunk and the texts of its neighbours in the same version of its document."""

    hit: Hit
    before: tuple[str, ...]
    after: tuple[str, ...]


class DocumentItem(BaseModel):
    id: UUID
    source_id: UUID
    external_id: str
    title: str
    url: str | None
    version: str | None
    content_type: str
    status: str
    chunk_count: int
    error: str | None
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, record: DocumentRecord) -> "DocumentItem":
        return cls.model_validate(record, from_attributes=True)


class DocumentPage(BaseModel):
    items: list[DocumentItem]
    next_cursor: UUID | None


class SourceItem(BaseModel):
    id: UUID
    name: str
    source_type: str
    kind: str
    status: str
    documents: int
    chunks: int
    pending: int
    failed: int
    updated_at: datetime


class SourceList(BaseModel):
    items: list[SourceItem]


class Me(BaseModel):
    id: str
    kind: str
    groups: tuple[str, ...]
    auth: str


class RfcBody(BaseModel):
    model_config = STRICT

    title: str = Field(min_length=1, max_length=500)
    brief: str = Field(min_length=1, max_length=100_000)
    template: str = "new_feature"
    answers: dict[str, str] = Field(default_factory=dict)
    """Answers to questions of the template, by question."""


class RfcLinks(BaseModel):
    self: str
    events: str


class RfcAccepted(BaseModel):
    id: UUID
    job_id: UUID | None
    status: str
    links: RfcLinks


class RfcStage(BaseModel):
    stage: str
    status: Literal["pending", "started", "done"]
    duration_ms: int | None = None


class RfcSummary(BaseModel):
    id: UUID
    job_id: UUID | None
    title: str
    template: str
    status: str
    error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class RfcAnswer(RfcSummary):
    brief: str
    answers: Mapping[str, str]
    stages: list[RfcStage]
    markdown: str
    html: str
    citations: tuple[Citation, ...]
    model: str | None
    tokens_used: int | None
    generation_time_ms: int | None


class RfcPage(BaseModel):
    items: list[RfcSummary]
    next_cursor: UUID | None


class TemplateItem(BaseModel):
    name: str
    title: str
    description: str
    sections: list[str]


class TemplateList(BaseModel):
    items: list[TemplateItem]


class Check(BaseModel):
    model_config = DESCRIBED

    state: Literal["ready", "loading", "down"]
    latency_ms: float | None = None
    detail: str | None = None
    """Why it is not ready."""


class ModelState(BaseModel):
    model_config = DESCRIBED

    name: str
    engine: str
    state: Literal["ready", "loading", "down"]
    writing: str
    context_tokens: int
    adapters: Mapping[str, Any] | None = None
    """What a local model serves with: champion, challenger, share, loaded, problems."""
    info: Mapping[str, Any] = Field(default_factory=dict)


class HealthAnswer(BaseModel):
    """`status`: ok; degraded (something is away that not every call needs); down (a store or search is)."""

    status: Literal["ok", "degraded", "down"]
    version: str
    uptime_s: float
    checks: dict[str, Check] = Field(default_factory=dict)
    models: list[ModelState] = Field(default_factory=list)
    counts: dict[str, int] | None = None
