"""Answers from the knowledge base with the evidence behind them, written behind the request.

An answer is kept so that feedback on it can become an example. Its `acl` is that of its evidence:
`evidence_acl` in migration 0006 says what that means.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import DictRow

from assistant.clock import new_id, now
from assistant.stores.buffer import CAPACITY, RecordBuffer, Row
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import jsonb, storable
from assistant.telemetry import Meter
from assistant.types import Answer, Message

MAX_HISTORY = 20
"""Turns of a conversation that are kept with an answer."""
COLUMNS = (
    *("id", "principal_id", "request_id", "question", "messages", "text", "model", "adapter", "citations"),
    *("evidence", "document_ids", "grounded", "extractive", "fingerprint", "created_at"),
)
ACL = (
    # What earlier turns said came from evidence of their own, which only their author is known to have seen.
    "case when jsonb_array_length(%(messages)s::jsonb) > 1 then array[%(owner)s::text]"
    " else ai_assistant.evidence_acl(%(document_ids)s::uuid[], null, %(owner)s) end"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage as it was when the answer was made. `marker` is None when the answer does not cite it."""

    chunk_id: UUID
    document_id: UUID
    title: str
    headings: tuple[str, ...]
    text: str
    marker: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One answer. `messages` is the conversation without system messages, the question last."""

    principal_id: str
    question: str
    messages: tuple[Message, ...]
    text: str
    model: str
    adapter: str | None
    citations: tuple[Mapping[str, Any], ...]
    evidence: tuple[Evidence, ...]
    grounded: bool
    extractive: bool
    request_id: str | None = None
    id: UUID = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)

    @classmethod
    def of(
        cls, answer: Answer, messages: Sequence[Message], principal_id: str, request_id: str | None = None
    ) -> "AnswerRecord":
        """The record of an answer to the last of `messages`."""
        said = [m for m in messages if m.role != "system"][-MAX_HISTORY:]
        markers = {citation.chunk_id: citation.marker for citation in answer.citations}
        evidence = [
            Evidence(h.chunk_id, h.document_id, h.title, h.headings, h.text, markers.get(h.chunk_id))
            for h in answer.evidence
        ]
        return cls(
            principal_id=principal_id,
            question=said[-1].content.strip(),
            messages=tuple(said),
            text=answer.text,
            model=answer.model,
            adapter=answer.adapter,
            citations=tuple(asdict(citation) for citation in answer.citations),
            evidence=tuple(sorted(evidence, key=lambda e: (e.marker is None, e.marker or 0))),
            grounded=answer.grounded,
            extractive=answer.extractive,
            request_id=request_id,
        )

    @property
    def document_ids(self) -> tuple[UUID, ...]:
        return tuple(dict.fromkeys(e.document_id for e in self.evidence))

    @property
    def markers(self) -> frozenset[int]:
        """The citation markers that point to something."""
        return frozenset(e.marker for e in self.evidence if e.marker is not None)


class AnswerLog(RecordBuffer[AnswerRecord]):
    """Fills `answers`: `record` costs a request nothing, `close` writes what waits."""

    def __init__(self, database: Database, meter: Meter | None = None, capacity: int = CAPACITY) -> None:
        super().__init__(database, "answers", COLUMNS, _values, meter, capacity)
        self._insert = sql.SQL(
            "insert into ai_assistant.answers ({}, acl) values ({}, {}) on conflict (id) do nothing"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
            sql.SQL(", ").join(map(sql.Placeholder, COLUMNS)),
            sql.SQL(ACL),
        )

    async def _copy_in(self, connection: Connection, batch: Sequence[Row]) -> None:
        # COPY cannot compute the acl; answers are few beside searches.
        await connection.cursor().executemany(self._insert, batch)


class AnswerRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, answer_id: UUID) -> AnswerRecord | None:
        async def work(connection: Connection) -> AnswerRecord | None:
            row = await one(connection, "select * from ai_assistant.answers where id = %s", (answer_id,))
            return answer_of(row) if row else None

        return await self._database.repeatable(work)

    async def visible(self, answer_id: UUID, principal_id: str, acl_terms: Sequence[str]) -> bool | None:
        """Whether this principal may see the answer: its asker, or who may read all of its evidence now.

        None: no such answer is stored (yet).
        """

        async def work(connection: Connection) -> bool | None:
            found = await rows(
                connection,
                "select principal_id = %(principal)s or (acl && %(terms)s::text[]"
                " and ai_assistant.all_visible(document_ids, %(terms)s::text[])) as visible"
                " from ai_assistant.answers where id = %(id)s",
                {"id": answer_id, "principal": principal_id, "terms": list(acl_terms)},
            )
            return bool(found[0]["visible"]) if found else None

        return await self._database.repeatable(work)


def answer_of(row: DictRow) -> AnswerRecord:
    """A row of `answers`."""
    return AnswerRecord(
        principal_id=row["principal_id"],
        question=row["question"],
        messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
        text=row["text"],
        model=row["model"],
        adapter=row["adapter"],
        citations=tuple(row["citations"]),
        evidence=tuple(
            Evidence(
                UUID(e["chunk_id"]),
                UUID(e["document_id"]),
                e["title"],
                tuple(e["headings"]),
                e["text"],
                e["marker"],
            )
            for e in row["evidence"]
        ),
        grounded=row["grounded"],
        extractive=row["extractive"],
        request_id=row["request_id"],
        id=row["id"],
        created_at=row["created_at"],
    )


def fingerprint(*parts: str) -> str:
    """The same for texts that differ only in case and white space."""
    text = "\x1f".join(" ".join(part.casefold().split()) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _values(record: AnswerRecord) -> Any:
    """By name, as the statement names its values."""
    return {
        "id": record.id,
        "principal_id": record.principal_id,
        "owner": f"user:{record.principal_id}",
        "request_id": record.request_id,
        "question": storable(record.question),
        "messages": jsonb([asdict(m) for m in record.messages]),
        "text": storable(record.text),
        "model": storable(record.model, 200),
        "adapter": record.adapter,
        "citations": jsonb(record.citations),
        "evidence": jsonb([asdict(e) for e in record.evidence]),
        "document_ids": list(record.document_ids),
        "grounded": record.grounded,
        "extractive": record.extractive,
        "fingerprint": fingerprint(record.question, record.text),
        "created_at": record.created_at,
    }
