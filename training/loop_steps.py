"""The steps of a learning run: collect, build, train, evaluate, gate, deploy.

Each takes what the ones before left in the run's folder and returns a small result that JSON can hold. Doing
a step again after a crash changes nothing that was done.
"""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from assistant.errors import ConfigurationError, Unavailable
from assistant.learning.examples import MAKER
from assistant.llm.adapter_gguf import write_gguf
from assistant.llm.adapters import GGUF, base_fingerprint, write_card
from assistant.llm.engines import hf_folder
from evals.runs import code_version
from training.apart import apart
from training.count import CountFile
from training.dataset import build_dataset, read_card
from training.folders import writing
from training.llm_lora import LoraJob, train_lora
from training.loop_evaluation import CANDIDATE, evaluate, judge
from training.loop_work import Tell, Work
from training.lora_job import LoraResult
from training.progress import TrainProgress
from training.replay import general_rows

ROOT = Path(__file__).resolve().parent.parent
LOOP = "learning-loop"
"""Who decided, in the records of deployments."""
MLFLOW_PAUSE_S, MLFLOW_PATIENCE_S = 5.0, 1800.0


async def collect(work: Work, tell: Tell) -> dict[str, Any]:
    """Turn what feedback is left into examples and keep those that may be learned from."""
    tell("looking through feedback")
    made = await work.examples.refresh(MAKER)
    renewed = await work.examples.renew_access()
    usable = await work.examples.usable(work.settings.learning.min_quality)
    work.folder.keep_examples(usable)
    return {"examples": len(usable), "made": made, "access_renewed": renewed}


async def build(work: Work, tell: Tell) -> dict[str, Any]:
    """Weights, general rows, then the dataset. InvalidInput when there is not enough to learn from."""
    await asyncio.to_thread(ensure_weights, work, tell)
    settings = work.settings
    tell("asking the base model the general questions")
    counted = CountFile(work.folder.path / "counted")
    with counted.followed(
        lambda done, of: tell(f"asking the base model the general questions: {done} of {of}")
    ):
        replay = await asyncio.to_thread(
            apart,
            settings.training,
            general_rows,
            work.hf,
            base_fingerprint(work.hf),
            settings.home / "learning" / "cache",
            threads=settings.training.torch_threads,
            device=settings.training.device,
            counted=counted,
        )
    tell("splitting by document")
    card = await asyncio.to_thread(
        build_dataset,
        work.folder.path / "dataset",
        work.folder.examples(),
        work.documents,
        settings.training,
        replay,
    )
    return {
        "data_hash": card.hash,
        "rows": {side: sum(counts.values()) for side, counts in card.rows.items()},
        "left_out": dict(card.left_out),
    }


