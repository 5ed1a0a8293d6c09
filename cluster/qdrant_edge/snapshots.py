"""Snapshots of collections: Qdrant's routes for them, over tar files of the engine's own folder.

FOLDER/snapshots/NAME/FILE.snapshot   collection.json and shard/, as they were between two requests
FOLDER/recovering/                    a snapshot being unpacked; what a crash leaves is removed at the next start

A snapshot of Qdrant Edge is no snapshot of a Qdrant server, and the reverse.
"""

import asyncio
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge
from qdrant_client import models
from starlette.responses import FileResponse

from assistant.errors import InvalidInput
from cluster.qdrant_edge.collections import META, Collections
from cluster.qdrant_edge.errors import ApiError, bad_request
from cluster.qdrant_edge.storage import sync_folder

FILE = re.compile(r"[A-Za-z0-9_-]{1,255}-\d{8}T\d{12}Z\.snapshot")


def create_snapshot(store: Collections, name: str) -> Any:
    """Runs between two requests, so nothing is written meanwhile; about a second per GB."""
    collection = store.get(name)
    collection.flush()
    folder = store.snapshots / collection.name
    folder.mkdir(parents=True, exist_ok=True)
    made = datetime.now(UTC)
    target = folder / f"{collection.name}-{made:%Y%m%dT%H%M%S%f}Z.snapshot"
    partial = target.with_suffix(".partial")
    try:
        with partial.open("wb") as sink:
            with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
                archive.add(collection.folder / META, META)
                archive.add(collection.folder / "shard", "shard")
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)
    return _description(target, _sha256(target))


def list_snapshots(store: Collections, name: str) -> Any:
    folder = store.snapshots / store.get(name).name
    return [_description(path) for path in sorted(folder.glob("*.snapshot"))]


def download_snapshot(store: Collections, name: str, snapshot: str) -> Any:
    return FileResponse(_existing(store, name, snapshot), media_type="application/octet-stream")


def delete_snapshot(store: Collections, name: str, snapshot: str) -> Any:
    _existing(store, name, snapshot).unlink()
    return True


async def recover(store: Collections, body: models.SnapshotRecover, name: str) -> Any:
    """Replace the collection, or make it, from a file of this machine. The old one goes when the new one opens."""
    parts = urlsplit(body.location)
    if parts.scheme != "file":
        raise bad_request(f"location must be a file:// address of this machine, not {body.location!r}")
    source = Path(unquote(parts.path))
    try:
        checksum = await asyncio.to_thread(_sha256, source)
    except OSError as error:
        raise bad_request(f"the snapshot {source} cannot be read: {error.strerror}") from None
    if body.checksum not in {None, checksum}:
        raise bad_request(f"{source.name} is damaged: its checksum differs")
    store.recovering.mkdir(exist_ok=True)
    unpacked = Path(tempfile.mkdtemp(dir=store.recovering))
    try:
        await asyncio.to_thread(unpack, source, unpacked)
        store.adopt(name, unpacked)
    except tarfile.TarError as error:
        raise bad_request(f"{source.name} is no snapshot of Qdrant Edge: {error}") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return True


def unpack(source: Path, target: Path) -> None:
    """Raises tarfile.TarError for a file that is no snapshot, or that reaches out of `target`."""
    with tarfile.open(source) as archive:
        archive.extractall(target, filter="data")
    if not (target / META).is_file() or not (target / "shard").is_dir():
        raise tarfile.TarError(f"{META} or shard is missing")


def _existing(store: Collections, name: str, snapshot: str) -> Path:
    collection = store.get(name)
    path = store.snapshots / collection.name / snapshot
    if not FILE.fullmatch(snapshot) or not path.is_file():
        raise ApiError(404, f"Not found: Snapshot {snapshot} not found")
    return path


def _description(path: Path, checksum: str | None = None) -> dict[str, Any]:
    info = path.stat()
    made = datetime.fromtimestamp(info.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {"name": path.name, "creation_time": made, "size": info.st_size, "checksum": checksum}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def points_in(source: Path, scratch: Path) -> int:
    """How many points a snapshot holds, by loading it below `scratch`. Raises InvalidInput for a bad one."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            unpack(source, Path(folder))
            shard = edge.EdgeShard.load(str(Path(folder, "shard")))
        except Exception as error:  # the engine raises bare exceptions
            raise InvalidInput(f"{source.name} cannot be loaded: {error}.") from None
        try:
            return int(shard.count(edge.CountRequest(exact=True)))
        finally:
            shard.close()
