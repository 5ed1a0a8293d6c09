"""Put a backup back, or check one. A restore can be killed anywhere and repeated."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from assistant.errors import ConfigurationError, Conflict, InvalidInput
from assistant.settings import Settings
from assistant.stores.migrations import migrate
from assistant.stores.migrations import read as known_migrations
from cluster.backup import folders
from cluster.backup.make import Report, edge_points
from cluster.backup.manifest import Manifest, problems, read
from cluster.backup.postgres import PostgresBackup
from cluster.backup.qdrant import QdrantBackup
from cluster.files import write_private

MARKER = "run/restore.json"
"""In the state folder while a restore is under way: what is there is then half of that backup, not yours."""


def verify(folder: Path, say: Callable[[str], None] = lambda name: None) -> tuple[Manifest, list[str]]:
    """The manifest, and every problem with its file's name: checksums first, then what the files hold.

    Raises InvalidInput for what is no backup.
    """
    manifest = read(folder)
    found = problems(folder, manifest, say)
    # A file that is wrong already need not be opened as well.
    sound = {name for name in manifest.files if not any(line.startswith(f"{name} ") for line in found)}
    dump = manifest.postgres
    if dump.file in sound:
        say(f"rows of {dump.file}")
        found += _difference(dump.file, dump.rows, partial(PostgresBackup("").rows, folder / dump.file))
    if manifest.qdrant.kind == "qdrant-edge":
        with tempfile.TemporaryDirectory(prefix="ai-assistant-verify-") as scratch:
            for part in manifest.qdrant.collections.values():
                if part.file in sound:
                    say(f"points of {part.file}")
                    count = partial(edge_points, folder / part.file, Path(scratch))
                    found += _difference(part.file, part.points, count)
    return manifest, found


def _difference(name: str, wanted: object, count: Callable[[], object]) -> list[str]:
    try:
        held = count()
    except InvalidInput as error:
        return [f"{name} is no use: {error.detail.rstrip('.')}"]
    return [] if held == wanted else [f"{name} holds {held}, the manifest says {wanted}"]


class Restorer:
    """One restore into `settings`' stores and the state folder."""

    def __init__(self, settings: Settings, home: Path, report: Report) -> None:
        self._settings = settings
        self._home = home
        self._report = report
        url = settings.postgres.url
        if url is None:
            raise ConfigurationError("Postgres has no address.", hint="Set DATABASE_URL, or start the stack.")
        self._url = url.get_secret_value()
        self._postgres = PostgresBackup(self._url)

    def restore(self, folder: Path, *, force: bool = False, vectors: bool = True) -> Manifest:
        """Everything of the backup, in place of what is there.

        Nothing is touched before all checks have passed. Raises InvalidInput for a damaged or foreign backup,
        naming the files, and Conflict when something is there already, unless `force` or an interrupted restore
        of the same backup put it there.
        """
        began = time.monotonic()
        manifest, found = verify(folder)
        if found:
            raise InvalidInput(
                f"The backup {folder} is damaged: {'; '.join(found)}.",
                hint="Use another backup.",
                field="PATH",
            )
        self._report("checks", time.monotonic() - began, f"{len(manifest.files)} files are whole")
        _refuse_newer(manifest)
        with QdrantBackup(self._settings.qdrant) as qdrant:
            if vectors:
                _refuse_other_kind(manifest, qdrant)
            if not force and self._interrupted() != manifest.id:
                self._refuse_filled(qdrant)
            write_private(self._home / MARKER, json.dumps({"backup": manifest.id}) + "\n")
            self._restore_postgres(folder, manifest)
            if vectors:
                self._restore_qdrant(folder, manifest, qdrant)
        self._restore_folders(folder, manifest)
        (self._home / MARKER).unlink()
        return manifest

    def _interrupted(self) -> str:
        """The backup of a restore that did not come to its end."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((self._home / MARKER).read_text())["backup"])
        return ""

    def _refuse_filled(self, qdrant: QdrantBackup) -> None:
        filled = [f"table {name}" for name in self._postgres.filled()]
        filled += [f"collection {name}" for name in qdrant.collections() if qdrant.points(name)]
        if filled:
            raise Conflict(
                f"Something is there already: {', '.join(filled[:6])}{' and more' if filled[6:] else ''}.",
                hint="--force replaces it by the backup. Make a backup of it first if you may need it.",
            )

    def _restore_postgres(self, folder: Path, manifest: Manifest) -> None:
        began = time.monotonic()
        self._postgres.restore(folder / manifest.postgres.file)
        applied = asyncio.run(migrate(self._url))
        detail = f"{sum(manifest.postgres.rows.values())} rows in {len(manifest.postgres.rows)} tables"
        if applied:
            detail += f", {len(applied)} newer migrations applied"
        self._report("postgres", time.monotonic() - began, detail)

    def _restore_qdrant(self, folder: Path, manifest: Manifest, qdrant: QdrantBackup) -> None:
        began = time.monotonic()
        wanted = manifest.qdrant.collections
        # An alias may bear the name of a collection that comes back.
        blocking = qdrant.aliases().keys() & wanted.keys()
        if blocking:
            qdrant.point_aliases({})
        for name, collection in wanted.items():
            qdrant.load(name, folder / collection.file, manifest.files[collection.file].sha256)
        qdrant.point_aliases(manifest.qdrant.aliases)
        surplus = [name for name in qdrant.collections() if name not in wanted]
        for name in surplus:
            qdrant.drop(name)
        self._report("qdrant", time.monotonic() - began, f"{len(wanted)} collections, {len(surplus)} removed")

    def _restore_folders(self, folder: Path, manifest: Manifest) -> None:
        began = time.monotonic()
        for name, part in manifest.folders.items():
            folders.unpack(folder / part.file, self._home / name, self._home / "run" / "restoring")
        for name, file in manifest.databases.items():
            folders.copy_database(folder / file, self._home / name)
        count = sum(part.files for part in manifest.folders.values()) + len(manifest.databases)
        self._report("files", time.monotonic() - began, f"{count} files")


def _refuse_newer(manifest: Manifest) -> None:
    known = {migration.version for migration in known_migrations()}
    if unknown := [version for version in manifest.postgres.migrations if version not in known]:
        made_by = manifest.versions.get("ai-assistant", "another version")
        raise InvalidInput(
            f"The backup was made by AI Assistant {made_by}, whose schema is newer: {unknown[0]} is not known here.",
            hint="Restore with that version or a later one.",
            field="PATH",
        )


def _refuse_other_kind(manifest: Manifest, qdrant: QdrantBackup) -> None:
    if manifest.qdrant.collections and manifest.qdrant.kind != qdrant.kind:
        raise InvalidInput(
            f"The backup holds snapshots of {manifest.qdrant.kind}, and this installation runs {qdrant.kind}.",
            hint="--skip-vectors restores the rest; `ai-assistant ingest` then fills Qdrant again.",
            field="PATH",
        )
