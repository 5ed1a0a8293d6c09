"""What people think of answers, search results and RFCs: one opinion per person and thing, the last one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id, now
from assistant.errors import InvalidInput
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import from_row, storable

Target = Literal["answer", "search", "rfc"]
MAX_COMMENT = 4_000
MAX_TEXT = 50_000
JUST_NOW = timedelta(minutes=2)
"""How long an id may be known to its maker only: its row waits to be written."""
CLOCKS_DIFFER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody says. At least one member is set; `thumb` is 1 or -1."""

    thumb: Literal[1, -1] | None = None
    stars: int | None = None
    comment: str | None = None
    edited_text: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """An opinion on a target: a chunk of a search and a section of an RFC are targets of their own."""

    id: UUID
    target: Target
    target_id: UUID
    chunk_id: UUID | None
    section: str | None
    principal_id: str
    thumb: Literal[1, -1] | None
    stars: int | None
    comment: str | None
    edited_text: str | None
    verified: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SearchSeen:
    """A stored search, as far as feedback on it needs it."""

    principal_id: str | None
    chunk_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class RatedHit:
    """A search result that somebody rated, for training an embedder. `rating` is 0 (bad) to 1 (good)."""

    query: str
    chunk_id: UUID
    rating: float
    principal_id: str


class FeedbackRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def give(
        self,
        target: Target,
        target_id: UUID,
        principal_id: str,
        opinion: Opinion,
        *,
        chunk_id: UUID | None = None,
        section: str | None = None,
        verified: bool = True,
    ) -> FeedbackRecord:
        """Store an opinion in place of what this principal said of the same thing before.

        Whether the target may be seen is the caller's to check; `verified` False says that it could not.
        Raises InvalidInput naming the field.
        """
        clean = _checked(opinion)
        feedback_id = new_id()

        async def work(connection: Connection) -> FeedbackRecord:
            row = await one(
                connection,
                """
                insert into ai_assistant.feedback (id, target, target_id, chunk_id, section, principal_id,
                    thumb, stars, comment, edited_text, verified)
                values (%(id)s, %(target)s, %(target_id)s, %(chunk)s, %(section)s, %(principal)s,
                    %(thumb)s, %(stars)s, %(comment)s, %(edited)s, %(verified)s)
                on conflict (target, target_id, chunk_id, section, principal_id) do update set
                    thumb = excluded.thumb, stars = excluded.stars, comment = excluded.comment,
                    edited_text = excluded.edited_text, verified = feedback.verified or excluded.verified,
                    updated_at = clock_timestamp(), processed_at = null
                returning *
                """,
                {
                    "id": feedback_id,
                    "target": target,
                    "target_id": target_id,
                    "chunk": chunk_id,
                    "section": section,
                    "principal": principal_id,
                    "thumb": clean.thumb,
                    "stars": clean.stars,
                    "comment": clean.comment,
                    "edited": clean.edited_text,
                    "verified": verified,
                },
            )
            assert row is not None
            return feedback_of(row)

        return await self._database.repeatable(work)

    async def own(self, target: Target, target_id: UUID, principal_id: str) -> list[FeedbackRecord]:
        """What this principal has said of a target and of its parts."""

        async def work(connection: Connection) -> list[FeedbackRecord]:
            found = await rows(
                connection,
                "select * from ai_assistant.feedback where target = %s and target_id = %s"
                " and principal_id = %s order by id",
                (target, target_id, principal_id),
            )
            return [feedback_of(row) for row in found]

        return await self._database.repeatable(work)

    async def search(self, query_id: UUID) -> SearchSeen | None:
        """The search of this id; None when none is stored (yet)."""

        async def work(connection: Connection) -> SearchSeen | None:
            row = await one(
                connection,
                "select principal_id, chunk_ids from ai_assistant.search_queries where id = %s",
                (query_id,),
            )
            return from_row(SearchSeen, row) if row else None

        return await self._database.repeatable(work)

    async def rated_hits(self, limit: int = 10_000) -> list[RatedHit]:
        """Opinions on single search results, newest first; those whose search was never stored are left out."""

        async def work(connection: Connection) -> list[RatedHit]:
            found = await rows(
                connection,
                """
                select q.query_text as query, f.chunk_id, f.principal_id,
                    coalesce((f.stars - 1) / 4.0, (f.thumb + 1) / 2.0)::float8 as rating
                from ai_assistant.feedback f join ai_assistant.search_queries q on q.id = f.target_id
                where f.target = 'search' and f.chunk_id = any(q.chunk_ids)
                    and num_nonnulls(f.stars, f.thumb) > 0
                    and (f.verified or q.principal_id = f.principal_id)
                order by f.updated_at desc, f.id limit %s
                """,
                (limit,),
            )
            return [from_row(RatedHit, row) for row in found]

        return await self._database.repeatable(work)

    async def stats(self) -> Mapping[str, Any]:
        """Counts by target, thumb and star, of comments and edits, and of what no example was made of yet."""

        async def work(connection: Connection) -> Mapping[str, Any]:
            row = await one(
                connection,
                """
                select count(*)::int as total,
                    count(*) filter (where target = 'answer')::int as answer,
                    count(*) filter (where target = 'search')::int as search,
                    count(*) filter (where target = 'rfc')::int as rfc,
                    count(*) filter (where thumb = 1)::int as up,
                    count(*) filter (where thumb = -1)::int as down,
                    count(*) filter (where comment is not null)::int as comments,
                    count(*) filter (where edited_text is not null)::int as edits,
                    count(*) filter (where processed_at is null and target <> 'search')::int as waiting,
                    count(*) filter (where stars = 1)::int as stars_1,
                    count(*) filter (where stars = 2)::int as stars_2,
                    count(*) filter (where stars = 3)::int as stars_3,
                    count(*) filter (where stars = 4)::int as stars_4,
                    count(*) filter (where stars = 5)::int as stars_5
                from ai_assistant.feedback
                """,
            )
            assert row is not None
            return {
                "total": row["total"],
                "by_target": {name: row[name] for name in ("answer", "search", "rfc")},
                "thumbs": {"up": row["up"], "down": row["down"]},
                "stars": {str(n): row[f"stars_{n}"] for n in range(1, 6)},
                "comments": row["comments"],
                "edits": row["edits"],
                "waiting": row["waiting"],
            }

        return await self._database.repeatable(work)


