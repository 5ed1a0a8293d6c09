"""LoRA fine-tuning on Ray Train: the plain loop of `lora_step` in workers that may die.

The worker keeps a checkpoint every few steps; when it is killed Ray starts it again and it goes on from the
last one. When the driver is killed, the same job started again goes on too. Run it alone:

    python -m training.llm_lora --base FOLDER --dataset FOLDER --out FOLDER
"""

import argparse
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assistant.errors import AssistantError, Unavailable
from assistant.settings import load_settings
from training import journal, tracking
from training.folders import write_json
from training.journal import Follower, Point
from training.lora_job import RESULT, STORAGE, LoraJob, LoraResult, params, prepare, result_of
from training.lora_worker import work
from training.progress import TrainingBar, TrainProgress, progress_of
from training.ray_node import connect, spare_watchers, takes_gpu

__all__ = ["LoraJob", "LoraResult", "train_lora"]

SEND_EVERY_S = 15.0


def train_lora(
    job: LoraJob,
    progress: Callable[[TrainProgress], None] | None = None,
    callbacks: Sequence[Any] = (),
) -> LoraResult:
    """Train, or go on with the same job; a finished job returns its result at once.

    Raises InvalidInput and ConfigurationError for what repeating would not mend (empty data, diverged loss,
    full disk), Unavailable when the workers died too often. `callbacks` are Ray Train's.
    """
    job = replace(job, base=job.base.absolute(), dataset=job.dataset.absolute(), folder=job.folder.absolute())
    key = prepare(job)
    if (done := result_of(job)) is not None:
        tracking.end(job.folder, "FINISHED", done.metrics)
        return replace(done, mlflow_run_id=tracking.flush(job.folder, job.tracking_uri))
    tracking.begin(job.folder, job.name, key, job.experiment, params(job), job.tags)
    sender = _Sender(job)
    points: list[Point] = journal.read(job.folder)

    def tell(new: list[Point]) -> None:
        points.extend(new)
        if progress is not None:
            progress(progress_of(points))

    status: tracking.Status = "KILLED"
    try:
        tracking.close_abandoned(job.tracking_uri, job.experiment)
        with sender, Follower(job.folder, tell, points[-1].step if points else 0):
            checkpoint = _fit(job, callbacks)
        result = _finish(job, checkpoint)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        summary = result_of(job)
        tracking.end(job.folder, status, summary.metrics if summary else {})
        run_id = tracking.flush(job.folder, job.tracking_uri)
    return replace(result, mlflow_run_id=run_id)


def _fit(job: LoraJob, callbacks: Sequence[Any]) -> Path | None:
    """Run the workers to their end; the folder of the last checkpoint."""
    connect(job.settings.workers)
    spare_watchers()
    from ray.exceptions import RayError
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    settings = job.settings
    gpu = takes_gpu(settings)
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": settings.worker_cpus} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=str(job.folder / STORAGE),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
        ),
    )
    try:
        with _sigint_kept(), warnings.catch_warnings():
            # Ray Train makes a context of Ray Data, which warns of its own defaults.
            warnings.simplefilter("ignore")
            result = trainer.fit()
    except (TrainingFailedError, RayError) as error:
        if (cause := journal.recorded_failure(job.folder)) is not None:
            raise cause from error
        raise Unavailable(
            f"The training workers of {job.name} died more than {settings.max_failures} times: "
            f"{str(error).strip()[-500:]}",
            hint="Start the same run again: it goes on from its last checkpoint.",
        ) from error
    if (cause := journal.recorded_failure(job.folder)) is not None:
        raise cause
    return Path(result.checkpoint.path) if result.checkpoint else None


def _finish(job: LoraJob, checkpoint: Path | None) -> LoraResult:
    """Add speed to the result and drop what only a resume would need but the last checkpoint."""
    found = result_of(job)
    if found is None:
        raise Unavailable(
            f"The training of {job.name} ended without an adapter.", hint="Start the same run again."
        )
    points = journal.read(job.folder)
    seconds = sum(p.seconds for p in points)
    speed = {
        "seconds": seconds,
        "tokens_per_s": sum(p.tokens for p in points) / max(seconds, 1e-9),
    }
    write_json(job.folder / RESULT, found.metrics | speed)
    for left in job.folder.glob(".checkpoint-*"):
        shutil.rmtree(left, ignore_errors=True)
    return replace(found, metrics=found.metrics | speed, checkpoint=checkpoint)


class _Sender:
    """Sends points to MLflow now and then from a thread of its own: a slow server stalls nothing."""

    def __init__(self, job: LoraJob) -> None:
        self._job = job
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training-mlflow", daemon=True)

    def __enter__(self) -> "_Sender":
        if self._job.tracking_uri is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        tracking.flush(self._job.folder, self._job.tracking_uri)
        while not self._over.wait(SEND_EVERY_S):
            tracking.flush(self._job.folder, self._job.tracking_uri)


class _sigint_kept:
    """Ray Train puts its own handler for Ctrl-C in place and leaves it there."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        self._before = signal.getsignal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)


def main() -> None:
    from rich.console import Console

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="transformers folder of the base")
    parser.add_argument("--base-model", default="smollm2-135m-instruct", help="its name in the catalogue")
    parser.add_argument("--dataset", type=Path, required=True, help="folder with train and validation rows")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run; the same one resumes it")
    given = parser.parse_args()
    settings = load_settings()
    console = Console(stderr=True)
    job = LoraJob(
        given.out.name,
        given.base,
        given.base_model,
        given.dataset,
        given.out,
        settings.training,
        settings.mlflow.tracking_uri,
        settings.mlflow.experiment,
    )
    try:
        with TrainingBar(console) as bar:
            result = train_lora(job, bar)
    except AssistantError as error:
        raise SystemExit(str(error)) from None
    console.print_json(data={"adapter": str(result.adapter_folder), **result.metrics})


if __name__ == "__main__":
    main()
