"""The manifest and the files of the state folder, without any server."""

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from assistant.errors import InvalidInput
from cluster.backup import folders
from cluster.backup.manifest import FILE, Manifest, PostgresPart, QdrantPart, describe, find, problems, read
from cluster.backup.restore import verify


def ignore(name: str) -> None:
    assert name


def make(folder: Path, **changes: Any) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "postgres.dump").write_bytes(b"dump")
    values: dict[str, Any] = {
        "id": folder.name,
        "created_at": "2026-11-23T08:00:00Z",
        "seconds": 1.0,
        "versions": {},
        "postgres": PostgresPart(file="postgres.dump", server="18.6", migrations=(), rows={}),
        "qdrant": QdrantPart(kind="qdrant-edge", version="1.20.0", collections={}, aliases={}),
        "folders": {},
        "databases": {},
        "files": describe(folder),
    }
    manifest = Manifest(**(values | changes))
    manifest.write(folder)
    return manifest


def test_what_is_written_is_read_and_whole(tmp_path: Path) -> None:
    manifest = make(tmp_path / "ai-assistant-1")
    assert read(tmp_path / "ai-assistant-1") == manifest
    assert problems(tmp_path / "ai-assistant-1", manifest, ignore) == []


def test_the_newest_finished_backup_counts(tmp_path: Path) -> None:
    for name in ("ai-assistant-20261122T000000000Z", "ai-assistant-20261123T000000000Z"):
        make(tmp_path / name)
    make(tmp_path / ".ai-assistant-20261124T000000000Z.partial")
    (tmp_path / "ai-assistant-20261125T000000000Z").mkdir()
    assert find(tmp_path).name == "ai-assistant-20261123T000000000Z"
    assert find(tmp_path / "ai-assistant-20261122T000000000Z").name == "ai-assistant-20261122T000000000Z"


def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ai-assistant-1"
    folder.mkdir()
    for name in ("changed", "longer", "gone"):
        (folder / name).write_bytes(b"as it was")
    manifest = make(folder)
    (folder / "changed").write_bytes(b"as it WAS")
    (folder / "longer").write_bytes(b"as it was, and more")
    (folder / "gone").unlink()
    (folder / "strange").write_bytes(b"")
    assert problems(folder, manifest, ignore) == [
        "changed is damaged: its sha256 differs",
        "gone is missing",
        "longer has 19 bytes, not 9",
        "strange does not belong to the backup",
    ]


@pytest.mark.parametrize("name", ["../outside", "/etc/cron.d", "a/../../b", "a//b", "."])
@pytest.mark.parametrize("part", ["folders", "databases"])
def test_a_manifest_cannot_reach_out_of_the_state_folder(tmp_path: Path, name: str, part: str) -> None:
    folder = tmp_path / "ai-assistant-1"
    make(folder)
    raw = json.loads((folder / FILE).read_text())
    raw[part] = {name: {"file": "postgres.dump", "files": 1} if part == "folders" else "postgres.dump"}
    (folder / FILE).write_text(json.dumps(raw))
    with pytest.raises(InvalidInput, match="is no path inside"):
        read(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "not json", '{"product": "ai-assistant", "format": 1}']
)
def test_no_manifest_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InvalidInput, match="no manifest of an AI Assistant backup"):
        read(tmp_path)


def test_a_file_without_a_checksum_is_a_problem(tmp_path: Path) -> None:
    manifest = make(tmp_path / "ai-assistant-1", files={})
    found = problems(tmp_path / "ai-assistant-1", manifest, ignore)
    assert "postgres.dump has no checksum in manifest.json" in found


def test_only_what_cannot_be_made_again_is_kept(tmp_path: Path) -> None:
    for name in (
        "adapters/a/adapter.gguf",
        "learning/runs/1/step.json",
        "learning/cache/big",
        "models/trained/training.json",
        "models/built-in/model.gguf",
        "logs/ray.log",
        "mlflow/artifacts/1/file",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert folders.wanted(tmp_path) == ["adapters", "learning", "mlflow/artifacts", "models/trained"]
    assert folders.pack(tmp_path / "learning", tmp_path / "learning.tar") == 1


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "home" / "adapters"
    (source / "new").mkdir(parents=True)
    (source / "new" / "file").write_text("new")
    folders.pack(source, tmp_path / "source.tar")
    (target / "old").mkdir(parents=True)
    for _ in range(2):
        folders.unpack(tmp_path / "source.tar", target, tmp_path / "home" / "run" / "restoring")
    assert [p.relative_to(target).as_posix() for p in sorted(target.rglob("*"))] == ["new", "new/file"]


def test_a_tar_that_reaches_out_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(tmp_path / "file", "../../outside")
    target = tmp_path / "home" / "adapters"
    target.mkdir(parents=True)
    (target / "kept").write_text("kept")
    with pytest.raises(InvalidInput, match=r"bad\.tar cannot be unpacked"):
        folders.unpack(tmp_path / "bad.tar", target, tmp_path / "home" / "run" / "restoring")
    assert (target / "kept").read_text() == "kept"


def test_a_database_in_use_is_copied_and_replaced(tmp_path: Path) -> None:
    live, copy = tmp_path / "live.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("pragma journal_mode = wal")
        with connection:
            connection.execute("create table runs (name text)")
            connection.execute("insert into runs values ('before')")
        folders.copy_database(live, copy)
        with connection:
            connection.execute("insert into runs values ('after')")
        folders.copy_database(copy, live)
        assert connection.execute("select name from runs").fetchall() == [("before",)]


def test_a_dump_that_postgres_cannot_read_is_named(tmp_path: Path) -> None:
    """Its checksum is right: it was no dump when it was saved."""
    folder = tmp_path / "ai-assistant-1"
    make(folder)
    _, found = verify(folder)
    assert len(found) == 1
    assert found[0].startswith("postgres.dump is no use: postgres.dump cannot be read: ")
