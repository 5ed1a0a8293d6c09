"""Stored runs in MLflow: tags, figures with their intervals, the report as an artefact.

A run waits on disk until MLflow has all of it: `<home>/evals/waiting/<id>` exists meanwhile. It is looked up by
its id before it is made, so sending twice stores one run, and what a crash left unfinished is completed.
"""

import contextlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from assistant.errors import AssistantError, ConfigurationError
from assistant.settings import MlflowSettings
from assistant.telemetry import get_logger
from evals.runs import RunStore, StoredRun

TAG = "ai_assistant."
RUN_TAG = f"{TAG}eval_run"
PROBE_S = 3.0
_MAX_VALUE = 500
_NAME = re.compile(r"[^A-Za-z0-9_\-. /]")
_log = get_logger("evals")


class Tracker:
    """Sends stored runs. Nothing here raises because MLflow is away: runs wait, and the next one sends them."""

    def __init__(self, home: Path, settings: MlflowSettings) -> None:
        self._store = RunStore(home)
        self._waiting = home / "evals" / "waiting"
        self._settings = settings

    def submit(self, run: StoredRun) -> str | None:
        """Note that MLflow shall have this run, and send what waits; its MLflow id, None while it waits.

        Raises ConfigurationError when the note cannot be written.
        """
        try:
            self._waiting.mkdir(parents=True, exist_ok=True)
            (self._waiting / run.id).touch()
        except OSError as error:
            raise ConfigurationError(f"{self._waiting} cannot be written: {error.strerror}.") from None
        return self.flush_waiting().get(run.id)

    def waiting(self) -> list[str]:
        """Ids of the runs that MLflow does not have yet, oldest first."""
        return sorted(p.name for p in self._waiting.glob("*")) if self._waiting.is_dir() else []

    def flush_waiting(self) -> dict[str, str]:
        """Send what waits: run id → MLflow's id of those that arrived."""
        names = self.waiting()
        client = self._client() if names else None
        if client is None:
            return {}
        from mlflow.exceptions import MlflowException

        sent: dict[str, str] = {}
        for name in names:
            try:
                sent[name] = self._send(client, self._store.load(name))
            except (MlflowException, OSError, httpx.HTTPError) as error:
                _log.warning("mlflow_waits", run=name, error=str(error)[:300])
                continue
            except AssistantError as error:
                # Its folder is gone or damaged: there is nothing left to send.
                _log.warning("run_not_sent", run=name, error=error.detail)
            with contextlib.suppress(FileNotFoundError):
                (self._waiting / name).unlink()
        return sent

    def _client(self) -> Any:
        """None while MLflow does not answer. Asked by hand first: its own client retries for minutes."""
        uri = self._settings.tracking_uri
        if uri is None:
            return None
        if uri.startswith(("http://", "https://")):
            try:
                answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=PROBE_S, trust_env=False)
                if not answer.is_success:
                    return None
            except httpx.HTTPError:
                return None
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)

    def _send(self, client: Any, run: StoredRun) -> str:
        from mlflow.entities import Metric, Param, RunTag

        experiment = _experiment(client, self._settings.experiment)
        id_ = self._find(client, experiment, run.id)
        if id_ is None:
            made = client.create_run(
                experiment,
                start_time=int(run.created_at.timestamp() * 1000),
                tags={RUN_TAG: run.id},
                run_name=run.id,
            )
            id_ = str(made.info.run_id)
        at = int(run.created_at.timestamp() * 1000)
        metrics = [Metric(name, value, at, 0) for name, value in figures(run).items()]
        params = [Param(name, value) for name, value in parameters(run).items()]
        for start in range(0, len(metrics), 500):
            client.log_batch(id_, metrics=metrics[start : start + 500])
        client.log_batch(id_, params=params, tags=[RunTag(*item) for item in tags(run).items()])
        for file in (run.report, run.folder / "run.json"):
            client.log_artifact(id_, str(file))
        client.set_terminated(id_, "FINISHED", end_time=int(time.time() * 1000))
        return id_

    def _find(self, client: Any, experiment: str, name: str) -> str | None:
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
        return str(found[0].info.run_id) if found else None


def figures(run: StoredRun) -> dict[str, float]:
    """Metric name → value: every mean, its bounds as `.low` and `.high`, and the differences."""
    found: dict[str, float] = {}
    for metric, interval in run.result.metrics.items():
        name = metric_name(metric)
        found |= {name: interval.mean, f"{name}.low": interval.low, f"{name}.high": interval.high}
    for row in run.result.comparisons:
        name = metric_name(f"{row.first} minus {row.second}/{row.metric}")
        found |= {name: row.result.difference, f"{name}.low": row.result.low, f"{name}.high": row.result.high}
    return found


def metric_name(metric: str) -> str:
    """As MLflow allows it: `hybrid/ndcg@10` is `hybrid/ndcg_at_10`."""
    return _NAME.sub("_", metric.replace("@", "_at_").replace("=", "_"))


def parameters(run: StoredRun) -> dict[str, str]:
    """The settings of the run, nested ones with dots."""
    return {name: value[:_MAX_VALUE] for name, value in _flat("", run.result.meta) if name not in _TAGGED}


def tags(run: StoredRun) -> dict[str, str]:
    """git revision, data hash, model, collection, suite."""
    meta = run.result.meta
    known = {name: str(meta[name]) for name in _TAGGED if meta.get(name)}
    return {
        RUN_TAG: run.id,
        f"{TAG}suite": run.result.name,
        "mlflow.source.git.commit": run.code_version,
        **{f"{TAG}{name}": value for name, value in known.items()},
    }


_TAGGED = ("data_hash", "model", "collection", "adapter")


def _flat(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for name, value in values.items():
        flat += (
            _flat(f"{prefix}{name}.", value)
            if isinstance(value, Mapping)
            else [(_NAME.sub("_", prefix + name), str(value))]
        )
    return flat


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Somebody else made it meanwhile.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
