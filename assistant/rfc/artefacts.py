"""What the stages hand to each other and store: plain data that survives JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import TypeAdapter

from assistant.retrieval.passages import display_path
from assistant.rfc.templates import SentenceKind
from assistant.types import Citation, Hit

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


class Artefact:
    """The result of one stage. `from_dict(x.to_dict())` gives x again, also through JSON."""

    stage: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        dumped: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises pydantic.ValidationError when the data is not of this artefact."""
        loaded: Self = _adapter(cls).validate_python(dict(data))
        return loaded


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a stage asked of models. `prompts` maps prompt names to content hashes; None is "not told"."""

    model: str | None = None
    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def tokens(self) -> int | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class BriefSentence:
    """A sentence of what the user wrote. `ref` points at it: b0 is the title, b1… the brief, a1… answers."""

    ref: str
    text: str
    kind: SentenceKind
    section: str | None = None
    """Key of the template section whose heading the user put it under, or that the answer belongs to."""


@dataclass(frozen=True, slots=True)
class BriefArtefact(Artefact):
    stage: ClassVar[str] = "brief"
    title: str
    sentences: tuple[BriefSentence, ...]
    topic: tuple[str, ...]
    """The words the brief is about, most telling first."""

    def text(self) -> str:
        """Everything the user said, as one text to check facts against."""
        return "\n".join([self.title, *(s.text for s in self.sentences)])


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    section: str
    text: str
    answer: str | None = None
    origin: Literal["template", "model", "user"] = "template"


@dataclass(frozen=True, slots=True)
class QuestionsArtefact(Artefact):
    """`questions` were answered or are open; `answers` are the user's, as sentences with refs a1, a2 …"""

    stage: ClassVar[str] = "questions"
    questions: tuple[Question, ...]
    answers: tuple[BriefSentence, ...]
    use: ModelUse

    def open(self) -> tuple[Question, ...]:
        return tuple(q for q in self.questions if q.answer is None)


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as evidence: enough to quote it, to point at it and to check a sentence against it."""

    chunk_id: UUID
    document_id: UUID
    title: str
    headings: tuple[str, ...]
    text: str
    start: int
    end: int
    content_hash: str
    source: str
    external_id: str
    url: str | None
    version: str | None
    score: float
    dense: float | None

    @classmethod
    def of(cls, hit: Hit, score: float) -> Self:
        return cls(
            hit.chunk_id,
            hit.document_id,
            hit.title,
            hit.headings,
            hit.text,
            hit.start,
            hit.end,
            hit.content_hash,
            hit.source,
            hit.external_id,
            hit.url,
            hit.version,
            score,
            hit.dense,
        )

    def label(self, *below: str) -> str:
        """`Title › Heading › Heading`; `below` are headings inside the passage."""
        return display_path(self.title, (*self.headings, *(b for b in below if b not in self.headings)))


@dataclass(frozen=True, slots=True)
class SectionEvidence:
    key: str
    queries: tuple[str, ...]
    passages: tuple[UUID, ...]
    """Chunk ids, best first."""
    found: int
    """Distinct hits before off-topic and crowding ones were put aside."""


@dataclass(frozen=True, slots=True)
class EvidenceArtefact(Artefact):
    stage: ClassVar[str] = "evidence"
    passages: tuple[Passage, ...]
    sections: tuple[SectionEvidence, ...]
    searches: int

    def by_id(self) -> dict[UUID, Passage]:
        return {p.chunk_id: p for p in self.passages}

    def of(self, key: str) -> tuple[Passage, ...]:
        known = self.by_id()
        return tuple(known[i] for s in self.sections if s.key == key for i in s.passages)


@dataclass(frozen=True, slots=True)
class PlannedSection:
    """`brief` are refs of user sentences, `clarify` open questions to put into this section."""

    key: str
    title: str
    keep: bool
    reason: str
    brief: tuple[str, ...] = ()
    passages: tuple[UUID, ...] = ()
    clarify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutlineArtefact(Artefact):
    stage: ClassVar[str] = "outline"
    sections: tuple[PlannedSection, ...]

    def kept(self) -> tuple[PlannedSection, ...]:
        return tuple(s for s in self.sections if s.keep)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a sentence comes from: a user sentence (`ref`) or offsets of a stored document (`chunk_id`)."""

    ref: str | None = None
    chunk_id: UUID | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence, without markers. `origin` template marks words of ours that claim nothing."""

    text: str
    origin: Literal["brief", "evidence", "model", "template"]
    pointers: tuple[Pointer, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """`label` names the passage a quotation comes from; it is not a claim."""

    kind: Literal["paragraph", "bullet", "task", "notice", "clarification"]
    statements: tuple[Statement, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    section: str
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class SectionDraft(Artefact):
    stage: ClassVar[str] = "section"
    key: str
    title: str
    blocks: tuple[Block, ...]
    dropped: tuple[Dropped, ...] = ()
    extractive: bool = True
    use: ModelUse = field(default_factory=ModelUse)


@dataclass(frozen=True, slots=True)
class SectionsArtefact(Artefact):
    stage: ClassVar[str] = "sections"
    sections: tuple[SectionDraft, ...]
    writing: Literal["extractive", "free"]
    complete: bool
    """False while sections are still being written: a resumed run writes only those that are missing."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    figure: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChecksArtefact(Artefact):
    """`sections` is what may be shown: sentences that failed a check are gone or turned into questions."""

    stage: ClassVar[str] = "checks"
    checks: tuple[Check, ...]
    sections: tuple[SectionDraft, ...]
    dropped: tuple[Dropped, ...]
    open_points: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RenderArtefact(Artefact):
    stage: ClassVar[str] = "render"
    markdown: str
    citations: tuple[Citation, ...]


STAGES = ("brief", "questions", "evidence", "outline", "sections", "checks", "render")
