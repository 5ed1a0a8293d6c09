"""Backup, verify and restore against a real Postgres and a real Qdrant Edge, with kills in the middle."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from qdrant_client import models

from assistant.errors import Conflict, InvalidInput
from assistant.settings import PostgresSettings, QdrantSettings, Settings
from assistant.stores.migrations import migrate
from assistant.stores.vector_wire import connect
from cluster.backup.make import BackupMaker
from cluster.backup.manifest import FILE, Manifest, find
from cluster.backup.restore import MARKER, Restorer, verify
from cluster.postgres import LocalPostgres
from tests.fixtures_qdrant import KEY, ROOT, drop_everything

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
POINTS = 300
ROWS = 200


@dataclass
class Stack:
    """A database, a Qdrant and a state folder of one test's own."""

    settings: Settings
    home: Path
    url: str

    def add_rows(self, count: int) -> None:
        with psycopg.connect(self.url) as connection:
            connection.cursor().executemany(
                "insert into ai_assistant.data_sources (id, source_type, source_name, kind)"
                " values (%s, 'test', %s, 'folder')",
                [(uuid4(), f"source {uuid4()}") for _ in range(count)],
            )

    def sources(self) -> set[str]:
        with psycopg.connect(self.url) as connection:
            return {
                name for (name,) in connection.execute("select source_name from ai_assistant.data_sources")
            }

    async def add_points(self, first: int, last: int) -> None:
        client = connect(self.settings.qdrant)
        if not await client.collection_exists("chunks"):
            await client.create_collection(
                "chunks",
                vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
            )
            alias = models.CreateAlias(collection_name="chunks", alias_name="search_sources")
            await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        points = [
            models.PointStruct(id=n, vector={"dense": [1.0, n]}, payload={"n": n}) for n in range(first, last)
        ]
        await client.upsert("chunks", points, wait=True)
        await client.close()

    async def points(self) -> int:
        client = connect(self.settings.qdrant)
        try:
            return (await client.count("search_sources")).count
        finally:
            await client.close()

    def backup(self, root: Path) -> tuple[Path, Manifest]:
        return BackupMaker(self.settings, self.home, root, {"ai-assistant": "9.9.9"}, quiet).make()

    async def restore(self, folder: Path, *, force: bool = False) -> Manifest:
        restorer = Restorer(self.settings, self.home, quiet)
        return await asyncio.to_thread(restorer.restore, folder, force=force)

    def command(self, *arguments: str) -> "subprocess.Popen[str]":
        environment = os.environ | {
            "AI_ASSISTANT_HOME": str(self.home),
            "DATABASE_URL": self.url,
            "QDRANT_URL": str(self.settings.qdrant.url),
            "QDRANT_API_KEY": KEY,
        }
        return subprocess.Popen(
            [sys.executable, "-c", "from cluster.cli import main; main()", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def quiet(step: str, seconds: float, detail: str) -> None:
    assert step
    assert detail


@pytest.fixture
async def stack(postgres_server: LocalPostgres, qdrant_server: QdrantSettings, tmp_path: Path) -> "Stack":
    name = f"backup_{uuid4().hex}"
    postgres_server.ensure_database(name)
    url = postgres_server.url(name)
    await migrate(url)
    client = connect(qdrant_server)
    await drop_everything(client)
    await client.close()
    home = tmp_path / "home"
    (home / "adapters" / "first").mkdir(parents=True)
    (home / "adapters" / "first" / "adapter.gguf").write_bytes(b"weights")
    (home / "learning" / "cache").mkdir(parents=True)
    (home / "learning" / "cache" / "large").write_text("made again")
    (home / "models" / "trained").mkdir(parents=True)
    (home / "models" / "trained" / "training.json").write_text("{}")
    (home / "models" / "built-in").mkdir()
    (home / "models" / "built-in" / "model.gguf").write_text("fetched again")
    (home / "mlflow").mkdir()
    write_run(home, "before")
    settings = Settings(home=home, postgres=PostgresSettings(url=SecretStr(url)), qdrant=qdrant_server)
    made = Stack(settings, home, url)
    made.add_rows(ROWS)
    await made.add_points(0, POINTS)
    return made


def write_run(home: Path, name: str) -> None:
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection, connection:
        connection.execute("create table if not exists runs (name text)")
        connection.execute("insert into runs values (?)", (name,))


def runs(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection:
        return [name for (name,) in connection.execute("select name from runs")]


def empty(stack: Stack) -> None:
    with psycopg.connect(stack.url) as connection:
        connection.execute(sql.SQL("truncate ai_assistant.data_sources cascade"))
    shutil.rmtree(stack.home / "adapters")


async def drop_collections(stack: Stack) -> None:
    client = connect(stack.settings.qdrant)
    await drop_everything(client)
    await client.close()


async def test_a_backup_brings_everything_back_to_an_empty_stack(stack: Stack, tmp_path: Path) -> None:
    before = stack.sources()
    folder, manifest = stack.backup(tmp_path / "backups")
    assert folder.stat().st_mode & 0o077 == 0
    assert manifest.postgres.rows["data_sources"] == ROWS
    assert manifest.qdrant.collections["chunks"].points == POINTS
    assert set(manifest.folders) == {"adapters", "learning", "models/trained"}
    assert manifest.folders["learning"].files == 0
    assert verify(folder)[1] == []

    empty(stack)
    await drop_collections(stack)
    write_run(stack.home, "after")
    await stack.restore(tmp_path / "backups" / folder.name)
    assert stack.sources() == before
    assert await stack.points() == POINTS
    assert (stack.home / "adapters" / "first" / "adapter.gguf").read_bytes() == b"weights"
    assert runs(stack.home) == ["before"]
    assert not (stack.home / MARKER).exists()


async def test_what_is_there_is_replaced_only_by_force(stack: Stack, tmp_path: Path) -> None:
    before = stack.sources()
    folder, _ = stack.backup(tmp_path / "backups")
    stack.add_rows(5)
    await stack.add_points(POINTS, POINTS + 50)
    with pytest.raises(Conflict, match=r"table data_sources.*collection chunks"):
        await stack.restore(folder)
    assert len(stack.sources()) == ROWS + 5
    await stack.restore(folder, force=True)
    assert stack.sources() == before
    assert await stack.points() == POINTS


async def test_a_damaged_file_is_named_and_nothing_is_touched(stack: Stack, tmp_path: Path) -> None:
    folder, manifest = stack.backup(tmp_path / "backups")
    stack.add_rows(1)
    now = stack.sources()
    for name in manifest.files:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (copy / name).write_bytes(bytes(content))
        assert verify(copy)[1] == [f"{name} is damaged: its sha256 differs"]
        with pytest.raises(InvalidInput, match=name):
            await stack.restore(copy, force=True)
        (copy / name).unlink()
        assert verify(copy)[1] == [f"{name} is missing"]
        shutil.rmtree(copy)
    assert stack.sources() == now


def test_counts_are_checked_beside_checksums(stack: Stack, tmp_path: Path) -> None:
    folder, _ = stack.backup(tmp_path / "backups")
    raw = json.loads((folder / FILE).read_text())
    raw["postgres"]["rows"]["data_sources"] += 1
    raw["qdrant"]["collections"]["chunks"]["points"] = 7
    (folder / FILE).write_text(json.dumps(raw))
    found = verify(folder)[1]
    assert found[0].startswith("postgres.dump holds ")
    assert found[1] == f"qdrant/chunks.snapshot holds {POINTS}, the manifest says 7"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has format 2"),
        ({"product": "something"}, "no manifest of an AI Assistant backup"),
        ({"postgres": None}, "no manifest of an AI Assistant backup"),
        ({"extra": 1}, "no manifest of an AI Assistant backup"),
    ],
)
async def test_a_foreign_backup_is_refused(
    stack: Stack, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    folder, _ = stack.backup(tmp_path / "backups")
    raw = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(raw | change))
    with pytest.raises(InvalidInput, match=reason):
        await stack.restore(folder, force=True)


async def test_a_newer_schema_and_another_qdrant_are_refused(stack: Stack, tmp_path: Path) -> None:
    folder, _ = stack.backup(tmp_path / "backups")
    raw = json.loads((folder / FILE).read_text())
    newer = raw["postgres"] | {"migrations": [*raw["postgres"]["migrations"], "9999_later"]}
    (folder / FILE).write_text(json.dumps(raw | {"postgres": newer}))
    with pytest.raises(InvalidInput, match="9999_later is not known here"):
        await stack.restore(folder, force=True)
    (folder / FILE).write_text(json.dumps(raw | {"qdrant": raw["qdrant"] | {"kind": "qdrant"}}))
    with pytest.raises(InvalidInput, match="snapshots of qdrant, and this installation runs qdrant-edge"):
        await stack.restore(folder, force=True)


def test_a_folder_without_a_backup_is_told(tmp_path: Path) -> None:
    (tmp_path / ".ai-assistant-1.partial").mkdir()
    (tmp_path / ".ai-assistant-1.partial" / FILE).write_text("{}")
    with pytest.raises(InvalidInput, match="holds no finished backup"):
        find(tmp_path)


def kill_when(process: "subprocess.Popen[str]", reached: "Iterator[bool]", *, alone: bool = False) -> None:
    """SIGKILL as soon as `reached` is true, to the process and its programs or to the process `alone`."""
    deadline = time.monotonic() + 120
    for yes in reached:
        if yes:
            break
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


async def test_kill_9_in_a_backup_leaves_none_that_looks_whole(stack: Stack, tmp_path: Path) -> None:
    """And the backup before it loses nothing of what is older."""
    root = tmp_path / "backups"
    before = stack.sources()
    # Large enough for the kill to come before its checksum is made.
    (stack.home / "adapters" / "first" / "large").write_bytes(os.urandom(60_000_000))
    first, _ = stack.backup(root)
    stack.add_rows(20)
    for file in ("postgres.dump", "qdrant", "files"):
        process = stack.command("backup", str(root))
        kill_when(process, (any(root.glob(f".*.partial/{file}")) for _ in iter(int, 1)))
        assert find(root) == first
        assert [path.name for path in root.glob("ai-assistant-*")] == [first.name]
    await stack.restore(find(root), force=True)
    assert stack.sources() == before
    assert await stack.points() == POINTS

    second, _ = stack.backup(root)
    assert not list(root.glob(".*.partial"))
    assert verify(second)[1] == []


@pytest.mark.parametrize("alone", [False, True], ids=["with its programs", "alone"])
async def test_kill_9_in_a_restore_is_mended_by_the_same_command(
    stack: Stack, tmp_path: Path, alone: bool
) -> None:
    stack.add_rows(20_000)
    before = stack.sources()
    folder, _ = stack.backup(tmp_path / "backups")
    empty(stack)
    await drop_collections(stack)

    process = stack.command("restore", str(folder))
    kill_when(process, ((stack.home / MARKER).exists() for _ in iter(int, 1)), alone=alone)
    assert stack.sources() in (set(), before), "Postgres is either as it was or restored whole"
    assert (stack.home / MARKER).exists()

    again = stack.command("restore", str(folder), "--json")
    output, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert json.loads(output)["rows"] >= len(before)
    assert stack.sources() == before
    assert await stack.points() == POINTS
    assert not (stack.home / MARKER).exists()


def test_two_backups_at_once_do_not_meet(stack: Stack, tmp_path: Path) -> None:
    from cluster.files import locked

    root = tmp_path / "backups"
    root.mkdir()
    with locked(root / ".lock"), pytest.raises(Conflict, match="Another backup is being made"):
        stack.backup(root)


def test_the_command_verifies_by_name_and_by_exit_status(stack: Stack, tmp_path: Path) -> None:
    folder, manifest = stack.backup(tmp_path / "backups")
    whole = stack.command("verify", str(tmp_path / "backups"), "--json")
    output, error = whole.communicate(timeout=120)
    assert whole.returncode == 0, error
    answer = json.loads(output)
    assert (answer["whole"], answer["id"]) == (True, manifest.id)
    with (folder / "postgres.dump").open("ab") as dump:
        dump.write(b"x")
    damaged = stack.command("verify", str(folder))
    output, _ = damaged.communicate(timeout=120)
    assert damaged.returncode == 1
    assert "postgres.dump has" in output
