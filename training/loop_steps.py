"""The steps of a learning run: collect, build, train, evaluate, gate, deploy.

Each takes what the ones before left in the run's folder and returns a small result that JSON can hold. Doing
a step again after a crash changes nothing that was done.
"""

import asyncio
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.errors import ConfigurationError, InvalidInput, Unavailable
from assistant.learning.examples import MAKER
from assistant.llm.adapter_gguf import write_gguf
from assistant.llm.adapters import GGUF, base_fingerprint, read_adapter, write_card
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.engines import create_engine, hf_folder
from assistant.llm.types import ChatRequest, Engine
from assistant.settings import Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.examples import ExampleRepository
from evals.gate import GateDecision, decide
from evals.report import render
from evals.results import CaseResult, SuiteResult, compare, summarise
from evals.runs import RunStore, code_version
from evals.text_metrics import text_scores
from evals.tracking import Tracker
from training.dataset import build_dataset, read_card
from training.folders import writing
from training.llm_lora import LoraJob, train_lora
from training.loop_folder import RunFolder
from training.lora_job import LoraResult
from training.progress import TrainProgress
from training.registry import Registry
from training.replay import general_rows
from training.rows import Row, read_rows
from training.scoring import fitting, nll

ROOT = Path(__file__).resolve().parent.parent
CANDIDATE = "candidate"
LOOP = "learning-loop"
"""Who decided, in the records of deployments."""
CHAMPION = "champion"
MAX_WRITTEN_TOKENS = 160
WRITING_AT_ONCE = 2
MLFLOW_PAUSE_S, MLFLOW_PATIENCE_S = 5.0, 1800.0

Tell = Callable[[str], None]
"""Says how far the step is; may be called from any thread."""


@dataclass(frozen=True)
class Work:
    """What the steps work with. `documents` are folders of design documents."""

    settings: Settings
    spec: ModelSpec
    folder: RunFolder
    examples: ExampleRepository
    deployments: DeploymentRepository
    documents: Sequence[Path]
    run_id: str

    @property
    def hf(self) -> Path:
        found = hf_folder(self.spec, self.settings.models_dir)
        if found is None:
            raise ConfigurationError(
                f"{self.spec.name} has no transformers weights beside {self.spec.path}, and training needs them.",
                hint="Put them into the folder `hf` beside the GGUF file, or name another model.",
            )
        return found

    @property
    def registry(self) -> Registry:
        return Registry(self.settings.mlflow.tracking_uri)


