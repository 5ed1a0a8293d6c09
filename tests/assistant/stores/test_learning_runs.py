"""Learning runs: one alive at a time, one scheduler at a time."""

import asyncio

import pytest

from assistant.stores.jobs import JobRepository
from assistant.stores.learning_runs import JOB_KIND, LearningRunRepository
from assistant.stores.postgres import Database

pytestmark = pytest.mark.integration


@pytest.fixture
def runs(database: Database) -> LearningRunRepository:
    return LearningRunRepository(database)


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


async def test_however_many_start_one_run_is_alive(runs: LearningRunRepository, jobs: JobRepository) -> None:
    started = await asyncio.gather(*(runs.start({"n": n}) for n in range(6)))
    assert sum(new for _, new in started) == 1
    assert len({job.id for job, _ in started}) == 1
    alive = await runs.alive()
    assert alive is not None
    assert (alive.job.id, alive.launches, alive.launch, alive.abandoned) == (started[0][0].id, 0, None, False)
    job = await jobs.claim(JOB_KIND, "w", 60)
    assert job is not None
    assert not (await runs.start({}))[1]
    await jobs.finish(job.id, "w", "done")
    assert await runs.alive() is None
    assert (await runs.start({}))[1]


async def test_one_scheduler_leads_until_its_lease_is_over(runs: LearningRunRepository) -> None:
    assert await runs.lead("a", 60)
    assert not await runs.lead("b", 60)
    assert await runs.lead("a", 0)
    assert await runs.lead("b", 60)
    await runs.resign("a")
    assert not await runs.lead("a", 60)
    await runs.resign("b")
    assert await runs.lead("a", 60)


async def test_a_run_whose_process_died_is_seen_and_can_be_given_up(
    runs: LearningRunRepository, jobs: JobRepository
) -> None:
    job, _ = await runs.start({"reason": "r"})
    await runs.note_launch(job.id, "learning-1", 1)
    await jobs.claim(JOB_KIND, "w", 60)
    assert not await runs.give_up(job.id, "no")
    await jobs.renew(job.id, "w", 0)
    alive = await runs.alive()
    assert alive is not None
    assert (alive.abandoned, alive.launches, alive.launch) == (True, 1, "learning-1")
    assert alive.launched_at is not None
    assert alive.job.payload["reason"] == "r"
    assert await runs.give_up(job.id, "it died five times")
    assert not await runs.give_up(job.id, "again")
    ended = await runs.get(job.id)
    assert ended is not None
    assert (ended.status, ended.error) == ("failed", "it died five times")
    history = await runs.history()
    assert (history.learned_at, history.last_at) == (None, job.created_at)
    assert history.failed_at == ended.finished_at


async def test_history_tells_good_ends_from_bad(runs: LearningRunRepository, jobs: JobRepository) -> None:
    assert (await runs.history()).last_at is None
    good, _ = await runs.start({})
    await jobs.claim(JOB_KIND, "w", 60)
    await jobs.finish(good.id, "w", "done")
    cancelled, _ = await runs.start({})
    await jobs.cancel(cancelled.id)
    history = await runs.history()
    assert (history.learned_at, history.last_at, history.failed_at) == (
        good.created_at,
        good.created_at,
        None,
    )
    page = await runs.page(None, 1)
    assert [j.id for j in page.items] == [cancelled.id]
    assert [j.id for j in (await runs.page(page.next_cursor, 5)).items] == [good.id]
    other = await jobs.enqueue("rfc", {})
    assert await runs.get(other.id) is None


async def test_steps_show_their_last_word_in_order(runs: LearningRunRepository, jobs: JobRepository) -> None:
    job, _ = await runs.start({})
    for name, status in (
        ("collect", "started"),
        ("collect", "done"),
        ("build", "started"),
        ("build", "done"),
    ):
        await jobs.append_event(job.id, "step", {"name": name, "status": status})
    await jobs.append_event(job.id, "step", {"name": "train", "status": "started"})
    await jobs.append_event(job.id, "progress", {"name": "train", "step": 3})
    await jobs.append_event(job.id, "step", {"name": "collect", "status": "done", "detail": "again"})
    steps = (await runs.steps([job.id]))[job.id]
    assert [(s.data["name"], s.data["status"]) for s in steps] == [
        ("collect", "done"),
        ("build", "done"),
        ("train", "started"),
    ]
    assert steps[0].data["detail"] == "again"
