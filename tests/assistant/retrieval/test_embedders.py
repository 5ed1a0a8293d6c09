"""The real model: unit vectors in the order of the texts, and a tokenizer that counts as it does."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from assistant.errors import ConfigurationError, InvalidInput
from assistant.retrieval.embedders import SentenceTransformerEmbedder, TextTokenizer, installed_embedder
from assistant.settings import EmbedderSettings, Settings


def test_vectors_are_normalised_and_in_order(embedder: SentenceTransformerEmbedder) -> None:
    texts = ["a long text about disks that fill up over time " * 5, "disk full", "cake recipe"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[1], embedder.embed(["disk full"])[0], atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_no_texts_give_no_vectors(embedder: SentenceTransformerEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_an_empty_text_has_a_finite_vector(embedder: SentenceTransformerEmbedder) -> None:
    assert np.isfinite(embedder.embed([""])).all()


def test_offsets_are_characters(embedder: SentenceTransformerEmbedder) -> None:
    text = "Größe: naïve 磁盘"
    offsets = embedder.token_offsets(text)
    assert len(offsets) == embedder.count_tokens(text)
    assert text[offsets[-1][0] : offsets[-1][1]] == "盘"


def test_loading_in_several_threads_leaves_transformers_as_it_was(models_dir: Path) -> None:
    from transformers import PreTrainedModel

    whole = PreTrainedModel.tie_weights
    path = models_dir / "all-MiniLM-L6-v2"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: SentenceTransformerEmbedder(EmbedderSettings(), path), range(8)))
    assert PreTrainedModel.tie_weights is whole


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json does not exist"):
        TextTokenizer(tmp_path, 256)


def test_a_wrong_dimension_is_refused(models_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="gives 384 dimensions"):
        SentenceTransformerEmbedder(EmbedderSettings(dimension=128), models_dir / "all-MiniLM-L6-v2")


@pytest.fixture
def other(tmp_path: Path, models_dir: Path) -> Settings:
    """Settings of an installation that has a second embedder, without its weights."""
    folder = tmp_path / "models" / "other-v2"
    (folder / "1_Pooling").mkdir(parents=True)
    for file in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        shutil.copy(models_dir / "all-MiniLM-L6-v2" / file, folder / file)
    return Settings(home=tmp_path)


def test_an_installed_embedder_tells_its_own_sizes(other: Settings) -> None:
    folder = other.models_dir / "other-v2"
    found = installed_embedder(other, "other-v2")
    assert (found.name, found.path, found.dimension, found.max_tokens) == ("other-v2", folder, 384, 256)
    assert installed_embedder(other, other.embedder.name) is other.embedder

    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "3_Dense").mkdir()
    (folder / "3_Dense" / "config.json").write_text('{"in_features": 384, "out_features": 96}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    found = installed_embedder(other, "other-v2")
    assert (found.dimension, found.max_tokens) == (96, 512)


@pytest.mark.parametrize("name", ["", "..", "../other-v2", "a/b", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(other: Settings, name: str) -> None:
    with pytest.raises(InvalidInput, match="embedder"):
        installed_embedder(other, name)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", None),
        ("modules.json", "[]"),
        ("modules.json", '{"a": 1}'),
        ("1_Pooling/config.json", None),
        ("1_Pooling/config.json", '{"word_embedding_dimension": "wide"}'),
        ("sentence_bert_config.json", "{"),
    ],
)
def test_a_broken_folder_is_named(other: Settings, file: str, content: str | None) -> None:
    path = other.models_dir / "other-v2" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=str(other.models_dir / "other-v2")):
        installed_embedder(other, "other-v2")
