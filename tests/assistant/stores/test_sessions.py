"""Sessions go on for their owner and for nobody else."""

from uuid import UUID, uuid4

import pytest

from assistant.stores.postgres import Database, one
from assistant.stores.sessions import SessionRepository

pytestmark = pytest.mark.integration


async def metadata(database: Database, session_id: UUID) -> object:
    query = "select metadata from ai_assistant.sessions where id = %s"
    row = await database.repeatable(lambda c: one(c, query, (session_id,)))
    assert row is not None
    return row["metadata"]


async def test_a_session_goes_on(database: Database) -> None:
    sessions = SessionRepository(database)
    first = await sessions.touch(None, "ada", {"agent": "cli"})
    assert await sessions.touch(first, "ada", {"version": 2}) == first
    assert await metadata(database, first) == {"agent": "cli", "version": 2}
    own = uuid4()
    assert await sessions.touch(own, None, {}) == own
    assert await sessions.touch(own, None, {}) == own


@pytest.mark.parametrize("thief", ["mallory", None])
async def test_somebody_elses_session_is_not_joined(database: Database, thief: str | None) -> None:
    sessions = SessionRepository(database)
    session = await sessions.touch(None, "ada", {"private": 1})
    other = await sessions.touch(session, thief, {"stolen": 1})
    assert other != session
    assert await metadata(database, session) == {"private": 1}
    assert await metadata(database, other) == {"stolen": 1}
