"""A learning run: its steps with a tiny model and a real registry, and what crashes and refusals leave."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import training.loop_evaluation
import training.loop_steps
from assistant.clock import new_id, now
from assistant.errors import ConfigurationError, InvalidInput, Unavailable
from assistant.llm.adapters import base_fingerprint, read_adapter
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.settings import Settings, load_settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.examples import ExampleRepository, LearningExample
from assistant.stores.jobs import Job, JobRepository
from assistant.stores.learning_runs import JOB_KIND, LearningRunRepository
from assistant.stores.postgres import Database
from assistant.types import Message
from serve_app.aliases import follower
from tests.fixtures_cluster import RayCluster
from tests.training.tiny import QUICK
from training.loop import LearningRun, finished, with_wishes, work_on
from training.loop_folder import RunFolder
from training.loop_steps import ALL
from training.loop_work import Tell, Work, learning_spec
from training.registry import Registry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

MODEL = "tiny"
SYLLABLES = ("la", "ko", "mi", "ra", "tu", "se")


def example(number: int) -> LearningExample:
    # No two alike: what repeats a held-out answer is not learned from.
    chosen = random.Random(number)
    return LearningExample(
        id=UUID(int=number + 1),
        kind="answer",
        messages=(Message("user", f"What does part {number} do?"),),
        response=" ".join(chosen.choice(SYLLABLES) + chosen.choice(SYLLABLES) for _ in range(24)) + ".",
        quality=0.9,
        acl=("public",),
        document_ids=(UUID(int=1000 + number),),
        rfc_id=None,
        created_at=now(),
        metadata={"split_hash": f"h{number}"},
    )


async def collected(work: Work, tell: Tell) -> dict[str, Any]:
    """In place of feedback: forty examples, each on a document of its own."""
    work.folder.keep_examples([example(n) for n in range(40)])
    return {"examples": 40}


class Runs:
    """Starts and claims runs of one test."""

    def __init__(self, database: Database, settings: Settings, base: Path) -> None:
        self.database = database
        self.settings = settings
        self.base = base
        self.jobs = JobRepository(database)
        self.deployments = DeploymentRepository(database)

    async def claim(self, worker: str = "w") -> Job:
        await LearningRunRepository(self.database).start({"reason": "test"})
        job = await self.jobs.claim(JOB_KIND, worker, 60.0)
        assert job is not None
        return job

    def work(self, job: Job, **evals: Any) -> Work:
        settings = self.settings.model_copy(update={"evals": self.settings.evals.model_copy(update=evals)})
        spec = ModelSpec(name=MODEL, engine="llama_cpp", path=self.base)
        folder = RunFolder.of(settings.home, job.id)
        examples = ExampleRepository(self.database)
        return Work(settings, spec, folder, examples, self.deployments, (), str(job.id))

    async def events(self, job: Job) -> list[tuple[str, str]]:
        found = await self.jobs.events_after(job.id, 0, 1000)
        return [(e.data.get("name", e.type), e.data.get("status", e.type)) for e in found]


@pytest.fixture
def runs(database: Database, tmp_path: Path, tiny_base: Path) -> Runs:
    settings = Settings(home=tmp_path / "home", training=QUICK.model_copy(update={"max_tokens": 400}))
    evals = settings.evals.model_copy(update={"written_rows": 0, "harm_margin": 99.0, "draws": 500})
    return Runs(database, settings.model_copy(update={"evals": evals}), tiny_base)


def dying_once(steps: Mapping[str, Any], died: list[str]) -> dict[str, Any]:
    """Each step dies once, at the worst moment: all is done and nothing recorded."""

    def dying(name: str, step: Any) -> Any:
        async def run(work: Work, tell: Tell) -> dict[str, Any]:
            result: dict[str, Any] = await step(work, tell)
            if name not in died:
                died.append(name)
                raise KilledError(name)
            return result

        return run

    return {name: dying(name, step) for name, step in steps.items()}


def here(settings: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of `apart`: in this process."""
    return function(*args, **kwargs)


class KilledError(Exception):
    """Stands for kill -9: no step may catch it."""


def fakes(called: list[str], failing: Mapping[str, Exception]) -> dict[str, Any]:
    def step(name: str) -> Any:
        async def run(work: Work, tell: Tell) -> dict[str, Any]:
            called.append(name)
            if name in failing:
                raise failing[name]
            return {"examples": 1, "rows": {"train": 1}}

        return run

    return {name: step(name) for name in ("collect", "build")}


async def test_a_run_that_was_killed_goes_on_with_the_first_unfinished_step(runs: Runs) -> None:
    job, called = await runs.claim(), []
    dying = fakes(called, {"build": RuntimeError("killed")})
    with pytest.raises(RuntimeError):
        await finished(runs.jobs, job, "w", LearningRun(runs.jobs, job, "w", runs.work(job), dying))
    left = await runs.jobs.get(job.id)
    assert left is not None and left.status == "running"

    await runs.jobs.renew(job.id, "w", 0.0)
    again = await runs.jobs.claim(JOB_KIND, "second", 60.0)
    assert again is not None and again.id == job.id
    run = LearningRun(runs.jobs, again, "second", runs.work(again), fakes(called, {}))
    await finished(runs.jobs, again, "second", run)
    assert called == ["collect", "build", "build"]
    ended = await runs.jobs.get(job.id)
    assert ended is not None and ended.status == "done"
    assert (await runs.events(job))[-2:] == [("build", "done"), ("done", "done")]


