"""Parse, chunk, embed and store the documents of one plan: on Ray Data, or in this process for a few.

Both ways run the same stages, so they give the same result.
"""

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from assistant.errors import AssistantError, Unavailable
from assistant.retrieval.embedders import Embedder
from data_jobs.chunk_stage import chunk_row, chunk_task
from data_jobs.embed_stage import EmbedStage, embed_parts
from data_jobs.job import Job, Part, Task
from data_jobs.store_stage import Stored, Stores, StoreStage

Report = Callable[[Stored], None]

DOCUMENTS_PER_BLOCK = 8
PARTS_PER_BATCH = 16
"""Parts embedded in one call, which sorts their chunks by length: more means less padding."""
POLL_S = 0.5
START_ATTEMPTS = 3
IN_PROCESS_DOCUMENTS = 8


async def run_in_process(
    tasks: Sequence[Task], job: Job, stores: Stores, load: Callable[[], Embedder], report: Report
) -> Stored:
    """Without Ray: an actor pool costs more seconds than a handful of documents.

    `load` is called when there is something to embed: a file that stays broken must not cost a model.
    """
    stage = StoreStage(stores, job)
    total = Stored()
    for start in range(0, len(tasks), IN_PROCESS_DOCUMENTS):
        batch = tasks[start : start + IN_PROCESS_DOCUMENTS]
        parts = [part for task in batch for part in await asyncio.to_thread(chunk_task, task, job)]
        for first in range(0, len(parts), PARTS_PER_BATCH):
            some = parts[first : first + PARTS_PER_BATCH]
            if any(part.chunks for part in some):
                some = await asyncio.to_thread(_embed, some, load)
            stored = await stage.store(some)
            report(stored)
            total += stored
    return total


def _embed(parts: list[Part], load: Callable[[], Embedder]) -> list[Part]:
    return embed_parts(parts, load())


def connect() -> None:
    """Join the cluster named by RAY_ADDRESS, or start a small one that ends with this process."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    where = (
        {"address": address} if address else {"address": "local", "num_cpus": 2, "include_dashboard": False}
    )
    for attempt in range(START_ATTEMPTS):
        try:
            with _no_stderr():
                ray.init(**where, **quiet)
            return
        except Exception as error:
            # Ray gives its own node 30 s, which a busy machine does not make, and raises bare exceptions.
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                name = f"the cluster at RAY_ADDRESS={address}" if address else "a local cluster"
                raise Unavailable(
                    f"Ray: {name} does not answer: {error}",
                    hint="Look at `ai-assistant status`, then run it again.",
                ) from error


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's C++ side writes straight to file descriptor 2, across the progress bar. Its errors are raised too."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


async def run_on_ray(tasks: Sequence[Task], job: Job, report: Report) -> Stored:
    """On the connected cluster. Reports while it runs; raises the stages' own errors."""
    import ray

    counter = ray.remote(num_cpus=0)(_Counter).remote()
    running = asyncio.create_task(asyncio.to_thread(_execute, tasks, job, counter))
    try:
        while not running.done():
            await asyncio.wait([running], timeout=POLL_S)
            report(await counter.take.remote())
        return await running
    finally:
        if running.done():
            ray.kill(counter)
        else:
            # Interrupted: without its connection the thread ends, and the cluster drops the job.
            ray.shutdown()


def _execute(tasks: Sequence[Task], job: Job, counter: Any) -> Stored:
    import ray
    from ray.data import ActorPoolStrategy
    from ray.exceptions import RayError

    from data_jobs.datasinks import ChunkSink

    quiet_ray_data()
    settings = job.settings
    sink = ChunkSink(job, counter)
    try:
        (
            ray.data.from_items(
                [task.row() for task in tasks],
                override_num_blocks=max(1, len(tasks) // DOCUMENTS_PER_BLOCK),
            )
            .flat_map(functools.partial(chunk_row, job=job))
            .map_batches(
                EmbedStage,
                fn_constructor_args=(settings.embedder, settings.embedder_path),
                batch_size=PARTS_PER_BATCH,
                batch_format="pyarrow",
                num_cpus=1,
                compute=ActorPoolStrategy(size=settings.ingest.embed_actors),
            )
            .write_datasink(sink, ray_remote_args={"num_cpus": 0.1})
        )
    except RayError as error:
        raise cause_of(error) from None
    return sink.total


def quiet_ray_data() -> None:
    """Progress is shown by us, once."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Counter:
    """Sums what the write tasks report, wherever they run."""

    def __init__(self) -> None:
        self._sum = Stored()

    def add(self, stored: Stored) -> None:
        self._sum += stored

    def take(self) -> Stored:
        taken, self._sum = self._sum, Stored()
        return taken


def cause_of(error: BaseException) -> BaseException:
    """The product's own error inside Ray's wrapping, else Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AssistantError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
