"""Embedders that cost nothing: vectors drawn by the text and the embedder's name, behind the real tokenizer."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assistant.retrieval.embedders import TextTokenizer, Vectors
from assistant.settings import Settings


class DrawnEmbedder(TextTokenizer):
    """Equal texts get equal vectors, by each embedder others. A text with BROKEN in it has no finite one."""

    def __init__(self, settings: Settings) -> None:
        embedder = settings.embedder
        super().__init__(settings.embedder_path, embedder.max_tokens)
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return np.array([self.vector(text) for text in texts], dtype=np.float32).reshape(-1, self.dimension)

    def vector(self, text: str) -> Vectors:
        if "BROKEN" in text and self.name != "all-MiniLM-L6-v2":
            return np.full(self.dimension, np.nan, dtype=np.float32)
        seed = hashlib.sha256(f"{self.name} {text}".encode()).digest()
        drawn = np.random.default_rng(list(seed)).normal(size=self.dimension)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def install(home: Path, minilm: Path, name: str, dimension: int = 384, window: int = 256) -> Path:
    """A folder `<home>/models/<name>` that says these sizes, with MiniLM's tokenizer and no weights."""
    folder = home / "models" / name
    (folder / "1_Pooling").mkdir(parents=True)
    shutil.copy(minilm / "tokenizer.json", folder / "tokenizer.json")
    shutil.copy(minilm / "modules.json", folder / "modules.json")
    pooling = {"word_embedding_dimension": dimension, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": window}))
    return folder
