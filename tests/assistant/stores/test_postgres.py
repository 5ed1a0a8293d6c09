"""The pool: what its failures mean and how it comes back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from assistant.errors import ConfigurationError, Conflict, InvalidInput, NotFound, StoreUnavailable
from assistant.settings import PostgresSettings
from assistant.stores.postgres import Connection, Database, scalar
from cluster.postgres import LocalPostgres

pytestmark = pytest.mark.integration


def settings(url: str, **more: object) -> PostgresSettings:
    return PostgresSettings.model_validate({"url": SecretStr(url), **more})


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A server that a test may stop, if it starts it again."""
    server = LocalPostgres(tmp_path_factory.mktemp("own"))
    server.start()
    server.ensure_database()
    yield server
    server.stop()


@pytest.fixture
async def pool(own_server: LocalPostgres) -> AsyncIterator[Database]:
    database = Database(settings(own_server.url(), pool_timeout_s=20))
    await database.open()
    yield database
    await database.close()


async def answer(connection: Connection) -> int:
    return int(await scalar(connection, "select 42"))


async def test_ping_is_a_real_query_in_milliseconds(database: Database) -> None:
    assert 0 < await database.ping() < 60_000


async def test_times_come_in_utc(database: Database) -> None:
    async with database.transaction() as connection:
        assert await scalar(connection, "select current_setting('timezone')") == "UTC"


async def test_a_transaction_is_undone_by_an_exception(database: Database) -> None:
    async def users() -> int:
        return int(await database.repeatable(lambda c: scalar(c, "select count(*) from ai_assistant.users")))

    async def insert_and_fail() -> None:
        async with database.transaction() as connection:
            await connection.execute("insert into ai_assistant.users (id) values ('ada')")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        await insert_and_fail()
    assert await users() == 0


async def test_eight_stale_connections_do_not_fail_the_next_call(
    own_server: LocalPostgres, pool: Database
) -> None:
    gate = asyncio.Barrier(8)

    async def hold() -> None:
        async with pool.transaction() as connection:
            await answer(connection)
            await gate.wait()

    await asyncio.gather(*(hold() for _ in range(8)))
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    assert await pool.repeatable(answer) == 42
    assert await asyncio.gather(*(pool.repeatable(answer) for _ in range(8))) == [42] * 8


async def test_a_server_that_is_away_is_unavailable_and_comes_back(own_server: LocalPostgres) -> None:
    database = Database(settings(own_server.url(), pool_timeout_s=1))
    await database.open()
    assert await database.repeatable(answer) == 42
    await asyncio.to_thread(own_server.stop)
    with pytest.raises(StoreUnavailable):
        await database.repeatable(answer)
    with pytest.raises(StoreUnavailable):
        await database.ping()
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(60):
        while True:
            try:
                assert await database.repeatable(answer) == 42
                break
            except StoreUnavailable:
                continue
    await database.close()
    await database.close()


async def test_opening_does_not_need_the_server() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://assistant:x@127.0.0.1:{closed.getsockname()[1]}/none"
        database = Database(settings(url, pool_timeout_s=0.5))
        await database.open()
        with pytest.raises(StoreUnavailable):
            await database.ping()
        await database.close()


async def test_a_closed_database_says_so(database_url: str) -> None:
    database = Database(settings(database_url))
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.ping()


@pytest.mark.parametrize("url", [None, "mysql://x", "localhost:5432"])
def test_a_wrong_address_is_refused_at_once(url: str | None) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Database(PostgresSettings(url=SecretStr(url) if url else None))


async def test_a_pool_larger_than_the_server_is_refused(database_url: str) -> None:
    database = Database(settings(database_url, pool_max_size=58))
    await database.open()
    with pytest.raises(ConfigurationError, match="at most 55"):
        await database.ping()
    await database.close()


async def test_a_schema_that_lacks_a_table_is_a_configuration_error(database: Database) -> None:
    with pytest.raises(
        ConfigurationError, match=r"schema is not that of this version.*[Rr]un the migrations"
    ):
        await database.repeatable(lambda c: scalar(c, "select 1 from ai_assistant.does_not_exist"))


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("insert into ai_assistant.users (id) values ('a'), ('a')", Conflict),
        ("insert into ai_assistant.users (id) values ('')", InvalidInput),
        ("select 'x'::int", InvalidInput),
        (
            "insert into ai_assistant.rfc_stages (rfc_id, stage, artefact)"
            " values ('00000000-0000-0000-0000-000000000000', 's', '{}')",
            NotFound,
        ),
    ],
)
async def test_broken_rules_have_a_meaning(
    database: Database, statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await database.repeatable(lambda c: c.execute(statement.encode()))


async def test_a_slow_statement_is_ended_and_not_repeated(database: Database) -> None:
    tries = 0

    async def slow(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("set local statement_timeout = 50")
        await connection.execute("select pg_sleep(60)")

    with pytest.raises(StoreUnavailable, match="statement timeout"):
        await database.repeatable(slow)
    assert tries == 1


async def test_work_that_met_another_transaction_is_repeated(database: Database) -> None:
    tries = 0

    async def meets(connection: Connection) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            await connection.execute("do $$ begin raise sqlstate '40001'; end $$")
        return await answer(connection)

    assert await database.repeatable(meets) == 42
    assert tries == 2
