"""Second stage: the vectors of whole batches of parts, by one model per actor."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from assistant.retrieval.embedders import Embedder, SentenceTransformerEmbedder, Vectors
from assistant.settings import EmbedderSettings
from data_jobs.job import Part


class EmbedStage:
    """A Ray Data actor. It gets the path of the model, so that it can be restarted anywhere."""

    def __init__(self, settings: EmbedderSettings, path: Path) -> None:
        self._embedder: Embedder = SentenceTransformerEmbedder(settings, path)

    def __call__(self, batch: pa.Table) -> pa.Table:
        parts = embed_parts([Part.of(row) for row in batch.to_pylist()], self._embedder)
        return pa.Table.from_pylist([part.row() for part in parts])


def embed_parts(parts: Sequence[Part], embedder: Embedder) -> list[Part]:
    """The parts with their vectors. All texts go in one call, which sorts them by length."""
    texts = [e.text for part in parts for e in part.chunks]
    try:
        vectors = _finite(embedder.embed(texts))
    except Exception as error:
        if len(parts) == 1:
            return [parts[0].failed("embed", f"{type(error).__name__}: {error}")]
        # One bad text must not cost its neighbours: find it by taking the parts one by one.
        return [embedded for part in parts for embedded in embed_parts([part], embedder)]
    result, start = [], 0
    for part in parts:
        stop = start + len(part.chunks)
        result.append(replace(part, vectors=vectors[start:stop]) if part.chunks else part)
        start = stop
    return result


def _finite(vectors: Vectors) -> Vectors:
    if not np.isfinite(vectors).all():
        raise ValueError("the model gave values that are not finite")
    return vectors
