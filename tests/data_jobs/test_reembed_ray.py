"""A build on a cluster, with a real embedder in the pool's actor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assistant.errors import NotFound
from assistant.retrieval.embedders import SentenceTransformerEmbedder, installed_embedder
from assistant.settings import IngestSettings, Settings
from assistant.stores.vectors import SearchFilter, VectorStore
from data_jobs import copy_stage
from data_jobs.copy_stage import Copying, copy_on_ray
from data_jobs.progress import Silent
from data_jobs.reembed import promote, reembed
from data_jobs.store_stage import Stored
from tests.fixtures_cluster import RayCluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*use_push_based_shuffle:DeprecationWarning"),
]

ALIAS = "search_sources"
COPY = "minilm-copy"


class Counting(Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.steps: list[int] = []

    def phase(self, source: str, name: str) -> None:
        self.phases.append(name)

    def advance(self, source: str, stored: Stored) -> None:
        self.steps.append(stored.chunks)


async def test_many_chunks_are_embedded_on_ray(
    ray_cluster: RayCluster,
    ingest: Callable[..., Any],
    settings: Settings,
    tmp_path: Path,
    models_dir: Path,
    vector_store: VectorStore,
    embedder: SentenceTransformerEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ingest()
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / COPY).symlink_to(models_dir / "all-MiniLM-L6-v2")
    settings = settings.model_copy(update={"home": home, "ingest": IngestSettings(small_job_documents=0)})
    monkeypatch.setattr(copy_stage, "CHUNKS_PER_CALL", 2)
    seen = Counting()
    report = await reembed(settings, ALIAS, installed_embedder(settings, COPY), seen)
    assert (report.written, report.failed, report.points) == (6, 0, 6)
    assert seen.phases == ["comparing", "starting Ray", "embedding on Ray"]
    assert seen.steps == [2, 2, 2]
    assert (await promote(settings, ALIAS, COPY, seen)).live == report.collection

    text = "alpha\nThis page tells what the service called alpha does and whom it serves every day."
    everyone = SearchFilter(("public",))
    found = await vector_store.candidates(
        ALIAS, dense=embedder.embed([text])[0], sparse=None, limit=1, where=everyone
    )
    (payload,) = (await vector_store.fetch(ALIAS, [found.dense[0].id], everyone)).values()
    assert (payload["text"], payload["embedder"]) == (text.partition("\n")[2], COPY)
    assert found.dense[0].score == pytest.approx(1.0, abs=1e-4)

    # What goes wrong in an actor arrives as what it is.
    live = await vector_store.live_name(ALIAS)
    assert live is not None
    ids = [id_ async for id_, _ in vector_store.scan(live)]
    bound = settings.model_copy(update={"embedder": installed_embedder(settings, COPY)})
    with pytest.raises(NotFound, match="nowhere"):
        await copy_on_ray(Copying(bound, live, "nowhere"), ids, lambda copied: None)
