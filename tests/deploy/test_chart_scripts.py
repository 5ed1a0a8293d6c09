"""The scripts of the chart: Postgres ones against a real server, Qdrant ones against its HTTP interface."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import psycopg
import pytest

from cluster.chart import CHART
from cluster.postgres import LocalPostgres
from cluster.postgres_binaries import find_binaries

SCRIPTS = CHART / "files" / "scripts"
needs_wget = pytest.mark.skipif(
    shutil.which("wget") is None or shutil.which("sha256sum") is None,
    reason="wget or sha256sum is not here; the image has both",
)
KEY = "a-key-for-tests"


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda p: p.name)
def test_bash_can_read_it(script: Path) -> None:
    shell = "sh" if script.read_text().startswith("#!/bin/sh") else "bash"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run(name: str, environment: Mapping[str, str], path: str = "") -> subprocess.CompletedProcess[str]:
    own = {"PATH": f"{path}:{os.environ['PATH']}", "LC_ALL": "C", **environment}
    return subprocess.run(
        ["bash", str(SCRIPTS / name)], env=own, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def connection(postgres_server: LocalPostgres) -> dict[str, str]:
    """libpq's variables, with two databases that the scripts save and restore."""
    parts = urlsplit(postgres_server.url("postgres"))
    for name in ("saved_one", "saved_two"):
        postgres_server.ensure_database(name)
        with psycopg.connect(postgres_server.url(name), autocommit=True) as database:
            database.execute("drop table if exists facts")
            database.execute("create table facts (fact text)")
            database.execute("insert into facts values (current_database())")
    return {
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": str(parts.password),
        "BACKUP_DATABASES": "saved_one saved_two",
        "BACKUP_KEEP": "2",
        "RESTORE_NAME": "latest",
    }


@pytest.fixture
def tools() -> str:
    """The folder of pg_dump and pg_restore that belong to the server of the tests."""
    return str(find_binaries().folder)


def facts(server: LocalPostgres, name: str) -> list[str]:
    with psycopg.connect(server.url(name)) as database:
        return [str(fact) for (fact,) in database.execute("select fact from facts order by 1").fetchall()]


def change(server: LocalPostgres, name: str) -> None:
    with psycopg.connect(server.url(name), autocommit=True) as database:
        database.execute("insert into facts values ('later')")


@pytest.mark.integration
def test_postgres_comes_back_as_it_was(
    postgres_server: LocalPostgres, connection: dict[str, str], tools: str, tmp_path: Path
) -> None:
    environment = {**connection, "BACKUP_FOLDER": str(tmp_path)}
    done = run("backup-postgres.sh", environment, tools)
    assert done.returncode == 0, done.stderr
    (backup,) = (tmp_path / "postgres").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z", backup.name)
    assert sorted(p.name for p in backup.iterdir()) == ["SHA256SUMS", "saved_one.dump", "saved_two.dump"]
    for name in ("saved_one", "saved_two"):
        change(postgres_server, name)
    done = run("restore-postgres.sh", environment, tools)
    assert done.returncode == 0, done.stderr
    assert facts(postgres_server, "saved_one") == ["saved_one"]
    assert facts(postgres_server, "saved_two") == ["saved_two"]


@pytest.mark.integration
def test_a_backup_that_fails_leaves_none_behind(
    connection: dict[str, str], tools: str, tmp_path: Path
) -> None:
    leftover = tmp_path / "postgres" / ".partial-20200101T000000Z"
    leftover.mkdir(parents=True)
    done = run(
        "backup-postgres.sh",
        {**connection, "BACKUP_FOLDER": str(tmp_path), "BACKUP_DATABASES": "saved_one none"},
        tools,
    )
    assert done.returncode != 0
    assert "none" in done.stderr
    assert list((tmp_path / "postgres").iterdir()) == []


@pytest.mark.integration
def test_a_damaged_backup_changes_nothing(
    postgres_server: LocalPostgres, connection: dict[str, str], tools: str, tmp_path: Path
) -> None:
    environment = {**connection, "BACKUP_FOLDER": str(tmp_path)}
    assert run("backup-postgres.sh", environment, tools).returncode == 0
    (backup,) = (tmp_path / "postgres").iterdir()
    dump = backup / "saved_two.dump"
    dump.write_bytes(dump.read_bytes()[:-1])
    change(postgres_server, "saved_one")
    done = run("restore-postgres.sh", environment, tools)
    assert done.returncode == 1
    assert "is damaged, nothing was changed" in done.stderr
    assert facts(postgres_server, "saved_one") == ["later", "saved_one"]


@pytest.mark.integration
def test_old_backups_go_and_an_unknown_one_is_named(
    connection: dict[str, str], tools: str, tmp_path: Path
) -> None:
    for name in ("20200101T000000Z", "20200102T000000Z", "20200103T000000Z"):
        (tmp_path / "postgres" / name).mkdir(parents=True)
    environment = {**connection, "BACKUP_FOLDER": str(tmp_path)}
    assert run("backup-postgres.sh", environment, tools).returncode == 0
    kept = sorted(p.name for p in (tmp_path / "postgres").iterdir())
    assert len(kept) == 2
    assert kept[0] == "20200103T000000Z"
    done = run("restore-postgres.sh", {**environment, "RESTORE_NAME": "20190101T000000Z"}, tools)
    assert done.returncode == 1
    assert "there is no backup '20190101T000000Z'" in done.stderr