def learning_spec(catalog: Catalog, name: str | None = None) -> ModelSpec:
    """The model that learns: the one asked for, or the best local one. Raises ConfigurationError."""
    local = catalog.local()
    if name is not None:
        local = tuple(spec for spec in local if spec.name == name)
    if not local:
        known = ", ".join(spec.name for spec in catalog.local()) or "none"
        raise ConfigurationError(
            f"There is no local model {name or ''} to train.".replace("  ", " "),
            hint=f"Local models in models.yaml: {known}. Remote models cannot be fine-tuned here.",
        )
    return local[0]


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
    replay = await asyncio.to_thread(
        general_rows,
        work.hf,
        base_fingerprint(work.hf),
        settings.home / "learning" / "cache",
        threads=settings.training.threads,
        device=settings.training.device,
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


async def evaluate(work: Work, tell: Tell) -> dict[str, Any]:
    """Champion and candidate on the same frozen and guard rows: loss on all, written text on some."""
    champion, training = await champion_of(work), work.settings.training
    frozen, guard = [
        fitting(work.hf, read_rows(work.folder.path / "dataset" / f"{side}.jsonl"), training.max_tokens)
        for side in ("frozen", "guard")
    ]
    if not frozen:
        raise InvalidInput(
            f"No frozen row fits into {training.max_tokens} tokens, so nothing can be decided.",
            hint="Rate answers over more documents, name folders in training.documents, or raise "
            "training.max_tokens.",
            field="frozen",
        )
    losses: dict[str, list[float]] = {}
    for system, adapter in ((CHAMPION, champion), (CANDIDATE, work.folder.path / CANDIDATE)):
        tell(f"loss of the {system} on {len(frozen) + len(guard)} rows")
        losses[system] = await asyncio.to_thread(_losses, work, adapter, [*frozen, *guard])
    written = frozen[: work.settings.evals.written_rows]
    texts = await _written(work, champion, written, tell) if written else {}
    frozen_cases = [
        _case(number, row, losses, number, {s: t[number] for s, t in texts.items() if number < len(t)})
        for number, row in enumerate(frozen)
    ]
    guard_cases = [_case(number, row, losses, len(frozen) + number, {}) for number, row in enumerate(guard)]
    meta = {
        "model": work.spec.name,
        "champion": "base" if champion is None else champion.name,
        "learning_run": work.run_id,
        "written": len(written),
    }
    stored = {
        name: _store(work, name, cases, meta | {"data_hash": _hash(rows)})
        for name, cases, rows in (
            ("learning-frozen", frozen_cases, frozen),
            ("learning-guard", guard_cases, guard),
        )
        if cases
    }
    return {"champion": meta["champion"], "runs": stored, "metrics": _metrics(work, stored)}


def _losses(work: Work, adapter: Path | None, rows: Sequence[Row]) -> list[float]:
    training = work.settings.training
    return nll(
        work.hf,
        adapter,
        rows,
        max_tokens=training.max_tokens,
        threads=training.threads,
        device=training.device,
    )


async def champion_of(work: Work) -> Path | None:
    """The folder of the adapter that serves now; None for the base."""
    for deployment in await work.deployments.active(work.spec.name):
        if deployment.alias == "champion" and deployment.adapter is not None:
            return work.settings.adapters_dir / deployment.adapter
    return None


async def _written(
    work: Work, champion: Path | None, rows: Sequence[Row], tell: Tell
) -> dict[str, list[str]]:
    """What both write, through the engine that would serve them."""
    engine = create_engine(work.spec, work.settings.models_dir)
    await engine.start()
    try:
        fingerprint = base_fingerprint(work.hf)
        adapters = {CANDIDATE: read_adapter(work.folder.path / CANDIDATE, work.spec.name, fingerprint)}
        if champion is not None:
            adapters[CHAMPION] = read_adapter(champion, work.spec.name, fingerprint)
        await engine.set_adapters(list(adapters.values()))
        texts = {}
        for system in (CHAMPION, CANDIDATE):
            name = adapters[system].name if system in adapters else None
            texts[system] = await _write_all(
                work,
                engine,
                name,
                rows,
                lambda n, s=system: tell(  # type: ignore[misc]
                    f"the {s} writes: {n} of {len(rows)}"
                ),
            )
        return texts
    finally:
        await engine.stop()


async def _write_all(
    work: Work, engine: Engine, adapter: str | None, rows: Sequence[Row], tell: Callable[[int], None]
) -> list[str]:
    places = asyncio.Semaphore(WRITING_AT_ONCE)
    done = 0

    async def one(number: int, row: Row) -> str:
        nonlocal done
        request = ChatRequest(
            work.spec.name, row.prompt, MAX_WRITTEN_TOKENS, temperature=0.0, seed=0, adapter=adapter
        )
        async with places, aclosing(engine.stream(request, f"{work.run_id}-{number}")) as pieces:  # type: ignore[type-var]
            text = "".join([piece.text async for piece in pieces])
        done += 1
        tell(done)
        return text.strip()

    return list(await asyncio.gather(*(one(number, row) for number, row in enumerate(rows))))


def _case(
    number: int, row: Row, losses: Mapping[str, Sequence[float]], index: int, texts: Mapping[str, str]
) -> CaseResult:
    values: dict[str, float] = {}
    for system, all_losses in losses.items():
        # Negated, because everywhere else more is better.
        values[f"{system}/log_likelihood"] = -all_losses[index]
    for system, text in texts.items():
        values[f"{system}/rouge_l"] = text_scores(text, row.answer, None)["rouge_l"]
    return CaseResult(
        id=f"{number}",
        group=row.document or f"row-{number}",
        values=values,
        detail={
            "source": row.source,
            "question": row.prompt[-1].content,
            "reference": row.answer,
            "texts": dict(texts),
        },
    )


def _store(work: Work, name: str, cases: Sequence[CaseResult], meta: Mapping[str, Any]) -> str:
    result = summarise(
        name,
        f"{CANDIDATE}/log_likelihood",
        cases,
        [(CANDIDATE, CHAMPION)],
        meta,
        work.settings.evals.draws,
    )
    stored = RunStore(work.settings.home).save(result, render(result))
    Tracker(work.settings.home, work.settings.mlflow).submit(stored)
    return stored.id


def _loaded(work: Work, stored: Mapping[str, str], name: str) -> SuiteResult | None:
    return RunStore(work.settings.home).load(stored[name]).result if name in stored else None


def _metrics(work: Work, stored: Mapping[str, str]) -> dict[str, Any]:
    """Means with intervals, and the paired differences with their verdicts, for records and the page."""
    found: dict[str, Any] = {}
    for name in stored:
        result = _loaded(work, stored, name)
        assert result is not None
        short = name.removeprefix("learning-")
        found |= {f"{short}/{metric}": value.as_json() for metric, value in result.metrics.items()}
        found |= {f"{short}/{c.metric} difference": c.result.as_json() for c in result.comparisons}
    return found


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


def judge(work: Work, stored: Mapping[str, str]) -> GateDecision:
    """By the paired lower bounds of the log-likelihood: frozen better, guard not worse than the margin."""
    metric, other = f"{CANDIDATE}/log_likelihood", f"{CHAMPION}/log_likelihood"
    draws = work.settings.evals.draws

    def compared(name: str) -> Any:
        result = _loaded(work, stored, name)
        return None if result is None else compare(result.per_case, result.per_case, metric, other, draws)

    return decide(
        compared("learning-frozen"),
        compared("learning-guard"),
        min_gain=work.settings.evals.min_gain,
        harm_margin=work.settings.evals.harm_margin,
    )


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


def _hash(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row.as_json()).encode())
    return digest.hexdigest()


Step = Callable[[Work, Tell], Awaitable[dict[str, Any]]]
ALL: Mapping[str, Step] = {
    "collect": collect,
    "build": build,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
    "deploy": deploy,
}
