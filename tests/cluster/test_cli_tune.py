"""`ai-assistant tune`, as called: a search over real documents with no stack running, and what is refused."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.settings import EmbedderSettings, load_settings
from cluster.cli import exits
from cluster.cli.app import main
from evals.splits import split_of
from tests.training.tiny import make_base
from tuning import lora_search

BODY = (
    "The {i} machine keeps {i} copies of whatever was written and drops the eldest when room gets scarce. "
    * 5
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command with a state folder of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(tmp_path / "home"))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ai-assistant", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


@pytest.mark.integration
def test_retrieval_is_tuned_with_no_stack_running_and_goes_on(
    run: Run, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_ASSISTANT_EMBEDDER__PATH", str(models_dir / EmbedderSettings().name))
    documents = tmp_path / "documents"
    documents.mkdir()
    for i in range(12):
        (documents / f"doc{i}.md").write_text(f"# Number {i}\n\n## Retention\n\n{BODY.format(i=i)}\n")
    asked = sum(split_of(f"doc{i}.md") == "dev" for i in range(12))
    assert asked, "the names must put a document into the dev split"
    call = ("tune", "retrieval", "--documents", str(documents), "--json", "--trials")
    code, out, err = run(*call, "2")
    assert code == exits.OK, err
    assert f"{asked} questions over 12 texts" in err
    code, out, err = run(*call, "3")
    assert "trial 3 of 3" in err
    assert "trial 2 of 3" not in err
    result = json.loads(out)
    assert result["trials"] == 3
    assert result["ndcg@10"] >= result["now"]
    tuned = load_settings(environ={}, config_file=Path(result["fragment"])).retrieval
    assert {name: getattr(tuned, name) for name in result["best"]} == result["best"]
    left = [path.name for path in (tmp_path / "home" / "tuning").iterdir()]
    assert left == [Path(result["fragment"]).parent.name], "its Qdrant is gone"


def test_lora_searches_the_rows_of_the_newest_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search itself has tests of its own and takes a minute; this is what the command asks it for."""
    home = tmp_path / "home"
    for age, name in ((100.0, "old"), (0.0, "new")):
        rows = home / "learning" / "runs" / name / "dataset" / "train.jsonl"
        rows.parent.mkdir(parents=True)
        rows.touch()
        os.utime(rows, (1e9 - age, 1e9 - age))
    base = make_base(tmp_path / "base")
    models = tmp_path / "models.yaml"
    models.write_text(f"models:\n- name: tiny\n  engine: vllm\n  path: {base}\n")
    monkeypatch.setenv("AI_ASSISTANT_LLM__MODELS_FILE", str(models))
    asked: list[lora_search.LoraSearch] = []

    def search(wanted: lora_search.LoraSearch, tell: object) -> lora_search.LoraSearchResult:
        asked.append(wanted)
        fragment = tmp_path / "best.yaml"
        fragment.write_text("training:\n  rank: 8\n")
        trials = (lora_search.TrialResult("a", {"rank": 8}, 1.5, 10, False, None),)
        return lora_search.LoraSearchResult(wanted.settings, 1.5, trials, fragment, None)

    monkeypatch.setattr(lora_search, "search_lora", search)
    code, out, _ = run("tune", "lora", "--trials", "5")
    assert code == exits.OK
    assert "1.5000" in out
    assert "rank: 8" in out
    code, out, _ = run("tune", "lora", "--trials", "5", "--json")
    assert json.loads(out)["trials"][0]["best_nll"] == 1.5
    assert [(one.base, one.base_model, one.trials) for one in asked] == [(base, "tiny", 5)] * 2
    assert asked[0].dataset == home / "learning" / "runs" / "new" / "dataset"
    assert asked[0].folder == asked[1].folder, "the same call goes on with the same search"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("retrieval",), "either --documents or --judged"),
        (("retrieval", "--documents", "x", "--judged", "y"), "either --documents or --judged"),
        (("retrieval", "--judged", ".", "--split", "test"), "test split is for reporting"),
        (("lora",), "no dataset of a learning run"),
        (("lora", "--dataset", ".", "--model", "nobody"), "no local model nobody"),
    ],
)
def test_what_cannot_be_searched_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = run("tune", *arguments)
    assert code not in (exits.OK, exits.INTERRUPTED)
    assert says in err