class Node:
    """One node of Qdrant as far as snapshots go, with the answers in the form of its REST interface."""

    def __init__(self, collections: dict[str, bytes]) -> None:
        self.collections = dict(collections)
        self.aliases = {"live": "docs"} if collections else {}
        self.snapshots: dict[str, bytes] = {}
        self.refused: list[str] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_one(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("api-key") != KEY:
                    node.refused.append(self.path)
                    self.answer(b"{}", 401)
                    return
                self.answer(
                    *node.respond(self.command, urlsplit(self.path).path, self.headers["content-type"], sent)
                )

            do_GET = do_POST = do_DELETE = handle_one

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def respond(self, method: str, path: str, content_type: str | None, body: bytes) -> tuple[bytes, int]:
        steps = path.strip("/").split("/")
        match method, steps:
            case "GET", ["collections"]:
                return self.ok({"collections": [{"name": name} for name in self.collections]})
            case "GET", ["aliases"]:
                pairs = [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]
                return self.ok({"aliases": pairs})
            case "POST", ["collections", "aliases"]:
                for action in json.loads(body)["actions"]:
                    pair = action["create_alias"]
                    self.aliases[pair["alias_name"]] = pair["collection_name"]
                return self.ok(True)
            case "POST", ["collections", name, "snapshots"]:
                made = f"{name}-1-2026.snapshot"
                self.snapshots[made] = self.collections[name]
                checksum = hashlib.sha256(self.collections[name]).hexdigest()
                return self.ok(
                    {"name": made, "creation_time": "2026-01-01T00:00:00", "size": 1, "checksum": checksum}
                )
            case "GET", ["collections", _, "snapshots", made]:
                return self.snapshots[made], 200
            case "DELETE", ["collections", _, "snapshots", made]:
                del self.snapshots[made]
                return self.ok(True)
            case "POST", ["collections", name, "snapshots", "upload"]:
                boundary = str(content_type).partition("boundary=")[2].encode()
                _, part, end = body.split(b"--" + boundary)
                head, _, content = part.partition(b"\r\n\r\n")
                assert b'name="snapshot"' in head
                assert end == b"--\r\n"
                self.collections[name] = content.removesuffix(b"\r\n")
                return self.ok(True)
        return b'{"status": {"error": "unknown"}}', 404

    @staticmethod
    def ok(result: object) -> tuple[bytes, int]:
        return json.dumps({"result": result, "status": "ok", "time": 0.1}).encode(), 200


SHARDS = [{"docs": b"first\r\n\x00half", "other": b"x" * 70_000}, {"docs": b"second--half"}]


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    made = [Node(shards) for shards in SHARDS]
    yield made
    for node in made:
        node.close()


def qdrant_environment(nodes: list[Node], folder: Path) -> dict[str, str]:
    return {
        "QDRANT_NODES": " ".join(node.url for node in nodes),
        "QDRANT_API_KEY": KEY,
        "BACKUP_FOLDER": str(folder),
        "BACKUP_KEEP": "2",
        "RESTORE_NAME": "latest",
        "TMPDIR": str(folder),
    }


@needs_wget
def test_qdrant_comes_back_node_by_node_with_its_aliases(nodes: list[Node], tmp_path: Path) -> None:
    environment = qdrant_environment(nodes, tmp_path)
    done = run("backup-qdrant.sh", environment)
    assert done.returncode == 0, done.stderr
    assert [node.snapshots for node in nodes] == [{}, {}], "snapshots are left on the nodes' disks"
    for node in nodes:
        node.collections, node.aliases = {"docs": b"lost"}, {}
    done = run("restore-qdrant.sh", environment)
    assert done.returncode == 0, done.stderr
    assert [node.collections for node in nodes] == SHARDS
    assert nodes[0].aliases == {"live": "docs"}
    assert [node.refused for node in nodes] == [[], []]
    assert list(tmp_path.iterdir()) == [tmp_path / "qdrant"], "temporary files are left"


@needs_wget
def test_a_node_that_is_away_makes_no_backup(nodes: list[Node], tmp_path: Path) -> None:
    environment = qdrant_environment(nodes, tmp_path)
    nodes[1].server.shutdown()
    nodes[1].server.server_close()
    done = run("backup-qdrant.sh", environment)
    assert done.returncode != 0
    assert list((tmp_path / "qdrant").iterdir()) == []


@needs_wget
def test_snapshots_are_not_put_on_another_number_of_nodes(nodes: list[Node], tmp_path: Path) -> None:
    environment = qdrant_environment(nodes, tmp_path)
    assert run("backup-qdrant.sh", environment).returncode == 0
    done = run("restore-qdrant.sh", {**environment, "QDRANT_NODES": nodes[0].url})
    assert done.returncode == 1
    assert "the backup is of 2 nodes, there are 1" in done.stderr


@needs_wget
def test_a_damaged_snapshot_is_not_put_back(nodes: list[Node], tmp_path: Path) -> None:
    environment = qdrant_environment(nodes, tmp_path)
    assert run("backup-qdrant.sh", environment).returncode == 0
    (backup,) = (tmp_path / "qdrant").iterdir()
    (backup / "node-1" / "docs.snapshot").write_bytes(b"second--hal")
    nodes[0].collections = {"docs": b"now"}
    done = run("restore-qdrant.sh", environment)
    assert done.returncode == 1
    assert nodes[0].collections == {"docs": b"now"}
