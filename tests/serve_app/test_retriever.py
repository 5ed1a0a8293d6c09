"""The Retriever over real stores and two real embedders: it follows the alias, and no search fails meanwhile."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import structlog
from pydantic import SecretStr

from assistant.errors import InvalidInput, NotFound, Unavailable
from assistant.retrieval.embedders import SentenceTransformerEmbedder, installed_embedder
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.settings import LearningSettings, PostgresSettings, QdrantSettings, Settings
from assistant.stores.postgres import Database
from assistant.stores.vectors import SearchFilter, VectorStore
from assistant.types import Principal
from data_jobs.ingest import Ingestion, ingest
from data_jobs.reembed import drop, load_embedder, promote, reembed, rollback
from serve_app.live_index import LiveIndex
from serve_app.retriever import Retriever

ALIAS = "search_sources"
MINILM = "all-MiniLM-L6-v2"
FIRST = "minilm-first-token"
"""MiniLM's weights with another pooling: the first token's state instead of the mean."""
LIVE, NEXT = f"{ALIAS}__{MINILM}__1", f"{ALIAS}__{FIRST}__1"
ANYONE = Principal("local", "anonymous")
QUERY = SearchQuery("the claim is full", limit=3, mode="dense")
PAGES = {
    "volumes": "When a volume claim fills up, delete old snapshots first and then grow the claim slowly.",
    "etcd": "When etcd loses members, look at the disks of the control plane before restarting anything.",
    "certificates": "Certificates are renewed thirty days before they expire, by hand when that has failed.",
}

Open = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, models_dir: Path) -> Path:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / MINILM).symlink_to(models_dir / MINILM)
    shutil.copytree(models_dir / MINILM, models / FIRST, copy_function=lambda a, b: Path(b).symlink_to(a))
    pooling = models / FIRST / "1_Pooling" / "config.json"
    text = pooling.read_text()
    pooling.unlink()
    swapped = text.replace('cls_token": false', 'cls_token": true').replace(
        'mean_tokens": true', 'mean_tokens": false'
    )
    assert swapped != text
    pooling.write_text(swapped)
    return tmp_path / "home"


@pytest.fixture
def settings(
    home: Path,
    database: Database,
    database_url: str,
    vector_store: VectorStore,
    qdrant_server: QdrantSettings,
) -> Settings:
    return Settings(
        home=home,
        postgres=PostgresSettings(url=SecretStr(database_url)),
        qdrant=qdrant_server,
        learning=LearningSettings(poll_s=0.05),
    )


@pytest.fixture
async def fill(
    settings: Settings,
    tmp_path: Path,
    embedder: SentenceTransformerEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Awaitable[None]]:
    folder = tmp_path / "runbooks"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
    monkeypatch.setattr(Ingestion, "_load_embedder", lambda self: embedder)

    async def run() -> None:
        report = await ingest(settings, folders=[folder])
        assert report.sources[0].chunks == len(PAGES)

    return run


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens Retrievers as Ray Serve does, and closes them at the end."""
    made: list[Retriever] = []
    # All that batching wants to know of its replica.
    replica = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=100))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: replica)

    async def run(settings: Settings) -> Retriever:
        retriever = Retriever.__new__(Retriever)
        await Retriever.__init__(retriever, settings)  # type: ignore[misc, func-returns-value]
        made.append(retriever)
        return retriever

    yield run
    for retriever in made:
        await retriever.__del__()  # type: ignore[misc]
    structlog.reset_defaults()


def scores(result: SearchResult) -> tuple[tuple[str, float], ...]:
    return tuple((hit.title, round(float(hit.dense or 0), 4)) for hit in result.hits)


async def build(settings: Settings) -> None:
    report = await reembed(settings, ALIAS, installed_embedder(settings, FIRST))
    assert report.points == len(PAGES)


async def until_live(retriever: Retriever, collection: str) -> None:
    while (await retriever.health())["collection"] != collection:
        await asyncio.sleep(0.01)


@asynccontextmanager
async def searching(retriever: Retriever) -> AsyncIterator[list[tuple[tuple[str, float], ...]]]:
    """Four callers without a pause; every answer. A search that fails fails the test."""
    answers: list[tuple[tuple[str, float], ...]] = []
    done = asyncio.Event()

    async def caller() -> None:
        while not done.is_set():
            answers.append(scores(await retriever.search(QUERY, ANYONE)))

    async with asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(caller())
        try:
            yield answers
        finally:
            done.set()


