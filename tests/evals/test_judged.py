"""The judged suite through the real store and the product's own search."""

from pathlib import Path

import numpy as np
import pytest

from assistant.settings import EmbedderSettings, EvalSettings, QdrantSettings, Settings
from assistant.stores.vectors import VectorStore
from evals.beir import JudgedCollection, load_beir
from evals.collection import dropped, fill, whole_document
from evals.oracle import PUBLISHED
from evals.results import SuiteResult
from evals.suites.judged import Vectorised, run
from evals.text_metrics import stems
from evals.vector_cache import VectorCache, model_hash

pytestmark = pytest.mark.integration

SIZE = 64
DOCUMENTS = {
    "volume": "A persistent volume fills up. Delete old data, or resize the volume.",
    "node": "A node is not ready. Look at the kubelet, then restart the instance.",
    "budget": "An error budget is spent by outages and by risky releases of a service.",
    "cake": "Beat butter with sugar, add the eggs one by one, then bake for an hour.",
    "certificate": "Certificates expire. Renew them before the date that the alert names.",
}
QUERIES = {"q1": "resize a full volume", "q2": "node not ready", "q3": "renew a certificate", "q4": "zebra"}
JUDGED = {"q1": {"volume": 1}, "q2": {"node": 1, "cake": 0}, "q3": {"certificate": 1}, "q4": {"budget": 1}}


def vectors(texts: list[str]) -> np.ndarray:
    """Bags of hashed stems: enough of meaning for a test, without a model."""
    rows = np.full((len(texts), SIZE), 1e-3, dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for stem in stems(text):
            row[sum(ord(c) * 31**i for i, c in enumerate(stem)) % SIZE] += 1
    normal: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normal


COLLECTION = JudgedCollection("small", "test", DOCUMENTS, QUERIES, JUDGED, "hash")
DATA = Vectorised(COLLECTION, vectors(list(DOCUMENTS.values())), vectors(list(QUERIES.values())))


@pytest.fixture
def settings(qdrant_server: QdrantSettings) -> Settings:
    return Settings(
        qdrant=qdrant_server.model_copy(update={"collection": "judged"}),
        embedder=EmbedderSettings(name="hashed", dimension=SIZE),
        evals=EvalSettings(draws=200),
    )


async def test_every_mode_is_scored_beside_bm25_of_another_hand(
    vector_store: VectorStore, settings: Settings
) -> None:
    steps: list[tuple[str, int, int]] = []
    result = await run(DATA, vector_store, settings, step=lambda *s: steps.append(s))
    assert {f"{mode}/ndcg@10" for mode in ("dense", "sparse", "hybrid")} <= result.metrics.keys()
    assert {f"{p.name}/recall@100" for p in PUBLISHED} <= result.metrics.keys()
    assert result.headline == "hybrid/ndcg@10"
    by_id = {case.id: case for case in result.per_case}
    assert [by_id[q].values["hybrid/mrr@10"] for q in ("q1", "q2", "q3")] == [1, 1, 1]
    assert by_id["q4"].values["sparse/ndcg@10"] == 0.0
    assert result.metrics["sparse/ndcg@10"].mean == pytest.approx(0.75)
    assert by_id["q1"].detail["ranks"]["hybrid"] == {"volume": 1}
    assert {(c.first, c.second) for c in result.comparisons if c.metric == "ndcg@10"} == {
        ("hybrid", "dense"),
        ("hybrid", "sparse"),
        ("dense", "sparse"),
    }
    assert ("hybrid", 4, 4) in steps
    assert result.meta["data_hash"] == "hash"


async def test_a_subset_of_modes_and_queries(vector_store: VectorStore, settings: Settings) -> None:
    result = await run(DATA, vector_store, settings, modes=("sparse",), limit=2, oracle=False)
    assert [case.id for case in result.per_case] == ["q1", "q2"]
    assert {name.partition("/")[0] for name in result.metrics} == {"sparse"}
    assert result.headline == "sparse/ndcg@10"


async def test_a_run_leaves_no_trace_of_the_one_before(vector_store: VectorStore, settings: Settings) -> None:
    items = [whole_document(id_, text) for id_, text in DOCUMENTS.items()]
    await fill(vector_store, settings, items, DATA.documents)
    await fill(vector_store, settings, items[:2], None)
    assert await vector_store.count("judged") == 2
    assert len(await vector_store.collections("judged")) == 1
    await dropped(vector_store, "judged")
    assert await vector_store.collections("judged") == []


BM25, DENSE = (0.6762, 0.6863), 0.6451


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_scifact_comes_out_as_published(
    vector_store: VectorStore,
    qdrant_server: QdrantSettings,
    real_data: Path,
    models_dir: Path,
    repo_root: Path,
) -> None:
    """nDCG@10 by the product's own path; dense only where an evaluation has already made the vectors."""
    collection = load_beir(real_data / "scifact")
    embedder = EmbedderSettings()
    path = models_dir / embedder.name
    cache = VectorCache(repo_root / ".local" / "evals" / "cache", model_hash(path), 256, embedder.dimension)
    texts = [*collection.documents.values(), *collection.queries.values()]
    made = not cache.missing(texts)
    rows = cache.vectors(texts, _never) if made else np.ones((len(texts), 384), dtype=np.float32)
    count = len(collection.documents)
    settings = Settings(qdrant=qdrant_server.model_copy(update={"collection": "scifact"}))
    result: SuiteResult = await run(
        Vectorised(collection, rows[:count], rows[count:]),
        vector_store,
        settings,
        modes=("dense", "sparse") if made else ("sparse",),
        depth=10,
    )
    sparse = result.metrics["sparse/ndcg@10"].mean
    assert BM25[0] - 0.015 <= sparse <= BM25[1] + 0.015
    for parameters, published in zip(PUBLISHED, (0.6762, 0.6791, 0.6863), strict=True):
        assert result.metrics[f"{parameters.name}/ndcg@10"].mean == pytest.approx(published, abs=0.001)
    if not made:
        pytest.skip("dense was not checked: `ai-assistant eval run scifact` makes its vectors first")
    assert result.metrics["dense/ndcg@10"].mean == pytest.approx(DENSE, abs=0.005)


def _never(texts: object) -> np.ndarray:
    raise AssertionError("nothing may be embedded here")