def ensure_weights(work: Work, tell: Tell) -> None:
    """The built-in model comes as GGUF; training needs its transformers form, made once."""
    if hf_folder(work.spec, work.settings.models_dir) is not None:
        return
    built_in = work.settings.models_dir / "smollm2-135m-instruct"
    if work.spec.path is None or built_in not in (work.spec.path, work.spec.path.parent):
        return
    tell("converting the built-in weights, once")
    command = [sys.executable, "-m", "cluster.weights", "--models-dir", str(work.settings.models_dir), "--hf"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(f"The weights could not be converted: {done.stderr.strip()[-600:]}")


async def train(work: Work, tell: Tell) -> dict[str, Any]:
    """LoRA on Ray Train; goes on from the last checkpoint."""
    settings = work.settings

    def progress(now: TrainProgress) -> None:
        judged = "" if now.validation_nll is None else f", validation {now.validation_nll:.3f}"
        tell(
            f"step {now.step} of {now.steps}: loss {now.nll:.3f}{judged}, "
            f"{now.tokens_per_s:.0f} tokens/s, {now.eta_s:.0f} s left"
        )

    tell("starting the workers")
    result = await asyncio.to_thread(train_lora, _job(work), progress)
    await asyncio.to_thread(_finish_adapter, work, result)
    metrics = {name: round(value, 6) for name, value in result.metrics.items()}
    return {
        "metrics": metrics,
        "mlflow_run_id": result.mlflow_run_id,
        "experiment": settings.mlflow.experiment,
    }


def _job(work: Work) -> LoraJob:
    settings, built = work.settings, work.folder.result("build") or {}
    return LoraJob(
        name=f"learning-{work.run_id}",
        base=work.hf,
        base_model=work.spec.name,
        dataset=work.folder.path / "dataset",
        folder=work.folder.path / "training",
        settings=settings.training,
        tracking_uri=settings.mlflow.tracking_uri,
        experiment=settings.mlflow.experiment,
        tags={
            "learning_run": work.run_id,
            "data_hash": str(built.get("data_hash", "")),
            "code_version": code_version(),
        },
    )


def _finish_adapter(work: Work, result: LoraResult) -> None:
    """The adapter in both engines' forms, with a card: what will be judged is what would serve."""
    folder = work.folder.path / CANDIDATE
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(result.adapter_folder, folder)
    write_gguf(folder, work.hf, folder / GGUF)
    write_card(folder, **_card(work, result.metrics, result.mlflow_run_id, None))


def _card(
    work: Work, metrics: Mapping[str, float], run_id: str | None, version: int | None
) -> dict[str, Any]:
    training = work.settings.training
    return {
        "base_model": work.spec.name,
        "base_fingerprint": base_fingerprint(work.hf),
        "rank": training.rank,
        "alpha": training.alpha,
        "data_hash": read_card(work.folder.path / "dataset").hash,
        "code_version": code_version(),
        "mlflow_run_id": run_id,
        "registry_version": version,
        "learning_run": work.run_id,
        "metrics": dict(metrics),
    }


async def gate(work: Work, tell: Tell) -> dict[str, Any]:
    """Decide, register the candidate with its card and the decision. Waits while MLflow is away."""
    evaluated = work.folder.result("evaluate") or {}
    decision = judge(work, evaluated["runs"])
    tell("registering the candidate")
    trained = work.folder.result("train") or {}
    version = await _with_mlflow(lambda: _register(work, trained), tell)
    record = {
        **decision.as_json(),
        "learning_run": work.run_id,
        "champion": evaluated["champion"],
        "evaluations": evaluated["runs"],
    }
    await _with_mlflow(lambda: work.registry.record_decision(version, record), tell)
    adapter = f"answerer-{version}"
    await asyncio.to_thread(_publish, work, adapter, version, trained)
    return {
        "promote": decision.promote,
        "reasons": list(decision.reasons),
        "registry_version": version,
        "adapter": adapter,
    }


def _register(work: Work, trained: Mapping[str, Any]) -> int:
    run_id = trained["mlflow_run_id"] or train_lora(_job(work)).mlflow_run_id
    if run_id is None:
        raise Unavailable(
            "MLflow does not have the training run yet.", hint="It is sent when MLflow answers."
        )
    card = _card(work, trained["metrics"], run_id, None)
    return work.registry.register(work.folder.path / CANDIDATE, card, run_id)


def _publish(work: Work, adapter: str, version: int, trained: Mapping[str, Any]) -> None:
    """Where replicas look for it, under the name that it serves by."""
    target = work.settings.adapters_dir / adapter
    if (target / "card.json").is_file():
        return
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work.folder.path / CANDIDATE, target, ignore=shutil.ignore_patterns("card.json"))
    write_card(target, **_card(work, trained["metrics"], trained["mlflow_run_id"], version))


async def deploy(work: Work, tell: Tell) -> dict[str, Any]:
    """Put the better one live, or record that it is not; the registry's aliases follow."""
    decided, built = work.folder.result("gate") or {}, work.folder.result("build") or {}
    evaluated = work.folder.result("evaluate") or {}
    adapter, version = decided["adapter"], decided["registry_version"]
    lineage = {
        "registry_version": str(version),
        "data_hash": built["data_hash"],
        "code_version": code_version(),
        "metrics": evaluated["metrics"],
        "learning_run": work.run_id,
        "reasons": decided["reasons"],
        "rows": built["rows"],
        "evaluations": evaluated["runs"],
        "mlflow_run_id": (work.folder.result("train") or {}).get("mlflow_run_id"),
    }
    model, registry = work.spec.name, work.registry
    if not decided["promote"]:
        reason = "; ".join(decided["reasons"])
        await work.deployments.reject(model, adapter, LOOP, evaluated["metrics"], reason)
        tell("refused")
        return {"deployed": False, "adapter": adapter, "reason": reason}
    if work.settings.learning.rollout == "canary":
        share = work.settings.learning.canary_share
        await work.deployments.challenge(model, adapter, share, **lineage)
        await _with_mlflow(lambda: registry.challenge(version), tell)
        tell(f"challenger for {share:.0%} of the requests")
        return {"deployed": True, "adapter": adapter, "alias": "challenger", "share": share}
    await work.deployments.promote(model, adapter, LOOP, **lineage)
    await _with_mlflow(lambda: registry.promote(version), tell)
    tell("champion")
    return {"deployed": True, "adapter": adapter, "alias": "champion"}


async def _with_mlflow(action: Callable[[], Any], tell: Tell) -> Any:
    """Results wait on disk while MLflow is away; after half an hour the run gives up until it is started again."""
    waited = 0.0
    while True:
        try:
            return await asyncio.to_thread(action)
        except Unavailable as error:
            if waited >= MLFLOW_PATIENCE_S:
                raise
            tell(f"waiting for MLflow: {error.detail}")
        await asyncio.sleep(MLFLOW_PAUSE_S)
        waited += MLFLOW_PAUSE_S


Step = Callable[[Work, Tell], Awaitable[dict[str, Any]]]
ALL: Mapping[str, Step] = {
    "collect": collect,
    "build": build,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
    "deploy": deploy,
}