async def test_searches_follow_the_alias_there_and_back_and_none_fails(
    settings: Settings,
    fill: Callable[[], Awaitable[None]],
    opened: Open,
    vector_store: VectorStore,
    embedder: SentenceTransformerEmbedder,
) -> None:
    await fill()
    retriever = await opened(settings)
    await build(settings)
    by_mean = scores(await retriever.search(QUERY, ANYONE))
    async with searching(retriever) as answers:
        await promote(settings, ALIAS, FIRST)
        await until_live(retriever, NEXT)
        by_first = scores(await retriever.search(QUERY, ANYONE))
        assert (await retriever.health())["embedder"] == FIRST
        await rollback(settings, ALIAS)
        await until_live(retriever, LIVE)
        assert scores(await retriever.search(QUERY, ANYONE)) == by_mean
    # What a query vector of the one embedder would find in the collection of the other.
    where = SearchFilter(ANYONE.acl_terms())
    other = load_embedder(settings.model_copy(update={"embedder": installed_embedder(settings, FIRST)}))
    mixed = set()
    for wrong, collection in ((embedder, NEXT), (other, LIVE)):
        vector = wrong.embed([QUERY.text])[0]
        found = await vector_store.candidates(collection, dense=vector, sparse=None, limit=3, where=where)
        mixed.add(round(found.dense[0].score, 4))
    assert len({by_mean[0][1], by_first[0][1]} | mixed) == 4
    assert len(by_mean) == len(by_first) == len(PAGES)
    assert set(answers) == {by_mean, by_first}


async def test_a_dropped_collection_is_left_at_once(
    settings: Settings, fill: Callable[[], Awaitable[None]], opened: Open
) -> None:
    await fill()
    await build(settings)
    slow = settings.model_copy(update={"learning": LearningSettings(poll_s=3600)})
    retriever = await opened(slow)
    before = await retriever.search(QUERY, ANYONE)
    await promote(settings, ALIAS, NEXT)
    assert scores(await retriever.search(QUERY, ANYONE)) == scores(before)
    await drop(settings, ALIAS, LIVE)
    after = await retriever.search(QUERY, ANYONE)
    assert len(after.hits) == len(PAGES)
    assert scores(after) != scores(before)
    passage = await retriever.passage(before.hits[0].chunk_id, ANYONE)
    assert passage.hit.text == before.hits[0].text


async def test_the_first_ingestion_is_found_at_once(
    settings: Settings, fill: Callable[[], Awaitable[None]], opened: Open
) -> None:
    retriever = await opened(settings.model_copy(update={"learning": LearningSettings(poll_s=3600)}))
    assert (await retriever.search(QUERY, ANYONE)).hits == ()
    with pytest.raises(InvalidInput, match="empty"):
        await retriever.search(SearchQuery(" "), ANYONE)
    await fill()
    assert (await retriever.search(QUERY, ANYONE)).hits[0].title == "volumes"
    assert (await retriever.health())["collection"] == LIVE


async def test_texts_are_embedded_by_the_live_embedder_or_the_configured_one(
    settings: Settings, fill: Callable[[], Awaitable[None]], opened: Open, embedder: Any
) -> None:
    await fill()
    await build(settings)
    await promote(settings, ALIAS, NEXT)
    retriever = await opened(settings)
    assert (await retriever.health())["embedders"] == {MINILM: 384, FIRST: 384}
    live, named, configured = [
        (await retriever.embeddings(["disk full"], model)).vectors for model in (None, FIRST, MINILM)
    ]
    assert np.array_equal(live, named)
    assert np.allclose(configured, embedder.embed(["disk full"]), atol=1e-5)
    assert not np.allclose(live, configured, atol=0.01)
    with pytest.raises(NotFound, match="'other'"):
        await retriever.embeddings(["disk full"], "other")


async def test_without_the_new_weights_the_old_collection_goes_on(
    settings: Settings,
    fill: Callable[[], Awaitable[None]],
    opened: Open,
    vector_store: VectorStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill()
    await build(settings)
    retriever = await opened(settings)
    before = scores(await retriever.search(QUERY, ANYONE))
    tried = asyncio.Event()
    refresh = LiveIndex.refresh

    async def watched(self: LiveIndex) -> None:
        try:
            await refresh(self)
        except Exception:
            tried.set()
            raise

    monkeypatch.setattr(LiveIndex, "refresh", watched)
    hidden = settings.home / "elsewhere"
    (settings.models_dir / FIRST).rename(hidden)
    await vector_store.move_alias(ALIAS, NEXT)
    await tried.wait()
    assert scores(await retriever.search(QUERY, ANYONE)) == before
    blind = await opened(settings)
    with pytest.raises(Unavailable, match=f"{FIRST}.*not installed"):
        await blind.search(QUERY, ANYONE)
    hidden.rename(settings.models_dir / FIRST)
    await until_live(retriever, NEXT)
    assert len((await blind.search(QUERY, ANYONE)).hits) == len(PAGES)
