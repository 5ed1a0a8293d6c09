"""Fine-tuning on a real Ray cluster: killed workers, several workers, and errors that are not repeated."""

import contextlib
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from assistant.errors import ConfigurationError, InvalidInput
from assistant.settings import TrainingSettings
from tests.fixtures_cluster import RayCluster
from tests.training.tiny import QUICK, rows
from training import journal, lora_worker
from training.llm_lora import LoraJob, train_lora
from training.lora_job import prepare, starts_at
from training.lora_step import LoraTrainer
from training.lora_worker import work
from training.progress import TrainProgress
from training.rows import write_rows

LONG = QUICK.model_copy(
    update={
        "epochs": 8,
        "rows_per_step": 1,
        "validations_per_epoch": 1,
        "patience": 99,
        "checkpoint_steps": 30,
    }
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    write_rows(folder / "train.jsonl", rows(18))
    write_rows(folder / "validation.jsonl", rows(5, 40))
    return folder


def job(base: Path, dataset: Path, folder: Path, settings: TrainingSettings, **changes: Any) -> LoraJob:
    return LoraJob(folder.name, base, "tiny", dataset, folder, settings, **changes)


def plain(base: Path, settings: TrainingSettings) -> tuple[LoraTrainer, list[float]]:
    run = LoraTrainer(base, "tiny", rows(18), rows(5, 40), settings)
    run.setup()
    return run, [step.loss for step in run.train()]


def kill_worker(folder: Path, after: int, over: threading.Event) -> None:
    """Kill -9 the worker as soon as it has written more than `after` steps."""
    while not over.wait(0.005):
        if len(journal.read(folder)) > after:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        process.kill()
                        return


@contextlib.contextmanager
def killer(folder: Path, after: int) -> Iterator[threading.Thread]:
    over = threading.Event()
    thread = threading.Thread(target=kill_worker, args=(folder, after, over))
    thread.start()
    try:
        yield thread
    finally:
        over.set()
        thread.join()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_worker_goes_on_as_if_nothing_had_happened(
    ray_cluster: RayCluster, tiny_base: Path, dataset: Path, tmp_path: Path
) -> None:
    seen: list[TrainProgress] = []
    started = job(tiny_base, dataset, tmp_path / "run", LONG)
    with killer(started.folder, 40) as thread:
        result = train_lora(started, seen.append)
        assert not thread.is_alive(), "the run ended before its worker was killed"
    run, losses = plain(tiny_base, LONG)
    points = journal.read(tmp_path / "run")
    assert [p.metrics["train_nll"] for p in points] == losses
    assert [p.step for p in points] == list(range(1, run.steps + 1))
    run.write_best(tmp_path / "plain")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (result.adapter_folder / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert result.metrics["best_nll"] < result.metrics["base_nll"]
    assert result.checkpoint is not None
    assert seen[-1].step == seen[-1].steps
    assert seen[-1].eta_s == 0
    lines = (tmp_path / "run" / journal.POINTS).read_text().splitlines()
    assert len(lines) > run.steps, "the worker repeated what it had done since its checkpoint"
    assert train_lora(started).metrics == result.metrics


@pytest.mark.cluster
@pytest.mark.slow
def test_two_workers_make_the_steps_of_one(
    ray_cluster: RayCluster, tiny_base: Path, dataset: Path, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"dropout": 0.0, "workers": 2, "worker_cpus": 0.5})
    result = train_lora(job(tiny_base, dataset, tmp_path / "run", settings))
    run, losses = plain(tiny_base, settings)
    points = journal.read(tmp_path / "run")
    assert [p.metrics["train_nll"] for p in points] == pytest.approx(losses, rel=1e-4)
    assert result.metrics["best_nll"] == pytest.approx(run.position.best_nll, rel=1e-4)


def test_an_error_that_would_only_repeat_is_recorded_and_not_raised_at_ray(
    tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process could not raise its own priority again.
    monkeypatch.setattr(lora_worker, "yield_to_serving", lambda: None)
    settings = QUICK.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30, "warmup_share": 0.0})
    started = job(tiny_base, dataset, tmp_path / "run", settings)
    prepare(started)
    for _ in range(2):
        # Ray would start a worker that raised again, up to max_failures times.
        in_this_process(started)
    failure = journal.recorded_failure(started.folder)
    assert isinstance(failure, ConfigurationError)
    assert "diverged" in str(failure)
    assert json.loads((started.folder / "starts-0.json").read_text())["count"] == 1
    assert not (started.folder / "adapter").exists()


def in_this_process(started: LoraJob) -> None:
    """Ray Train's local mode: the worker's function without a cluster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        TorchTrainer(
            work,
            train_loop_config={"job": started},
            scaling_config=ScalingConfig(num_workers=0),
            run_config=RunConfig(name=started.name, storage_path=str(started.folder / "ray")),
        ).fit()


def test_a_missing_dataset_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"train\.jsonl does not exist"):
        train_lora(job(tiny_base, tmp_path / "none", tmp_path / "run", QUICK))


def test_other_data_under_the_same_name_start_anew(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    first = job(tiny_base, dataset, tmp_path / "run", QUICK)
    key = prepare(first)
    (first.folder / journal.POINTS).write_text("{}\n")
    assert prepare(first) == key
    assert (first.folder / journal.POINTS).exists()
    write_rows(dataset / "train.jsonl", rows(4))
    assert prepare(first) != key
    assert not (first.folder / journal.POINTS).exists()


def test_starts_without_progress_are_counted(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    started = job(tiny_base, dataset, tmp_path / "run", QUICK)
    prepare(started)
    assert [starts_at(started, 0, step) for step in (0, 0, 0, 15, 15, 30)] == [0, 1, 2, 0, 1, 0]