def was_just_made(id_: UUID, at: datetime | None = None) -> bool:
    """Whether this is a UUIDv7 of the last moments: its row may not be written yet."""
    if id_.version != 7:
        return False
    made_s = (id_.int >> 80) / 1000
    age_s = (at or now()).timestamp() - made_s
    return -CLOCKS_DIFFER.total_seconds() <= age_s <= JUST_NOW.total_seconds()


def feedback_of(row: DictRow) -> FeedbackRecord:
    return from_row(FeedbackRecord, row)


def _checked(opinion: Opinion) -> Opinion:
    comment = _text(opinion.comment, "comment", MAX_COMMENT)
    edited = _text(opinion.edited_text, "edited_text", MAX_TEXT)
    if opinion.thumb not in {None, 1, -1}:
        raise InvalidInput(f"thumb must be 1 or -1, not {opinion.thumb}.", field="thumb")
    if opinion.stars is not None and not 1 <= opinion.stars <= 5:
        raise InvalidInput(f"stars must be 1 to 5, not {opinion.stars}.", field="stars")
    clean = replace(opinion, comment=comment, edited_text=edited)
    if clean == Opinion():
        raise InvalidInput(
            "The feedback is empty.", hint="Give thumb, stars, comment or edited_text.", field="thumb"
        )
    return clean


def _text(text: str | None, field: str, most: int) -> str | None:
    clean = storable(text or "").strip()
    if len(clean) > most:
        raise InvalidInput(f"{field} has {len(clean)} characters, at most {most} are allowed.", field=field)
    return clean or None
