"""Jobs: claimed by one, never lost, reported in order."""

import asyncio
from uuid import uuid4

import pytest

from assistant.errors import InvalidInput, NotFound
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.postgres import Database

pytestmark = pytest.mark.integration

EXPIRED = -1.0


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


async def test_two_workers_never_get_the_same_job(jobs: JobRepository) -> None:
    queued = [await jobs.enqueue("rfc", {"n": n}) for n in range(30)]

    async def worker(name: str) -> list[Job]:
        mine = []
        while job := await jobs.claim("rfc", name, 60):
            assert job.worker == name
            mine.append(job)
        return mine

    claimed = await asyncio.gather(*(worker(f"w{n}") for n in range(6)))
    ids = [job.id for mine in claimed for job in mine]
    assert sorted(ids) == [job.id for job in queued]


async def test_the_oldest_job_of_the_kind_comes_first(jobs: JobRepository) -> None:
    await jobs.enqueue("other", {})
    first = await jobs.enqueue("rfc", {"title": "a\x00b"})
    await jobs.enqueue("rfc", {})
    claimed = await jobs.claim("rfc", "w", 60)
    assert claimed is not None
    assert (claimed.id, claimed.status, claimed.attempts) == (first.id, "running", 1)
    assert claimed.payload == {"title": "ab"}


async def test_an_expired_lease_is_claimable_again(jobs: JobRepository) -> None:
    job = await jobs.enqueue("rfc", {})
    assert await jobs.claim("rfc", "dead", EXPIRED) is not None
    again = await jobs.claim("rfc", "alive", 60)
    assert again is not None
    assert (again.id, again.worker, again.attempts) == (job.id, "alive", 2)
    assert await jobs.claim("rfc", "third", 60) is None
    assert not await jobs.renew(job.id, "dead", 60)
    assert not await jobs.finish(job.id, "dead", "done")
    assert await jobs.finish(job.id, "alive", "done")


async def test_a_renewed_lease_is_kept(jobs: JobRepository) -> None:
    job = await jobs.enqueue("rfc", {})
    await jobs.claim("rfc", "w", EXPIRED)
    assert await jobs.renew(job.id, "w", 60)
    assert await jobs.claim("rfc", "other", 60) is None


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
async def test_a_finished_job_stays_finished(jobs: JobRepository, status: str) -> None:
    job = await jobs.enqueue("rfc", {})
    await jobs.claim("rfc", "w", EXPIRED)
    assert await jobs.finish(job.id, "w", status, "why")  # type: ignore[arg-type]
    assert await jobs.finish(job.id, "w", status, "why"), "repeating is harmless"  # type: ignore[arg-type]
    assert await jobs.claim("rfc", "w", 60) is None
    assert not await jobs.cancel(job.id)
    found = await jobs.get(job.id)
    assert found is not None
    assert (found.status, found.error, found.finished) == (status, "why", True)
    assert found.finished_at is not None


async def test_an_unknown_end_is_refused(jobs: JobRepository) -> None:
    job = await jobs.enqueue("rfc", {})
    with pytest.raises(InvalidInput, match="done, failed, cancelled"):
        await jobs.finish(job.id, "w", "succeeded")  # type: ignore[arg-type]


async def test_cancelling_reaches_queue_and_worker(jobs: JobRepository) -> None:
    queued, running = await jobs.enqueue("a", {}), await jobs.enqueue("b", {})
    await jobs.claim("b", "w", 60)
    assert await jobs.cancel(queued.id)
    assert await jobs.cancel(running.id)
    assert await jobs.claim("a", "w", 60) is None
    assert not await jobs.renew(running.id, "w", 60)
    assert not await jobs.finish(running.id, "w", "done")
    assert not await jobs.cancel(uuid4())
    assert await jobs.get(uuid4()) is None


async def test_an_idempotency_key_returns_the_same_job(jobs: JobRepository) -> None:
    first = await jobs.enqueue("rfc", {"n": 1}, "ada:1")
    made = await asyncio.gather(*(jobs.enqueue("rfc", {"n": 2}, "ada:1") for _ in range(8)))
    assert {job.id for job in made} == {first.id}
    assert made[0].payload == {"n": 1}
    assert (await jobs.enqueue("docs", {}, "ada:1")).id != first.id
    assert (await jobs.enqueue("rfc", {}, None)).id != (await jobs.enqueue("rfc", {}, None)).id


async def test_concurrent_first_uses_of_a_key_make_one_job(jobs: JobRepository) -> None:
    made = await asyncio.gather(*(jobs.enqueue("rfc", {}, "new") for _ in range(8)))
    assert len({job.id for job in made}) == 1


async def test_events_are_numbered_in_order_and_resumed(jobs: JobRepository) -> None:
    job, other = await jobs.enqueue("rfc", {}), await jobs.enqueue("rfc", {})
    await jobs.append_event(other.id, "stage", {})
    numbers = await asyncio.gather(*(jobs.append_event(job.id, "stage", {"n": n}) for n in range(10)))
    assert sorted(numbers) == list(range(1, 11))
    events = await jobs.events_after(job.id, 0)
    assert [event.seq for event in events] == list(range(1, 11))
    assert {event.data["n"] for event in events} == set(range(10))
    assert await jobs.events_after(job.id, 7) == events[7:]
    assert await jobs.events_after(job.id, 0, limit=2) == events[:2]
    assert await jobs.events_after(job.id, 10) == []


async def test_an_event_of_an_unknown_job_is_not_found(jobs: JobRepository) -> None:
    with pytest.raises(NotFound):
        await jobs.append_event(uuid4(), "stage", {})
