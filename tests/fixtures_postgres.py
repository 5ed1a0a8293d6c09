"""Shared fixtures: one real Postgres for the session, made in a private folder."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from assistant.settings import PostgresSettings
from assistant.stores.migrations import migrate
from assistant.stores.postgres import Database
from cluster.postgres import LocalPostgres


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A running server without databases of ours. Tests must leave it running."""
    server = LocalPostgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # Tests kill processes, never the machine: waiting for the disk would prove nothing.
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database_url(postgres_server: LocalPostgres) -> str:
    """A database with the whole schema, for the session."""
    import asyncio

    postgres_server.ensure_database("ai_assistant")
    url = postgres_server.url("ai_assistant")
    asyncio.run(migrate(url))
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open `Database` on empty tables."""
    truncate(database_url)
    database = Database(PostgresSettings(url=SecretStr(database_url)))
    await database.open()
    yield database
    await database.close()


def truncate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        names = connection.execute(
            "select tablename from pg_tables where schemaname = 'ai_assistant'"
            " and tablename <> 'schema_migrations'"
        ).fetchall()
        tables = sql.SQL(", ").join(sql.Identifier("ai_assistant", name) for (name,) in names)
        connection.execute(sql.SQL("truncate {} cascade").format(tables))
