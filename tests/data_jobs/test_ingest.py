"""Ingestion in this process, over real stores: what is new, changed, gone, broken, lost."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assistant.errors import StoreUnavailable
from assistant.settings import Settings
from assistant.stores.documents import DocumentRepository
from assistant.stores.postgres import Database
from assistant.stores.sources import SourceRepository
from assistant.stores.vectors import SearchFilter, VectorStore
from data_jobs import ingest as module
from data_jobs import store_stage

pytestmark = pytest.mark.integration

Ingest = Callable[..., Any]
PUBLIC = ("public",)


async def stored(store: VectorStore, settings: Settings, **conditions: str) -> int:
    return await store.count(settings.qdrant.collection, SearchFilter(PUBLIC, conditions))


async def test_new_documents_are_stored_and_unchanged_ones_cost_nothing(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, database: Database
) -> None:
    first = await ingest()
    assert (first.documents, first.added, first.failed, first.engine) == (3, 3, 0, "in process")
    assert first.chunks == await vector_store.count(settings.qdrant.collection) == 6
    assert await DocumentRepository(database).counts() == {"documents": 3, "chunks": 6, "sources": 1}
    again = await ingest()
    assert (again.unchanged, again.added, again.changed, again.chunks, again.engine) == (3, 0, 0, 0, "none")


async def test_a_stored_chunk_holds_what_a_hit_needs(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, database: Database, folder: Path
) -> None:
    await ingest(attributes={"team": "sre"})
    (source,) = await SourceRepository(database).list()
    manifest = await DocumentRepository(database).manifest(source.id)
    entry = manifest["beta.md"]
    chunks = await vector_store.document_chunks(
        settings.qdrant.collection, entry.document_id, SearchFilter(PUBLIC, {"team": "sre"}), 0, 9
    )
    payload = chunks[1][1]
    text = (folder / "beta.md").read_text()
    assert payload["title"] == "beta"
    assert payload["headings"] == ["beta", "Mitigation of beta"]
    assert text[payload["start"] : payload["end"]] == payload["text"]
    assert payload["content_hash"] == entry.content_hash
    assert (payload["source"], payload["external_id"], payload["chunk_index"]) == ("handbook", "beta.md", 1)
    record = await DocumentRepository(database).get(entry.document_id)
    assert record is not None
    assert (record.title, record.chunk_count, record.status) == ("beta", 2, "ready")


async def test_changed_documents_are_replaced_and_vanished_ones_removed(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, folder: Path
) -> None:
    await ingest()
    (folder / "alpha.md").write_text(
        "# alpha\n\nAll that it said before is gone; only this sentence is left.\n"
    )
    (folder / "beta.md").unlink()
    report = await ingest()
    assert (report.changed, report.removed, report.unchanged, report.chunks) == (1, 1, 1, 1)
    assert await stored(vector_store, settings, external_id="alpha.md") == 1
    assert await stored(vector_store, settings, external_id="beta.md") == 0
    assert await vector_store.count(settings.qdrant.collection) == 3


@pytest.mark.parametrize(
    "change", [{"acl": ("group:sre",)}, {"attributes": {"team": "sre"}}, {"chunk": {"max_tokens": 100}}]
)
async def test_whatever_shapes_a_chunk_ingests_anew(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, change: dict[str, Any]
) -> None:
    await ingest()
    chunk = change.pop("chunk", None)
    changed = settings.model_copy(update={"chunk": settings.chunk.model_copy(update=chunk or {})})
    report = await ingest(changed, **change)
    assert (report.changed, report.unchanged) == (3, 0)
    assert await vector_store.count(settings.qdrant.collection) == 6
    if "acl" in change:
        assert await stored(vector_store, settings) == 0


async def test_broken_files_are_reported_and_skipped(
    ingest: Ingest, settings: Settings, folder: Path, database: Database
) -> None:
    small = settings.model_copy(
        update={"ingest": settings.ingest.model_copy(update={"max_document_bytes": 2_000_000})}
    )
    (folder / "binary.md").write_bytes(b"\x7fELF\x00\x00" * 50)
    (folder / "empty.md").write_text("")
    (folder / "cyrillic.txt").write_bytes(("Диск заполняется очень быстро. " * 10).encode("cp1251"))
    (folder / "huge.md").write_bytes(b"")
    os.truncate(folder / "huge.md", 50_000_000)
    report = await ingest(small)
    assert {letter.external_id: letter.stage for letter in report.dead_letters} == {
        "binary.md": "parse",
        "huge.md": "read",
    }
    assert "50.0 MB" in next(x.message for x in report.dead_letters if x.external_id == "huge.md")
    assert (report.documents, report.failed, report.error) == (7, 2, None)
    counts = await DocumentRepository(database).counts()
    assert counts["documents"] == 5  # With the empty one, which is complete without chunks.
    again = await ingest(small)
    assert (again.unchanged, again.failed) == (5, 2)


async def test_a_document_that_breaks_keeps_its_last_good_version(
    ingest: Ingest, settings: Settings, folder: Path, vector_store: VectorStore
) -> None:
    await ingest()
    good = (folder / "alpha.md").read_bytes()
    (folder / "alpha.md").write_bytes(b"\x00\x01")
    report = await ingest()
    assert report.failed == 1
    assert await stored(vector_store, settings, external_id="alpha.md") == 2
    (folder / "alpha.md").write_bytes(good)
    assert (await ingest()).failed == 0


async def test_a_vanished_source_removes_nothing(
    ingest: Ingest, settings: Settings, folder: Path, tmp_path: Path, vector_store: VectorStore
) -> None:
    await ingest()
    os.rename(folder, tmp_path / "elsewhere")
    assert "does not exist" in (await ingest()).error
    os.mkdir(folder)
    report = await ingest()
    assert "--allow-empty" in report.error
    assert await vector_store.count(settings.qdrant.collection) == 6
    assert (await ingest(allow_empty=True)).removed == 3
    assert await vector_store.count(settings.qdrant.collection) == 0


async def test_chunks_that_the_vector_store_lost_come_back(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, database: Database
) -> None:
    await ingest()
    (source,) = await SourceRepository(database).list()
    manifest = await DocumentRepository(database).manifest(source.id)
    await vector_store.delete_documents(settings.qdrant.collection, [manifest["beta.md"].document_id])
    report = await ingest()
    assert (report.changed, report.unchanged) == (1, 2)
    assert await vector_store.count(settings.qdrant.collection) == 6


async def test_a_long_document_is_stored_in_parts(
    ingest: Ingest,
    settings: Settings,
    folder: Path,
    vector_store: VectorStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_jobs.job.PART_CHUNKS", 2)
    (folder / "long.md").write_text("\n".join(f"# Part {i}\n\n{TEXT}\n" for i in range(5)))
    report = await ingest()
    assert await stored(vector_store, settings, external_id="long.md") == 5
    assert report.failed == 0
    assert (await ingest()).unchanged == 4


TEXT = "These are enough words to make a chunk of its own, since short neighbours would be joined to one."


async def test_the_store_is_waited_for(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = VectorStore.upsert, [StoreUnavailable("away"), StoreUnavailable("away")]

    async def upsert(self: VectorStore, *args: Any) -> None:
        if failures:
            raise failures.pop()
        await real(self, *args)

    monkeypatch.setattr(VectorStore, "upsert", upsert)
    monkeypatch.setattr(store_stage, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    assert (await ingest()).chunks == 6
    assert await vector_store.count(settings.qdrant.collection) == 6


async def test_a_store_that_stays_away_ends_the_run_and_the_next_completes_it(
    ingest: Ingest, settings: Settings, vector_store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def upsert(self: VectorStore, *args: Any) -> None:
        raise StoreUnavailable("Qdrant does not answer.")

    with monkeypatch.context() as away:
        away.setattr(VectorStore, "upsert", upsert)
        away.setattr(store_stage, "RETRY_DELAYS_S", (0.0,))
        with pytest.raises(StoreUnavailable):
            await ingest()
    assert (await ingest()).chunks == 6
    assert await vector_store.count(settings.qdrant.collection) == 6


async def test_a_bad_vector_costs_its_document_only(
    ingest: Ingest,
    settings: Settings,
    vector_store: VectorStore,
    embedder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = type(embedder).embed

    def embed(self: Any, texts: list[str]) -> Any:
        vectors = real(self, texts)
        vectors[[i for i, text in enumerate(texts) if "beta" in text]] = float("nan")
        return vectors

    monkeypatch.setattr(type(embedder), "embed", embed)
    report = await ingest()
    assert [(x.external_id, x.stage) for x in report.dead_letters] == [("beta.md", "embed")]
    assert await vector_store.count(settings.qdrant.collection) == 4


def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert module.main([]) == 2
    assert "dataset_config.yml does not exist" in capsys.readouterr().err.replace("\n", " ")


async def test_the_command_prints_json(
    settings: Settings,
    ingest: Ingest,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    assert await asyncio.to_thread(module.main, [str(folder), "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert (source["source"], source["added"], source["chunks"]) == ("handbook", 3, 6)
