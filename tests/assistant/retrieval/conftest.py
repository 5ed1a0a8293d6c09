"""The small knowledge base, new for every test that asks for it."""

from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient

from assistant.retrieval.embedders import SentenceTransformerEmbedder
from assistant.settings import QdrantSettings, Settings
from assistant.stores.vectors import VectorStore
from tests.assistant.retrieval.corpus import Corpus, build


@pytest.fixture
async def corpus(vector_store: VectorStore, embedder: SentenceTransformerEmbedder) -> Corpus:
    """In the real store."""
    return await build(vector_store, embedder, Settings())


@pytest.fixture
async def light_corpus(embedder: SentenceTransformerEmbedder) -> AsyncIterator[Corpus]:
    """In memory: for what lies above the store, in a tenth of the time."""
    store = VectorStore(QdrantSettings(), AsyncQdrantClient(":memory:"))
    yield await build(store, embedder, Settings())
    await store.close()
