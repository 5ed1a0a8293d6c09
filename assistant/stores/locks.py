"""Locks that several processes share, held by a connection to Postgres: who dies lets go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic

import psycopg
from psycopg import AsyncConnection

from assistant.errors import ConfigurationError, StoreUnavailable
from assistant.settings import PostgresSettings
from assistant.stores.postgres import check_url, translate

POLL_S = 0.2
_CONNECT_TIMEOUT_S = 10


class HeldLock:
    """A lock that was got. Losing the connection loses it, silently: ask before what cannot be undone."""

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self._connection = connection
        self._name = name

    async def check(self) -> None:
        """Raises StoreUnavailable when the lock may be another's by now."""
        try:
            await self._connection.execute("select 1")
        except psycopg.Error as error:
            raise StoreUnavailable(
                f"The connection to Postgres that held the lock {self._name!r} is gone.", hint="Run it again."
            ) from error


@asynccontextmanager
async def lock(
    settings: PostgresSettings,
    name: str,
    *,
    shared: bool = False,
    wait_s: float = 0.0,
    busy: Callable[[], None] | None = None,
) -> AsyncIterator[HeldLock | None]:
    """The lock called `name`, or None when it is another's for longer than `wait_s`.

    Many may hold it `shared`, or one alone. `busy` is called once when there is something to wait for.
    Raises StoreUnavailable when Postgres is away.
    """
    if settings.url is None:
        raise ConfigurationError(
            "Postgres has no address.", hint="Set DATABASE_URL, or start the local stack."
        )
    try:
        connection = await AsyncConnection.connect(
            check_url(settings.url.get_secret_value()),
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            fallback_application_name="ai-assistant lock",
        )
    except psycopg.Error as error:
        raise translate(error) from error
    try:
        got = await _acquire(connection, name, shared, wait_s, busy)
        yield HeldLock(connection, name) if got else None
    finally:
        # A closed connection lets go too, but only when the server comes to notice it.
        with suppress(psycopg.Error):
            await connection.execute("select pg_advisory_unlock_all()")
        await connection.close()


async def _acquire(
    connection: AsyncConnection, name: str, shared: bool, wait_s: float, busy: Callable[[], None] | None
) -> bool:
    # Polled: a waiter inside Postgres would hold up `create index concurrently` of a migration.
    query = f"select pg_try_advisory_lock{'_shared' if shared else ''}(hashtextextended(%s, 0))"
    deadline = monotonic() + wait_s
    while True:
        try:
            cursor = await connection.execute(query.encode(), (name,))
            row = await cursor.fetchone()
        except psycopg.Error as error:
            raise translate(error) from error
        if row and row[0]:
            return True
        if monotonic() >= deadline:
            return False
        if busy is not None:
            busy()
            busy = None
        await asyncio.sleep(POLL_S)
