"""The cache embeds nothing twice, survives interruptions and torn files, and never mixes models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from assistant.errors import ConfigurationError, InvalidInput
from assistant.retrieval.embedders import Vectors
from evals import vector_cache
from evals.vector_cache import VectorCache, model_hash

TEXTS = [f"text number {n} " + "x" * (n % 7) for n in range(40)]


class Embedder:
    """Counts what it is asked; breaks off after `limit` texts."""

    def __init__(self, limit: int = 1000) -> None:
        self.asked: list[str] = []
        self._limit = limit

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if len(self.asked) + len(texts) > self._limit:
            raise KeyboardInterrupt
        self.asked += texts
        return np.array([_vector(t) for t in texts], dtype=np.float32)


def _vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(map(ord, text)) % 101), 1.0]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "SHARD", 8)


def cache(folder: Path, model: str = "m" * 64, max_tokens: int = 256) -> VectorCache:
    return VectorCache(folder, model, max_tokens, 3)


def test_nothing_is_embedded_twice(tmp_path: Path) -> None:
    first, second = Embedder(), Embedder()
    seen: list[tuple[int, int]] = []
    made = cache(tmp_path).vectors([*TEXTS, TEXTS[0]], first, lambda *at: seen.append(at))
    assert sorted(first.asked) == sorted(TEXTS)
    assert [len(t) for t in first.asked] == sorted(len(t) for t in TEXTS)
    assert made.tolist() == [_vector(t) for t in [*TEXTS, TEXTS[0]]]
    assert seen[-1] == (41, 41)
    assert cache(tmp_path).vectors(TEXTS, second).tolist() == made[:-1].tolist()
    assert second.asked == []


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path).vectors(TEXTS, Embedder(limit=20))
    again = Embedder()
    cache(tmp_path).vectors(TEXTS, again)
    assert len(again.asked) == len(TEXTS) - 16


def test_a_torn_file_is_made_again(tmp_path: Path) -> None:
    cache(tmp_path).vectors(TEXTS, Embedder())
    torn = min(tmp_path.rglob("*.npy"))
    torn.write_bytes(torn.read_bytes()[:40])
    again = Embedder()
    made = cache(tmp_path).vectors(TEXTS, again)
    assert len(again.asked) == 8
    assert made.tolist() == [_vector(t) for t in TEXTS]


def test_models_and_lengths_are_kept_apart(tmp_path: Path) -> None:
    cache(tmp_path).vectors(TEXTS, Embedder())
    assert cache(tmp_path, model="n" * 64).missing(TEXTS[:3]) == TEXTS[:3]
    assert cache(tmp_path, max_tokens=128).missing(TEXTS[:3]) == TEXTS[:3]


def test_vectors_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    broken = np.full((8, 3), np.nan, dtype=np.float32)
    with pytest.raises(InvalidInput, match="no 3 numbers"):
        cache(tmp_path).vectors(TEXTS[:8], lambda _: broken)
    assert list(tmp_path.rglob("*.npy")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{'m' * 16}-256").write_text("a file is in the way")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        cache(tmp_path).vectors(TEXTS[:1], Embedder())


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no model"):
        model_hash(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = model_hash(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert model_hash(tmp_path) != before
