"""Change the embedder without a pause: build its collection beside the live one, then move the alias.

    ai-assistant collections build --embedder NAME
    ai-assistant collections promote NAME
    ai-assistant collections rollback

Nothing is read from the sources: chunks, their ids and BM25 weights are taken over as stored. A build that was
killed goes on where it was. Whatever ingestion does meanwhile is taken over before the alias moves; during
the last, short pass no ingestion runs.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from assistant.errors import Conflict, NotFound
from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import (
    Embedder,
    SentenceTransformerEmbedder,
    TextTokenizer,
    installed_embedder,
)
from assistant.settings import EmbedderSettings, Settings
from assistant.stores.vectors import CollectionInfo, VectorStore
from data_jobs.copy_stage import (
    Copied,
    Copying,
    Difference,
    Load,
    copy_in_process,
    copy_on_ray,
    difference,
)
from data_jobs.locks import managing, moving
from data_jobs.pipeline import connect
from data_jobs.progress import ProgressListener, Silent
from data_jobs.store_stage import Stored

CHUNKS_PER_DOCUMENT = 32
"""`ingest.small_job_documents` counts documents; as many chunks as they may have are embedded in process."""


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What a build did. `points` are now in `collection`; `failed` chunks are not, and block its promotion."""

    alias: str
    source: str
    collection: str
    embedder: str
    dimension: int
    points: int
    written: int
    removed: int
    cut: int
    failed: int
    reasons: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class MoveReport:
    """Where the alias leads now and led before; `moved` is False when it led there already.

    `written` and `removed` chunks were taken over from the one before the move.
    """

    alias: str
    live: str
    embedder: str
    previous: str | None
    moved: bool
    points: int
    written: int
    removed: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def load_embedder(settings: Settings) -> Embedder:
    return SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)


async def collections(settings: Settings, alias: str) -> list[CollectionInfo]:
    """Every collection of `alias`, live or not, oldest number first."""
    async with _store(settings) as store:
        return await store.collections(alias)


async def reembed(
    settings: Settings,
    alias: str,
    embedder: EmbedderSettings,
    progress: ProgressListener | None = None,
    load: Load = load_embedder,
) -> ReembedReport:
    """Build, or bring up to date, the collection of another embedder beside the live one.

    Raises NotFound before the first ingestion, Conflict when the live collection has this embedder or
    another such command is at work, ConfigurationError when the chunks do not fit the embedder.
    """
    began = time.monotonic()
    progress = progress or Silent()
    settings = settings.model_copy(update={"embedder": embedder})
    Chunker(settings.chunk, TextTokenizer(settings.embedder_path, embedder.max_tokens))
    async with managing(settings, alias), _store(settings) as store:
        live = await _live(store, alias)
        if live.embedder == embedder.name:
            raise Conflict(
                f"The live collection {live.name} has the embedder {embedder.name!r} already.",
                hint="Other weights need a name of their own: put them into another folder.",
            )
        target = await _target(store, alias, live, embedder)
        copying = Copying(settings, live.name, target)
        removed, copied = await _catch_up(copying, store, progress, load)
        return ReembedReport(
            alias,
            live.name,
            target,
            embedder.name,
            embedder.dimension,
            await store.count(target),
            copied.written,
            removed,
            copied.cut,
            copied.failed,
            copied.reasons,
            time.monotonic() - began,
        )


async def promote(
    settings: Settings,
    alias: str,
    name: str,
    progress: ProgressListener | None = None,
    load: Load = load_embedder,
) -> MoveReport:
    """Make a built collection live. `name` is its own, or its embedder's: then the latest of that one.

    First it is brought up to date, with ingestion running, then once more without; the alias moves only
    when both have the same chunks. Raises NotFound, Conflict, and ConfigurationError without the weights.
    """
    async with managing(settings, alias), _store(settings) as store:
        return await _move(settings, store, await _named(store, alias, name), progress or Silent(), load)


async def rollback(
    settings: Settings, alias: str, progress: ProgressListener | None = None, load: Load = load_embedder
) -> MoveReport:
    """Return to the collection that was live before. As `promote`; NotFound when there is none."""
    async with managing(settings, alias), _store(settings) as store:
        for collection in await store.collections(alias):
            if collection.previous:
                return await _move(settings, store, collection, progress or Silent(), load)
        raise NotFound(
            f"No collection was live before the one behind {alias!r}.",
            hint="`ai-assistant collections list` shows what there is.",
        )


