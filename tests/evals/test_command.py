"""`ai-assistant eval` as people call it: real files, a real temporary Qdrant, the real embedder."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import exits
from cluster.cli.app import main
from evals.runs import RunStore
from tests.evals.results import result

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> Path:
    """A state folder with the built-in weights, which evaluations read, and nothing that runs."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(models_dir)
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(folder))
    monkeypatch.setenv("AI_ASSISTANT_EVALS__DRAWS", "200")
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ai-assistant", "eval", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def answer(out: str) -> Any:
    return json.loads(out)


@pytest.mark.parametrize("command", [(), ("run",), ("compare",), ("gate",), ("list",)])
def test_help_teaches(call: Run, command: tuple[str, ...]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == exits.OK
    assert not command or "Examples:" in out


def test_runs_are_listed(call: Run, home: Path) -> None:
    assert call("list", "--json") == (exits.OK, "[]\n", "")
    stored = RunStore(home).save(result(), "")
    code, out, _ = call("list")
    assert code == exits.OK
    assert stored.id in out
    assert "model/rouge_l" in out


def test_two_runs_are_compared(call: Run, home: Path) -> None:
    store = RunStore(home)
    better, base = store.save(result(0.1), ""), store.save(result(), "")
    code, out, err = call("compare", better.id, base.id, "--json")
    rows = {(r["metric"], r["first"]): r["result"] for r in answer(out)["comparisons"]}
    assert (code, err) == (exits.OK, "")
    assert rows["rouge_l", "model"]["verdict"] == "better"
    assert rows["rouge_l", "summary"]["verdict"] == "cannot tell"
    code, out, _ = call("compare", f"{base.id}:model", f"{base.id}:summary", "--metric", "rouge_l")
    assert code == exits.OK
    assert "better" in out


def test_what_cannot_be_compared_is_told(call: Run, home: Path) -> None:
    stored = RunStore(home).save(result(), "")
    code, _, err = call("compare", stored.id, "nothing")
    assert (code, "no stored run 'nothing'" in err) == (exits.NOT_FOUND, True)
    code, _, err = call("compare", f"{stored.id}:nobody", stored.id)
    assert (code, "has no system 'nobody'" in err) == (exits.USAGE, True)
    code, _, err = call("compare", stored.id, stored.id, "--metric", "ndcg@10")
    assert (code, "no case with ndcg@10" in err) == (exits.USAGE, True)


def test_the_gate_ends_with_one_when_it_refuses(call: Run, home: Path) -> None:
    store = RunStore(home)
    better, base = store.save(result(0.1), "").id, store.save(result(), "").id
    code, out, _ = call("gate", better, base)
    assert (code, out.splitlines()[0]) == (exits.OK, "promote")
    code, out, _ = call("gate", base, better, "--json")
    decision = answer(out)
    assert (code, decision["promote"]) == (exits.ERROR, False)
    assert decision["frozen"]["verdict"] == "worse"
    code, out, _ = call("gate", better, base, "--guard", base, better)
    assert (code, out.splitlines()[0]) == (exits.ERROR, "refused")
    assert "guard set: -0.1000" in out
    code, _, _ = call("gate", better, base, "--guard", base, better, "--harm-margin", "0.2")
    assert code == exits.OK
    code, _, _ = call("gate", better, base, "--min-gain", "0.2")
    assert code == exits.ERROR


def test_absent_data_are_skipped_loudly_unless_they_were_named(
    call: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_ASSISTANT_EVALS__DATA", str(tmp_path / "nowhere"))
    code, _, err = call("run", "scifact")
    assert code == exits.OK
    assert err.startswith("SKIPPED: The data of scifact are not there")
    code, out, _ = call("run", "sections", "--json")
    assert (code, "skipped" in answer(out)) == (exits.OK, True)
    code, _, err = call("run", "scifact", "--data", str(tmp_path / "nowhere"))
    assert (code, "corpus.jsonl does not exist" in err) == (exits.USAGE, True)
    code, _, err = call("run", "sections", "--data", str(tmp_path / "nowhere"))
    assert (code, "does not exist" in err) == (exits.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "scifact", "--modes", "magic"), "Unknown mode 'magic'"),
        (("run", "scifact", "--model", "x"), "belong to sections"),
        (("run", "scifact", "--split", "all", "--data", "."), "no split 'all'"),
    ],
)
def test_wrong_usage_is_told(call: Run, home: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = call(*arguments)
    assert code == exits.USAGE
    assert message in err


@pytest.mark.integration
@pytest.mark.slow
def test_a_judged_run_from_files_to_report(call: Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "Resize the persistent volume when the disk is full.", "d2": "Bake the cake for an hour."}
    corpus = [json.dumps({"_id": id_, "title": "", "text": text}) for id_, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "no space left on the disk"}))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    code, out, err = call("run", "scifact", "--data", str(folder), "--json")
    made = answer(out)
    assert (code, err) == (exits.OK, "")
    assert made["metrics"]["dense/ndcg@10"]["mean"] == made["metrics"]["hybrid/ndcg@10"]["mean"] == 1.0
    assert made["meta"]["embedded"] == 3
    assert Path(made["report"]).read_text().startswith("<!doctype html>")
    assert made["mlflow_run_id"] is None
    again = answer(call("run", "scifact", "--data", str(folder), "--json", "--modes", "dense")[1])
    assert again["meta"]["embedded"] == 0
    assert [p.name for p in (home / "evals").iterdir() if p.name.startswith("qdrant")] == []
    assert len(list((home / "evals" / "waiting").iterdir())) == 2


@pytest.mark.integration
def test_a_section_run_without_a_model_measures_the_floors(call: Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "proposals"
    folder.mkdir()
    summary = "We keep the answers of the service in memory so that it need not ask the store every time."
    for name in ("cache", "queue", "index"):
        text = (
            f"# The {name}\n\n## Summary\n\n{summary}\n\n## Reasons\n\n{f'The {name} is slow today. ' * 12}\n"
        )
        (folder / f"{name}.md").write_text(text)
    code, out, _ = call("run", "sections", "--data", str(folder), "--split", "all", "--json")
    made = answer(out)
    assert code == exits.OK
    assert made["cases"] == 3
    assert {m.partition("/")[0] for m in made["metrics"]} == {"summary", "evidence", "other document"}
    code, out, err = call("run", "sections", "--data", str(folder), "--split", "all", "--model", "tiny")
    assert (code, "does not run" in err) == (exits.NOT_RUNNING, True)
