"""The scheduler: due runs start once, dead ones again, hopeless ones end; and nothing when switched off."""

import asyncio
import stat
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from assistant.clock import new_id, now
from assistant.errors import Unavailable
from assistant.settings import LearningSettings, Settings, load_settings
from assistant.stores.examples import ExampleRepository
from assistant.stores.jobs import JobRepository
from assistant.stores.learning_runs import JOB_KIND, LearningRunRepository
from assistant.stores.postgres import Database, rows
from serve_app.launching import RayLauncher, job_environment, write_settings
from serve_app.scheduler import RunKeeper, Scheduler
from tests.assistant.stores.test_examples import GOOD, Desk
from tests.fixtures_cluster import RayCluster
from tests.serve_app.conftest import until

pytestmark = pytest.mark.integration
LEARNING = LearningSettings(min_new_examples=3, relaunch_s=60, max_launches=2, schedule_s=0.05)


@dataclass
class FakeLauncher:
    """Keeps what was launched; the test says what is alive."""

    launched: list[tuple[str, UUID]] = field(default_factory=list)
    living: set[str] = field(default_factory=set)
    failure: Exception | None = None

    async def launch(self, reference: str, job_id: UUID) -> None:
        if self.failure is not None:
            raise self.failure
        self.launched.append((reference, job_id))
        self.living.add(reference)

    async def alive(self, reference: str) -> bool:
        return reference in self.living


