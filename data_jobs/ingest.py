"""Bring the knowledge base up to date with its sources.

    python -m data_jobs.ingest --config dataset_config.yml
    python -m data_jobs.ingest ../handbook ../runbooks --json

Only new and changed documents are read further than their hash; vanished ones are removed. A run that was
killed is completed by the next one.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from rich.console import Console

from assistant.errors import AssistantError, InvalidInput, StoreUnavailable
from assistant.retrieval.embedders import Embedder, SentenceTransformerEmbedder
from assistant.settings import Settings, load_settings
from assistant.stores.documents import ManifestEntry
from assistant.stores.sources import SourceRepository
from assistant.stores.vectors import SearchFilter
from data_jobs.config import DatasetConfig, FolderSource, SourceConfig, folder_source, load_config
from data_jobs.job import Job, record
from data_jobs.live import bound_to_live
from data_jobs.locks import writing
from data_jobs.pipeline import connect, run_in_process, run_on_ray
from data_jobs.plan import Plan, make_plan
from data_jobs.progress import ProgressBar, ProgressListener, Silent
from data_jobs.report import DeadLetter, Engine, IngestReport, SourceReport
from data_jobs.store_stage import Stored, Stores

_BEGIN_BATCH = 500


class Ingestion:
    """One ingestion over some sources. `allow_empty` lets an empty source remove all that it had."""

    def __init__(
        self,
        settings: Settings,
        config: DatasetConfig,
        *,
        progress: ProgressListener | None = None,
        allow_empty: bool = False,
    ) -> None:
        self._given = self._settings = settings
        self._config = config
        self._progress = progress or Silent()
        self._allow_empty = allow_empty
        self._embedder: Embedder | None = None

    async def run(self) -> IngestReport:
        """Ingest every source, one after the other.

        A source that fails as a whole is told in its report and the next one goes on; a store that stays
        away raises StoreUnavailable, since no source could do without.
        """
        began = time.monotonic()
        alias = self._given.qdrant.collection

        def waiting() -> None:
            self._progress.phase(alias, "waiting for another embedder's collection to go live")

        async with writing(self._given, alias, waiting):
            self._settings = await bound_to_live(self._given)
            if self._embedder is not None and self._embedder.name != self._settings.embedder.name:
                self._embedder = None
            reports = await self._sources()
        return IngestReport(tuple(reports), time.monotonic() - began)

    async def _sources(self) -> list[SourceReport]:
        reports = []
        async with Stores.open(self._settings) as stores:
            for source in self._config.sources:
                reports.append(await self._source(stores, source))
        return reports

    async def _source(self, stores: Stores, source: SourceConfig) -> SourceReport:
        began = time.monotonic()
        known = await SourceRepository(stores.database).ensure(
            source.name, source.source_type, source.kind, source.model_dump(mode="json")
        )
        run_id = await stores.runs.start(known.id)
        job = Job(self._settings, source, known.id, run_id)
        report = SourceReport(source.name, source.kind)
        try:
            report = await self._ingest(stores, job)
        except InvalidInput as error:
            report = replace(report, error=str(error))
        except asyncio.CancelledError:
            await stores.runs.finish(run_id, "cancelled", {})
            raise
        except Exception as error:
            with suppress(StoreUnavailable):
                await stores.runs.finish(run_id, "failed", {}, str(error) or type(error).__name__)
            raise
        report = replace(report, seconds=time.monotonic() - began)
        counts = {
            name: getattr(report, name)
            for name in ("documents", "added", "changed", "unchanged", "removed", "failed", "chunks")
        }
        await stores.runs.finish(run_id, "failed" if report.error else "done", counts, report.error)
        return report

    async def _ingest(self, stores: Stores, job: Job) -> SourceReport:
        name = job.source.name
        self._progress.phase(name, "comparing")
        manifest = await stores.documents.manifest(job.source_id)
        lost = await self._lost(stores, job, manifest)
        plan = await asyncio.to_thread(make_plan, self._settings, job.source, job.source_id, manifest, lost)
        if manifest and not plan.listed and not self._allow_empty:
            raise InvalidInput(
                f"{name} has no documents any more, {len(manifest)} are stored.",
                hint="If that is right, repeat with --allow-empty to remove them.",
            )
        for skipped in plan.skipped:
            await stores.runs.error(job.run_id, skipped.external_id, "read", skipped.reason)
        self._progress.begin(name, len(plan.tasks))
        gone = list(plan.vanished.values())
        await stores.vectors.delete_documents(stores.collection, gone)
        if gone:
            await stores.check_live()
        await stores.documents.forget(gone)
        for start in range(0, len(plan.tasks), _BEGIN_BATCH):
            batch = plan.tasks[start : start + _BEGIN_BATCH]
            await stores.documents.begin([record(job, t, t.item.title) for t in batch])
        stored = await self._work(stores, job, plan, manifest)
        letters = await stores.runs.errors(job.run_id)
        return SourceReport(
            name,
            job.source.kind,
            documents=plan.listed,
            added=plan.added,
            changed=len(plan.tasks) - plan.added,
            unchanged=plan.unchanged,
            removed=len(gone),
            failed=len(letters),
            chunks=stored.chunks,
            engine=self._engine(plan, manifest),
            dead_letters=tuple(DeadLetter(e.external_id, e.stage, e.message) for e in letters),
        )

    def _engine(self, plan: Plan, manifest: dict[str, ManifestEntry]) -> Engine:
        """Ray from a certain number of documents on. Those that failed before mostly fail again, quickly."""
        if not plan.tasks:
            return "none"
        failed = {e.document_id for e in manifest.values() if e.status == "failed"}
        work = sum(task.document_id not in failed for task in plan.tasks)
        return "in process" if work <= self._settings.ingest.small_job_documents else "ray"

    async def _work(self, stores: Stores, job: Job, plan: Plan, manifest: dict[str, ManifestEntry]) -> Stored:
        name = job.source.name

        def advance(stored: Stored) -> None:
            self._progress.advance(name, stored)

        match self._engine(plan, manifest):
            case "none":
                return Stored()
            case "in process":
                return await run_in_process(plan.tasks, job, stores, self._load_embedder, advance)
            case _:
                self._progress.phase(name, "starting Ray")
                connect()
                self._progress.phase(name, "embedding on Ray")
                return await run_on_ray(plan.tasks, job, advance)

    def _load_embedder(self) -> Embedder:
        if self._embedder is None:
            self._embedder = SentenceTransformerEmbedder(
                self._settings.embedder, self._settings.embedder_path
            )
        return self._embedder

    async def _lost(self, stores: Stores, job: Job, manifest: dict[str, ManifestEntry]) -> frozenset[UUID]:
        """Documents that Postgres calls ready while the vector store has fewer of their chunks.

        It happens when the vector store was emptied or restored. One count tells when all is well.
        """
        ready = [e for e in manifest.values() if e.status == "ready" and e.chunk_count]
        expected = sum(entry.chunk_count for entry in ready)

        async def count(**conditions: str) -> int:
            return await stores.vectors.count(stores.collection, SearchFilter(job.source.acl, conditions))

        found = await count(source_id=str(job.source_id)) if ready else 0
        if found >= expected:
            return frozenset()
        if not found:
            return frozenset(entry.document_id for entry in ready)
        return frozenset(
            [e.document_id for e in ready if await count(document_id=str(e.document_id)) < e.chunk_count]
        )


async def folder_config(settings: Settings, folders: Sequence[Path]) -> DatasetConfig:
    """The configuration for folders given on the command line."""
    async with Stores.open(settings) as stores:
        known = await SourceRepository(stores.database).list()
    taken = {source.name: str(source.config.get("path", "")) for source in known}
    sources: list[FolderSource] = []
    for folder in folders:
        source = folder_source(folder, taken)
        taken[source.name] = str(source.path)
        sources.append(source)
    return DatasetConfig(sources=tuple(sources))


async def ingest(
    settings: Settings,
    *,
    config: Path | None = None,
    folders: Sequence[Path] = (),
    console: Console | None = None,
    allow_empty: bool = False,
) -> IngestReport:
    """What the command line does: the sources of a file, or folders; with a progress bar on `console`."""
    dataset = load_config(config) if config else await folder_config(settings, folders)
    if console is None:
        return await Ingestion(settings, dataset, allow_empty=allow_empty).run()
    with ProgressBar(console) as bar:
        return await Ingestion(settings, dataset, progress=bar, allow_empty=allow_empty).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a source or store failed, 2 wrong arguments or configuration, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m data_jobs.ingest", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders to ingest, instead of a configuration")
    parser.add_argument("--config", type=Path, help="default: dataset_config.yml")
    parser.add_argument("--allow-empty", action="store_true", help="an empty source removes what it had")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    given = parser.parse_args(arguments)
    if given.folders and given.config:
        parser.error("give folders or --config, not both")
    config = None if given.folders else given.config or Path("dataset_config.yml")
    console = Console(stderr=True)
    try:
        report = asyncio.run(
            ingest(
                load_settings(),
                config=config,
                folders=given.folders,
                console=None if given.json else console,
                allow_empty=given.allow_empty,
            )
        )
    except KeyboardInterrupt:
        console.print("Interrupted. The next run completes it.")
        return 130
    except AssistantError as error:
        console.print(f"[red]{type(error).__name__}:[/red] ", end="")
        console.print(str(error), markup=False, highlight=False)
        return 2 if error.status in {400, 500} else 1
    if given.json:
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False) + "\n")
    else:
        report.print(Console())
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
