"""The progress of an ingestion on a terminal."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from data_jobs.store_stage import Stored


class ProgressListener(Protocol):
    """Is told what happens; `documents` is how many the source has to ingest."""

    def phase(self, source: str, name: str) -> None: ...

    def begin(self, source: str, documents: int) -> None: ...

    def advance(self, source: str, stored: Stored) -> None: ...


class Silent:
    def phase(self, source: str, name: str) -> None: ...

    def begin(self, source: str, documents: int) -> None: ...

    def advance(self, source: str, stored: Stored) -> None: ...


class ProgressBar:
    """One line per source: documents, chunks, chunks per second, time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[phase]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[chunks]} chunks"),
            _ChunkRate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, source: str, name: str) -> None:
        self._progress.update(self._task(source), phase=name)

    def begin(self, source: str, documents: int) -> None:
        self._progress.update(self._task(source), total=documents, phase="embedding")

    def advance(self, source: str, stored: Stored) -> None:
        task = self._task(source)
        chunks = self._progress.tasks[self._progress.task_ids.index(task)].fields["chunks"] + stored.chunks
        self._progress.update(task, advance=stored.documents + stored.failed, chunks=chunks)

    def _task(self, source: str) -> TaskID:
        if source not in self._tasks:
            self._tasks[source] = self._progress.add_task(source, total=None, chunks=0, phase="")
        return self._tasks[source]


class _ChunkRate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        rate = task.fields["chunks"] / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f}/s")
