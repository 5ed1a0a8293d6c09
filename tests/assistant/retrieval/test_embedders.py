"""The real model: unit vectors in the order of the texts, and a tokenizer that counts as it does."""

from pathlib import Path

import numpy as np
import pytest

from assistant.errors import ConfigurationError
from assistant.retrieval.embedders import SentenceTransformerEmbedder, TextTokenizer
from assistant.settings import EmbedderSettings


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


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json does not exist"):
        TextTokenizer(tmp_path, 256)


def test_a_wrong_dimension_is_refused(models_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="gives 384 dimensions"):
        SentenceTransformerEmbedder(EmbedderSettings(dimension=128), models_dir / "all-MiniLM-L6-v2")
