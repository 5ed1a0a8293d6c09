"""Collections and aliases on disk and in memory.

FOLDER/.lock                              held by the serving process
FOLDER/aliases.json                       alias → collection
FOLDER/collections/NAME/collection.json   the create request; written last, so its absence means half-made
FOLDER/collections/NAME/shard/            the engine's files
FOLDER/snapshots, FOLDER/recovering       see snapshots.py
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from assistant.errors import ConfigurationError
from assistant.telemetry import get_logger
from cluster.qdrant_edge.errors import ApiError, bad_request, unknown_collection
from cluster.qdrant_edge.mapping_config import collection_info, edge_config
from cluster.qdrant_edge.mapping_points import VectorSchema
from cluster.qdrant_edge.mapping_queries import no_such_point
from cluster.qdrant_edge.storage import (
    FolderLock,
    read_json,
    remove_collection_folder,
    sync_folder,
    write_json,
)

log = get_logger("qdrant_edge")

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
META = "collection.json"
OPTIMIZE_FROM = 20_000
"""Points from which exact search gets slow and an HNSW index is worth its minutes."""
FLUSH_EVERY = 20_000
"""Points written between two flushes: bounds the log that a restart replays."""
RELOAD_AT_DELETED = 0.05
"""Share of deleted points from which BM25 scores drift visibly; reloading the shard cures it."""


class Collection:
    """One shard and the request that made it."""

    def __init__(self, name: str, request: models.CreateCollection, folder: Path) -> None:
        self.name = name
        self.request = request
        self.schema = VectorSchema(request)
        self.folder = folder
        self.closed = False
        self._unflushed = 0
        self._deleted = 0
        self._shard: Any = edge.EdgeShard.load(str(folder / "shard"))

    @property
    def shard(self) -> Any:
        """The engine's handle; 404 once the collection was deleted under a request in progress."""
        if self.closed:
            raise unknown_collection(self.name)
        return self._shard

    def write(self, operation: Any, points: int = 1) -> None:
        """Apply an update; it is in the write-ahead log when this returns."""
        self.shard.update(operation)
        self._unflushed += points
        if self._unflushed >= FLUSH_EVERY:
            self.flush()

    def delete(self, operation: Any) -> None:
        before = self.count()
        self.write(operation)
        self._deleted += before - self.count()

    def count(self) -> int:
        return int(self.shard.count(edge.CountRequest(exact=True)))

    def stored_vector(self, identifier: Any, using: str) -> Any:
        found = self.shard.retrieve([identifier], False, True)
        if not found:
            raise no_such_point(identifier)
        vectors = found[0].vector
        vector = vectors.get(using) if isinstance(vectors, dict) else (vectors if using == "" else None)
        if vector is None:
            raise bad_request(f"point {identifier} has no vector `{using}`")
        return vector

    def info(self) -> dict[str, Any]:
        found = self.shard.info()
        due = found.points_count >= OPTIMIZE_FROM and found.indexed_vectors_count < found.points_count / 2
        return collection_info(self.request, found, "grey" if due else "green")

    def flush(self) -> None:
        self._unflushed = 0
        self.shard.flush()

    def tidy(self) -> None:
        """Work for a quiet moment: shorten the log; after many deletes reload, which cures drifting IDF."""
        if self._unflushed:
            self.flush()
        if self._deleted > RELOAD_AT_DELETED * (self.count() + self._deleted):
            self._shard.close()
            self._shard = edge.EdgeShard.load(str(self.folder / "shard"))
            self._deleted = 0

    def close(self, *, keep: bool = True) -> None:
        if not self.closed:
            if keep:
                self._shard.flush()
            self._shard.close()
            self.closed = True