async def test_what_cannot_be_mended_ends_the_run_and_says_why(runs: Runs) -> None:
    job = await runs.claim()
    failing = fakes([], {"build": InvalidInput("There is nothing to learn from.", field="examples")})
    with pytest.raises(InvalidInput):
        await finished(runs.jobs, job, "w", LearningRun(runs.jobs, job, "w", runs.work(job), failing))
    ended = await runs.jobs.get(job.id)
    assert ended is not None and ended.status == "failed"
    assert "nothing to learn from" in (ended.error or "")
    last = (await runs.jobs.events_after(job.id, 0, 100))[-1]
    assert last.type == "error" and last.data["problem"]["field"] == "examples"
    assert ("build", "failed") in await runs.events(job)


async def test_what_may_pass_leaves_the_run_for_another_start(runs: Runs) -> None:
    job = await runs.claim()
    failing = fakes([], {"collect": Unavailable("MLflow does not answer.")})
    with pytest.raises(Unavailable):
        await finished(runs.jobs, job, "w", LearningRun(runs.jobs, job, "w", runs.work(job), failing))
    left = await runs.jobs.get(job.id)
    assert left is not None and left.status == "running"


def test_the_model_to_train_must_be_a_local_one() -> None:
    remote = ModelSpec(name="far", engine="ollama", remote_model="x")
    local = ModelSpec(name="near", engine="llama_cpp", path=Path("x"))
    assert learning_spec(Catalog((remote, local))).name == "near"
    with pytest.raises(ConfigurationError, match="no local model far"):
        learning_spec(Catalog((remote, local)), "far")


def test_settings_of_one_run_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_wishes(Settings(), {"settings": {"training": {"epochs": 7}}}).training.epochs == 7
    with pytest.raises(ConfigurationError, match=r"training\.epoch\b"):
        with_wishes(Settings(), {"settings": {"training": {"epoch": 7}}})


@pytest.mark.cluster
@pytest.mark.slow
async def test_a_better_model_goes_live_a_worse_one_is_refused_and_back_again(
    runs: Runs,
    ray_cluster: RayCluster,
    mlflow_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow = runs.settings.mlflow.model_copy(
        update={"tracking_uri": mlflow_url, "experiment": f"loop-{new_id()}"}
    )
    runs.settings = runs.settings.model_copy(update={"mlflow": mlflow})
    steps = {**ALL, "collect": collected}
    first = await runs.claim()
    work = runs.work(first)
    known, died = len(Registry(mlflow_url).versions()), list[str]()
    fragile = dying_once(steps, died)
    with monkeypatch.context() as patched:
        # Steps are done twice here, and a process for each model costs seconds; the second run has them.
        for module in (training.loop_steps, training.loop_evaluation):
            patched.setattr(module, "apart", here)
        for name in fragile:
            with pytest.raises(KilledError, match=name):
                await finished(runs.jobs, first, "w", LearningRun(runs.jobs, first, "w", work, fragile))
    result = await finished(runs.jobs, first, "w", LearningRun(runs.jobs, first, "w", work, fragile))

    assert died == list(ALL)
    assert len(Registry(mlflow_url).versions()) == known + 1, "doing a step twice registers nothing twice"
    assert len(await runs.deployments.history(MODEL)) == 2, "the base and this adapter"
    assert result["deployed"], work.folder.result("gate")
    adapter = result["adapter"]
    read_adapter(work.settings.adapters_dir / adapter, MODEL, base_fingerprint(runs.base))
    (champion,) = [d for d in await runs.deployments.active(MODEL) if d.alias == "champion"]
    assert (champion.adapter, champion.decided_by) == (adapter, "learning-loop")
    gain = champion.metrics["frozen/log_likelihood difference"]
    assert gain["low"] > 0 and gain["verdict"] == "better"
    assert champion.data_hash and champion.lineage["learning_run"] == str(first.id)
    registered = Registry(mlflow_url).champion()
    assert registered is not None and registered.name == adapter
    assert registered.decision is not None

    second = await runs.claim("v")
    strict = runs.work(second, min_gain=50.0)
    result = await finished(runs.jobs, second, "v", LearningRun(runs.jobs, second, "v", strict, steps))
    assert not result["deployed"]
    assert strict.folder.result("evaluate")["champion"] == adapter  # type: ignore[index]
    (still,) = [d for d in await runs.deployments.active(MODEL) if d.alias == "champion"]
    assert still.adapter == adapter
    assert (await runs.deployments.history(MODEL))[0].decision == "rejected"

    back = await runs.deployments.rollback(MODEL, "operator")
    assert back.adapter is None
    known = {"postgres": {"url": database_url}, "mlflow": {"tracking_uri": mlflow_url}}
    follow = follower(load_settings({}, overrides={"home": str(work.settings.home), **known}))
    assert await follow() is None
    assert Registry(mlflow_url).champion() is None


async def test_the_next_run_is_the_one_that_waits(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text("models: [{name: far, engine: ollama, remote_model: x}]")
    overrides = {
        "home": str(tmp_path),
        "llm": {"models_file": str(catalogue)},
        "postgres": {"url": database_url},
    }
    settings = load_settings({}, overrides=overrides)
    assert await work_on(settings, None) is None
    job, _ = await LearningRunRepository(database).start({"reason": "test"})
    # No local model can learn: the run that waited is taken up, and ends with that reason.
    with pytest.raises((ConfigurationError, InvalidInput)):
        await work_on(settings, None)
    ended = await LearningRunRepository(database).get(job.id)
    assert ended is not None
    assert ended.status == "failed"
    assert await work_on(settings, None) is None
