"""A small knowledge base in the real store, put there by the real embedder."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from assistant.clock import stable_id
from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import SentenceTransformerEmbedder
from assistant.retrieval.search import SearchService
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.stores.vectors import ChunkPoint, VectorStore
from assistant.types import Document, Principal

ANYONE = Principal("anyone", "anonymous")
RUNBOOK = """# KubePersistentVolumeFillingUp

## Meaning

There can be various reasons why a volume is filling up. This runbook covers volumes that fill legitimately.

## Impact

Service degradation, switching to read only mode after the volume has no space left on it.

## Mitigation

### Data retention

Deleting no longer needed data is the fastest and the cheapest solution. Ask the service owner first.

### Direct volume resizing

If volume resizing is available, it is easiest to increase the capacity of the volume.

To resize the volume run:

```shell
kubectl -n <my-namespace> edit pvc <my-pvc>
```

Then do these steps:

1. wait for the status of the claim
2. restart the pod

### Purge volume

TODO
"""
PAGES: Mapping[str, str] = {
    "KubePersistentVolumeFillingUp.md": RUNBOOK,
    "KubeNodeNotReady.md": "# KubeNodeNotReady\n\n## Mitigation\n\nTerminate the instance once its cause is known, "
    "then look whether the node that replaces it becomes ready.\n",
    "budget.md": "# Error budgets\n\nAn error budget is the amount of unreliability that a service may have in a "
    "quarter. It is spent by outages and by risky releases. Teams stop releasing when it is spent.\n",
    "cake.md": "# Cakes\n\nBeat the butter with the sugar, add the eggs one by one, then bake it for an hour.\n",
}
SECRET = (
    "# Payroll\n\nThe payroll database keeps the salaries of all people in an encrypted persistent volume.\n"
)


@dataclass
class Corpus:
    store: VectorStore
    service: SearchService
    settings: Settings
    chunks: dict[str, list[UUID]]


async def build(store: VectorStore, embedder: SentenceTransformerEmbedder, settings: Settings) -> Corpus:
    """PAGES for everyone, SECRET for the group payroll."""
    alias = settings.qdrant.collection
    await store.ensure_collection(alias, embedder.name, embedder.dimension, {})
    corpus = Corpus(store, service(store, embedder, settings), settings, {})
    for name, text in PAGES.items():
        corpus.chunks[name] = await add(store, embedder, settings, name, text, ("public",))
    corpus.chunks["payroll.md"] = await add(
        store, embedder, settings, "payroll.md", SECRET, ("group:payroll",)
    )
    return corpus


def service(store: VectorStore, embedder: SentenceTransformerEmbedder, settings: Settings) -> SearchService:
    async def embed(text: str) -> np.ndarray:
        return embedder.embed([text])[0]

    return SearchService(store, embed, settings)


async def add(
    store: VectorStore,
    embedder: SentenceTransformerEmbedder,
    settings: Settings,
    name: str,
    text: str,
    acl: tuple[str, ...],
) -> list[UUID]:
    title = text.partition("\n")[0].removeprefix("# ")
    document = Document(stable_id(name), stable_id("source"), name, title, text, "v1", "text/markdown")
    chunker, encoder = Chunker(settings.chunk, embedder), Bm25Encoder(settings.retrieval)
    chunks = chunker.split(document)
    texts = [chunker.embedding_text(title, chunk) for chunk in chunks]
    points = []
    for chunk, embedded, vector in zip(chunks, texts, embedder.embed(texts), strict=True):
        payload = {
            "text": chunk.text,
            "title": title,
            "headings": list(chunk.headings),
            "start": chunk.start,
            "end": chunk.end,
            "chunk_index": chunk.index,
            "token_count": chunk.token_count,
            "document_id": str(document.id),
            "source_id": str(document.source_id),
            "source": "handbook",
            "source_type": "search_sources",
            "external_id": name,
            "content_type": "text/markdown",
            "content_hash": "v1",
            "acl": list(acl),
            "metadata": {},
        }
        points.append(ChunkPoint(chunk.id, vector, encoder.document(embedded), payload))
    await store.upsert(settings.qdrant.collection, points)
    return [chunk.id for chunk in chunks]
