"""Search LoRA's rank, alpha and learning rate: Optuna draws, ASHA stops what falls behind.

Each trial is a Ray Train run of its own with its own checkpoints and a nested MLflow run. A search that was
interrupted goes on when it is started again with the same folder. `ai-assistant tune lora` runs it.
"""

import contextlib
import functools
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput, Unavailable
from assistant.settings import TrainingSettings
from training import tracking
from training.folders import write_json, writing
from training.llm_lora import LoraJob, train_lora
from training.ray_node import connect
from tuning.fragment import write_fragment
from tuning.search_space import LoraSpace, lora_settings

METRIC = "best_nll"
"""The lowest validation loss so far, in nats per token; that of the base until the first validation."""
TIME = "step"
BEST = "best.yaml"
RESULTS = "trials.json"
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class LoraSearch:
    """`settings` are what the drawn values replace; `concurrent` trials run at once, `grace_steps` each gets
    before it may be stopped."""

    name: str
    base: Path
    base_model: str
    dataset: Path
    folder: Path
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    space: LoraSpace = field(default_factory=LoraSpace)
    trials: int = 8
    concurrent: int = 1
    grace_steps: int = 10
    seed: int = 0
    tracking_uri: str | None = None
    experiment: str = "ai-assistant"


@dataclass(frozen=True)
class TrialResult:
    """`stopped` by ASHA before its end; `error` when it failed; `best_nll` None when it told nothing."""

    id: str
    draw: Mapping[str, Any]
    best_nll: float | None
    steps: int
    stopped: bool
    error: str | None


@dataclass(frozen=True)
class LoraSearchResult:
    """`best` are the settings to train with, `fragment` the same for config.yaml."""

    best: TrainingSettings
    best_nll: float
    trials: tuple[TrialResult, ...]
    fragment: Path
    mlflow_run_id: str | None


def search_lora(search: LoraSearch, tell: Callable[[str], None] | None = None) -> LoraSearchResult:
    """Search, or go on with the search in this folder. `tell` gets a line per finished trial.

    Raises InvalidInput for an empty dataset or search, Unavailable when no trial gave a figure.
    """
    if search.trials < 1 or search.concurrent < 1:
        raise InvalidInput("A search needs one trial at least.", field="trials")
    folder = search.folder.absolute()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tracking.begin(
        folder, search.name, f"search {search.name} {folder}", search.experiment, _params(search), {}
    )
    parent = tracking.flush(folder, search.tracking_uri)
    status: tracking.Status = "FAILED"
    summary: dict[str, float] = {}
    try:
        results = _run(search, folder, parent, tell)
        result = _conclude(search, folder, results)
        status, summary = "FINISHED", {METRIC: result.best_nll, "trials": float(len(results))}
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        _end_trials(search, folder)
        tracking.end(folder, status, summary)
        run_id = tracking.flush(folder, search.tracking_uri)
    return LoraSearchResult(result.best, result.best_nll, result.trials, result.fragment, run_id)


def _run(
    search: LoraSearch, folder: Path, parent: str | None, tell: Callable[[str], None] | None
) -> list[TrialResult]:
    connect(search.settings.workers * search.concurrent)
    with warnings.catch_warnings():
        # Ray's own modules warn of what they themselves import.
        warnings.simplefilter("ignore")
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        from tuning.trial_lines import LISTENERS, TrialLines

        trainable = tune.with_resources(functools.partial(_trial, search=search, parent=parent), {"cpu": 0.1})
        storage = folder / "tune"
        if tune.Tuner.can_restore(str(storage / "search")):
            tuner = tune.Tuner.restore(
                str(storage / "search"), trainable, resume_unfinished=True, restart_errored=True
            )
        else:
            start = search.space.start(search.settings)
            tuner = tune.Tuner(
                trainable,
                param_space=search.space.domains(),
                tune_config=tune.TuneConfig(
                    metric=METRIC,
                    mode="min",
                    num_samples=search.trials,
                    max_concurrent_trials=search.concurrent,
                    search_alg=OptunaSearch(seed=search.seed, points_to_evaluate=[start] if start else None),
                    scheduler=ASHAScheduler(
                        time_attr=TIME, grace_period=search.grace_steps, max_t=10**9, reduction_factor=2
                    ),
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=str(storage),
                    verbose=0,
                    callbacks=[TrialLines(str(folder), METRIC, TIME)],
                ),
            )
        if tell is not None:
            LISTENERS[str(folder)] = tell
        try:
            # Tune prints a banner whatever its verbosity; stdout belongs to the result.
            with _interruptible(), contextlib.redirect_stdout(sys.stderr):
                grid = tuner.fit()
        finally:
            LISTENERS.pop(str(folder), None)
    return [_trial_result(folder, grid[i]) for i in range(len(grid))]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ray Tune answers Ctrl-C by ending `fit` as if the search were over. Then, and only then, it puts the
    handler back that it had replaced; otherwise it leaves its own behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        interrupted = signal.getsignal(signal.SIGINT) is former
        signal.signal(signal.SIGINT, former)
    if interrupted:
        raise KeyboardInterrupt


