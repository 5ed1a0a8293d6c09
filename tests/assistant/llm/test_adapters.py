"""What is loaded and what is refused: the card, the files, the base."""

import json
import shutil
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from assistant.llm.adapters import (
    CARD,
    GGUF,
    PEFT_WEIGHTS,
    base_fingerprint,
    find_adapter,
    read_adapter,
    write_card,
)

FIELDS = {"base_model": "small", "base_fingerprint": "f" * 64, "rank": 4, "alpha": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "answerer-3"
    folder.mkdir()
    (folder / PEFT_WEIGHTS).write_bytes(b"weights")
    (folder / GGUF).write_bytes(b"weights for llama.cpp")
    return folder


def test_a_finished_adapter_is_read_with_its_card(folder: Path) -> None:
    write_card(folder, **FIELDS, metrics={"rouge_l": 0.31}, registry_version=3)
    adapter = find_adapter(folder.parent, "answerer-3", "small", "f" * 64)
    assert (adapter.name, adapter.rank, adapter.folder) == ("answerer-3", 4, folder)
    assert adapter.card["metrics"] == {"rouge_l": 0.31}
    assert adapter.file(GGUF).read_bytes() == b"weights for llama.cpp"


def test_a_card_written_again_counts_the_files_of_then(folder: Path) -> None:
    write_card(folder, **FIELDS)
    (folder / GGUF).write_bytes(b"better weights")
    write_card(folder, **FIELDS)
    assert read_adapter(folder, "small").card["files"].keys() == {PEFT_WEIGHTS, GGUF}
    assert [p.name for p in folder.parent.iterdir()] == ["answerer-3"]


def test_a_file_that_the_engine_needs_and_the_card_lacks_is_named(folder: Path) -> None:
    (folder / GGUF).unlink()
    write_card(folder, **FIELDS)
    with pytest.raises(ConfigurationError, match=rf"answerer-3 has no {GGUF}"):
        read_adapter(folder, "small").file(GGUF)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "it is not there"),
        (lambda f: (f / CARD).unlink(), "was never finished"),
        (lambda f: (f / CARD).write_text("{"), "cannot be read"),
        (lambda f: (f / CARD).write_text("[]"), "lacks adapter, base_model"),
        (lambda f: (f / GGUF).write_bytes(b"weightz for llama.cpp"), "is damaged"),
        (lambda f: (f / GGUF).unlink(), "cannot be read"),
        (lambda f: f.rename(f.with_name("answerer-4")), "it is not there"),
    ],
)
def test_what_is_not_whole_is_refused_by_name(folder: Path, damage: object, message: str) -> None:
    write_card(folder, **FIELDS)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_adapter(folder, "small")
    assert "answerer-3" in caught.value.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter": "answerer-9"}, "is the card of 'answerer-9'"),
        ({"base_model": "big"}, "made for the model 'big'"),
        ({"rank": 0}, "rank is 0"),
        ({"base_fingerprint": ""}, "lacks base_fingerprint"),
        ({"files": {}}, "lists no weights"),
        ({"files": {GGUF: "0", "../../etc/passwd": "0"}}, "outside its folder"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    card = json.loads(write_card(folder, **FIELDS).read_text()) | change
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ConfigurationError, match=message):
        read_adapter(folder, "small")


def test_an_adapter_for_other_weights_of_the_same_name_is_refused(folder: Path) -> None:
    write_card(folder, **FIELDS)
    with pytest.raises(ConfigurationError, match="made for other weights"):
        read_adapter(folder, "small", "0" * 64)


@pytest.mark.parametrize("name", ["../answerer-3", "answerer-3/", "", ".hidden", "a\x00b"])
def test_names_that_lead_elsewhere_are_refused(folder: Path, name: str) -> None:
    write_card(folder, **FIELDS)
    with pytest.raises(ConfigurationError, match="is no adapter name"):
        find_adapter(folder.parent, name, "small")


def test_a_folder_without_weights_is_never_finished(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lists no weights"):
        write_card(tmp_path, **FIELDS)
    assert not (tmp_path / CARD).exists()


def test_the_fingerprint_changes_with_shapes_and_tokenizer_only(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "transformers_version": "5"}

    def fingerprint(tokenizer: str = "{}", **change: object) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        (tmp_path / "tokenizer.json").write_text(tokenizer)
        return base_fingerprint(tmp_path)

    first = fingerprint()
    assert fingerprint(transformers_version="6") == first
    assert len({first, fingerprint(hidden_size=32), fingerprint(tokenizer="{ }")}) == 3
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError, match="no transformers model"):
        base_fingerprint(tmp_path)
