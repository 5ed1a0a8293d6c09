"""Locks over a real Postgres: who may hold them, who waits, and what a lost connection means."""

import asyncio

import psycopg
import pytest
from pydantic import SecretStr

from assistant.errors import ConfigurationError, StoreUnavailable
from assistant.settings import PostgresSettings
from assistant.stores.locks import lock


@pytest.fixture
def settings(database_url: str) -> PostgresSettings:
    return PostgresSettings(url=SecretStr(database_url))


async def test_many_share_it_or_one_has_it(settings: PostgresSettings) -> None:
    async with lock(settings, "a", shared=True) as one, lock(settings, "a", shared=True) as two:
        assert one is not None
        assert two is not None
        async with lock(settings, "a") as alone, lock(settings, "b") as other:
            assert alone is None
            assert other is not None
    async with lock(settings, "a") as alone:
        assert alone is not None


async def test_it_is_waited_for(settings: PostgresSettings) -> None:
    told = asyncio.Event()

    async def wait() -> bool:
        async with lock(settings, "a", wait_s=60, busy=told.set) as held:
            return held is not None

    async with lock(settings, "a", shared=True):
        waiting = asyncio.create_task(wait())
        await told.wait()
        assert not waiting.done()
    assert await waiting


async def test_a_lost_connection_is_noticed(settings: PostgresSettings, database_url: str) -> None:
    async with lock(settings, "a") as held:
        assert held is not None
        await held.check()
        with psycopg.connect(database_url, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'ai-assistant lock'"
            )
        with pytest.raises(StoreUnavailable, match="'a'"):
            await held.check()


async def test_without_postgres_there_is_no_lock(unused_tcp_port: int) -> None:
    away = PostgresSettings(url=SecretStr(f"postgresql://u:p@127.0.0.1:{unused_tcp_port}/d"))
    with pytest.raises(StoreUnavailable):
        async with lock(away, "a"):
            pass
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        async with lock(PostgresSettings(), "a"):
            pass