def _trial(draw: dict[str, Any], search: LoraSearch, parent: str | None) -> None:
    """One trial, in a process of Ray Tune: a Ray Train run whose reports Tune hears."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    number = tune.get_context().get_trial_id()
    settings = lora_settings(draw, search.settings)
    train_lora(
        LoraJob(
            name=f"{search.name}-{number}",
            base=search.base.absolute(),
            base_model=search.base_model,
            dataset=search.dataset.absolute(),
            folder=_trials(search.folder.absolute()) / number,
            settings=settings,
            tracking_uri=search.tracking_uri,
            experiment=search.experiment,
            tags={PARENT: parent} if parent else {},
        ),
        callbacks=[TuneReportCallback()],
    )


def _trials(folder: Path) -> Path:
    return folder / "trials"


def _trial_result(folder: Path, found: Any) -> TrialResult:
    metrics = found.metrics or {}
    number = str(metrics.get("trial_id") or Path(found.path).name)
    return TrialResult(
        id=number,
        draw=dict(found.config or {}),
        best_nll=None if metrics.get(METRIC) is None else float(metrics[METRIC]),
        steps=int(metrics.get(TIME, 0)),
        stopped=found.error is None and not (_trials(folder) / number / "result.json").is_file(),
        error=None if found.error is None else str(found.error).strip().splitlines()[-1][:300],
    )


def _conclude(search: LoraSearch, folder: Path, results: list[TrialResult]) -> LoraSearchResult:
    write_json(folder / RESULTS, [vars(trial) for trial in results])
    told = sorted((t for t in results if t.best_nll is not None), key=lambda t: (t.best_nll, t.id))
    if not told:
        reasons = "; ".join(sorted({t.error for t in results if t.error})) or "none reported"
        raise Unavailable(f"No trial of {search.name} gave a figure: {reasons}.")
    best = told[0]
    settings = lora_settings(best.draw, search.settings)
    nll = float(best.best_nll or 0.0)
    write_fragment(
        folder / BEST,
        {"training": {name: getattr(settings, name) for name in ("rank", "alpha", "learning_rate")}},
        [
            f"Best of {len(results)} trials of {search.name}: validation loss {nll:.4f} nats per token.",
            f"Stopped early: {sum(t.stopped for t in results)}, failed: {sum(t.error is not None for t in results)}.",
        ],
    )
    return LoraSearchResult(settings, nll, tuple(results), folder / BEST, None)


def _end_trials(search: LoraSearch, folder: Path) -> None:
    """Tune ends a trial by killing its process, so nobody there could tell MLflow."""
    for place in sorted(_trials(folder).glob(f"*/{tracking.FILE}")):
        found = tracking.load(place.parent)
        if found is not None and found.status == "RUNNING":
            tracking.end(place.parent, "KILLED", {})
        tracking.flush(place.parent, search.tracking_uri)


def _params(search: LoraSearch) -> dict[str, Any]:
    space = {f"space.{name}": value for name, value in vars(search.space).items()}
    return {"base_model": search.base_model, "trials": search.trials, "seed": search.seed, **space}
