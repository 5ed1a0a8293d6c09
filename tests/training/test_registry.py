"""The registry and the runs of training against a real MLflow server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from assistant.errors import Conflict, InvalidInput, NotFound, Unavailable
from tests.fixtures_cluster import free_port
from training import journal, tracking
from training.lora_step import Step
from training.registry import Registry

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

CARD = {
    "base_model": "tiny",
    "rank": 4,
    "data_hash": "d" * 64,
    "code_version": "abc",
    "metrics": {"nll": 1.5},
}


@pytest.fixture
def client(mlflow_url: str) -> Any:
    found = tracking.client_of(mlflow_url)
    assert found is not None
    return found


@pytest.fixture
def run_id(client: Any) -> str:
    return str(client.create_run(tracking.experiment_id(client, "registry")).info.run_id)


def adapter(folder: Path, text: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 4}')
    (folder / "adapter_model.safetensors").write_text(text)
    return folder


def step(number: int, validation: float | None = None) -> Step:
    return Step(number, 10, 0.1, 3.0 / number, 0.01, 0.5, 200, 2.0, 1, validation)


def test_a_version_has_signature_card_and_lineage(
    mlflow_url: str, client: Any, run_id: str, tmp_path: Path
) -> None:
    from mlflow.models import get_model_info

    registry = Registry(mlflow_url, "signed")
    assert registry.champion() is None
    number = registry.register(adapter(tmp_path / "a"), CARD, run_id)
    found = registry.version(number)
    assert (found.name, found.card, found.run_id) == ("signed-1", CARD, run_id)
    stored = client.get_model_version("signed", "1")
    assert stored.tags["data_hash"] == "d" * 64
    uri = client.get_model_version_download_uri("signed", "1")
    import mlflow

    mlflow.set_tracking_uri(mlflow_url)
    info = get_model_info(uri)
    assert info.signature.inputs.input_names() == ["messages"]
    assert info.metadata == CARD
    fetched = registry.download(number, tmp_path / "fetched")
    assert (fetched / "adapter_model.safetensors").read_text() == "weights"


def test_registering_again_gives_the_same_version(mlflow_url: str, run_id: str, tmp_path: Path) -> None:
    registry = Registry(mlflow_url, "again")
    first = registry.register(adapter(tmp_path / "a"), CARD, run_id)
    assert registry.register(tmp_path / "a", CARD, run_id) == first
    assert registry.register(adapter(tmp_path / "b", "others"), CARD, run_id) == first + 1
    assert [v.number for v in registry.versions()] == [first + 1, first]
    with pytest.raises(InvalidInput, match="is missing"):
        registry.register(tmp_path, CARD, run_id)


def test_aliases_move_and_come_back(mlflow_url: str, run_id: str, tmp_path: Path) -> None:
    registry = Registry(mlflow_url, "moving")
    one, two = (registry.register(adapter(tmp_path / t, t), CARD, run_id) for t in ("a", "b"))
    with pytest.raises(Conflict, match="nothing to go back to"):
        registry.rollback()
    assert registry.challenge(one).aliases == ("challenger",)
    assert registry.promote(one).aliases == ("champion",)
    assert registry.challenger() is None
    assert registry.previous() is None
    for _ in range(2):
        registry.promote(two)
        champion, previous = registry.champion(), registry.previous()
        assert champion is not None
        assert previous is not None
        assert (champion.number, previous.number) == (two, one)
    registry.challenge(one)
    registry.withdraw()
    registry.withdraw()
    assert registry.challenger() is None
    back = registry.rollback()
    assert back is not None
    assert back.number == one
    assert registry.previous() is None
    assert registry.rollback() is None
    assert registry.champion() is None
    with pytest.raises(NotFound, match="no version 99"):
        registry.promote(99)


def test_the_decision_stays_with_its_version_however_long(
    mlflow_url: str, client: Any, run_id: str, tmp_path: Path
) -> None:
    registry = Registry(mlflow_url, "decided")
    number = registry.register(adapter(tmp_path / "a"), CARD, run_id)
    record = {"promote": False, "reasons": ["lower bound -0.1"], "draws": 10_000}
    registry.record_decision(number, record)
    assert registry.version(number).decision == record
    registry.record_decision(number, {"per_case": ["x" * 100] * 100})
    assert registry.version(number).decision == {"see": "the artifact of the run"}
    path = client.download_artifacts(run_id, f"adapter/decision-decided-{number}.json", str(tmp_path))
    assert len(json.loads(Path(path).read_text())["per_case"]) == 100


def test_an_mlflow_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        Registry(f"http://127.0.0.1:{free_port()}").champion()
    with pytest.raises(Unavailable, match="No MLflow is configured"):
        Registry(None)


def test_points_wait_while_mlflow_is_down_and_are_sent_once(
    mlflow_url: str, client: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    down = f"http://127.0.0.1:{free_port()}"
    tracking.begin(folder, "waiting", "k1", "training", {"rank": 4}, {"data_hash": "x"})
    journal.append(folder, step(1))
    assert tracking.flush(folder, down) is None
    assert tracking.flush_waiting(tmp_path, None) == 0
    run_id = tracking.flush(folder, mlflow_url)
    assert run_id is not None
    assert client.get_run(run_id).info.status == "RUNNING"
    journal.append(folder, step(2, validation=1.25))
    tracking.end(folder, "FINISHED", {"best_nll": 1.25})
    assert tracking.flush(folder, down) == run_id
    assert tracking.flush_waiting(tmp_path, mlflow_url) == 1
    assert tracking.flush_waiting(tmp_path, mlflow_url) == 0
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best_nll"] == run.data.metrics["validation_nll"] == 1.25
    assert run.data.params["rank"] == "4"
    assert [m.value for m in client.get_metric_history(run_id, "train_nll")] == [3.0, 1.5]


def test_a_job_started_again_goes_on_in_its_run(mlflow_url: str, client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    tracking.begin(folder, "twice", "k2", "training", {}, {})
    journal.append(folder, step(1))
    first = tracking.flush(folder, mlflow_url)
    tracking.end(folder, "FAILED", {})
    tracking.flush(folder, mlflow_url)
    # A driver that died between making the run and noting its id knows it by the tag alone.
    (folder / tracking.FILE).unlink()
    tracking.begin(folder, "twice", "k2", "training", {}, {})
    journal.append(folder, step(2))
    assert tracking.flush(folder, mlflow_url) == first
    assert client.get_run(first).info.status == "RUNNING"
    tracking.end(folder, "FINISHED", {})
    tracking.flush(folder, mlflow_url)
    assert [m.value for m in client.get_metric_history(first, "train_nll")] == [3.0, 1.5]


def test_runs_of_dead_drivers_are_ended_and_others_left_alone(
    mlflow_url: str, client: Any, tmp_path: Path
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    gone = f"{socket.gethostname()}|{dead.pid}|{time.time():.2f}"
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    (tmp_path / "job").mkdir()
    tracking.begin(tmp_path / "job", "alive", "k3", "abandoned", {}, {})
    alive = tracking.flush(tmp_path / "job", mlflow_url)
    experiment = tracking.experiment_id(client, "abandoned")

    def running(driver: str, seen: float) -> str:
        tags = {tracking.DRIVER: driver, tracking.SEEN: str(seen)}
        return str(client.create_run(experiment, tags=tags).info.run_id)

    killed = running(gone, time.time())
    silent, chatty = running("elsewhere|1|1.0", 0.0), running("elsewhere|1|1.0", time.time())
    foreign = str(client.create_run(experiment).info.run_id)
    assert set(tracking.close_abandoned(mlflow_url, "abandoned")) == {killed, silent}
    states = {r: client.get_run(r).info.status for r in (killed, silent, chatty, alive, foreign)}
    assert states == {
        killed: "FAILED",
        silent: "FAILED",
        chatty: "RUNNING",
        alive: "RUNNING",
        foreign: "RUNNING",
    }
    assert tracking.close_abandoned(mlflow_url, "no such experiment") == []