async def drop(settings: Settings, alias: str, name: str) -> CollectionInfo:
    """Remove a collection, by its own name. Conflict for the live one."""
    async with managing(settings, alias), _store(settings) as store:
        known = {collection.name: collection for collection in await store.collections(alias)}
        found = known.get(name)
        if found is None:
            raise _unknown(alias, name, list(known))
        if found.live:
            raise Conflict(f"{name} is live.", hint="Promote another collection first.", collection=name)
        await store.drop_collection(name)
        return found


async def _move(
    settings: Settings, store: VectorStore, target: CollectionInfo, progress: ProgressListener, load: Load
) -> MoveReport:
    began = time.monotonic()
    alias = target.name.rsplit("__", 2)[0]
    live = await _live(store, alias)
    if target.live:
        previous = next((c.name for c in await store.collections(alias) if c.previous), None)
        return MoveReport(alias, target.name, target.embedder, previous, False, target.points, 0, 0, 0.0)
    settings = settings.model_copy(update={"embedder": installed_embedder(settings, target.embedder)})
    copying = Copying(settings, live.name, target.name)
    removed, copied = await _catch_up(copying, store, progress, load)

    def waiting() -> None:
        progress.phase(target.name, "waiting for an ingestion to end")

    async with moving(settings, alias, waiting) as held:
        removed_now, copied_now = await _catch_up(copying, store, progress, load)
        points = await _same(store, live.name, target.name, copied_now)
        await held.check()
        await store.move_alias(alias, target.name)
    return MoveReport(
        alias,
        target.name,
        target.embedder,
        live.name,
        True,
        points,
        copied.written + copied_now.written,
        removed + removed_now,
        time.monotonic() - began,
    )


async def _catch_up(
    copying: Copying, store: VectorStore, progress: ProgressListener, load: Load
) -> tuple[int, Copied]:
    """Make the target's chunks those of the source; how many were removed, and what was copied."""
    name = copying.target
    progress.phase(name, "comparing")
    found: Difference = await difference(store, copying.source, name)
    await store.delete(name, found.stale)
    if not found.missing:
        return len(found.stale), Copied()

    def advance(copied: Copied) -> None:
        progress.advance(name, Stored(copied.written, copied.failed, copied.written))

    progress.begin(name, len(found.missing))
    if len(found.missing) <= copying.settings.ingest.small_job_documents * CHUNKS_PER_DOCUMENT:
        return len(found.stale), await copy_in_process(copying, store, found.missing, load, advance)
    progress.phase(name, "starting Ray")
    connect()
    progress.phase(name, "embedding on Ray")
    return len(found.stale), await copy_on_ray(copying, found.missing, advance)


async def _same(store: VectorStore, source: str, target: str, copied: Copied) -> int:
    """How many chunks both have. Conflict when they differ, and why."""
    wanted, there = await store.count(source), await store.count(target)
    left = await difference(store, source, target)
    if wanted == there and not left:
        return there
    raise Conflict(
        f"{target} has {there} of the {wanted} chunks of {source}, {len(left.missing)} are missing"
        f"{': ' + copied.reasons[0] if copied.reasons else ''}. The alias was not moved.",
        hint="Ingest again or remove the documents that fail, then promote again.",
        causes=[{"backend": target, "detail": reason} for reason in copied.reasons],
    )


async def _target(store: VectorStore, alias: str, live: CollectionInfo, embedder: EmbedderSettings) -> str:
    """The latest collection of this embedder, for a build to continue; else a new one."""
    for collection in reversed(await store.collections(alias)):
        made = (collection.embedder, collection.dimension, dict(collection.parameters))
        if made == (embedder.name, embedder.dimension, dict(live.parameters)):
            return collection.name
    return await store.create_collection(alias, embedder.name, embedder.dimension, live.parameters)


async def _live(store: VectorStore, alias: str) -> CollectionInfo:
    live = await store.live(alias)
    if live is None:
        raise NotFound(f"Nothing was ingested into {alias!r} yet.", hint="`ai-assistant ingest` comes first.")
    return live


async def _named(store: VectorStore, alias: str, name: str) -> CollectionInfo:
    known = await store.collections(alias)
    for collection in reversed(known):
        if name in {collection.name, collection.embedder}:
            return collection
    raise _unknown(alias, name, [c.name for c in known])


def _unknown(alias: str, name: str, known: Sequence[str]) -> NotFound:
    return NotFound(
        f"There is no collection {name!r} of {alias!r}.",
        hint=f"There are: {', '.join(known) or 'none'}. `ai-assistant collections build` makes one.",
    )


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[VectorStore]:
    store = VectorStore(settings.qdrant)
    try:
        yield store
    finally:
        await store.close()
