"""Another embedder's collection beside the live one: built, caught up, live, rolled back, over real stores."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assistant.errors import ConfigurationError, Conflict, NotFound
from assistant.retrieval.embedders import installed_embedder
from assistant.settings import ChunkSettings, EmbedderSettings, Settings
from assistant.stores.locks import lock
from assistant.stores.vectors import SearchFilter, VectorStore
from data_jobs import copy_stage
from data_jobs.copy_stage import Copied
from data_jobs.ingest import Ingestion
from data_jobs.progress import Silent
from data_jobs.reembed import ReembedReport, collections, drop, promote, reembed, rollback
from data_jobs.store_stage import Stores
from tests.data_jobs.conftest import TEXT
from tests.data_jobs.embedding import DrawnEmbedder, install

ALIAS = "search_sources"
LIVE = f"{ALIAS}__all-MiniLM-L6-v2__1"
NEXT = f"{ALIAS}__other-v2__1"
EVERYONE = SearchFilter(("public",))

Ingest = Callable[..., Any]
Build = Callable[..., Any]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, models_dir: Path) -> Settings:
    """With a second embedder installed, of another dimension."""
    install(tmp_path / "home", models_dir / "all-MiniLM-L6-v2", "other-v2", dimension=96)
    return settings.model_copy(update={"home": tmp_path / "home"})


@pytest.fixture
def ingest(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    monkeypatch.setattr(Ingestion, "_load_embedder", lambda self: DrawnEmbedder(self._settings))
    return ingest


@pytest.fixture
def build(settings: Settings) -> Build:
    async def run(name: str = "other-v2", **more: Any) -> ReembedReport:
        embedder = installed_embedder(settings, name)
        return await reembed(settings, ALIAS, embedder, **{"load": DrawnEmbedder} | more)

    return run


async def ids(store: VectorStore, collection: str) -> set[tuple[Any, str]]:
    return {item async for item in store.scan(collection)}


async def nearest(store: VectorStore, settings: Settings, name: str, text: str) -> str:
    """The body of the chunk whose vector is that of `text` by this embedder, in the live collection."""
    embedder = DrawnEmbedder(settings.model_copy(update={"embedder": installed_embedder(settings, name)}))
    found = await store.candidates(ALIAS, dense=embedder.vector(text), sparse=None, limit=1, where=EVERYONE)
    assert found.dense[0].score == pytest.approx(1.0, abs=1e-5)
    (payload,) = (await store.fetch(ALIAS, [found.dense[0].id], EVERYONE)).values()
    assert payload["embedder"] == name
    return str(payload["text"])


async def roles(settings: Settings) -> dict[str, str]:
    found = await collections(settings, ALIAS)
    return {c.name: "live" if c.live else "previous" if c.previous else "" for c in found}


async def when_free(work: Build) -> ReembedReport:
    """Postgres takes a moment to notice that the holder of a lock is dead."""
    while True:
        try:
            report: ReembedReport = await work()
            return report
        except Conflict:
            await asyncio.sleep(0.05)


async def test_a_build_takes_every_chunk_over_and_changes_nothing_live(
    ingest: Ingest, build: Build, settings: Settings, vector_store: VectorStore
) -> None:
    await ingest(acl=("public", "group:sre"))
    report = await build()
    assert (report.collection, report.written, report.points) == (NEXT, 6, 6)
    assert (report.failed, report.cut, report.removed) == (0, 0, 0)
    assert await roles(settings) == {LIVE: "live", NEXT: ""}
    assert await ids(vector_store, NEXT) == await ids(vector_store, LIVE)
    all_ids = [id_ for id_, _ in await ids(vector_store, LIVE)]
    old = {c.id: c for c in await vector_store.read(LIVE, all_ids)}
    for chunk in await vector_store.read(NEXT, all_ids):
        assert chunk.payload == {**old[chunk.id].payload, "embedder": "other-v2"}
        assert chunk.sparse.indices
        assert sorted(zip(chunk.sparse.indices, chunk.sparse.values, strict=True)) == sorted(
            zip(old[chunk.id].sparse.indices, old[chunk.id].sparse.values, strict=True)
        )
    again = await build()
    assert (again.collection, again.written, again.points) == (NEXT, 0, 6)


async def test_what_happens_meanwhile_is_taken_over_before_the_alias_moves(
    ingest: Ingest, build: Build, settings: Settings, vector_store: VectorStore, folder: Path
) -> None:
    await ingest()
    await build()
    (folder / "alpha.md").write_text("# alpha\n\nOnly this sentence is left of all that it said before.\n")
    (folder / "beta.md").unlink()
    (folder / "delta.md").write_text(TEXT.format(name="delta"))
    await ingest()
    report = await promote(settings, ALIAS, "other-v2", load=DrawnEmbedder)
    assert (report.live, report.previous, report.moved) == (NEXT, LIVE, True)
    assert (report.written, report.removed, report.points) == (3, 4, 5)
    assert await roles(settings) == {LIVE: "previous", NEXT: "live"}
    assert await ids(vector_store, NEXT) == await ids(vector_store, LIVE)
    text = "alpha\nOnly this sentence is left of all that it said before."
    assert await nearest(vector_store, settings, "other-v2", text) == text.partition("\n")[2]
    again = await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    assert (again.moved, again.previous) == (False, LIVE)


async def test_ingestion_follows_the_live_collection_and_rollback_takes_its_work_back(
    ingest: Ingest, build: Build, settings: Settings, vector_store: VectorStore, folder: Path
) -> None:
    await ingest()
    await build()
    await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    unchanged = await ingest(settings)
    assert (unchanged.unchanged, unchanged.chunks) == (3, 0)
    (folder / "alpha.md").unlink()
    (folder / "delta.md").write_text(
        "# delta\n\nA page that came when the other embedder was live already.\n"
    )
    await ingest(settings)
    text = "delta\nA page that came when the other embedder was live already."
    assert await nearest(vector_store, settings, "other-v2", text) == text.partition("\n")[2]
    assert (await vector_store.count(LIVE), await vector_store.count(NEXT)) == (6, 5)

    report = await rollback(settings, ALIAS, load=DrawnEmbedder)
    assert (report.live, report.embedder, report.previous) == (LIVE, "all-MiniLM-L6-v2", NEXT)
    assert (report.written, report.removed) == (1, 2)
    assert await nearest(vector_store, settings, "all-MiniLM-L6-v2", text) == text.partition("\n")[2]
    assert (await ingest(settings)).unchanged == 3
    assert (await rollback(settings, ALIAS, load=DrawnEmbedder)).live == NEXT


async def test_a_build_that_was_killed_goes_on_where_it_was(
    ingest: Ingest, build: Build, settings: Settings, vector_store: VectorStore, repo_root: Path
) -> None:
    await ingest()
    values = settings.model_dump(mode="json")
    values["postgres"]["url"] = settings.postgres.url.get_secret_value()  # type: ignore[union-attr]
    values["qdrant"]["api_key"] = settings.qdrant.api_key.get_secret_value()  # type: ignore[union-attr]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.data_jobs.reembed_child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(values).encode())
    child.stdin.close()
    assert await child.stdout.readline() == b"stuck\n"
    with pytest.raises(Conflict, match="at work"):
        await build()
    child.kill()
    await child.wait()
    assert await vector_store.count(NEXT) == 2
    report = await when_free(build)
    assert (report.collection, report.written, report.points) == (NEXT, 4, 6)
    assert await ids(vector_store, NEXT) == await ids(vector_store, LIVE)


class Phases(Silent):
    """Sets `seen` when this phase begins."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.seen = asyncio.Event()

    def phase(self, source: str, name: str) -> None:
        if self.wanted in name:
            self.seen.set()