class Collections:
    """All collections below one folder, which this process owns."""

    def __init__(self, folder: Path) -> None:
        self._lock = FolderLock(folder)
        self._root = folder / "collections"
        self._root.mkdir(exist_ok=True)
        self.snapshots = folder / "snapshots"
        self.recovering = folder / "recovering"
        self._alias_file = folder / "aliases.json"
        self._open: dict[str, Collection] = {}
        self._operations = 0
        self.aliases: dict[str, str] = {}
        try:
            self._boot()
        except BaseException:
            self.close()
            raise

    def _boot(self) -> None:
        shutil.rmtree(self.recovering, ignore_errors=True)
        for path in sorted(self._root.iterdir()):
            meta = read_json(path / META)
            if meta is None:
                log.warning("removing a half-made collection", collection=path.name)
                shutil.rmtree(path)
                continue
            try:
                request = models.CreateCollection.model_validate(meta)
                self._open[path.name] = Collection(path.name, request, path)
            except Exception as error:
                raise ConfigurationError(
                    f"Collection {path.name} in {path} cannot be opened: {error}.",
                    hint="Restore this folder from a backup, or remove it and ingest again.",
                ) from error
        aliases = read_json(self._alias_file, {})
        self.aliases = {alias: name for alias, name in aliases.items() if name in self._open}

    def completed(self) -> dict[str, Any]:
        """Qdrant's answer to an update that was applied."""
        self._operations += 1
        return {"operation_id": self._operations, "status": "completed"}

    def names(self) -> list[str]:
        return sorted(self._open)

    def exists(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._open

    def get(self, name: str) -> Collection:
        """The collection of this name or alias; ApiError 404."""
        found = self._open.get(self.aliases.get(name, name))
        if found is None:
            raise unknown_collection(name)
        return found

    def create(self, name: str, request: models.CreateCollection) -> bool:
        if not NAME.fullmatch(name):
            raise bad_request(f"collection name {name!r} may hold 1 to 255 letters, digits, _ and -")
        if self.exists(name):
            raise ApiError(409, f"Wrong input: Collection `{name}` already exists!")
        config = edge_config(request)
        path = self._root / name
        path.mkdir()
        try:
            edge.EdgeShard.create(str(path / "shard"), config).close()
            # An unset field and a null mean the same to us; leaving nulls out keeps the file readable.
            write_json(path / META, request.model_dump(mode="json", exclude_none=True))
            sync_folder(self._root)
            self._open[name] = Collection(name, request, path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return True

    def delete(self, name: str) -> bool:
        """Remove the collection and its aliases; False when there is none (an alias does not count)."""
        collection = self._open.get(name)
        if collection is None:
            return False
        self._replace_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        del self._open[name]
        collection.close(keep=False)
        remove_collection_folder(collection.folder, META)
        sync_folder(self._root)
        return True

    def adopt(self, name: str, prepared: Path) -> None:
        """Make `prepared`, a folder with meta file and shard on the same disk, the collection of this name.

        It is opened once before the old collection goes: what the engine cannot load changes nothing.
        """
        if not NAME.fullmatch(name) or name in self.aliases:
            raise bad_request(f"{name!r} is no name of a collection")
        try:
            request = models.CreateCollection.model_validate(read_json(prepared / META))
            Collection(name, request, prepared).close()
        except Exception as error:
            raise bad_request(f"the engine does not open this snapshot: {error}") from None
        if old := self._open.pop(name, None):
            old.close(keep=False)
            remove_collection_folder(old.folder, META)
        prepared.replace(self._root / name)
        sync_folder(self._root)
        self._open[name] = Collection(name, request, self._root / name)

    def change_aliases(self, actions: Sequence[models.AliasOperations]) -> bool:
        """Apply all actions or none."""
        aliases = dict(self.aliases)
        for action in actions:
            match action:
                case models.CreateAliasOperation(create_alias=wanted):
                    self._check_alias(wanted.alias_name)
                    if wanted.collection_name not in self._open:
                        raise unknown_collection(wanted.collection_name)
                    aliases[wanted.alias_name] = wanted.collection_name
                case models.DeleteAliasOperation(delete_alias=gone):
                    aliases.pop(gone.alias_name, None)
                case models.RenameAliasOperation(rename_alias=renamed):
                    self._check_alias(renamed.new_alias_name)
                    if renamed.old_alias_name not in aliases:
                        raise ApiError(404, f"Not found: Alias {renamed.old_alias_name} does not exists!")
                    aliases[renamed.new_alias_name] = aliases.pop(renamed.old_alias_name)
        self._replace_aliases(aliases)
        return True

    def _check_alias(self, alias: str) -> None:
        if not NAME.fullmatch(alias):
            raise bad_request(f"alias {alias!r} may hold 1 to 255 letters, digits, _ and -")
        if alias in self._open:
            raise ApiError(409, f"Wrong input: Collection `{alias}` already exists!")

    def _replace_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            write_json(self._alias_file, aliases)
            self.aliases = aliases

    def tidy(self) -> None:
        for collection in self._open.values():
            collection.tidy()

    def close(self) -> None:
        """Flush and close every shard, then give the folder free."""
        for collection in self._open.values():
            collection.close()
        self._open.clear()
        self._lock.release()
