"""A private Postgres server in one folder: made, started, stopped and asked whether it answers.

    <folder>/lock           held while somebody prepares the cluster or starts it
    <folder>/pg18/data      the cluster; the major is in the name, because data of one is useless to another
    <folder>/pg18/password  of the only role, mode 0600
    <folder>/pg18/port.json where the server listens on 127.0.0.1
    <folder>/pg18/server.log

TCP on loopback with scram, no Unix socket. Runs as an ordinary user, and under root without root.
"""

import asyncio
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from assistant.errors import ConfigurationError
from cluster.postgres_binaries import Binaries, find_binaries, unprivileged_prefix

USER = "assistant"
HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Below the ports that systems lend to outgoing connections, so that a restart finds its own port free."""
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
}
FREE_BYTES_NEEDED = 200_000_000
HEALTH_LIMIT_S = 2.0
START_LIMIT_S = 60.0
RETRY_S = 0.25


class LocalPostgres:
    """The server of one folder.

    Two ways to run it: `command()` in the foreground under a supervisor, or `start()` and `stop()`, which
    leave it in the background. All raise ConfigurationError, in one sentence that says what to do.
    """

    def __init__(self, folder: Path, binaries: Binaries | None = None) -> None:
        self.folder = folder.absolute()
        self._given = binaries
        self._found: Binaries | None = None

    @property
    def binaries(self) -> Binaries:
        if self._found is None:
            self._found = self._given or find_binaries()
        return self._found

    @property
    def home(self) -> Path:
        return self.folder / f"pg{self.binaries.major}"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        """Where `start()` sends the server's log; in the foreground it goes to stderr."""
        return self.home / "server.log"

    @property
    def port(self) -> int:
        try:
            return int(json.loads((self.home / "port.json").read_text())["port"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"No Postgres has been started in {self.folder} yet.", hint="Run `ai-assistant up`."
            ) from None

    def ensure_initialised(self) -> None:
        """Make the cluster unless it is there. Safe to repeat, to interrupt, and to call from two launchers."""
        with self._lock():
            self._refuse_other_major()
            if not (self.data / "PG_VERSION").is_file():
                self._initialise()

    def command(self) -> list[str]:
        """The server in the foreground: its pid is the postmaster's own, prefix or not.

        Stop it fast with SIGINT (clients are cut off, data are safe); SIGTERM waits for every client to
        leave. Call this once per launch and keep the list for restarts (with `prepare_restart` before
        each): it chooses another port when the kept one was taken, and a restarted server must stay where
        its clients look. After kill -9 the first tries exit with 1 until old backends have left (some
        seconds): try again for 30 s.
        """
        with self._lock():
            prefix = self._prepare()
            return [*prefix, self.binaries.program("postgres"), "-D", str(self.data), *self._options()]

    def prepare_restart(self) -> None:
        """Remove what a killed server left behind; the port stays."""
        with self._lock():
            if not self._processes():
                self._remove_stale_pid_file()

    def environment(self) -> dict[str, str]:
        """The whole environment for the server: ours without PG* (they would change it) and in C locale."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return kept | {"LC_ALL": "C"}

    def start(self) -> None:
        """Start in the background and wait until it accepts connections. Does nothing when it answers."""
        if self._answers():
            return
        deadline = time.monotonic() + START_LIMIT_S
        with self._lock():
            while True:
                prefix = self._prepare()
                if self._answers():
                    return
                size = self.log.stat().st_size
                if self._pg_ctl(prefix, "-l", str(self.log), "-o", self._option_text(), "start") == 0:
                    return
                with self.log.open("rb") as log:
                    log.seek(size)
                    written = log.read().decode(errors="replace")
                if "ddress already in use" in written:
                    (self.home / "port.json").unlink(missing_ok=True)
                elif not ("shared memory block" in written or "postmaster.pid" in written):
                    raise _failure("start", written, self.log)
                if time.monotonic() > deadline:
                    raise _failure("start", written, self.log)
                time.sleep(RETRY_S)

    def stop(self) -> None:
        """Stop fast, and return when it has. Does nothing when it does not run."""
        with self._lock():
            if not (self._processes() or self._answers()):
                return
            if self._pg_ctl(unprivileged_prefix(self.data), "-m", "fast", "stop") != 0 and self._processes():
                raise ConfigurationError(f"Postgres in {self.folder} does not stop.", hint=f"See {self.log}.")

    async def ready(self) -> bool:
        """Does it answer a real query within 2 s? Never a pid: those are reused."""
        try:
            async with asyncio.timeout(HEALTH_LIMIT_S):
                connection = await psycopg.AsyncConnection.connect(self.url("postgres"))
                async with connection:
                    await connection.execute("select 1")
        except (psycopg.Error, OSError, TimeoutError, ConfigurationError):
            return False
        return True

    def url(self, database: str = "ai_assistant") -> str:
        """`postgresql://…` with the password in it: for DATABASE_URL, never for a log."""
        return f"postgresql://{USER}:{self._password()}@{HOST}:{self.port}/{quote(database, safe='')}"

    def ensure_database(self, name: str = "ai_assistant") -> None:
        """Create the database unless it is there. The server must run."""
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
                if connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
                    return
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except psycopg.errors.DuplicateDatabase:
            return
        except psycopg.Error as error:
            raise ConfigurationError(
                f"The database {name} cannot be created: {str(error).strip()}.", hint=f"See {self.log}."
            ) from None

    def _initialise(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < FREE_BYTES_NEEDED:
            raise ConfigurationError(
                f"Postgres needs {FREE_BYTES_NEEDED // 1_000_000} MB in {self.folder}, "
                f"and only {free // 1_000_000} MB are free.",
                hint="Free some disk space, or set AI_ASSISTANT_HOME to a folder on another disk.",
            )
        # Made aside and renamed when whole: an interrupted initdb must not look like a cluster.
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self.home / "password"
        password.unlink(missing_ok=True)
        prefix = unprivileged_prefix(self.data)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        fresh.mkdir(mode=0o700)
        _give(prefix, self.home, fresh, password)
        made = subprocess.run(
            [
                *prefix,
                *(self.binaries.program("initdb"), "-D", str(fresh), "-U", USER, "--encoding=UTF8"),
                *self._locale(),
                *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256"),
                *(f"--pwfile={password}", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            env=self.environment(),
        )
        if made.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise _failure("initialise", made.stderr, self.home)
        fresh.rename(self.data)

    def _locale(self) -> tuple[str, ...]:
        if self.binaries.major >= 17:
            return "--locale-provider=builtin", "--builtin-locale=C.UTF-8"
        return ("--locale=C.UTF-8",)

    def _prepare(self) -> tuple[str, ...]:
        """Everything a start needs but the start: checks, the stale pid file, the port. Under the lock."""
        self._refuse_other_major()
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        owner = self.data.stat().st_uid
        if os.geteuid() not in {0, owner}:
            raise ConfigurationError(
                f"The Postgres data in {self.data} belong to user id {owner}, and this is {os.geteuid()}.",
                hint="Start as that user, or as root.",
            )
        prefix = unprivileged_prefix(self.data)
        self.log.touch(mode=0o600)
        _give(prefix, self.home, self.log, *([self.data, *self.data.rglob("*")] if owner == 0 else ()))
        running = bool(self._processes())
        if not running:
            self._remove_stale_pid_file()
        self._choose_port(keep=running)
        return prefix

    def _remove_stale_pid_file(self) -> None:
        """Postgres believes any live process with the noted pid to be itself, as after a reboot."""
        path = self.data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        if psutil.pid_exists(pid):
            path.unlink()

    def _processes(self) -> list[int]:
        """Pids of this cluster's postmaster and backends, orphans too: all work in the data folder."""
        data = str(self.data.resolve())
        found = []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error, OSError):
                if (process.info["name"] or "").startswith("postgres") and process.cwd() == data:
                    found.append(process.pid)
        return found

    def _choose_port(self, keep: bool) -> None:
        with suppress(ConfigurationError):
            if keep or _is_free(self.port):
                return
        port = next((p for p in random.sample(PORTS, 500) if _is_free(p)), None)
        if port is None:
            raise ConfigurationError(f"No free port on {HOST} between {PORTS.start} and {PORTS.stop}.")
        fresh = self.home / "port.json.new"
        fresh.write_text(json.dumps({"port": port}))
        fresh.replace(self.home / "port.json")

    def _options(self) -> list[str]:
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return ["-p", str(self.port), *settings]

    def _option_text(self) -> str:
        return " ".join(self._options())

    def _pg_ctl(self, prefix: tuple[str, ...], *arguments: str) -> int:
        # Its own session keeps Ctrl-C away from the server; a pipe would be inherited by it and never close.
        return subprocess.run(
            [*prefix, self.binaries.program("pg_ctl"), "-D", str(self.data), "-w", "-t", "60", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=self.environment(),
        ).returncode

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                connection.execute("select 1")
        except (psycopg.Error, OSError, ConfigurationError):
            return False
        return True

    def _password(self) -> str:
        try:
            return (self.home / "password").read_text()
        except OSError as error:
            raise ConfigurationError(
                f"The password of the local Postgres cannot be read: {error}.",
                hint=f"Restore the file, or remove {self.folder} to start with an empty database.",
            ) from None

    def _refuse_other_major(self) -> None:
        others = sorted(
            p.parent.parent.name
            for p in self.folder.glob("pg*/data/PG_VERSION")
            if p.parent.parent != self.home
        )
        if others and not (self.data / "PG_VERSION").is_file():
            raise ConfigurationError(
                f"{self.folder} holds data of Postgres {others[-1].removeprefix('pg')}, "
                f"but the programs found are Postgres {self.binaries.major}.",
                hint="Set PG_BIN_DIR to programs of that version, or move the folder away to start empty.",
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (self.folder / "lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"The folder {self.folder} for Postgres cannot be written: {error.strerror}.",
                hint="Fix its permissions, or set AI_ASSISTANT_HOME to another folder.",
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _give(prefix: tuple[str, ...], *paths: Path) -> None:
    """Under setpriv the server is another user, who must own what it writes."""
    if not prefix or prefix[0] != "setpriv":
        return
    uid, gid = (int(part.partition("=")[2]) for part in prefix[1:3])
    for path in paths:
        os.chown(path, uid, gid)


def _failure(verb: str, output: str, where: Path) -> ConfigurationError:
    lines = [line for line in output.strip().splitlines() if "FATAL" in line or "rror" in line]
    reason = (lines or output.strip().splitlines() or ["no message"])[-1]
    return ConfigurationError(f"Postgres does not {verb}: {reason.strip()}", hint=f"See {where}.")
