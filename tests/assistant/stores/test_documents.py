"""Sources, documents and runs: what ingestion relies on to start again after a crash."""

from uuid import UUID, uuid4

import pytest

from assistant.clock import stable_id
from assistant.errors import InvalidInput, NotFound
from assistant.stores.documents import DocumentRecord, DocumentRepository
from assistant.stores.postgres import Database
from assistant.stores.sources import SourceRepository

pytestmark = pytest.mark.integration


@pytest.fixture
async def source_id(database: Database) -> UUID:
    return (await SourceRepository(database).ensure("runbooks", "search_sources", "folder", {})).id


@pytest.fixture
def documents(database: Database) -> DocumentRepository:
    return DocumentRepository(database)


def doc(source_id: UUID, name: str, **more: object) -> DocumentRecord:
    values = {"title": name.upper(), "content_hash": f"hash-{name}", "content_type": "text/markdown"} | more
    return DocumentRecord(stable_id(str(source_id), name), source_id, name, **values)  # type: ignore[arg-type]


async def test_a_document_is_pending_until_its_chunks_are_stored(
    documents: DocumentRepository, source_id: UUID
) -> None:
    (document_id,) = await documents.begin([doc(source_id, "a.md", acl=("group:x",), metadata={"k": [1]})])
    entry = (await documents.manifest(source_id))["a.md"]
    assert (entry.status, entry.content_hash, entry.chunk_count) == ("pending", "", 0)
    await documents.complete([(document_id, "hash-a.md", 3)])
    entry = (await documents.manifest(source_id))["a.md"]
    assert (entry.document_id, entry.status) == (document_id, "ready")
    assert (entry.content_hash, entry.chunk_count) == ("hash-a.md", 3)
    found = await documents.get(document_id)
    assert found is not None
    assert (found.title, found.acl, found.metadata) == ("A.MD", ("group:x",), {"k": [1]})


async def test_an_interrupted_change_is_seen(documents: DocumentRepository, source_id: UUID) -> None:
    (document_id,) = await documents.begin([doc(source_id, "a.md")])
    await documents.complete([(document_id, "one", 3)])
    await documents.begin([doc(source_id, "a.md", content_hash="two", title="New")])
    entry = (await documents.manifest(source_id))["a.md"]
    assert (entry.status, entry.content_hash, entry.chunk_count) == ("pending", "one", 3)


async def test_beginning_twice_makes_one_document_and_keeps_its_id(
    documents: DocumentRepository, source_id: UUID
) -> None:
    first = await documents.begin([doc(source_id, "a"), doc(source_id, "b"), doc(source_id, "a")])
    other = DocumentRecord(uuid4(), source_id, "a", "renamed", "", "text/plain")
    assert first[0] == first[2] != first[1]
    assert await documents.begin([other]) == first[:1]
    assert len(await documents.manifest(source_id)) == 2
    found = await documents.get(first[0])
    assert found is not None
    assert found.title == "renamed"
    assert await documents.begin([]) == []


async def test_failing_and_recovering(documents: DocumentRepository, source_id: UUID) -> None:
    (document_id,) = await documents.begin([doc(source_id, "a")])
    await documents.fail(document_id, "not UTF-8 \x00 \ud800")
    found = await documents.get(document_id)
    assert found is not None
    assert (found.status, found.error) == ("failed", "not UTF-8  ?")
    await documents.begin([doc(source_id, "a")])
    await documents.complete([(document_id, "h", 1)])
    found = await documents.get(document_id)
    assert found is not None
    assert (found.status, found.error) == ("ready", None)


async def test_text_that_postgres_cannot_hold_is_cleaned(
    documents: DocumentRepository, source_id: UUID
) -> None:
    dirty = doc(source_id, "a", title="x\x00y", metadata={"k\x00": "v\ud800", "n": float("inf")})
    (document_id,) = await documents.begin([dirty])
    found = await documents.get(document_id)
    assert found is not None
    assert (found.title, found.metadata) == ("xy", {"k": "v?", "n": None})


@pytest.mark.parametrize("name", ["", "a\x00", "a\ud800"])
async def test_a_name_that_cannot_be_kept_is_refused(
    documents: DocumentRepository, source_id: UUID, name: str
) -> None:
    with pytest.raises(InvalidInput, match="external_id"):
        await documents.begin(
            [doc(source_id, name) if name.isascii() else DocumentRecord(uuid4(), source_id, name, "", "", "")]
        )


async def test_an_unknown_source_is_not_found(documents: DocumentRepository) -> None:
    with pytest.raises(NotFound):
        await documents.begin([doc(uuid4(), "a")])


async def test_pages_cover_everything_once(
    documents: DocumentRepository, source_id: UUID, database: Database
) -> None:
    other = (await SourceRepository(database).ensure("other", "search_sources", "folder", {})).id
    ids = await documents.begin([doc(source_id, str(n)) for n in range(5)])
    await documents.begin([doc(other, "x", acl=("group:secret",))])
    seen, cursor = [], None
    while True:
        page = await documents.page(cursor, 2, source_id)
        seen += [record.id for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)
    assert len((await documents.page(None, 100)).items) == 6
    assert len((await documents.page(None, 100, acl_terms=["public"])).items) == 5
    assert (await documents.page(None, 100, acl_terms=[])).items == ()


async def test_forgotten_documents_are_gone_and_counts_follow(
    documents: DocumentRepository, source_id: UUID, database: Database
) -> None:
    ids = await documents.begin([doc(source_id, str(n)) for n in range(4)])
    await documents.complete([(ids[0], "h", 2), (ids[1], "h", 5)])
    await documents.fail(ids[2], "no")
    assert await documents.counts() == {"documents": 2, "chunks": 7, "sources": 1}
    counts = (await SourceRepository(database).counts())["runbooks"]
    assert (counts.documents, counts.chunks, counts.pending, counts.failed) == (2, 7, 1, 1)
    await documents.forget([ids[1], ids[2], uuid4()])
    assert await documents.counts() == {"documents": 1, "chunks": 2, "sources": 1}
    assert set(await documents.manifest(source_id)) == {"0", "3"}
    assert await documents.get(ids[1]) is None


async def test_a_thousand_documents_in_one_call(documents: DocumentRepository, source_id: UUID) -> None:
    ids = await documents.begin([doc(source_id, f"{n:04}") for n in range(1000)])
    await documents.complete([(document_id, "h", 1) for document_id in ids])
    assert await documents.counts() == {"documents": 1000, "chunks": 1000, "sources": 1}
