"""Make a backup: into a folder with a dot, renamed when all of it is on disk."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from assistant.errors import ConfigurationError, Conflict
from assistant.settings import Settings
from cluster.backup import folders
from cluster.backup.manifest import (
    PREFIX,
    CollectionPart,
    FolderPart,
    Manifest,
    PostgresPart,
    QdrantPart,
    describe,
)
from cluster.backup.postgres import PostgresBackup
from cluster.backup.qdrant import QdrantBackup
from cluster.files import locked, private_folder

PARTIAL = ".partial"

Report = Callable[[str, float, str], None]
"""Told of each step when it is done: its name, its seconds, and what it gave."""


class BackupMaker:
    """One backup of `settings`' stores and of the state folder, below `root`."""

    def __init__(
        self, settings: Settings, home: Path, root: Path, versions: dict[str, str], report: Report
    ) -> None:
        self._settings = settings
        self._home = home
        self._root = root
        self._versions = versions
        self._report = report

    def make(self) -> tuple[Path, Manifest]:
        """The finished backup. Raises Conflict while another one is being made there, StoreUnavailable, and
        ConfigurationError for a folder that cannot be written."""
        try:
            private_folder(self._root)
            with locked(self._root / ".lock", timeout_s=0.0) as free:
                if not free:
                    raise Conflict(f"Another backup is being made in {self._root}.", hint="Wait for it.")
                self._remove_leftovers()
                return self._make()
        except OSError as error:
            raise ConfigurationError(
                f"The backup cannot be written to {self._root}: {error.strerror or error}.",
                hint="Free some room, or name another folder.",
            ) from error

    def _make(self) -> tuple[Path, Manifest]:
        started, now = time.monotonic(), datetime.now(UTC)
        name = f"{PREFIX}{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z"
        partial = private_folder(self._root / f".{name}{PARTIAL}")
        try:
            postgres = self._postgres(partial)
            qdrant = self._qdrant(partial)
            kept, databases = self._folders(partial)
            began = time.monotonic()
            files = describe(partial)
            manifest = Manifest(
                id=name,
                created_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                seconds=round(time.monotonic() - started, 2),
                versions=self._versions,
                postgres=postgres,
                qdrant=qdrant,
                folders=kept,
                databases=databases,
                files=files,
            )
            _sync(partial)
            manifest.write(partial)
            _sync(partial, names=())
            partial.replace(self._root / name)
            _sync(self._root, names=())
            self._report(
                "checksums", time.monotonic() - began, f"{len(files)} files, {_size(manifest.bytes)}"
            )
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(partial)
            raise
        return self._root / name, manifest

    def _remove_leftovers(self) -> None:
        """What a killed run left: we hold the lock, so nobody writes there."""
        for left in self._root.glob(f".{PREFIX}*{PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)

    def _postgres(self, into: Path) -> PostgresPart:
        began = time.monotonic()
        url = self._settings.postgres.url
        if url is None:
            raise ConfigurationError("Postgres has no address.", hint="Set DATABASE_URL, or start the stack.")
        postgres = PostgresBackup(url.get_secret_value())
        target = into / "postgres.dump"
        postgres.dump(target)
        rows = postgres.rows(target)
        self._report("postgres", time.monotonic() - began, f"{sum(rows.values())} rows in {len(rows)} tables")
        return PostgresPart(
            file=target.name, server=postgres.server(), migrations=postgres.migrations(), rows=rows
        )

    def _qdrant(self, into: Path) -> QdrantPart:
        began = time.monotonic()
        folder = private_folder(into / "qdrant")
        collections: dict[str, CollectionPart] = {}
        with QdrantBackup(self._settings.qdrant) as qdrant:
            for name in qdrant.collections():
                target = folder / f"{name}.snapshot"
                qdrant.save(name, target)
                points = edge_points(target, into) if qdrant.kind == "qdrant-edge" else None
                collections[name] = CollectionPart(file=f"qdrant/{target.name}", points=points)
            aliases = {alias: name for alias, name in qdrant.aliases().items() if name in collections}
            part = QdrantPart(
                kind=qdrant.kind, version=qdrant.version, collections=collections, aliases=aliases
            )
        counted = sum(c.points or 0 for c in collections.values())
        what = f", {counted} points" if qdrant.kind == "qdrant-edge" else ""
        self._report("qdrant", time.monotonic() - began, f"{len(collections)} collections{what}")
        return part

    def _folders(self, into: Path) -> tuple[dict[str, FolderPart], dict[str, str]]:
        began = time.monotonic()
        kept, databases = {}, {}
        private_folder(into / "files")
        for name in folders.wanted(self._home):
            file = f"files/{name.replace('/', '-')}.tar"
            kept[name] = FolderPart(file=file, files=folders.pack(self._home / name, into / file))
        for name in folders.databases(self._home):
            databases[name] = f"files/{name.replace('/', '-')}"
            folders.copy_database(self._home / name, into / databases[name])
        count = sum(part.files for part in kept.values()) + len(databases)
        self._report("files", time.monotonic() - began, f"{count} files of {self._home.name}")
        return kept, databases


def edge_points(snapshot: Path, scratch: Path) -> int:
    """Points in a snapshot of Qdrant Edge. The engine is imported only where one is at hand."""
    from cluster.qdrant_edge.snapshots import points_in

    return points_in(snapshot, scratch)


def _sync(folder: Path, names: tuple[str, ...] = ("**/*",)) -> None:
    """Onto the disk: the files that match, and the folder's own entries."""
    paths = [path for name in names for path in folder.glob(name)]
    for path in [*paths, folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
