"""One fine-tuning job: what it is, the folder it owns, and what it leaves behind."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput
from assistant.settings import TrainingSettings
from training import journal
from training.folders import write_json, writing

ADAPTER = "adapter"
RESULT = "result.json"
STORAGE = "ray"
"""Where Ray Train keeps the checkpoints, below the job's folder."""
STARTS = "starts-{rank}.json"


@dataclass(frozen=True)
class LoraJob:
    """One fine-tuning. `folder` is its own: points, checkpoints and, in the end, `adapter/`.

    `base` is a transformers folder and `base_model` its name in the catalogue; `dataset` holds train.jsonl
    and validation.jsonl. On a cluster of several machines all three lie on storage that all of them see.
    """

    name: str
    base: Path
    base_model: str
    dataset: Path
    folder: Path
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    tracking_uri: str | None = None
    experiment: str = "ai-assistant"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraResult:
    """`metrics`: base_nll and best_nll (validation, nats per token), steps, tokens, tokens_per_s, seconds.

    `mlflow_run_id` is None while MLflow is down: `tracking.flush(job.folder, uri)` gives it later.
    """

    adapter_folder: Path
    metrics: dict[str, float]
    checkpoint: Path | None
    mlflow_run_id: str | None


def prepare(job: LoraJob) -> str:
    """Empty the folder when it holds another job's work; forget the failure of an earlier attempt.

    Returns a key that is the same for every start of this very job.
    """
    identity = _identity(job)
    note = job.folder / "job.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != identity:
        with writing(job.folder):
            shutil.rmtree(job.folder)
    with writing(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / journal.FAILURE).unlink(missing_ok=True)
    write_json(note, identity)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _identity(job: LoraJob) -> dict[str, Any]:
    """What must be the same for a checkpoint to be taken up."""
    files = {}
    for name in ("train.jsonl", "validation.jsonl"):
        path = job.dataset / name
        if not path.is_file():
            raise InvalidInput(f"{path} does not exist.", hint="Build the dataset first.", field="dataset")
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": job.name,
        "base": str(job.base),
        "base_model": job.base_model,
        "files": files,
        "settings": job.settings.model_dump(mode="json", exclude={"documents", "max_failures"}),
    }


def params(job: LoraJob) -> dict[str, Any]:
    return {"base_model": job.base_model, **job.settings.model_dump(mode="json", exclude={"documents"})}


def starts_at(job: LoraJob, rank: int, step: int) -> int:
    """How often this worker has begun at `step` before, this time left out: it then died before the next
    checkpoint every time."""
    path = job.folder / STARTS.format(rank=rank)
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    count = int(before.get("count", 0)) if before.get("step") == step else 0
    write_json(path, {"step": step, "count": count + 1})
    return count


def result_of(job: LoraJob) -> LoraResult | None:
    """What a finished job left behind: the result file is written after the adapter."""
    path = job.folder / RESULT
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return LoraResult(job.folder / ADAPTER, metrics, None, None)
