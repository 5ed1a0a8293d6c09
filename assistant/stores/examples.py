"""Examples to learn from, kept in step with the feedback that they come from.

`refresh` turns feedback into examples, batch by batch, each in one transaction: what was accepted and not
yet used is found again after a crash, and a second run changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.stores import example_queries as queries
from assistant.stores.answers import AnswerRecord, answer_of
from assistant.stores.feedback import FeedbackRecord, feedback_of
from assistant.stores.postgres import Connection, Database, one, rows, scalar
from assistant.stores.values import Page, jsonb, page_of, page_size, storable
from assistant.types import PUBLIC, Message

ExampleKind = Literal["answer", "rfc_section"]
BATCH = 100
"""Rated things per transaction."""
REFRESH_LOCK = 0x61695F6578616D70


@dataclass(frozen=True, slots=True)
class LearningExample:
    """What a model should have said: `response` to `messages`. `acl` is never wider than the evidence.

    `metadata` has `split_hash` (the same for the same input: keep such examples on one side of a split),
    `improvement_areas`, `adapter`, `model`, `edited` and the parts of the quality score.
    """

    id: UUID
    kind: ExampleKind
    messages: tuple[Message, ...]
    response: str
    quality: float
    acl: tuple[str, ...]
    document_ids: tuple[UUID, ...]
    rfc_id: UUID | None
    created_at: datetime
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExampleDraft:
    """An example as it is made of feedback. `also` is an access list that must be satisfied besides that of
    the documents, None for none; `owner` is the term of whoever is known to have seen all of it, and
    `owner_only` limits the example to them."""

    id: UUID
    kind: ExampleKind
    messages: tuple[Message, ...]
    response: str
    quality: float
    positive: bool
    document_ids: tuple[UUID, ...]
    owner: str
    fingerprint: str
    split_hash: str
    rating_key: str
    stars: int | None
    comment: str | None
    improvement_areas: tuple[str, ...]
    principal_id: str
    also: tuple[str, ...] | None = None
    owner_only: bool = False
    answer_id: UUID | None = None
    rfc_id: UUID | None = None
    section: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer with all feedback on it. `twins` is feedback on answers of the same words to the same
    question, which is about this text as well."""

    answer: AnswerRecord
    feedback: tuple[FeedbackRecord, ...]
    twins: tuple[FeedbackRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class RatedRfc:
    """A finished RFC with all feedback on it. `sources` maps a citation's marker to its document."""

    id: UUID
    title: str
    brief: str
    markdown: str
    acl: tuple[str, ...]
    principal_id: str
    sources: Mapping[int, UUID]
    model: str | None
    feedback: tuple[FeedbackRecord, ...]


@dataclass(frozen=True, slots=True)
class Maker:
    """How examples are made; `assistant.learning` has it, as the stores know nothing of quality."""

    of_answer: Callable[[RatedAnswer], Sequence[ExampleDraft]]
    of_rfc: Callable[[RatedRfc], Sequence[ExampleDraft]]


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """An example as people look at it."""

    example: LearningExample
    positive: bool
    stars: int | None
    comment: str | None
    section: str | None
    improvement_areas: tuple[str, ...]


class ExampleRepository:
    """`audience` are access terms that everybody holds who will talk to a model trained on the examples:
    what such a reader might not see all evidence of is never handed out to learn from."""

    def __init__(self, database: Database, audience: Sequence[str] = (PUBLIC,)) -> None:
        self._database = database
        self._audience = list(audience)

    async def usable(self, min_quality: float, limit: int | None = None) -> list[LearningExample]:
        """Good examples, newest first: positive, all documents still there and open to the audience.

        Of several with the same input and response only the best is given.
        """

        async def work(connection: Connection) -> list[LearningExample]:
            found = await rows(
                connection,
                "select * from ai_assistant.usable_examples(%(audience)s, %(min_quality)s)"
                " order by changed_at desc, id limit %(limit)s",
                {"audience": self._audience, "min_quality": min_quality, "limit": limit},
            )
            return [_example(row) for row in found]

        return await self._database.repeatable(work)

    async def new_since(self, when: datetime | None, min_quality: float = 0.6) -> int:
        """Rated things that became usable examples after `when`; all usable ones for None."""

        async def work(connection: Connection) -> int:
            return int(
                await scalar(
                    connection,
                    "select count(distinct rating_key)"
                    " from ai_assistant.usable_examples(%(audience)s, %(min_quality)s)"
                    " where %(when)s::timestamptz is null or changed_at > %(when)s",
                    {"audience": self._audience, "min_quality": min_quality, "when": when},
                )
            )

        return await self._database.repeatable(work)

    async def oldest_new(self, when: datetime | None, min_quality: float = 0.6) -> datetime | None:
        """Since when the oldest of those that `new_since` counts has been waiting."""

        async def work(connection: Connection) -> datetime | None:
            found: datetime | None = await scalar(
                connection,
                "select min(changed_at) from ai_assistant.usable_examples(%(audience)s, %(min_quality)s)"
                " where %(when)s::timestamptz is null or changed_at > %(when)s",
                {"audience": self._audience, "min_quality": min_quality, "when": when},
            )
            return found

        return await self._database.repeatable(work)

    async def page(self, acl_terms: Sequence[str], cursor: UUID | None, limit: int) -> Page[ExampleRow]:
        """Examples whose evidence these terms may all see now, by id, descending."""
        size = page_size(limit)

        async def work(connection: Connection) -> Page[ExampleRow]:
            found = await rows(
                connection,
                "select * from ai_assistant.learning_examples"
                " where acl && %(terms)s::text[] and ai_assistant.all_visible(document_ids, %(terms)s::text[])"
                " and (%(cursor)s::uuid is null or id < %(cursor)s) order by id desc limit %(limit)s",
                {"terms": list(acl_terms), "cursor": cursor, "limit": size + 1},
            )
            items = [_row(row) for row in found]
            return page_of(items, [item.example.id for item in items], size)

        return await self._database.repeatable(work)

    async def stats(self, min_quality: float = 0.6) -> Mapping[str, Any]:
        """Counts of examples by kind, star and area, ten bins of quality, and how many are usable."""

        async def work(connection: Connection) -> Mapping[str, Any]:
            row = await one(
                connection, queries.STATS, {"audience": self._audience, "min_quality": min_quality}
            )
            assert row is not None
            return dict(row)

        return await self._database.repeatable(work)

    async def refresh(self, make: Maker) -> int:
        """Bring the examples in step with the feedback; how many rated things were looked at.

        Any number of processes may do it at once: they take turns. Raises what `make` raises.
        """
        seen = 0
        while True:
            count = await self._database.repeatable(lambda c: _refresh_batch(c, make))
            seen += count
            if count < BATCH:
                return seen

    async def renew_access(self) -> int:
        """Compute the access lists anew: documents may have become more or less open since. How many changed."""

        async def work(connection: Connection) -> int:
            cursor = await connection.execute(
                "update ai_assistant.learning_examples e set acl = n.acl, updated_at = clock_timestamp()"
                " from (select id, ai_assistant.example_acl(document_ids, metadata) as acl"
                " from ai_assistant.learning_examples) n where e.id = n.id and e.acl <> n.acl"
            )
            return cursor.rowcount

        return await self._database.repeatable(work)


async def _refresh_batch(connection: Connection, make: Maker) -> int:
    await connection.execute("select pg_advisory_xact_lock(%s)", (REFRESH_LOCK,))
    targets = await rows(connection, queries.WAITING, {"limit": BATCH})
    for target in targets:
        if target["target"] == "answer":
            rated = await _rated_answer(connection, target["target_id"])
            drafts = make.of_answer(rated)
            await connection.execute(queries.REMOVE_OF_ANSWER, _kept(rated.answer.id, drafts))
            seen = rated.feedback
        else:
            rfc = await _rated_rfc(connection, target["target_id"])
            drafts = make.of_rfc(rfc)
            await connection.execute(queries.REMOVE_OF_RFC, _kept(rfc.id, drafts))
            seen = rfc.feedback
        for draft in drafts:
            await connection.execute(queries.SAVE, _values(draft))
        await connection.execute(
            queries.PROCESSED,
            {"ids": [f.id for f in seen], "seen": [f.updated_at for f in seen]},
        )
    return len(targets)


def _kept(id_: UUID, drafts: Sequence[ExampleDraft]) -> dict[str, Any]:
    return {"id": id_, "kept": [draft.id for draft in drafts]}


async def _rated_answer(connection: Connection, answer_id: UUID) -> RatedAnswer:
    row = await one(connection, "select * from ai_assistant.answers where id = %s", (answer_id,))
    assert row is not None
    own = await rows(connection, queries.FEEDBACK_ON_ANSWER, {"id": answer_id})
    twins = await rows(connection, queries.FEEDBACK_ON_TWINS, {"id": answer_id, "print": row["fingerprint"]})
    return RatedAnswer(
        answer_of(row), tuple(feedback_of(f) for f in own), tuple(feedback_of(f) for f in twins)
    )


async def _rated_rfc(connection: Connection, rfc_id: UUID) -> RatedRfc:
    row = await one(connection, "select * from ai_assistant.rfcs where id = %s", (rfc_id,))
    assert row is not None
    given = await rows(
        connection,
        "select * from ai_assistant.feedback where target = 'rfc' and target_id = %s order by id",
        (rfc_id,),
    )
    cited = await rows(
        connection,
        "select marker, document_id from ai_assistant.rfc_citations where rfc_id = %s",
        (rfc_id,),
    )
    return RatedRfc(
        id=rfc_id,
        title=row["title"],
        brief=row["brief"],
        markdown=row["content"],
        acl=tuple(row["acl"]),
        principal_id=row["principal_id"],
        sources={c["marker"]: c["document_id"] for c in cited},
        model=row["llm_provider"],
        feedback=tuple(feedback_of(f) for f in given),
    )


def _values(draft: ExampleDraft) -> dict[str, Any]:
    return {
        "id": draft.id,
        "rfc_id": draft.rfc_id,
        "answer_id": draft.answer_id,
        "section": draft.section,
        "kind": draft.kind,
        "principal_id": draft.principal_id,
        "stars": draft.stars,
        "comment": draft.comment,
        "quality": round(draft.quality, 2),
        "areas": list(draft.improvement_areas),
        "messages": jsonb([{"role": m.role, "content": m.content} for m in draft.messages]),
        "response": storable(draft.response),
        "document_ids": list(draft.document_ids),
        "positive": draft.positive,
        "fingerprint": draft.fingerprint,
        "split_hash": draft.split_hash,
        "rating_key": draft.rating_key,
        "metadata": jsonb(
            {
                **draft.metadata,
                "also": None if draft.also is None else list(draft.also),
                "owner": draft.owner,
                "owner_only": draft.owner_only,
            }
        ),
    }


def _example(row: DictRow) -> LearningExample:
    hidden = {"also", "owner", "owner_only"}
    return LearningExample(
        id=row["id"],
        kind=row["kind"],
        messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
        response=row["response"],
        quality=float(row["quality_score"] or 0),
        acl=tuple(row["acl"]),
        document_ids=tuple(row["document_ids"]),
        rfc_id=row["rfc_id"],
        created_at=row["created_at"],
        metadata={
            **{name: value for name, value in row["metadata"].items() if name not in hidden},
            "split_hash": row["split_hash"],
            "improvement_areas": list(row["improvement_areas"]),
        },
    )


def _row(row: DictRow) -> ExampleRow:
    return ExampleRow(
        example=_example(row),
        positive=row["positive"],
        stars=row["user_feedback"],
        comment=row["feedback_text"],
        section=row["section"],
        improvement_areas=tuple(row["improvement_areas"]),
    )
