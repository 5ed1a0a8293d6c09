"""Numbered `.sql` files, each applied once, in order, checksummed, forward only.

A file runs in one transaction together with its row in `ai_assistant.schema_migrations`. A file whose
first line is `-- no-transaction` holds one statement that cannot run inside one (`create index
concurrently`) and must be safe to repeat. `python -m assistant.stores.migrations` applies them to DATABASE_URL.
"""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psycopg
from psycopg import AsyncConnection

from assistant.errors import AssistantError, ConfigurationError, StoreUnavailable
from assistant.settings import load_settings
from assistant.stores.postgres import check_url, translate

FOLDER = Path(__file__).parent / "migrations"
LOCK_KEY = 0x61695F6D69677261
LOCK_POLL_S = 0.05
LOCK_TIMEOUT_S = 300.0

BOOTSTRAP = """
create schema if not exists ai_assistant;
create table if not exists ai_assistant.schema_migrations (
    version text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    version: str
    path: Path
    sql: str
    checksum: str

    @property
    def transactional(self) -> bool:
        return not self.sql.startswith("-- no-transaction")


async def migrate(url: str, folder: Path = FOLDER) -> list[str]:
    """Bring the database up to date; the versions applied now, in order.

    Any number of runners may start at once: one applies, the others wait and find nothing to do.
    Versions that this code does not know (a newer release ran before) are left alone.
    Raises ConfigurationError naming a file that was edited after it was applied, or that fails;
    StoreUnavailable when Postgres is away.
    """
    files = read(folder)
    async with _connect(url) as connection, _lock(connection):
        await connection.execute(BOOTSTRAP)
        todo = _missing(files, await _applied(connection))
        for migration in todo:
            await _apply(connection, migration)
        return [migration.version for migration in todo]


async def pending(url: str, folder: Path = FOLDER) -> list[str]:
    """The versions that are not applied yet. Changes nothing; raises as `migrate` does."""
    files = read(folder)
    async with _connect(url) as connection:
        cursor = await connection.execute("select to_regclass('ai_assistant.schema_migrations') is not null")
        row = await cursor.fetchone()
        applied = await _applied(connection) if row and row[0] else {}
        return [migration.version for migration in _missing(files, applied)]


def read(folder: Path = FOLDER) -> list[Migration]:
    """The files of `folder` by number. ConfigurationError for a wrong name or a number used twice."""
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        if not (len(number) == 4 and number.isdigit() and name):
            raise ConfigurationError(f"The migration {path.name} is not named like 0001_what_it_adds.sql.")
        if number in found:
            raise ConfigurationError(
                f"The migrations {found[number].path.name} and {path.name} have the same number."
            )
        sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        found[number] = Migration(path.stem, path, sql, hashlib.sha256(sql.encode()).hexdigest())
    if not found:
        raise ConfigurationError(f"No migrations in {folder}.", hint="Install the package again.")
    return list(found.values())


def _missing(files: list[Migration], applied: dict[str, str]) -> list[Migration]:
    for migration in files:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise ConfigurationError(
                f"The migration {migration.path.name} was edited after it was applied to this database.",
                hint="Restore the file and put the change into a new one with the next number.",
            )
    return [migration for migration in files if migration.version not in applied]


async def _apply(connection: AsyncConnection, migration: Migration) -> None:
    try:
        if migration.transactional:
            async with connection.transaction():
                await connection.execute(migration.sql.encode())
                await _record(connection, migration)
        else:
            await connection.execute(migration.sql.encode())
            await _record(connection, migration)
    except psycopg.Error as error:
        meaning = translate(error)
        if isinstance(meaning, StoreUnavailable):
            raise meaning from error
        raise ConfigurationError(f"The migration {migration.path.name} failed: {error}") from error


async def _record(connection: AsyncConnection, migration: Migration) -> None:
    await connection.execute(
        "insert into ai_assistant.schema_migrations (version, checksum) values (%s, %s)",
        (migration.version, migration.checksum),
    )


async def _applied(connection: AsyncConnection) -> dict[str, str]:
    cursor = await connection.execute("select version, checksum from ai_assistant.schema_migrations")
    return dict(await cursor.fetchall())


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await AsyncConnection.connect(check_url(url), autocommit=True, connect_timeout=10)
        async with connection:
            yield connection
    except psycopg.Error as error:
        meaning = translate(error)
        if isinstance(meaning, AssistantError):
            raise meaning from error
        raise


@asynccontextmanager
async def _lock(connection: AsyncConnection) -> AsyncIterator[None]:
    """Polled, not awaited in the server: a waiter there would deadlock with `create index concurrently`."""
    deadline = monotonic() + LOCK_TIMEOUT_S
    while True:
        cursor = await connection.execute("select pg_try_advisory_lock(%s)", (LOCK_KEY,))
        row = await cursor.fetchone()
        if row and row[0]:
            break
        if monotonic() > deadline:
            raise StoreUnavailable(
                f"Another migration has been running for {LOCK_TIMEOUT_S:.0f} s.",
                hint="Look for it in pg_stat_activity.",
            )
        await asyncio.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        if not connection.broken:
            await connection.execute("select pg_advisory_unlock(%s)", (LOCK_KEY,))


def main() -> None:
    url = load_settings().postgres.url
    if url is None:
        raise ConfigurationError("Postgres has no address.", hint="Set DATABASE_URL.")
    applied = asyncio.run(migrate(url.get_secret_value()))
    sys.stdout.write(f"applied: {', '.join(applied) or 'nothing, the database is up to date'}\n")


if __name__ == "__main__":
    try:
        main()
    except AssistantError as error:
        sys.exit(str(error))
