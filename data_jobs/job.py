"""What the stages of one source's ingestion share, and the rows that travel between them.

A row is one part of a document: its head, at most `PART_CHUNKS` chunks and, after embedding, their vectors.
Rows hold JSON and bytes only, which Arrow moves between processes without pickling.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from assistant.retrieval.embedders import Vectors
from assistant.settings import Settings
from assistant.stores.documents import DocumentRecord
from assistant.types import Chunk
from data_jobs.config import SourceConfig
from data_jobs.connectors.item import Item

Row = dict[str, Any]

PART_CHUNKS = 256
"""A longer document is embedded and stored in parts, so that no row grows without bound."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run over one source. Small: every worker gets a copy."""

    settings: Settings
    source: SourceConfig
    source_id: UUID
    run_id: UUID


@dataclass(frozen=True, slots=True)
class Task:
    """A document to ingest. `replaces`: an earlier version, or the rest of one, may be stored."""

    item: Item
    document_id: UUID
    content_hash: str
    replaces: bool

    def row(self) -> Row:
        return {"task": json.dumps(asdict(self), default=str)}

    @classmethod
    def of(cls, row: Row) -> "Task":
        values = json.loads(row["task"])
        return cls(
            Item(**values["item"]), UUID(values["document_id"]), values["content_hash"], values["replaces"]
        )


@dataclass(frozen=True, slots=True)
class EmbeddableChunk:
    """A chunk and the text that stands for it in the index: its path of headings and its body."""

    chunk: Chunk
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """Some chunks of one document. `chunk_count` counts those of all its parts.

    `error` says why the document is skipped, and in which `stage`; such a part has no chunks.
    """

    task: Task
    title: str
    chunk_count: int
    chunks: tuple[EmbeddableChunk, ...] = ()
    vectors: Vectors | None = None
    stage: str = ""
    error: str = ""

    def failed(self, stage: str, error: str) -> "Part":
        return replace(self, chunks=(), vectors=None, stage=stage, error=error)

    def row(self) -> Row:
        return self.task.row() | {
            "title": self.title,
            "chunk_count": self.chunk_count,
            "chunks": json.dumps([[*_values(e.chunk), e.text] for e in self.chunks]),
            "vectors": b"" if self.vectors is None else self.vectors.tobytes(),
            "stage": self.stage,
            "error": self.error,
        }

    @classmethod
    def of(cls, row: Row) -> "Part":
        task = Task.of(row)
        chunks = tuple(_embeddable(task.document_id, values) for values in json.loads(row["chunks"]))
        vectors = None
        if row["vectors"]:
            vectors = np.frombuffer(row["vectors"], dtype=np.float32).reshape(len(chunks), -1)
        return cls(task, row["title"], int(row["chunk_count"]), chunks, vectors, row["stage"], row["error"])


def parts_of(task: Task, title: str, chunks: Sequence[EmbeddableChunk]) -> list[Part]:
    """The document as parts; one without chunks is still one part, so that it is completed."""
    starts = range(0, len(chunks), PART_CHUNKS) or (0,)
    return [Part(task, title, len(chunks), tuple(chunks[i : i + PART_CHUNKS])) for i in starts]


def record(job: Job, task: Task, title: str) -> DocumentRecord:
    """The document as Postgres notes it."""
    item = task.item
    return DocumentRecord(
        id=task.document_id,
        source_id=job.source_id,
        external_id=item.external_id,
        title=title,
        content_hash=task.content_hash,
        content_type=item.content_type,
        url=item.url,
        version=item.version,
        acl=job.source.acl,
        metadata=item.metadata,
    )


def payload(job: Job, part: Part, chunk: Chunk, now: datetime) -> Mapping[str, Any]:
    """What is stored with a chunk; attributes that the source does not set are left out.

    `created_date` is `now`: when this version was ingested.
    """
    item = part.task.item
    attributes = job.source.attributes.model_dump(exclude_none=True)
    return attributes | {
        "text": chunk.text,
        "title": part.title,
        "url": item.url,
        "headings": list(chunk.headings),
        "start": chunk.start,
        "end": chunk.end,
        "chunk_index": chunk.index,
        "token_count": chunk.token_count,
        "document_id": str(part.task.document_id),
        "source_id": str(job.source_id),
        "source": job.source.name,
        "source_type": job.source.source_type,
        "external_id": item.external_id,
        "content_type": item.content_type,
        "content_hash": part.task.content_hash,
        "version": item.version,
        "acl": list(job.source.acl),
        "embedder": job.settings.embedder.name,
        "created_date": now.isoformat(),
        "metadata": dict(item.metadata),
    }


def _values(chunk: Chunk) -> list[Any]:
    return [
        str(chunk.id),
        chunk.index,
        chunk.text,
        chunk.start,
        chunk.end,
        chunk.headings,
        chunk.token_count,
    ]


def _embeddable(document_id: UUID, values: Sequence[Any]) -> EmbeddableChunk:
    id_, index, text, start, end, headings, tokens, embedded = values
    chunk = Chunk(UUID(id_), document_id, index, text, start, end, tuple(headings), tokens)
    return EmbeddableChunk(chunk, embedded)
