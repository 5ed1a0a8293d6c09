"""Vectors that were made once: an evaluation never embeds a text twice.

A vector is known by its text, the model's files and how many tokens the model reads. Shards are written whole
as they are made, so an interrupted run goes on where it stopped.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from assistant.errors import ConfigurationError, InvalidInput
from assistant.retrieval.embedders import Vectors

SHARD = 128
"""Texts per file: about ten seconds of work."""
_KEY_BYTES = 32

Progress = Callable[[int, int], None]
"""(texts that have their vector, all texts)."""


def model_hash(folder: Path) -> str:
    """A hash over the weights and settings of a sentence-transformers folder."""
    digest = hashlib.sha256()
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".bin", ".json", ".txt"})
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    if not files:
        raise ConfigurationError(f"{folder} holds no model.", hint="Set embedder.path.")
    return digest.hexdigest()


class VectorCache:
    """The vectors of one model at one length, below `<home>/evals/cache`."""

    def __init__(self, folder: Path, model: str, max_tokens: int, dimension: int) -> None:
        self._folder = folder / f"{model[:16]}-{max_tokens}"
        self._dimension = dimension
        self._type = np.dtype([("key", f"S{2 * _KEY_BYTES}"), ("vector", np.float32, (dimension,))])
        self._known: dict[str, np.ndarray] | None = None

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts without a vector, each once, short ones first, so that batches waste little."""
        known = self._load()
        return sorted({t for t in texts if _key(t) not in known}, key=lambda t: (len(t), t))

    def vectors(
        self,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], Vectors],
        progress: Progress | None = None,
    ) -> Vectors:
        """One row per text; `embed` is called for those that are missing, a shard at a time.

        Raises InvalidInput when a vector is not made of numbers, ConfigurationError when the disk is full.
        """
        missing = self.missing(texts)
        known = self._load()
        for start in range(0, len(missing), SHARD):
            if progress:
                progress(len(texts) - len(missing) + start, len(texts))
            shard = missing[start : start + SHARD]
            made = embed(shard)
            if made.shape != (len(shard), self._dimension) or not np.isfinite(made).all():
                raise InvalidInput(f"The embedder gave no {self._dimension} numbers for some of the texts.")
            self._write(shard, made)
            known.update(zip(map(_key, shard), made, strict=True))
        if progress:
            progress(len(texts), len(texts))
        return np.stack([known[_key(t)] for t in texts]) if texts else np.zeros((0, self._dimension), "f4")

    def _load(self) -> dict[str, np.ndarray]:
        if self._known is None:
            self._known = {}
            for file in sorted(self._folder.glob("*.npy")):
                with contextlib.suppress(FileNotFoundError):
                    self._known.update(self._read(file))
        return self._known

    def _read(self, file: Path) -> dict[str, np.ndarray]:
        try:
            rows = np.load(file, allow_pickle=False)
            if rows.dtype != self._type:
                raise ValueError
        except (ValueError, EOFError):
            file.unlink(missing_ok=True)  # Torn by a crash of the machine: it is made again.
            return {}
        return {row["key"].decode(): row["vector"] for row in rows}

    def _write(self, texts: Sequence[str], vectors: Vectors) -> None:
        rows = np.zeros(len(texts), dtype=self._type)
        rows["key"] = [_key(t).encode() for t in texts]
        rows["vector"] = vectors
        name = hashlib.sha256(rows["key"].tobytes()).hexdigest()[:24]
        temporary = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, suffix=".new")
            with os.fdopen(descriptor, "wb") as sink:
                np.save(sink, rows, allow_pickle=False)
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(temporary, self._folder / f"{name}.npy")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise ConfigurationError(f"{self._folder} cannot be written: {error.strerror}.") from None


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