class Room:
    """A keeper with its stores, and a clock that the test moves."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.desk = Desk(database)
        self.jobs = JobRepository(database)
        self.runs = LearningRunRepository(database)
        self.launcher = FakeLauncher()
        self.later = timedelta()
        self.settings = LEARNING.model_copy(update=settings)

    def keeper(self) -> RunKeeper:
        return RunKeeper(
            self.runs, ExampleRepository(self.database), self.launcher, self.settings, self.clock
        )

    def clock(self) -> datetime:
        return now() + self.later

    async def feed(self, count: int) -> None:
        document = await self.desk.document("public")
        for n in range(count):
            answer = await self.desk.answered(document, question=f"Question {now().isoformat()} {n}?")
            await self.desk.rate(answer, GOOD)


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


async def test_enough_feedback_starts_one_run(room: Room) -> None:
    await room.feed(2)
    await room.keeper().tick()
    assert await room.runs.alive() is None
    await room.feed(1)
    for _ in range(3):
        await room.keeper().tick()
    alive = await room.runs.alive()
    assert alive is not None
    assert alive.job.payload["reason"] == "3 new examples, 3 start a run"
    assert room.launcher.launched == [(f"learning-{alive.job.id}-1", alive.job.id)]


async def test_a_run_that_others_work_on_is_only_queued(database: Database) -> None:
    room = Room(database, launch="external")
    await room.feed(3)
    for _ in range(3):
        await room.keeper().tick()
    alive = await room.runs.alive()
    assert alive is not None
    assert (alive.job.status, alive.launches, room.launcher.launched) == ("queued", 0, [])


async def test_a_single_example_starts_a_run_after_a_day(room: Room) -> None:
    await room.feed(1)
    await room.keeper().tick()
    assert await room.runs.alive() is None
    room.later = timedelta(hours=24, minutes=1)
    await room.keeper().tick()
    assert await room.runs.alive() is not None


async def test_what_a_good_run_learned_is_not_news(room: Room) -> None:
    await room.feed(3)
    await room.keeper().tick()
    (_, job_id), *_ = room.launcher.launched
    await room.jobs.claim(JOB_KIND, "loop", 60)
    await room.jobs.finish(job_id, "loop", "done")
    await room.keeper().tick()
    assert await room.runs.alive() is None
    await room.feed(3)
    await room.keeper().tick()
    assert await room.runs.alive() is not None


async def test_a_failed_run_is_tried_again_later_with_the_same_examples(room: Room) -> None:
    await room.feed(3)
    await room.keeper().tick()
    (_, job_id), *_ = room.launcher.launched
    await room.jobs.claim(JOB_KIND, "loop", 60)
    await room.jobs.finish(job_id, "loop", "failed", "no disk")
    await room.keeper().tick()
    assert await room.runs.alive() is None
    room.later = timedelta(hours=1, minutes=1)
    await room.keeper().tick()
    assert await room.runs.alive() is not None


async def test_a_process_that_died_before_or_after_its_claim_is_started_again(room: Room) -> None:
    await room.runs.start({"reason": "asked for"})
    await room.keeper().tick()
    room.launcher.living.clear()
    await room.keeper().tick()
    assert len(room.launcher.launched) == 1, "a launch may not show at once"
    room.later = timedelta(seconds=61)
    await room.keeper().tick()
    assert len(room.launcher.launched) == 2
    job = await room.jobs.claim(JOB_KIND, "loop", 60)
    assert job is not None
    room.launcher.living.clear()
    await room.keeper().tick()
    assert len(room.launcher.launched) == 2, "its lease is not over"
    await room.jobs.renew(job.id, "loop", 0)
    room.settings = room.settings.model_copy(update={"max_launches": 3})
    await room.keeper().tick()
    assert [r for r, _ in room.launcher.launched] == [f"learning-{job.id}-{n}" for n in (1, 2, 3)]


async def test_a_run_that_dies_each_time_is_given_up(room: Room) -> None:
    job, _ = await room.runs.start({})
    for _ in range(4):
        await room.keeper().tick()
        room.launcher.living.clear()
        room.later += timedelta(seconds=61)
    ended = await room.runs.get(job.id)
    assert ended is not None
    assert ended.status == "failed"
    assert ended.error == "Its process was started 2 times and died each time. The logs say why."
    assert len(room.launcher.launched) == 2


async def test_a_launch_that_is_refused_is_repeated_soon(room: Room) -> None:
    job, _ = await room.runs.start({})
    room.launcher.failure = Unavailable("Ray does not answer.")
    with pytest.raises(Unavailable):
        await room.keeper().tick()
    room.launcher.failure = None
    await room.keeper().tick()
    assert room.launcher.launched == [(f"learning-{job.id}-1", job.id)]
    await room.keeper().tick()
    assert len(room.launcher.launched) == 1


async def test_switched_off_it_starts_only_what_somebody_asked_for(database: Database) -> None:
    room = Room(database, automatic=False)
    await room.feed(5)
    await room.keeper().tick()
    assert await room.runs.alive() is None
    await room.runs.start({"reason": "asked for"})
    await room.keeper().tick()
    assert len(room.launcher.launched) == 1


async def test_many_keepers_start_one_run(room: Room) -> None:
    await room.feed(3)
    await asyncio.gather(*(room.keeper().tick() for _ in range(4)))
    found = await room.database.repeatable(lambda c: rows(c, "select id from ai_assistant.jobs"))
    assert len(found) == 1


async def test_two_replicas_one_leads_and_the_other_takes_over(
    room: Room, database_url: str, tmp_path: Path
) -> None:
    settings = load_settings(
        {},
        overrides={
            "home": str(tmp_path),
            "postgres": {"url": database_url, "pool_max_size": 2},
            "qdrant": {"url": "http://127.0.0.1:1"},
            "learning": {"schedule_s": 0.05, "min_new_examples": 3},
        },
    )
    one, two = FakeLauncher(), FakeLauncher()
    first = await _scheduler(settings, one)
    await _until(first, leading=True)
    second = await _scheduler(settings, two)
    await room.feed(3)
    await first.notify()
    await until(lambda: bool(one.launched))
    assert (await second.health(), two.launched) == ({"leading": False}, [])
    (_, job_id) = one.launched[0]
    await first.close()
    first._open = False
    await _until(second, leading=True)
    await second.check_health()
    await room.jobs.claim(JOB_KIND, "loop", 60)
    await room.jobs.renew(job_id, "loop", 0)
    await until(lambda: bool(two.launched))
    assert two.launched == [(f"learning-{job_id}-2", job_id)]
    await second.close()
    second._open = False
    with pytest.raises(Unavailable):
        await second.check_health()


async def _scheduler(settings: Settings, launcher: FakeLauncher) -> Scheduler:
    # A replica's constructor is a coroutine that Serve awaits.
    scheduler = object.__new__(Scheduler)
    await Scheduler.__init__(scheduler, settings, launcher)  # type: ignore[func-returns-value, misc]
    return scheduler


async def _until(scheduler: Scheduler, *, leading: bool) -> None:
    async with asyncio.timeout(10):
        while (await scheduler.health())["leading"] != leading:
            await asyncio.sleep(0.01)


def test_the_settings_of_a_run_are_those_of_the_server_and_private(tmp_path: Path) -> None:
    settings = load_settings(
        {},
        overrides={
            "home": str(tmp_path),
            "postgres": {"url": "postgresql://u:geheim@127.0.0.1/d"},
            "qdrant": {"url": "http://127.0.0.1:1", "api_key": "key"},
            "learning": {"audience": ["public", "group:staff"]},
            "training": {"documents": ["/tmp/docs"]},
        },
    )
    path = write_settings(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    environment = job_environment(path)
    assert "geheim" not in str(environment)
    read = load_settings({"AI_ASSISTANT_CONFIG": environment["AI_ASSISTANT_CONFIG"]})
    models = read.llm.models_file
    assert read == settings.model_copy(
        update={"llm": settings.llm.model_copy(update={"models_file": models})}
    )


async def test_without_a_dashboard_an_actor_runs_the_process(ray_cluster: RayCluster, tmp_path: Path) -> None:
    settings = load_settings({}, overrides={"home": str(tmp_path)})
    launcher = RayLauncher(settings, module="tests.serve_app.learning_child")
    job_id = new_id()
    reference = f"learning-{job_id}-1"
    await launcher.launch(reference, job_id)
    await launcher.launch(reference, job_id)
    told = tmp_path / "learning" / f"{job_id}.started"
    await until(told.exists, 60)
    assert await launcher.alive(reference)
    assert told.read_text() == f"{tmp_path}\n"
    (tmp_path / "learning" / f"{job_id}.stop").touch()
    async with asyncio.timeout(60):
        while await launcher.alive(reference):
            await asyncio.sleep(0.05)
    assert not await launcher.alive("learning-unknown-1")
