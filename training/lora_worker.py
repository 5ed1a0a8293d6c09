"""What each Ray Train worker runs: the plain loop, with checkpoints and reports."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from assistant.errors import AssistantError
from training import journal
from training.folders import write_json, writing
from training.lora_job import ADAPTER, RESULT, STORAGE, LoraJob, starts_at
from training.lora_step import LoraTrainer, Step
from training.priority import yield_to_serving
from training.rows import read_rows
from training.world import Alone, Distributed


def work(config: dict[str, Any]) -> None:
    """The train loop of one worker; `config` holds the LoraJob under `job`."""
    import ray.train

    job: LoraJob = config["job"]
    yield_to_serving()
    context = ray.train.get_context()
    world = Distributed() if context.get_world_size() > 1 else Alone()
    if journal.recorded_failure(job.folder) is not None:
        return
    try:
        _train(job, world)
    except AssistantError as error:
        journal.record_failure(job.folder, error)
        if world.size > 1:
            # The others wait for this worker: only its death lets Ray stop them.
            raise


def _train(job: LoraJob, world: Alone | Distributed) -> None:
    import ray.train

    trainer = LoraTrainer(
        job.base,
        job.base_model,
        read_rows(job.dataset / "train.jsonl"),
        read_rows(job.dataset / "validation.jsonl"),
        job.settings,
        world,
    )
    trainer.setup()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.resume(Path(folder))
    # The system kills a process that takes too much memory without a word: go on with smaller batches.
    died_here = starts_at(job, world.rank, trainer.position.step)
    trainer.position.batch_tokens = max(1, trainer.position.batch_tokens >> max(0, died_here - 1))
    first = world.rank == 0
    if first:
        journal.mend(job.folder)
    for step in trainer.train():
        if first:
            journal.append(job.folder, step)
        if step.due or step.validation_nll is not None:
            _report(job, trainer, step, first)
    if first:
        trainer.write_best(job.folder / ADAPTER)
        write_json(job.folder / RESULT, _metrics(trainer))


def _report(job: LoraJob, trainer: LoraTrainer, step: Step, first: bool) -> None:
    """Tell Ray; all workers must, and the first one hands over the checkpoint."""
    import ray.train

    position = trainer.position
    best = position.base_nll if position.best_nll is None else position.best_nll
    found = journal.metrics(step) | {"step": step.step, "best_nll": best}
    if not (first and step.due):
        ray.train.report(found)
        return
    with writing(job.folder):
        scratch = Path(tempfile.mkdtemp(dir=job.folder, prefix=".checkpoint-"))
    try:
        trainer.save(scratch / "checkpoint")
        with writing(job.folder / STORAGE):
            ray.train.report(found, checkpoint=ray.train.Checkpoint.from_directory(scratch / "checkpoint"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _metrics(trainer: LoraTrainer) -> dict[str, float]:
    position = trainer.position
    return {
        "base_nll": float(position.base_nll or 0.0),
        "best_nll": float(position.best_nll or 0.0),
        "best_step": float(position.best_step),
        "steps": float(position.step),
        "tokens": float(position.tokens),
        "rows": float(len(trainer.train_rows)),
        "stopped_early": float(position.stopped_early),
    }
