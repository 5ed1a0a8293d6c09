"""Shared fixtures: the built-in weights, and the real embedder."""

from pathlib import Path
from typing import Any

import pytest

from cluster import weights

MODELS = Path(__file__).resolve().parent.parent / ".local" / "models"
"""Kept in the checkout between runs: fetching and converting take a minute and a network."""


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder that holds all-MiniLM-L6-v2 and the GGUF of SmolLM2; the first run downloads them."""
    weights.ensure_embedder(MODELS)
    weights.ensure_gguf(MODELS)
    return MODELS


@pytest.fixture(scope="session")
def embedder(models_dir: Path) -> Any:
    """The real MiniLM, loaded once per session."""
    from assistant.retrieval.embedders import SentenceTransformerEmbedder
    from assistant.settings import EmbedderSettings

    return SentenceTransformerEmbedder(EmbedderSettings(), models_dir / weights.EMBEDDER.folder)
