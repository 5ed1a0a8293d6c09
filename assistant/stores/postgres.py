"""One pool of Postgres connections per process, and what its failures mean.

Repositories are built on a `Database` and hold all SQL. Most of their work is idempotent (ids are made
by the caller), so it goes through `repeatable` and survives a restarted server.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from assistant import tracing
from assistant.errors import ConfigurationError, Conflict, InvalidInput, NotFound, StoreUnavailable
from assistant.settings import PostgresSettings
from assistant.stores.traced import TracedCursor

T = TypeVar("T")
Connection = AsyncConnection[DictRow]

STATEMENT_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000
RESERVED_CONNECTIONS = 5
"""What Postgres and an operator's psql need beside the pools."""


class Database:
    """The pool. Rows come as dicts, times in UTC.

    Every method raises StoreUnavailable when Postgres is away and ConfigurationError when the address,
    the password or the schema is wrong; a statement that breaks a rule of the schema raises Conflict,
    NotFound (a reference to nothing) or InvalidInput.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        if settings.url is None:
            raise ConfigurationError(
                "Postgres has no address.", hint="Set DATABASE_URL, or start the local stack."
            )
        self._settings = settings
        self._url = check_url(settings.url.get_secret_value())
        self._pool: AsyncConnectionPool[Connection] | None = None

    async def open(self) -> None:
        """Start the pool. It does not wait for Postgres: `ping` tells whether it answers."""
        if self._pool is not None:
            return
        traced = {"cursor_factory": TracedCursor} if tracing.enabled() else {}
        pool = AsyncConnectionPool(
            self._url,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "fallback_application_name": "ai-assistant",
                "connect_timeout": 3,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,
                **traced,
            },
            min_size=1,
            max_size=self._settings.pool_max_size,
            timeout=self._settings.pool_timeout_s,
            # The pool's pauses between attempts double until it gives up, and a new request starts them
            # afresh: giving up early keeps the way back short after a long outage.
            reconnect_timeout=self._settings.pool_timeout_s,
            configure=_configure,
            open=False,
            name="postgres",
        )
        await pool.open()
        self._pool = pool

    async def close(self) -> None:
        """Return all connections. May be called twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def ping(self) -> float:
        """Milliseconds of a real query. Checks that the server has room for this pool."""
        started = perf_counter()

        async def room(connection: Connection) -> int:
            return int(await scalar(connection, "select current_setting('max_connections')::int"))

        limit = await self.repeatable(room)
        if self._settings.pool_max_size > limit - RESERVED_CONNECTIONS:
            raise ConfigurationError(
                f"postgres.pool_max_size is {self._settings.pool_max_size}, "
                f"but Postgres takes {limit} connections in all.",
                hint=f"Set it to at most {limit - RESERVED_CONNECTIONS}, or raise max_connections.",
            )
        return (perf_counter() - started) * 1000

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One connection and one transaction: committed at the end, rolled back on any exception."""
        with _translated():
            async with self._open_pool().connection() as connection:
                yield connection

    async def repeatable(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction; when its connection was dead, once more on a fresh one.

        Only for work that may run twice: a commit whose answer was lost counts as failed here.
        """
        with _translated():
            pool = self._open_pool()
            try:
                async with pool.connection() as connection:
                    return await work(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if not _worth_repeating(error):
                    raise
                # Replaces every stale connection at once; the pool's own way pauses longer for each.
                await pool.check()
            async with pool.connection() as connection:
                return await work(connection)

    def _open_pool(self) -> AsyncConnectionPool[Connection]:
        if self._pool is None:
            raise StoreUnavailable("The connection to Postgres is closed.")
        return self._pool


def _worth_repeating(error: psycopg.Error) -> bool:
    """The connection was lost or the server is restarting, or two transactions met: not a slow statement."""
    if isinstance(error, PoolTimeout | PoolClosed):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "40", "57P0"))


async def one(connection: Connection, query: str, parameters: Any = None) -> DictRow | None:
    """The first row, or None."""
    cursor = await connection.execute(query.encode(), parameters)
    return await cursor.fetchone()


async def rows(connection: Connection, query: str, parameters: Any = None) -> list[DictRow]:
    cursor = await connection.execute(query.encode(), parameters)
    return await cursor.fetchall()


async def scalar(connection: Connection, query: str, parameters: Any = None) -> Any:
    """The only value of the only row; None when there is no row."""
    row = await one(connection, query, parameters)
    return None if row is None else next(iter(row.values()))


def check_url(url: str) -> str:
    """`url` itself, or ConfigurationError that does not repeat the password in it."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ConfigurationError(
            f"DATABASE_URL starts with {parts.scheme or 'no scheme'!r}.",
            hint="It must look like postgresql://user:password@host:5432/database.",
        )
    return url


async def _configure(connection: Connection) -> None:
    await connection.execute(
        "select set_config('timezone', 'UTC', false), set_config('statement_timeout', %s, false),"
        " set_config('idle_in_transaction_session_timeout', %s, false)",
        (str(STATEMENT_TIMEOUT_MS), str(IDLE_IN_TRANSACTION_TIMEOUT_MS)),
    )
    await connection.commit()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> Exception:
    """What an error of the driver means to a caller; programming errors stay as they are."""
    text = _sentence(error)
    match error:
        case errors.UndefinedTable() | errors.UndefinedColumn() | errors.InvalidSchemaName():
            return ConfigurationError(
                f"The database schema is not that of this version: {text}.",
                hint="Run the migrations: `ai-assistant up` does it, and so does the migration job.",
            )
        case (
            errors.InvalidPassword()
            | errors.InvalidAuthorizationSpecification()
            | errors.InvalidCatalogName()
            | errors.InsufficientPrivilege()
        ):
            return ConfigurationError(f"Postgres refuses us: {text}.", hint="Check DATABASE_URL.")
        case errors.UniqueViolation():
            return Conflict(f"This exists already: {text}.")
        case errors.ForeignKeyViolation():
            return NotFound(f"This refers to something that does not exist: {text}.")
        case psycopg.IntegrityError() | psycopg.DataError():
            return InvalidInput(f"Postgres cannot store this value: {text}.")
        case PoolTimeout():
            return StoreUnavailable("Postgres does not answer, or all connections are busy.")
        case psycopg.OperationalError() | psycopg.InterfaceError():
            if re.search(r"password authentication failed|database \"[^\"]*\" does not exist", text):
                return ConfigurationError(f"Postgres refuses us: {text}.", hint="Check DATABASE_URL.")
            return StoreUnavailable(f"Postgres does not answer: {text}.")
        case _:
            return error


def _sentence(error: psycopg.Error) -> str:
    """The server's message without the statement and the values that may follow it."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
