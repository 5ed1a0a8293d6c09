"""One learning run, from feedback to a deployed adapter: `python -m training.loop --job ID`, or `--next` for the
run that waits, if there is one.

The job is a row in Postgres: this process claims it under a lease, tells its steps as events, and leaves each
step's result in the run's folder. Killed anywhere, it is started again and goes on with the first step that
has no result. Whatever fails, the champion keeps serving.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from assistant.clock import new_id
from assistant.errors import AssistantError, Conflict, StoreUnavailable, Unavailable
from assistant.llm.catalog import load_catalog
from assistant.settings import Settings, load_settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.examples import ExampleRepository
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.learning_runs import JOB_KIND
from assistant.stores.postgres import Database
from assistant.telemetry import configure_logging, get_logger
from training.loop_folder import RunFolder
from training.loop_steps import ALL, ROOT, Step
from training.loop_work import Work, learning_spec
from training.priority import yield_to_serving

LEASE_S = 60.0
RENEW_S = 15.0
TELL_S = 2.0
"""Least pause between two events about the progress of one step."""

log = get_logger("learning")


class LearningRun:
    """A claimed job on its way through the steps."""

    def __init__(
        self,
        jobs: JobRepository,
        job: Job,
        worker: str,
        work: Work,
        steps: Mapping[str, Step] = ALL,
    ) -> None:
        self._jobs = jobs
        self._steps = steps
        self._job = job
        self._worker = worker
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._said: dict[str, float] = {}
        self._ended: set[str] = set()

    async def run(self) -> Mapping[str, Any]:
        """Every step that has no result yet, then `done`. The result of the last step.

        Raises what a step raises; StoreUnavailable and Unavailable leave the job for another start.
        """
        result: dict[str, Any] = {}
        for name, step in self._steps.items():
            kept = self._work.folder.result(name)
            if kept is not None:
                result = kept
                continue
            began = time.monotonic()
            await self._event(name, "started", 0.0, "")
            try:
                result = await step(self._work, partial(self._tell, name, began))
            except AssistantError as error:
                self._ended.add(name)
                await self._event(name, "failed", time.monotonic() - began, error.detail)
                raise
            self._ended.add(name)
            self._work.folder.keep(name, result)
            await self._event(name, "done", time.monotonic() - began, summary(name, result), result)
        await self._jobs.append_event(self._job.id, "done", result)
        return result

    def _tell(self, name: str, began: float, text: str) -> None:
        """From any thread. What comes too fast is left out: the next one says more."""
        now = time.monotonic()
        if now - self._said.get(name, 0.0) < TELL_S:
            return
        self._said[name] = now
        future = asyncio.run_coroutine_threadsafe(self._progress(name, now - began, text), self._loop)
        # A lost word on progress is no reason to stop a training.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _progress(self, name: str, seconds: float, text: str) -> None:
        if name not in self._ended:
            await self._event(name, "running", seconds, text)

    async def _event(
        self, name: str, status: str, seconds: float, detail: str, result: Mapping[str, Any] | None = None
    ) -> None:
        data = {"name": name, "status": status, "seconds": round(seconds, 2), "detail": detail[:1000]}
        log.info("step", run=str(self._job.id), **data)
        await self._jobs.append_event(
            self._job.id, "step", data | ({"result": dict(result)} if result is not None else {})
        )


def summary(step: str, result: Mapping[str, Any]) -> str:
    """One line about a finished step."""
    match step:
        case "collect":
            return f"{result['examples']} usable examples"
        case "build":
            return ", ".join(f"{count} {side}" for side, count in result["rows"].items())
        case "train":
            metrics = result["metrics"]
            return (
                f"validation loss {metrics.get('base_nll', 0):.3f} → {metrics.get('best_nll', 0):.3f} "
                f"in {metrics.get('steps', 0):.0f} steps"
            )
        case "evaluate":
            return _differences(result["metrics"])
        case "gate":
            return f"{'passed' if result['promote'] else 'refused'}: {'; '.join(result['reasons'])}"
        case _:
            if not result["deployed"]:
                return f"{result['adapter']} refused; the champion stays"
            return f"{result['adapter']} is {result['alias']}"


def _differences(metrics: Mapping[str, Any]) -> str:
    found = [
        f"{name.removesuffix(' difference')} {m['difference']:+.3f} [{m['low']:+.3f}, {m['high']:+.3f}] {m['verdict']}"
        for name, m in metrics.items()
        if name.endswith(" difference")
    ]
    return "; ".join(found)


async def work_on(settings: Settings, job_id: UUID | None) -> Mapping[str, Any] | None:
    """Claim the run and work on it. Raises Conflict when somebody else does, NotFound for no such run.

    Without an id, the run that waits or was abandoned; None when there is none.
    """
    database = Database(settings.postgres)
    await database.open()
    try:
        jobs = JobRepository(database)
        worker = f"learning-{os.getpid()}-{new_id()}"
        job = await jobs.claim(JOB_KIND, worker, LEASE_S)
        if job is None and job_id is None:
            return None
        if job is None or job_id not in (None, job.id):
            raise Conflict(f"The learning run {job_id} has ended, or another process works on it.")
        async with _leased(jobs, job, worker):
            return await finished(jobs, job, worker, await _started(settings, database, jobs, job, worker))
    finally:
        await database.close()


async def _started(
    settings: Settings, database: Database, jobs: JobRepository, job: Job, worker: str
) -> "LearningRun | AssistantError":
    try:
        own = with_wishes(settings, job.payload)
        models = own.llm.models_file
        path = models if models.is_absolute() or models.is_file() else ROOT / models
        spec = learning_spec(load_catalog(path, own.home), job.payload.get("model"))
    except AssistantError as error:
        return error
    folders = [Path(p) for p in job.payload.get("documents") or ()] or list(own.training.documents)
    work = Work(
        own,
        spec,
        RunFolder.of(own.home, job.id),
        ExampleRepository(database, own.learning.audience),
        DeploymentRepository(database),
        folders,
        str(job.id),
    )
    return LearningRun(jobs, job, worker, work)


async def finished(
    jobs: JobRepository, job: Job, worker: str, run: "LearningRun | AssistantError"
) -> Mapping[str, Any]:
    """Run to the end and say how it ended, except after what another start may mend."""
    try:
        if isinstance(run, AssistantError):
            raise run
        result = await run.run()
    except (StoreUnavailable, Unavailable):
        # The lease runs out and the Scheduler starts the run again, a limited number of times.
        raise
    except AssistantError as error:
        await jobs.append_event(job.id, "error", {"problem": error.problem()})
        await jobs.finish(job.id, worker, "failed", str(error))
        raise
    await jobs.finish(job.id, worker, "done")
    return result


def with_wishes(settings: Settings, payload: Mapping[str, Any]) -> Settings:
    """The settings with those of this run. Raises ConfigurationError naming the key that is wrong."""
    wishes = payload.get("settings") or {}
    if not wishes:
        return settings
    return load_settings(overrides=wishes)


@contextlib.asynccontextmanager
async def _leased(jobs: JobRepository, job: Job, worker: str) -> AsyncIterator[None]:
    """Keeps the lease while the body works; ends the body when the run was cancelled or taken over."""
    body = asyncio.current_task()
    assert body is not None

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if not await jobs.renew(job.id, worker, LEASE_S):
                    body.cancel()
                    return
            except AssistantError as error:
                log.warning("lease_not_renewed", run=str(job.id), reason=error.detail)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", type=UUID, help="id of a queued learning run")
    which.add_argument("--next", action="store_true", help="the run that waits, if there is one")
    given = parser.parse_args()
    yield_to_serving()
    settings = load_settings()
    configure_logging(settings.telemetry, "learning")
    try:
        result = asyncio.run(work_on(settings, given.job))
    except AssistantError as error:
        log.error("run_ended", run=str(given.job), code=error.code, reason=str(error))
        # A thread of Ray or torch must not keep the process, and with it the lease, alive.
        sys.stderr.flush()
        os._exit(1)
    except asyncio.CancelledError:
        log.warning("run_lost", run=str(given.job))
        os._exit(1)
    if result is None:
        log.info("no_run_waits")
        return
    log.info("run_done", run=str(given.job), **{k: v for k, v in result.items() if k != "reasons"})


if __name__ == "__main__":
    main()
