"""The bodies of feedback and learning."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from assistant.stores.examples import ExampleRow
from assistant.stores.feedback import MAX_COMMENT, MAX_TEXT, FeedbackRecord, Opinion
from assistant.stores.jobs import Job, JobEvent
from serve_app.api.schemas import DESCRIBED, STRICT


class SearchFeedback(BaseModel):
    """At least one of `thumb`, `stars` and `comment`."""

    model_config = STRICT

    thumb: Literal[1, -1] | None = None
    stars: int | None = Field(None, ge=1, le=5)
    comment: str | None = Field(None, max_length=MAX_COMMENT)
    chunk_id: UUID | None = None
    """The result that is meant; unset, the whole list."""

    def opinion(self) -> Opinion:
        return Opinion(self.thumb, self.stars, self.comment)


class AnswerFeedback(BaseModel):
    """At least one member."""

    model_config = STRICT

    thumb: Literal[1, -1] | None = None
    stars: int | None = Field(None, ge=1, le=5)
    comment: str | None = Field(None, max_length=MAX_COMMENT)
    edited_text: str | None = Field(None, max_length=MAX_TEXT)
    """What the text should have been."""

    def opinion(self) -> Opinion:
        return Opinion(self.thumb, self.stars, self.comment, self.edited_text)


class RfcFeedback(AnswerFeedback):
    section: str | None = Field(None, max_length=500)
    """Title of the section that is meant; unset, the whole document. An edit needs one."""


class FeedbackItem(BaseModel):
    model_config = DESCRIBED

    id: UUID
    target: str
    target_id: UUID
    chunk_id: UUID | None
    section: str | None
    thumb: int | None
    stars: int | None
    comment: str | None
    edited_text: str | None
    verified: bool
    """False: the target is still being written; the feedback counts when it is."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: FeedbackRecord) -> "FeedbackItem":
        return cls.model_validate(record, from_attributes=True)


class FeedbackList(BaseModel):
    items: list[FeedbackItem]


class ExampleItem(BaseModel):
    model_config = DESCRIBED

    id: UUID
    kind: str
    messages: list[dict[str, str]]
    response: str
    quality: float
    positive: bool
    """False: kept as a record of what went wrong, never learned from."""
    stars: int | None
    comment: str | None
    section: str | None
    improvement_areas: tuple[str, ...]
    acl: tuple[str, ...]
    document_ids: tuple[UUID, ...]
    rfc_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, row: ExampleRow) -> "ExampleItem":
        example = row.example
        return cls(
            id=example.id,
            kind=example.kind,
            messages=[{"role": m.role, "content": m.content} for m in example.messages],
            response=example.response,
            quality=example.quality,
            positive=row.positive,
            stars=row.stars,
            comment=row.comment,
            section=row.section,
            improvement_areas=row.improvement_areas,
            acl=example.acl,
            document_ids=example.document_ids,
            rfc_id=example.rfc_id,
            created_at=example.created_at,
        )


class ExamplePage(BaseModel):
    items: list[ExampleItem]
    next_cursor: UUID | None


class RunStep(BaseModel):
    name: str
    status: str
    seconds: float | None
    detail: Any = None
    at: datetime


class RunItem(BaseModel):
    model_config = DESCRIBED

    id: UUID
    status: str
    reason: str | None
    """Why it started."""
    error: str | None
    attempts: int
    """How often a process took it up; above 1, an earlier one died."""
    steps: list[RunStep]
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, steps: Sequence[JobEvent]) -> "RunItem":
        return cls(
            id=job.id,
            status=job.status,
            reason=job.payload.get("reason"),
            error=job.error,
            attempts=job.attempts,
            steps=[_step(event) for event in steps],
            created_at=job.created_at,
            updated_at=job.updated_at,
            finished_at=job.finished_at,
        )


class RunPage(BaseModel):
    items: list[RunItem]
    next_cursor: UUID | None


class RunLinks(BaseModel):
    self: str
    events: str


class RunAccepted(BaseModel):
    id: UUID
    status: str
    links: RunLinks


class FeedbackCounts(BaseModel):
    model_config = DESCRIBED

    total: int
    by_target: Mapping[str, int]
    thumbs: Mapping[str, int]
    stars: Mapping[str, int]
    comments: int
    edits: int
    waiting: int
    """Opinions that no example was made of yet."""


class ExampleCounts(BaseModel):
    model_config = DESCRIBED

    total: int
    positive: int
    usable: int
    """Good enough, all evidence still there and open to everybody who may use a trained model; each once."""
    by_kind: Mapping[str, int]
    by_rating: Mapping[str, int]
    quality: list[int]
    """Ten bins, 0 to 1."""
    improvement_areas: Mapping[str, int]


class NextRun(BaseModel):
    model_config = DESCRIBED

    automatic: bool
    new_examples: int
    """Rated things that became usable examples since the last run that ended well began."""
    needed: int
    """So many start a run at once."""
    missing: int
    due: str | None
    """Why a run is due now."""
    due_at: datetime | None
    """When it becomes due if nothing else comes in."""
    running: UUID | None
    last_run_at: datetime | None


class LearningStats(BaseModel):
    feedback: FeedbackCounts
    examples: ExampleCounts
    next_run: NextRun
    mlflow_url: str | None
    runs: list[RunItem]


def _step(event: JobEvent) -> RunStep:
    seconds = event.data.get("seconds")
    return RunStep(
        name=str(event.data.get("name", "")),
        status=str(event.data.get("status", "")),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        detail=event.data.get("detail"),
        at=event.created_at,
    )
