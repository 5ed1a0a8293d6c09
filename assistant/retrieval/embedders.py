"""Text to vectors: the embedder's protocol, its tokenizer, and the local sentence-transformers model."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from assistant.errors import ConfigurationError
from assistant.settings import EmbedderSettings

Vectors = npt.NDArray[np.float32]


class TokenCounter(Protocol):
    """Counts as the embedder does, without the marks it adds around a text."""

    max_tokens: int

    def count_tokens(self, text: str) -> int: ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of every token in characters of `text`."""
        ...


class Embedder(TokenCounter, Protocol):
    """Turns texts into L2-normalised float32 vectors of shape (n, dimension)."""

    name: str
    dimension: int

    def embed(self, texts: Sequence[str]) -> Vectors: ...


class TextTokenizer:
    """The tokenizer of a sentence-transformers folder alone: no torch, loads in milliseconds."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        file = path / "tokenizer.json"
        if not file.is_file():
            raise ConfigurationError(
                f"The embedder's tokenizer {file} does not exist.",
                hint="Run `ai-assistant up` to install the built-in weights, or set embedder.path.",
            )
        self.max_tokens = max_tokens
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)


class SentenceTransformerEmbedder(TextTokenizer):
    """A sentence-transformers model from a local folder, on CPU. Safe to call from several threads."""

    def __init__(self, settings: EmbedderSettings, path: Path) -> None:
        super().__init__(path, settings.max_tokens)
        # The libraries read these at import: a model given by path must never be looked up on a hub.
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            os.environ.setdefault(variable, "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        torch.set_num_threads(settings.threads)
        self.name = settings.name
        self.dimension = settings.dimension
        self._batch_size = settings.batch_size
        self._lock = threading.Lock()
        self._model: Any = SentenceTransformer(str(path), device="cpu")
        self._model.max_seq_length = settings.max_tokens
        actual = self._model.get_embedding_dimension()
        if actual != settings.dimension:
            raise ConfigurationError(
                f"The model in {path} gives {actual} dimensions, embedder.dimension says {settings.dimension}.",
                hint="Set embedder.dimension to the model's.",
            )

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                list(texts),
                batch_size=self._batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)
