"""What a pod waits for before Ray starts."""

from pathlib import Path

import pytest

from assistant.errors import Unavailable
from assistant.llm.catalog import read_catalog
from assistant.settings import load_settings
from cluster.ready import Said, needed_weights, wait_for_weights


def test_the_weights_of_the_embedder_and_of_every_local_model_are_needed(tmp_path: Path) -> None:
    settings = load_settings({}, overrides={"home": str(tmp_path)})
    catalog = read_catalog(
        [
            {"name": "here", "engine": "llama_cpp", "path": "here.gguf"},
            {"name": "there", "engine": "ollama", "remote_model": "x"},
            {"name": "hub", "engine": "vllm", "hub_id": "a/b"},
        ],
        tmp_path,
        "the test",
    )
    models = tmp_path / "models"
    assert needed_weights(settings, catalog) == [models / "all-MiniLM-L6-v2", models / "here.gguf"]


def test_it_goes_on_as_soon_as_all_are_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    said: list[str] = []

    def sleep(seconds: float) -> None:
        (second if first.exists() else first).touch()

    wait_for_weights([first, second], said.append, sleep=sleep)
    assert said == [f"waiting for {first}", f"waiting for {second}"]


def test_weights_that_never_come_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="absent is not there after 0 s"):
        wait_for_weights([tmp_path / "absent"], lambda text: None, limit_s=0.0)


def test_the_same_state_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    say = Said()
    for text in ("waiting for Postgres", "waiting for Postgres", "ready"):
        say(text)
    assert capsys.readouterr().out == "waiting for Postgres\nready\n"
