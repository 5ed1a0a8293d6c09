"""The loop that takes jobs, over the real queue in Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from assistant.errors import StoreUnavailable
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.postgres import Database
from serve_app.job_loop import JobLoop
from tests.serve_app.conftest import until

pytestmark = pytest.mark.integration
LEASE_S = 30.0


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
async def start(jobs: JobRepository) -> AsyncIterator[Callable[..., JobLoop]]:
    loops: list[JobLoop] = []

    def make(run: Callable[[Job], Awaitable[None]], worker: str = "w1", at_once: int = 2) -> JobLoop:
        loop = JobLoop(jobs, "rfc", worker, run, lease_s=LEASE_S, at_once=at_once, poll_s=0.1)
        loops.append(loop)
        loop.start()
        return loop

    yield make
    for loop in loops:
        await loop.stop()


async def test_jobs_are_worked_on_a_few_at_once(jobs: JobRepository, start: Callable[..., JobLoop]) -> None:
    for n in range(5):
        await jobs.enqueue("rfc", {"n": n})
    release = asyncio.Event()
    seen: list[int] = []

    async def run(job: Job) -> None:
        seen.append(job.payload["n"])
        await release.wait()
        await jobs.finish(job.id, "w1", "done")

    loop = start(run)
    await until(lambda: len(seen) == 2)
    await asyncio.sleep(0.3)
    assert (sorted(seen), loop.running) == ([0, 1], 2)
    release.set()
    await until(lambda: len(seen) == 5 and loop.running == 0)
    assert sorted(seen) == [0, 1, 2, 3, 4]


async def test_notice_finds_a_job_and_so_does_the_next_look(
    jobs: JobRepository, start: Callable[..., JobLoop]
) -> None:
    seen: list[str] = []

    async def run(job: Job) -> None:
        seen.append(job.payload["n"])
        await jobs.finish(job.id, "w1", "done")

    loop = start(run)
    await jobs.enqueue("rfc", {"n": "told"})
    loop.notify()
    await until(lambda: seen == ["told"])
    await jobs.enqueue("rfc", {"n": "untold"})
    await until(lambda: seen == ["told", "untold"])


async def test_failure_of_one_job_does_not_stop_the_loop(
    jobs: JobRepository, start: Callable[..., JobLoop]
) -> None:
    first, second = await jobs.enqueue("rfc", {}), await jobs.enqueue("rfc", {})

    async def run(job: Job) -> None:
        if job.id == first.id:
            raise ValueError("bug")
        await jobs.finish(job.id, "w1", "done")

    loop = start(run, at_once=1)
    found = None
    async with asyncio.timeout(10):
        while found is None or found.status != "done":
            found = await jobs.get(second.id)
            await asyncio.sleep(0.02)
    assert loop.alive


async def test_stop_gives_the_lease_back(jobs: JobRepository, start: Callable[..., JobLoop]) -> None:
    job = await jobs.enqueue("rfc", {})

    async def run(_: Job) -> None:
        await asyncio.Event().wait()

    loop = start(run)
    await until(lambda: loop.running == 1)
    assert await jobs.claim("rfc", "w2", LEASE_S) is None
    await loop.stop()
    taken = await jobs.claim("rfc", "w2", LEASE_S)
    assert taken is not None
    assert (taken.id, taken.attempts) == (job.id, 2)
    assert not loop.alive


async def test_loop_outlives_a_store_that_is_away(
    jobs: JobRepository, start: Callable[..., JobLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, away = jobs.claim, True

    async def failing(kind: str, worker: str, lease_s: float) -> Job | None:
        if away:
            raise StoreUnavailable("Postgres does not answer.")
        return await claim(kind, worker, lease_s)

    monkeypatch.setattr(jobs, "claim", failing)
    seen: list[Job] = []

    async def run(job: Job) -> None:
        seen.append(job)
        await jobs.finish(job.id, "w1", "done")

    loop = start(run)
    await jobs.enqueue("rfc", {})
    await asyncio.sleep(0.3)
    assert loop.alive
    away = False
    await until(lambda: len(seen) == 1)
