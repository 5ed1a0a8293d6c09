"""Sessions: what ties the searches and drafts of one visit together."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from assistant.clock import new_id
from assistant.stores.postgres import Connection, Database, one
from assistant.stores.values import identifier, jsonb


class SessionRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def touch(self, session_id: UUID | None, user_id: str | None, metadata: Mapping[str, Any]) -> UUID:
        """Note that a session is alive, merging `metadata` into it; the id to go on with.

        A session of somebody else is never joined: the caller gets a new one.
        """
        if user_id is not None:
            identifier(user_id, "user_id", 255)
        fresh_id = new_id()

        async def work(connection: Connection) -> UUID:
            for candidate in (session_id or fresh_id, fresh_id):
                row = await one(
                    connection,
                    """
                    insert into ai_assistant.sessions (id, user_id, metadata) values (%s, %s, %s)
                    on conflict (id) do update set last_seen_at = now(),
                        metadata = sessions.metadata || excluded.metadata
                    where sessions.user_id is not distinct from excluded.user_id
                    returning id
                    """,
                    (candidate, user_id, jsonb(metadata)),
                )
                if row is not None:
                    return candidate
            raise AssertionError("a new id cannot belong to somebody else")

        return await self._database.repeatable(work)
