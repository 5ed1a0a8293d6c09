"""SciFact through the product's search, from cached vectors: `python -m benchmarks.evals [--queries 300]`.

Three modes over 5,183 stored abstracts: the time until every query is answered and scored, split by step, and
its ratio to the limit of three minutes. Vectors come from the cache of `ai-assistant eval run scifact`; without
it random ones are searched, which costs the same and is said in the result.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from benchmarks import save
from cluster.cli.installation import Installation
from cluster.evaluation import BESIDE, FOLDERS
from cluster.temporary_qdrant import temporary_qdrant
from evals.beir import JudgedCollection, load_beir
from evals.suites import judged
from evals.vector_cache import VectorCache, model_hash

LIMIT_S = 180.0


def vectors(settings: Settings, collection: JudgedCollection) -> tuple[judged.Vectorised, bool]:
    """The cached vectors, or random ones; whether they are the cache's."""
    texts = [*collection.documents.values(), *collection.queries.values()]
    embedder = settings.embedder
    cache = VectorCache(
        settings.home / "evals" / "cache",
        model_hash(settings.embedder_path),
        embedder.max_tokens,
        embedder.dimension,
    )
    if cached := not cache.missing(texts):
        rows = cache.vectors(texts, lambda _: np.zeros((0, embedder.dimension), dtype=np.float32))
    else:
        rows = np.random.default_rng(0).standard_normal((len(texts), embedder.dimension)).astype(np.float32)
    count = len(collection.documents)
    return judged.Vectorised(collection, rows[:count], rows[count:]), cached


async def measure(settings: Settings, folder: Path, queries: int) -> dict[str, Any]:
    began = time.perf_counter()
    data, cached = vectors(settings, load_beir(folder))
    loaded = time.perf_counter() - began
    with temporary_qdrant(settings.home / "evals", "benchmark") as qdrant:
        store = VectorStore(qdrant)
        result = await judged.run(data, store, settings.model_copy(update={"qdrant": qdrant}), limit=queries)
        await store.close()
    total = time.perf_counter() - began
    return {
        "at": now().isoformat(),
        "queries": len(result.per_case),
        "documents": len(data.collection.documents),
        "vectors": "cached" if cached else "random",
        "seconds": {"load": round(loaded, 2), **result.meta["seconds"], "total": round(total, 2)},
        "of_the_limit": round(total / LIMIT_S, 3),
        "ndcg@10": {
            name.removesuffix("/ndcg@10"): round(interval.mean, 4)
            for name, interval in result.metrics.items()
            if name.endswith("/ndcg@10")
        },
    }


def table(result: dict[str, Any]) -> Table:
    shown = Table(
        title=f"{result['queries']} queries over {result['documents']} documents, {result['vectors']} vectors"
    )
    shown.add_column("step")
    shown.add_column("s", justify="right")
    shown.add_column("nDCG@10", justify="right")
    for step, seconds in result["seconds"].items():
        figure = result["ndcg@10"].get(step)
        shown.add_row(step, f"{seconds:.1f}", "" if figure is None else f"{figure:.4f}")
    shown.add_row("share of 180 s", f"{result['of_the_limit']:.2f}", "")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--data", type=Path, default=BESIDE / FOLDERS["scifact"])
    given = parser.parse_args()
    console = Console()
    if not given.data.is_dir():
        console.print(f"SKIPPED: SciFact is not at {given.data}; name its folder with --data.")
        return
    settings = Installation.load().settings
    result = asyncio.run(measure(settings, given.data, given.queries))
    save("evals", result)
    console.print(table(result))


if __name__ == "__main__":
    main()
