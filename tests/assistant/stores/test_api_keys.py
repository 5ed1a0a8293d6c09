"""API keys: shown once, never stored, ended at once."""

from datetime import timedelta
from uuid import uuid4

import pytest

from assistant.clock import now
from assistant.errors import InvalidInput
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.postgres import Database, rows
from assistant.types import Principal

pytestmark = pytest.mark.integration


@pytest.fixture
def keys(database: Database) -> ApiKeyRepository:
    return ApiKeyRepository(database)


async def test_a_key_resolves_to_its_principal_until_revoked(keys: ApiKeyRepository) -> None:
    secret, record = await keys.create("laptop", "ada", ["platform", "sre"])
    assert await keys.resolve(secret) == Principal("ada", "user", ("platform", "sre"))
    assert await keys.revoke(record.id)
    assert await keys.resolve(secret) is None
    assert not await keys.revoke(record.id)
    assert not await keys.revoke(uuid4())


@pytest.mark.parametrize("secret", ["", "aia_", "aia_guess", "\x00", "\ud800", "x" * 100_000])
async def test_strange_secrets_resolve_to_nobody(keys: ApiKeyRepository, secret: str) -> None:
    await keys.create("laptop", "ada", [])
    assert await keys.resolve(secret) is None


async def test_the_secret_is_nowhere_in_the_database(database: Database, keys: ApiKeyRepository) -> None:
    secret, record = await keys.create("laptop", "ada", [])
    stored = await database.repeatable(
        lambda c: rows(c, "select k::text as line from ai_assistant.api_keys k")
    )
    assert secret.startswith(record.prefix)
    assert len(record.prefix) < len(secret) / 4
    assert secret not in stored[0]["line"]
    assert secret not in repr(record)


async def test_keys_of_services_expiry_and_disabled_owners(
    database: Database, keys: ApiKeyRepository
) -> None:
    robot, _ = await keys.create("ci", "robot", [], kind="service")
    assert await keys.resolve(robot) == Principal("robot", "service", ())
    old, _ = await keys.create("old", "robot", [], expires_at=now() - timedelta(seconds=1))
    assert await keys.resolve(old) is None
    async with database.transaction() as connection:
        await connection.execute("update ai_assistant.users set disabled_at = now() where id = 'robot'")
    assert await keys.resolve(robot) is None


async def test_the_list_shows_use_and_state_newest_first(keys: ApiKeyRepository) -> None:
    secret, first = await keys.create("one", "ada", [])
    _, second = await keys.create("two", "ada", ["x"])
    await keys.resolve(secret)
    listed = await keys.list()
    assert [(k.id, k.name, k.groups) for k in listed] == [(second.id, "two", ("x",)), (first.id, "one", ())]
    assert listed[1].last_used_at is not None
    used = listed[1].last_used_at
    await keys.resolve(secret)
    assert (await keys.list())[1].last_used_at == used


@pytest.mark.parametrize(("name", "principal", "groups"), [("", "a", []), ("k", "", []), ("k", "a", [""])])
async def test_bad_fields_are_refused(
    keys: ApiKeyRepository, name: str, principal: str, groups: list[str]
) -> None:
    with pytest.raises(InvalidInput):
        await keys.create(name, principal, groups)