async def test_the_alias_does_not_move_under_an_ingestion(
    ingest: Ingest, build: Build, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest()
    await build()
    (folder / "delta.md").write_text(TEXT.format(name="delta"))
    writes, may_go_on = asyncio.Event(), asyncio.Event()
    upsert = VectorStore.upsert

    async def held(self: VectorStore, alias: str, points: Any) -> None:
        if alias == LIVE:
            writes.set()
            await may_go_on.wait()
        await upsert(self, alias, points)

    monkeypatch.setattr(VectorStore, "upsert", held)
    ingestion = asyncio.create_task(ingest())
    await writes.wait()
    waiting = Phases("waiting for an ingestion")
    promotion = asyncio.create_task(promote(settings, ALIAS, NEXT, waiting, DrawnEmbedder))
    await waiting.seen.wait()
    assert (await roles(settings))[LIVE] == "live"
    may_go_on.set()
    assert (await ingestion).added == 1
    report = await promotion
    assert (report.written, report.points) == (2, 8)

    blocked = Phases("go live")
    async with lock(settings.postgres, f"writing {ALIAS}"):
        monkeypatch.setattr(
            "tests.data_jobs.conftest.Ingestion", lambda *a, **k: Ingestion(*a, progress=blocked, **k)
        )
        second = asyncio.create_task(ingest())
        await blocked.seen.wait()
        assert not second.done()
    assert (await second).unchanged == 4


async def test_an_ingestion_whose_collection_was_replaced_says_so_and_the_next_completes_it(
    ingest: Ingest,
    build: Build,
    settings: Settings,
    vector_store: VectorStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the connection that held the lock was lost."""
    await ingest()
    await build()
    (folder / "delta.md").write_text(TEXT.format(name="delta"))
    check_live = Stores.check_live

    async def moved(self: Stores) -> None:
        await self.vectors.move_alias(ALIAS, NEXT)
        await check_live(self)

    with monkeypatch.context() as lost:
        lost.setattr(Stores, "check_live", moved)
        with pytest.raises(Conflict, match="not live any more"):
            await ingest()
    report = await ingest()
    assert (report.unchanged, report.changed, report.chunks) == (3, 1, 2)
    assert await vector_store.count(NEXT) == 8


async def test_chunks_without_a_vector_keep_the_alias_where_it_is(
    ingest: Ingest, build: Build, settings: Settings, folder: Path
) -> None:
    (folder / "beta.md").write_text(
        "# beta\n\nThis BROKEN page is too much for the second of the embedders.\n"
    )
    await ingest()
    report = await build()
    assert (report.written, report.failed, report.points) == (4, 1, 4)
    assert "handbook/beta.md" in report.reasons[0]
    with pytest.raises(Conflict, match=r"4 of the 5 chunks.*beta.md.*finite"):
        await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    assert await roles(settings) == {LIVE: "live", NEXT: ""}
    (folder / "beta.md").write_text(TEXT.format(name="beta"))
    await ingest()
    assert (await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)).points == 6


async def test_a_collection_that_lost_chunks_is_completed_before_it_goes_live(
    ingest: Ingest, build: Build, settings: Settings, vector_store: VectorStore
) -> None:
    await ingest()
    await build()
    lost = sorted(id_ for id_, _ in await ids(vector_store, NEXT))[1:3]
    await vector_store.delete(NEXT, lost)
    report = await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    assert (report.written, report.points) == (2, 6)


async def test_what_makes_no_sense_is_refused(
    ingest: Ingest, build: Build, settings: Settings, models_dir: Path
) -> None:
    with pytest.raises(NotFound, match="ingested"):
        await build()
    await ingest()
    with pytest.raises(Conflict, match="already"):
        await build("all-MiniLM-L6-v2")
    with pytest.raises(NotFound, match="No collection was live before"):
        await rollback(settings, ALIAS, load=DrawnEmbedder)
    with pytest.raises(NotFound, match="'other-v2'.*" + ALIAS):
        await promote(settings, ALIAS, "other-v2", load=DrawnEmbedder)
    with pytest.raises(Conflict, match="is live"):
        await drop(settings, ALIAS, LIVE)
    with pytest.raises(NotFound, match="elsewhere"):
        await drop(settings, ALIAS, "elsewhere")
    install(settings.home, models_dir / "all-MiniLM-L6-v2", "narrow", window=128)
    with pytest.raises(ConfigurationError, match=r"chunk.max_tokens is 220, but the embedder reads 128"):
        await build("narrow")
    assert await roles(settings) == {LIVE: "live"}
    await build()
    assert (await drop(settings, ALIAS, NEXT)).points == 6
    assert await roles(settings) == {LIVE: "live"}


async def test_an_embedder_that_was_asked_for_but_never_built_is_a_conflict(
    ingest: Ingest, build: Build, settings: Settings, models_dir: Path
) -> None:
    install(settings.home, models_dir / "all-MiniLM-L6-v2", "third")
    await ingest()

    def asks_for(name: str) -> Settings:
        embedder = installed_embedder(settings, name)
        return settings.model_copy(update={"embedder": EmbedderSettings(name=name, path=embedder.path)})

    with pytest.raises(Conflict, match=r"embedder.name is 'third'.*built with 'all-MiniLM-L6-v2'"):
        await ingest(asks_for("third"))
    await build()
    await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    # The configuration still names what was live when it was written; the promotion came later.
    assert (await ingest(asks_for("all-MiniLM-L6-v2"))).unchanged == 3


async def test_without_the_weights_of_the_live_embedder_nothing_is_ingested(
    ingest: Ingest, build: Build, settings: Settings
) -> None:
    await ingest()
    await build()
    await promote(settings, ALIAS, NEXT, load=DrawnEmbedder)
    shutil.rmtree(settings.models_dir / "other-v2")
    with pytest.raises(Conflict, match="'other-v2' is not installed") as caught:
        await ingest()
    assert "rollback" in str(caught.value.hint)
    assert (await rollback(settings, ALIAS, load=DrawnEmbedder)).live == LIVE
    assert (await ingest()).unchanged == 3


async def test_a_longer_chunk_than_the_embedder_reads_is_counted(
    ingest: Ingest, build: Build, settings: Settings, models_dir: Path, folder: Path
) -> None:
    """Stored when chunks could be longer than they may be now."""
    words = " ".join(f"word{i}" for i in range(60))
    (folder / "long.md").write_text(f"# long\n\n{words}\n")
    await ingest()
    install(settings.home, models_dir / "all-MiniLM-L6-v2", "narrow", window=100)
    short = settings.model_copy(update={"chunk": ChunkSettings(max_tokens=64)})
    report = await reembed(short, ALIAS, installed_embedder(settings, "narrow"), load=DrawnEmbedder)
    assert (report.written, report.cut) == (7, 1)


def test_counts_of_copies_add_up_and_keep_few_reasons() -> None:
    many = [Copied(written=1, failed=1, reasons=(str(i),)) for i in range(9)]
    total = sum(many, Copied())
    assert (total.written, total.failed, len(total.reasons)) == (9, 9, copy_stage.SHOWN_REASONS)
