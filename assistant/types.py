"""The nouns that travel between the parts of the product."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from assistant.clock import epoch_s

PUBLIC = "public"
"""The ACL term that every principal holds."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `groups` come from the identity provider or the API key."""

    id: str
    kind: Literal["user", "service", "anonymous"] = "user"
    groups: tuple[str, ...] = ()

    def acl_terms(self) -> tuple[str, ...]:
        """The ACL terms this principal holds; a chunk is visible when its `acl` shares one."""
        own = () if self.kind == "anonymous" else (f"user:{self.id}",)
        return (PUBLIC, *own, *(f"group:{group}" for group in self.groups))


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What crosses a handle with every call, instead of a web request.

    `deadline_s` is in epoch seconds, so it means the same in every process of the machine.
    """

    request_id: str
    principal: Principal
    deadline_s: float
    max_cost_usd: Decimal | None = None
    session_id: UUID | None = None
    traceparent: str | None = None
    """Of the span that the work belongs to; None when nothing is traced."""

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.deadline_s - epoch_s())


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a source as it was read: `text` is what offsets of chunks point into."""

    id: UUID
    source_id: UUID
    external_id: str
    title: str
    text: str
    content_hash: str
    content_type: str
    url: str | None = None
    version: str | None = None
    acl: tuple[str, ...] = (PUBLIC,)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end]`, under its `headings` (outermost first)."""

    id: UUID
    document_id: UUID
    index: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    token_count: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `score` is the fused score; `dense` and `sparse` are its parts when known.

    `highlights` are (start, end) offsets into `text`.
    """

    chunk_id: UUID
    document_id: UUID
    score: float
    text: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    source: str
    source_type: str
    external_id: str
    content_hash: str
    url: str | None = None
    version: str | None = None
    dense: float | None = None
    sparse: float | None = None
    highlights: tuple[tuple[int, int], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Citation:
    """A pointer a machine can resolve: the n-th marker of a text → a passage of a stored document."""

    marker: int
    chunk_id: UUID
    document_id: UUID
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    quote: str
    content_hash: str
    url: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. None means that the provider did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A cited answer. `grounded` is False when no evidence was found and the text says so.

    `evidence` are the passages that the text was made from, cited or not.
    """

    text: str
    citations: tuple[Citation, ...]
    model: str
    grounded: bool
    extractive: bool
    usage: Usage
    adapter: str | None = None
    evidence: tuple[Hit, ...] = ()
