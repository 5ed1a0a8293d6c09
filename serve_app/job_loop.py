"""Takes jobs of one kind out of the queue and works on a few at once."""

import asyncio
from collections.abc import Awaitable, Callable

from assistant.errors import AssistantError
from assistant.stores.jobs import Job, JobRepository
from assistant.telemetry import get_logger

POLL_S = 2.0
"""How soon a job is found that nobody told of: one whose lease ran out, or whose notice was lost."""

log = get_logger("jobs")


class JobLoop:
    """`run` works on one claimed job and keeps its lease; it says by itself how the job ended.

    A job that `run` does not end (because Postgres is away) is claimed again when its lease is over.
    """

    def __init__(
        self,
        jobs: JobRepository,
        kind: str,
        worker: str,
        run: Callable[[Job], Awaitable[None]],
        *,
        lease_s: float,
        at_once: int,
        poll_s: float = POLL_S,
    ) -> None:
        self._jobs = jobs
        self._kind = kind
        self._worker = worker
        self._run = run
        self._lease_s = lease_s
        self._at_once = at_once
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._loop: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    def start(self) -> None:
        """Call it on the event loop. A second call changes nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._work())

    def notify(self) -> None:
        """There may be a job now."""
        self._wake.set()

    async def stop(self) -> None:
        """Drop what runs and give the leases back, so that another worker goes on at once."""
        tasks = [task for task in (self._loop, *self._running) if task is not None]
        jobs = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in jobs:
            try:
                await self._jobs.renew(job.id, self._worker, 0.0)
            except AssistantError as error:
                log.warning("lease_not_returned", job_id=str(job.id), reason=error.detail)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            await self._fill()
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _fill(self) -> None:
        """Claim until there is nothing to do or no room."""
        while len(self._running) < self._at_once:
            try:
                job = await self._jobs.claim(self._kind, self._worker, self._lease_s)
            except AssistantError as error:
                log.warning("no_claim", kind=self._kind, reason=error.detail)
                return
            if job is None:
                return
            task = asyncio.create_task(self._one(job))
            self._running[task] = job
            task.add_done_callback(self._ended)

    async def _one(self, job: Job) -> None:
        log.info("job_started", job_id=str(job.id), kind=job.kind, attempt=job.attempts)
        try:
            await self._run(job)
        except AssistantError as error:
            log.warning("job_left", job_id=str(job.id), kind=job.kind, reason=error.detail)
        except Exception:
            log.exception("job_left", job_id=str(job.id), kind=job.kind)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.pop(task, None)
        self._wake.set()
