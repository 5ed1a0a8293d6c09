"""Chunks of one collection into another under another embedder: texts and BM25 weights are taken over as stored.

A chunk's id stands for its document, its content and its place, so writing it twice changes nothing, and what
is missing or stale is told by comparing ids.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import Embedder, SentenceTransformerEmbedder
from assistant.settings import Settings
from assistant.stores.vectors import ChunkPoint, StoredChunk, VectorStore
from assistant.types import Chunk
from data_jobs.store_stage import patiently

CHUNKS_PER_CALL = 128
"""Chunks read, embedded and written at a time: little is lost by a kill, and padding stays short."""
SHOWN_REASONS = 5


@dataclass(frozen=True, slots=True)
class Copying:
    """From which collection into which. Small, it travels: `settings.embedder` is that of the target."""

    settings: Settings
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Copied:
    """`cut`: chunks longer than the embedder reads; their words are found, their end has no meaning."""

    written: int = 0
    cut: int = 0
    failed: int = 0
    reasons: tuple[str, ...] = ()

    def __add__(self, other: "Copied") -> "Copied":
        return Copied(
            self.written + other.written,
            self.cut + other.cut,
            self.failed + other.failed,
            (self.reasons + other.reasons)[:SHOWN_REASONS],
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """Ids of chunks that the target lacks, and of those that only it has, or has in another version."""

    missing: tuple[UUID, ...]
    stale: tuple[UUID, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.stale)


async def difference(store: VectorStore, source: str, target: str) -> Difference:
    """Both are read once, side by side, in order of id."""
    missing: list[UUID] = []
    stale: list[UUID] = []
    left, right = aiter(store.scan(source)), aiter(store.scan(target))
    wanted, found = await _next(left), await _next(right)
    while wanted or found:
        if found is None or (wanted and wanted[0] < found[0]):
            assert wanted is not None
            missing.append(wanted[0])
            wanted = await _next(left)
        elif wanted is None or found[0] < wanted[0]:
            stale.append(found[0])
            found = await _next(right)
        else:
            if wanted[1] != found[1]:
                missing.append(wanted[0])
            wanted, found = await _next(left), await _next(right)
    return Difference(tuple(missing), tuple(stale))


async def _next(items: AsyncIterator[tuple[UUID, str]]) -> tuple[UUID, str] | None:
    return await anext(items, None)


class Copier:
    """Reads, embeds and writes. Raises ConfigurationError when no chunk would fit the embedder's window."""

    def __init__(self, copying: Copying, store: VectorStore, embedder: Embedder) -> None:
        self._copying = copying
        self._store = store
        self._embedder = embedder
        self._chunker = Chunker(copying.settings.chunk, embedder)

    async def copy(self, ids: Sequence[UUID]) -> Copied:
        """Take these chunks over; one that was removed from the source meanwhile is left out."""
        copying, store = self._copying, self._store
        chunks = await patiently(lambda: store.read(copying.source, ids))
        texts = await asyncio.to_thread(lambda: [self._text(chunk) for chunk in chunks])
        vectors = await asyncio.to_thread(self._embed, [text for text, _ in texts])
        points: list[ChunkPoint] = []
        copied = Copied()
        for chunk, (_, cut), vector in zip(chunks, texts, vectors, strict=True):
            if isinstance(vector, str):
                where = f"{chunk.payload.get('source')}/{chunk.payload.get('external_id')}"
                copied += Copied(failed=1, reasons=(f"{where}, chunk {chunk.id}: {vector}",))
                continue
            payload = {**chunk.payload, "embedder": self._embedder.name}
            points.append(ChunkPoint(chunk.id, vector, chunk.sparse, payload))
            copied += Copied(written=1, cut=int(cut))
        await patiently(lambda: store.upsert(copying.target, points))
        return copied

    def _text(self, stored: StoredChunk) -> tuple[str, bool]:
        """What is embedded, and whether this embedder would cut it."""
        payload = stored.payload
        text = str(payload["text"])
        tokens = self._embedder.count_tokens(text)
        chunk = Chunk(
            stored.id,
            UUID(str(payload["document_id"])),
            int(payload["chunk_index"]),
            text,
            int(payload["start"]),
            int(payload["end"]),
            tuple(payload["headings"]),
            tokens,
        )
        embedded = self._chunker.embedding_text(str(payload["title"]), chunk)
        # Two tokens mark the start and the end of a text.
        return embedded, tokens + 2 > self._embedder.max_tokens

    def _embed(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32] | str]:
        """A vector for each text, or why there is none."""
        try:
            vectors = self._embedder.embed(texts)
        except Exception as error:
            if len(texts) == 1:
                return [f"{type(error).__name__}: {error}"]
            # One bad text must not cost its neighbours: find it by taking them one by one.
            return [vector for text in texts for vector in self._embed([text])]
        unusable = "the model gave values that are not finite"
        return [vector if np.isfinite(vector).all() else unusable for vector in vectors]


Load = Callable[[Settings], Embedder]
Report = Callable[[Copied], None]


async def copy_in_process(
    copying: Copying, store: VectorStore, ids: Sequence[UUID], load: Load, report: Report
) -> Copied:
    embedder = await asyncio.to_thread(load, copying.settings)
    copier = Copier(copying, store, embedder)
    total = Copied()
    for batch in _batches(ids):
        copied = await copier.copy(batch)
        report(copied)
        total += copied
    return total


async def copy_on_ray(copying: Copying, ids: Sequence[UUID], report: Report) -> Copied:
    """On the connected cluster, with a pool of embedders. Raises the stage's own errors."""
    running = asyncio.create_task(asyncio.to_thread(_execute, copying, ids, report))
    try:
        return await asyncio.shield(running)
    finally:
        if not running.done():
            # Interrupted: without its connection the thread ends, and the cluster drops the job.
            import ray

            ray.shutdown()


def _execute(copying: Copying, ids: Sequence[UUID], report: Report) -> Copied:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    from data_jobs.pipeline import cause_of, quiet_ray_data

    quiet_ray_data()
    # Ray Data's own wrapper forgets its cause on the way here.
    DataContext.get_current().raise_original_map_exception = True
    rows = [{"ids": json.dumps([str(i) for i in batch])} for batch in _batches(ids)]
    total = Copied()
    try:
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            CopyStage,
            fn_constructor_args=(copying,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ActorPoolStrategy(size=copying.settings.ingest.embed_actors),
        )
        for row in dataset.iter_rows():
            copied = _copied(row)
            report(copied)
            total += copied
    except RayError as error:
        raise cause_of(error) from None
    return total


class CopyStage:
    """A Ray Data actor: a list of ids in, what became of them out. It can be restarted anywhere."""

    def __init__(self, copying: Copying) -> None:
        settings = copying.settings
        self._copying = copying
        self._embedder = SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = [UUID(i) for row in batch.to_pylist() for i in json.loads(row["ids"])]
        return pa.Table.from_pylist([{"copied": json.dumps(asdict(asyncio.run(self._copy(ids))))}])

    async def _copy(self, ids: Sequence[UUID]) -> Copied:
        store = VectorStore(self._copying.settings.qdrant)
        try:
            return await Copier(self._copying, store, self._embedder).copy(ids)
        finally:
            await store.close()


def _copied(row: dict[str, Any]) -> Copied:
    values = json.loads(row["copied"])
    return Copied(values["written"], values["cut"], values["failed"], tuple(values["reasons"]))


def _batches(ids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [ids[start : start + CHUNKS_PER_CALL] for start in range(0, len(ids), CHUNKS_PER_CALL)]
