"""Training runs in MLflow: one run per job over all its restarts, and none left RUNNING by the dead.

Everything is first a file in the job's folder (`tracking.json` beside the points); `flush` sends what MLflow
does not have yet. When MLflow is down training goes on, and a later `flush_waiting` catches up. Points carry
the time they were measured, so sending one twice stores it once.
"""

import json
import os
import socket
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from assistant.clock import epoch_s
from assistant.telemetry import get_logger
from training import journal
from training.folders import write_json

FILE = "tracking.json"
TAG = "ai_assistant."
DRIVER = f"{TAG}driver"
SEEN = f"{TAG}seen_at"
JOB = f"{TAG}job"
PROBE_S = 3.0
SILENT_S = 900.0
"""A RUNNING run of another machine that said nothing for so long has lost its driver."""
BATCH = 900
"""Metrics in one request; MLflow takes 1,000."""
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_sending = threading.Lock()


@dataclass
class Tracked:
    """What MLflow should know. `sent` is the last step it has; `closed` that it knows the end."""

    name: str
    key: str
    experiment: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    status: Status = "RUNNING"
    run_id: str | None = None
    sent: int = 0
    closed: bool = False


def begin(
    folder: Path,
    name: str,
    key: str,
    experiment: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> None:
    """Note that the job runs (again), in this process. Nothing is sent yet.

    `name` is shown; starts with the same `key` are one run.
    """
    found = load(folder) or Tracked(name, key, experiment)
    found.params = {key: str(value)[:500] for key, value in params.items()}
    found.tags = {**tags, JOB: key, DRIVER: _myself()}
    found.status, found.closed = "RUNNING", False
    _store(folder, found)


def end(folder: Path, status: Status, summary: Mapping[str, float]) -> None:
    """Note how the job ended. Nothing is sent yet."""
    found = load(folder)
    if found is not None and not found.closed:
        found.status, found.summary = status, dict(summary)
        _store(folder, found)


def flush(folder: Path, tracking_uri: str | None) -> str | None:
    """Send what MLflow lacks; the run's id, or None as long as MLflow has not answered.

    An MLflow that is down or refuses is logged, never raised: the files stay and are sent later.
    """
    with _sending:
        found = load(folder)
        if found is None or found.closed:
            return found.run_id if found else None
        client = client_of(tracking_uri)
        if client is None:
            return found.run_id
        from mlflow.exceptions import MlflowException

        try:
            _send(client, folder, found)
        except (MlflowException, OSError, httpx.HTTPError) as error:
            get_logger("training").warning("mlflow_waits", folder=str(folder), error=str(error)[:300])
        return found.run_id


def flush_waiting(root: Path, tracking_uri: str | None) -> int:
    """Send what waits in any job folder below `root`; how many jobs MLflow now knows to the end."""
    waiting = [f.parent for f in sorted(root.glob(f"*/{FILE}")) if not _closed(f.parent)]
    for folder in waiting:
        flush(folder, tracking_uri)
    return sum(_closed(folder) for folder in waiting)


def close_abandoned(tracking_uri: str | None, experiment: str) -> list[str]:
    """End the RUNNING runs of this experiment whose driver is gone; their ids.

    A driver of this machine is looked up by process id and start time; one of another machine counts as gone
    after a quarter of an hour without a word. An MLflow that fails is logged, and asked again the next time.
    """
    client = client_of(tracking_uri)
    if client is None:
        return []
    from mlflow.exceptions import MlflowException

    try:
        return _close(client, experiment)
    except (MlflowException, OSError) as error:
        get_logger("training").warning("mlflow_waits", experiment=experiment, error=str(error)[:300])
        return []


def _close(client: Any, experiment: str) -> list[str]:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    running = client.search_runs(
        [found.experiment_id], f"attributes.status = 'RUNNING' AND tags.`{DRIVER}` LIKE '%'", max_results=500
    )
    gone = [run.info.run_id for run in running if not _alive(run.data.tags)]
    for run_id in gone:
        client.set_terminated(run_id, "FAILED")
        client.set_tag(run_id, f"{TAG}ended_by", "its driver died")
    return gone


def client_of(tracking_uri: str | None) -> Any | None:
    """An MlflowClient, or None when there is no MLflow or it does not answer."""
    if tracking_uri is None:
        return None
    if tracking_uri.startswith(("http://", "https://")):
        try:
            answer = httpx.get(f"{tracking_uri.rstrip('/')}/health", timeout=PROBE_S, trust_env=False)
        except httpx.HTTPError:
            return None
        if not answer.is_success:
            return None
    # Its client repeats for minutes by default; what could not be sent is sent with the next flush.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with warnings.catch_warnings():
        # Its modules for a database without a server warn of their own relations.
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri)


def load(folder: Path) -> Tracked | None:
    path = folder / FILE
    return Tracked(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def experiment_id(client: Any, name: str) -> str:
    """The experiment's id; it is made when absent, also when two processes do so at once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _send(client: Any, folder: Path, found: Tracked) -> None:
    from mlflow.entities import Metric, Param, RunTag

    if found.run_id is None:
        found.run_id = _run_of(client, found)
        client.log_batch(found.run_id, params=[Param(k, v) for k, v in found.params.items()][:100])
        _store(folder, found)
    run_id = found.run_id
    tags = found.tags | {SEEN: str(int(epoch_s()))}
    client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()][:100])
    if found.status == "RUNNING" and client.get_run(run_id).info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    points = journal.read(folder, found.sent)
    values = [Metric(k, v, int(p.at_s * 1000), p.step) for p in points for k, v in p.metrics.items()]
    for first in range(0, len(values), BATCH):
        client.log_batch(run_id, metrics=values[first : first + BATCH])
    if points:
        found.sent = points[-1].step
        _store(folder, found)
    if found.status != "RUNNING":
        at = int(epoch_s() * 1000)
        client.log_batch(run_id, metrics=[Metric(k, v, at, found.sent) for k, v in found.summary.items()])
        client.set_terminated(run_id, found.status)
        found.closed = True
        _store(folder, found)


def _run_of(client: Any, found: Tracked) -> str:
    """The run of this job: that of an earlier attempt, or a new one."""
    experiment = experiment_id(client, found.experiment)
    same = client.search_runs([experiment], f"tags.`{JOB}` = '{found.key}'", max_results=1)
    if same:
        return str(same[0].info.run_id)
    return str(client.create_run(experiment, run_name=found.name, tags=found.tags).info.run_id)


def _store(folder: Path, found: Tracked) -> None:
    write_json(folder / FILE, asdict(found))


def _closed(folder: Path) -> bool:
    found = load(folder)
    return found is not None and found.closed


def _myself() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}|{process.pid}|{process.create_time():.2f}"


def _alive(tags: Mapping[str, str]) -> bool:
    host, pid, created = tags[DRIVER].rsplit("|", 2)
    if host != socket.gethostname():
        return epoch_s() - float(tags.get(SEEN, "0")) < SILENT_S
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < 1
    except psutil.NoSuchProcess:
        return False
