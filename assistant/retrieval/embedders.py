"""Text to vectors: the embedder's protocol, its tokenizer, and the local sentence-transformers model."""

import json
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from assistant.errors import ConfigurationError, InvalidInput
from assistant.loading import LOADING
from assistant.settings import EmbedderSettings, Settings

Vectors = npt.NDArray[np.float32]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
        with LOADING:
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


def installed_embedder(settings: Settings, name: str) -> EmbedderSettings:
    """The settings of the embedder called `name`: the configured one, or a folder `<home>/models/<name>`.

    A folder's own files say its dimension and its window. Raises InvalidInput for a name that is none, and
    ConfigurationError naming the folder or file that is missing or unreadable.
    """
    configured = settings.embedder
    if name == configured.name:
        return configured
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no name of an embedder.",
            hint="It is a folder's name: letters, digits, dots, hyphens and underscores.",
            field="embedder",
        )
    folder = settings.models_dir / name
    if not (folder / "modules.json").is_file():
        raise ConfigurationError(
            f"The embedder {name!r} is not installed: {folder} holds no sentence-transformers model.",
            hint=f"Copy its folder, the one with modules.json, to {folder}.",
        )
    found: dict[str, int] = {"dimension": _dimension(folder)}
    window = folder / "sentence_bert_config.json"
    if window.is_file():
        found["max_tokens"] = _positive(window, _json(window), "max_seq_length")
    return configured.model_copy(update={"name": name, "path": folder, **found})


def _dimension(folder: Path) -> int:
    """Numbers in a vector: what the last module that changes them says."""
    dimension = 0
    modules = _json(folder / "modules.json")
    for module in [m for m in modules if isinstance(m, dict)] if isinstance(modules, list) else []:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        file = folder / str(module.get("path", "")) / "config.json"
        if kind == "Pooling":
            pooling = _json(file)
            modes = [key for key in pooling if key.startswith("pooling_mode_") and pooling[key] is True]
            size = (
                "word_embedding_dimension" if "word_embedding_dimension" in pooling else "embedding_dimension"
            )
            dimension = _positive(file, pooling, size) * max(1, len(modes))
        elif kind == "Dense":
            dimension = _positive(file, _json(file), "out_features")
    if not dimension:
        raise ConfigurationError(
            f"{folder / 'modules.json'} names no Pooling and no Dense module.",
            hint="Only sentence-transformers models with one vector per text can be used.",
        )
    return dimension


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{file} cannot be read: {error}.", hint="Copy the embedder's folder again, whole."
        ) from error


def _positive(file: Path, values: Any, key: str) -> int:
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"{file} says {key} = {value!r}, which is no size.",
            hint="Copy the embedder's folder again, whole.",
        )
    return value
