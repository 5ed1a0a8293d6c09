"""Search latency in process against Qdrant Edge: `python -m benchmarks.search [--chunks 10000] [--clients 4]`.

Texts are real (chunks of the installed packages' documentation, repeated up to the number of chunks), their
dense vectors random: exact search costs the same, and embedding 10,000 chunks takes minutes. Queries are
embedded by the real model, so the whole path is timed; the stages of each search are in the result.
"""

import argparse
import asyncio
import itertools
import time
from typing import Any
from uuid import uuid4

import numpy as np
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.retrieval.embedders import SentenceTransformerEmbedder
from assistant.retrieval.search import SearchQuery, SearchService
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.stores.vectors import ChunkPoint, VectorStore
from assistant.types import Principal
from benchmarks import save
from benchmarks._stores import private_stores
from data_jobs.chunk_stage import chunk_task
from data_jobs.config import PythonPackagesSource
from data_jobs.job import Job, Part, payload
from data_jobs.plan import make_plan

ANYONE = Principal("bench", "anonymous")
WARM_UP = 5


async def fill(store: VectorStore, settings: Settings, chunks: int) -> list[str]:
    """Store the chunks; returns headings to search for."""
    source = PythonPackagesSource(kind="python_packages", name="bench", limit=1000)
    job = Job(settings, source, uuid4(), uuid4())
    plan = make_plan(settings, source, job.source_id, {})
    parts: list[Part] = [part for task in plan.tasks for part in chunk_task(task, job)]
    found = [(part, e) for part in parts for e in part.chunks]
    encoder, random = Bm25Encoder(settings.retrieval), np.random.default_rng(1)
    alias = settings.qdrant.collection
    await store.ensure_collection(alias, settings.embedder.name, settings.embedder.dimension, {})
    batch: list[ChunkPoint] = []
    for number, (part, e) in enumerate(itertools.islice(itertools.cycle(found), chunks), 1):
        vector = random.standard_normal(settings.embedder.dimension).astype(np.float32)
        point = ChunkPoint(
            uuid4(),
            vector / np.linalg.norm(vector),
            encoder.document(e.text),
            payload(job, part, e.chunk, now()),
        )
        batch.append(point)
        if len(batch) == 256 or number == chunks:
            await store.upsert(alias, batch)
            batch = []
    return [" ".join([part.title, *e.chunk.headings]) for part, e in found]


async def measure(settings: Settings, chunks: int, clients: int, searches: int) -> dict[str, Any]:
    embedder = SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)
    store = VectorStore(settings.qdrant)

    async def embed(text: str) -> np.ndarray:
        vector: np.ndarray = (await asyncio.to_thread(embedder.embed, [text]))[0]
        return vector

    service = SearchService(store, embed, settings)
    queries = itertools.cycle(await fill(store, settings, chunks))
    samples: list[dict[str, float]] = []

    async def client() -> None:
        for _ in range(searches // clients):
            began = time.perf_counter()
            result = await service.search(SearchQuery(next(queries)), ANYONE)
            samples.append(dict(result.timings_ms) | {"seen": (time.perf_counter() - began) * 1000})

    for _ in range(WARM_UP):
        await service.search(SearchQuery(next(queries)), ANYONE)
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    await store.close()
    stages = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {
        "at": now().isoformat(),
        "chunks": chunks,
        "clients": clients,
        "searches": len(samples),
        "searches_per_s": len(samples) / seconds,
        "ms": {
            name: {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}
            for name, values in stages.items()
        },
    }


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table(title=f"Search over {results[0]['chunks']} chunks, ms")
    for name in ("clients", "searches/s", "stage", "p50", "p95", "p99"):
        shown.add_column(name, justify="right")
    for result in results:
        for stage, ms in result["ms"].items():
            head = (
                (str(result["clients"]), f"{result['searches_per_s']:.1f}") if stage == "seen" else ("", "")
            )
            shown.add_row(*head, stage, *(f"{ms[q]:.1f}" for q in ("p50", "p95", "p99")))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--searches", type=int, default=400)
    given = parser.parse_args()
    results = []
    with private_stores() as settings:
        results.append(asyncio.run(measure(settings, given.chunks, given.clients, given.searches)))
    save("search", results)
    Console().print(table(results))


if __name__ == "__main__":
    main()
