"""Runs reach MLflow once, with intervals and report; while it is away they wait on disk."""

from pathlib import Path

import pytest

from assistant.settings import MlflowSettings
from evals.runs import RunStore
from evals.tracking import RUN_TAG, Tracker, metric_name
from tests.evals.results import result


def test_names_are_those_that_mlflow_allows() -> None:
    assert metric_name("hybrid/ndcg@10") == "hybrid/ndcg_at_10"
    assert metric_name("bm25s k1=0.9 b=0.4/ndcg@10") == "bm25s k1_0.9 b_0.4/ndcg_at_10"


def test_a_run_waits_while_mlflow_is_away(tmp_path: Path) -> None:
    run = RunStore(tmp_path).save(result(), "<html>")
    for uri in (None, "http://127.0.0.1:9"):
        tracker = Tracker(tmp_path, MlflowSettings(tracking_uri=uri))
        assert tracker.submit(run) is None
        assert tracker.waiting() == [run.id]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_waited_is_sent_by_the_next_run_and_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.create_experiment("evals", artifact_location=(tmp_path / "artifacts").as_uri())
    store = RunStore(tmp_path)
    first, second = store.save(result(), "<html>"), store.save(result(0.1), "<html>")
    away = Tracker(tmp_path, MlflowSettings(tracking_uri=None, experiment="evals"))
    assert away.submit(first) is None
    gone = store.save(result(), "")
    away.submit(gone)
    (gone.folder / "run.json").unlink()

    tracker = Tracker(tmp_path, MlflowSettings(tracking_uri=uri, experiment="evals"))
    id_ = tracker.submit(second)
    assert id_ is not None
    assert tracker.waiting() == []
    # A crash between sending and forgetting: the same run is found, not made again.
    assert tracker.submit(second) == id_

    experiment = client.get_experiment_by_name("evals").experiment_id
    found = {run.data.tags[RUN_TAG]: run for run in client.search_runs([experiment])}
    assert set(found) == {first.id, second.id}
    run = found[second.id]
    interval = second.result.metrics["model/rouge_l"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["model/rouge_l"] == pytest.approx(interval.mean)
    assert run.data.metrics["model/rouge_l.low"] == pytest.approx(interval.low)
    assert "model minus summary/rouge_l.low" in run.data.metrics
    assert run.data.tags["ai_assistant.data_hash"] == "abc"
    assert run.data.tags["ai_assistant.model"] == "tiny"
    assert run.data.tags["mlflow.source.git.commit"] == second.code_version
    assert run.data.params["seconds.write"] == "1.5"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"report.html", "run.json"}
