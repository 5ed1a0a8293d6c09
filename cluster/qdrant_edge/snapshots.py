"""Snapshots of collections: Qdrant's routes for them, over tar files of the engine's own folder.

FOLDER/snapshots/NAME/FILE.snapshot   collection.json and shard/, as they were between two requests, compressed
FOLDER/recovering/                    one being packed or unpacked; what a crash leaves is removed at the next start

A snapshot of Qdrant Edge is no snapshot of a Qdrant server, and the reverse.
"""

import asyncio
import errno
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
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

CHUNK = 1 << 20
FASTEST = 1
FILE = re.compile(r"[A-Za-z0-9_-]{1,255}-\d{8}T\d{12}Z\.snapshot")


async def create_snapshot(store: Collections, name: str) -> Any:
    """The copy is made between two requests, so nothing is written meanwhile; packing it holds nobody up.

    The engine's files are mostly holes: copied and packed they take the room of what is in them.
    """
    collection = store.get(name)
    collection.flush()
    folder = store.snapshots / collection.name
    folder.mkdir(parents=True, exist_ok=True)
    made = datetime.now(UTC)
    target = folder / f"{collection.name}-{made:%Y%m%dT%H%M%S%f}Z.snapshot"
    store.recovering.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=store.recovering))
    try:
        copy_tree(collection.folder / "shard", work / "shard")
        shutil.copyfile(collection.folder / META, work / META)
        checksum = await asyncio.to_thread(_pack, work, work / target.name)
        (work / target.name).replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sync_folder(folder)
    return _description(target, checksum)


def copy_tree(source: Path, target: Path) -> None:
    """A folder's files, holes staying holes."""
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as reading, to.open("wb") as writing:
                _copy_data(reading.fileno(), writing.fileno(), path.stat().st_size)


def _copy_data(reading: int, writing: int, size: int) -> None:
    os.truncate(writing, size)
    start = 0
    while start < size:
        try:
            start = os.lseek(reading, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        end = os.lseek(reading, start, os.SEEK_HOLE)
        while start < end:
            written = os.pwrite(writing, os.pread(reading, min(CHUNK, end - start), start), start)
            if not written:
                return
            start += written


def _pack(folder: Path, target: Path) -> str:
    """Into a compressed tar file on disk; its SHA-256."""
    with target.open("wb") as sink:
        with tarfile.open(
            fileobj=sink, mode="w:gz", compresslevel=FASTEST, format=tarfile.PAX_FORMAT
        ) as archive:
            archive.add(folder / META, META)
            archive.add(folder / "shard", "shard")
        sink.flush()
        os.fsync(sink.fileno())
    return _sha256(target)


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
    try:
        with tarfile.open(source) as archive:
            archive.extractall(target, filter="data")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise tarfile.ReadError(str(error)) from None
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
