"""Searching LoRA settings on a real Ray cluster, interrupted and resumed."""

import json
import signal
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from assistant.settings import load_settings
from tests.fixtures_cluster import RayCluster
from tests.training.tiny import QUICK, make_base, rows
from training import tracking
from training.rows import write_rows
from tuning.lora_search import PARENT, LoraSearch, search_lora
from tuning.search_space import LoraSpace

SPACE = LoraSpace(ranks=(2, 4), alpha_per_rank=(2.0,), learning_rate=(1e-3, 3e-2))


@pytest.fixture
def search(tmp_path: Path) -> LoraSearch:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_rows(dataset / "train.jsonl", rows(18))
    write_rows(dataset / "validation.jsonl", rows(5, 40))
    settings = QUICK.model_copy(update={"worker_cpus": 0.5})
    base = make_base(tmp_path / "base")
    return LoraSearch(
        "look", base, "tiny", dataset, tmp_path / "search", settings, SPACE, trials=2, grace_steps=5
    )


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_interrupted_search_goes_on_and_writes_the_best(
    ray_cluster: RayCluster, search: LoraSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked = LoraSearch(**{**vars(search), "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        search_lora(tracked, interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    first = json.loads(next((search.folder / "trials").glob("*/job.json")).read_text())
    assert first["settings"]["learning_rate"] == QUICK.learning_rate, "the settings of now are tried first"
    result = search_lora(tracked, lines.append)
    assert signal.getsignal(signal.SIGINT) is handler
    assert "Configuration for experiment" not in capsys.readouterr().out, "stdout belongs to the result"
    assert len(result.trials) == 2
    assert len({trial.id for trial in result.trials}) == 2
    assert result.best_nll == min(t.best_nll for t in result.trials if t.best_nll is not None)
    assert all(trial.error is None for trial in result.trials)
    training = load_settings(environ={}, config_file=result.fragment).training
    assert (training.rank, training.alpha) == (result.best.rank, result.best.alpha)
    assert training.learning_rate == result.best.learning_rate
    client = tracking.client_of(tracked.tracking_uri)
    assert client is not None
    runs = client.search_runs([tracking.experiment_id(client, "ai-assistant")])
    children = [run for run in runs if run.data.tags.get(PARENT) == result.mlflow_run_id]
    assert len(children) == 2
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_a_search_without_trials_or_data_is_refused(search: LoraSearch) -> None:
    with pytest.raises(InvalidInput, match="one trial at least"):
        search_lora(LoraSearch(**{**vars(search), "trials": 0}))
