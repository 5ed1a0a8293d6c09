"""What the plan names as `module:function`: probes and preparations that need more than a socket."""

import asyncio
from pathlib import Path

from cluster.probes import ProbeFailed


def local_postgres_answers(folder: str) -> None:
    """Raises ProbeFailed unless the server of `folder` answers a query."""
    from cluster.postgres import LocalPostgres

    if not asyncio.run(LocalPostgres(Path(folder)).ready()):
        raise ProbeFailed("Postgres does not answer `select 1`")


def prepare_postgres(folder: str) -> None:
    """Remove what a killed server left behind. Raises ConfigurationError."""
    from cluster.postgres import LocalPostgres

    LocalPostgres(Path(folder)).prepare_restart()


def postgres_answers(url: str) -> None:
    """Raises StoreUnavailable unless the server at `url` answers a query."""
    from pydantic import SecretStr

    from assistant.settings import PostgresSettings
    from assistant.stores.postgres import Database

    async def ask() -> None:
        database = Database(PostgresSettings(url=SecretStr(url), pool_max_size=1, pool_timeout_s=2.0))
        await database.open()
        try:
            await database.ping()
        finally:
            await database.close()

    asyncio.run(ask())
