"""Ingestion against a bare embedding loop, and an unchanged corpus: `python -m benchmarks.ingest [FOLDER]`.

All in one run, on the same texts, one torch thread each:
  bare        the model alone over the finished chunk texts, batched and sorted by length
  in process  the whole ingestion without Ray
  ray         the whole ingestion on a fresh local cluster; `steady` leaves out what comes before the first
              stored documents (cluster, actors, torch, weights), which does not grow with the corpus
  unchanged   the same corpus again
"""

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.retrieval.embedders import SentenceTransformerEmbedder
from assistant.settings import Settings
from benchmarks import save
from benchmarks._stores import private_stores
from data_jobs.chunk_stage import chunk_task
from data_jobs.config import DatasetConfig, PythonPackagesSource, SourceConfig, folder_source
from data_jobs.ingest import Ingestion
from data_jobs.job import Job
from data_jobs.plan import make_plan
from data_jobs.store_stage import Stored

UNCHANGED_RUNS = 3
FEWEST_REPORTS = 6


class Watch:
    """A progress listener that notes when the first and the last documents were stored."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def phase(self, source: str, name: str) -> None: ...

    def begin(self, source: str, documents: int) -> None: ...

    def advance(self, source: str, stored: Stored) -> None:
        if stored.chunks:
            self.marks.append((time.perf_counter(), stored.chunks))

    def steady(self) -> float | None:
        """Chunks per second after the first report; None when there are too few to tell."""
        if len(self.marks) < FEWEST_REPORTS:
            return None
        return sum(chunks for _, chunks in self.marks[1:]) / (self.marks[-1][0] - self.marks[0][0])


def texts_of(settings: Settings, source: SourceConfig) -> list[str]:
    job = Job(settings, source, uuid4(), uuid4())
    plan = make_plan(settings, source, job.source_id, {})
    parts = [part for task in plan.tasks for part in chunk_task(task, job)]
    return [chunk.text for part in parts for chunk in part.chunks]


def run(settings: Settings, source: SourceConfig, watch: Watch | None = None) -> tuple[float, Any]:
    began = time.perf_counter()
    config = DatasetConfig(sources=(source,))
    report = asyncio.run(Ingestion(settings, config, progress=watch).run())
    return time.perf_counter() - began, report.sources[0]


def measure(source: SourceConfig) -> dict[str, Any]:
    result: dict[str, Any] = {"at": now().isoformat(), "source": source.name}
    with private_stores() as settings:
        embedder = SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)
        texts = texts_of(settings, source)
        began = time.perf_counter()
        embedder.embed(texts)
        bare_s = time.perf_counter() - began
        del embedder
        result |= {"chunks": len(texts), "bare": {"seconds": bare_s, "chunks_per_s": len(texts) / bare_s}}
    for name, limit in (("in process", 1_000_000), ("ray", 0)):
        with private_stores() as settings:
            settings = settings.model_copy(
                update={"ingest": settings.ingest.model_copy(update={"small_job_documents": limit})}
            )
            watch = Watch()
            seconds, report = run(settings, source, watch)
            again = [run(settings, source) for _ in range(UNCHANGED_RUNS)]
            unchanged_s = statistics.median(s for s, _ in again)
            steady = watch.steady()
            result[name] = {
                "documents": report.documents,
                "chunks": report.chunks,
                "engine": report.engine,
                "seconds": seconds,
                "chunks_per_s": report.chunks / seconds,
                "of_bare": report.chunks / seconds / result["bare"]["chunks_per_s"],
                "steady_of_bare": steady and steady / result["bare"]["chunks_per_s"],
                "unchanged_seconds": unchanged_s,
                "unchanged_times_faster": seconds / unchanged_s,
                "unchanged_chunks": again[-1][1].chunks,
            }
    return result


def table(result: dict[str, Any]) -> Table:
    shown = Table(title=f"{result['chunks']} chunks of {result['source']}")
    for name in ("way", "seconds", "chunks/s", "of bare", "steady, of bare", "unchanged s", "times faster"):
        shown.add_column(name, justify="left" if name == "way" else "right")
    bare = result["bare"]
    shown.add_row("bare", f"{bare['seconds']:.1f}", f"{bare['chunks_per_s']:.1f}", "1.00")
    for name in ("in process", "ray"):
        r = result[name]
        steady = "" if r["steady_of_bare"] is None else f"{r['steady_of_bare']:.2f}"
        shown.add_row(
            name,
            f"{r['seconds']:.1f}",
            f"{r['chunks_per_s']:.1f}",
            f"{r['of_bare']:.2f}",
            steady,
            f"{r['unchanged_seconds']:.2f}",
            f"{r['unchanged_times_faster']:.0f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="default: installed Python packages")
    parser.add_argument("--documents", type=int, default=60, help="most documents of the packages")
    given = parser.parse_args()
    source: SourceConfig
    if given.folder:
        source = folder_source(given.folder)
    else:
        source = PythonPackagesSource(kind="python_packages", name="python-packages", limit=given.documents)
    result = measure(source)
    save("ingest", result)
    Console().print(table(result))


if __name__ == "__main__":
    main()
