"""What the store says when the server, the key or the filter is wrong; what it does is in the contract suite."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient

from assistant.errors import ConfigurationError, InvalidInput, NotFound, StoreUnavailable
from assistant.settings import QdrantSettings
from assistant.stores.vector_filters import FILTER_FIELDS, Range, SearchFilter
from assistant.stores.vector_wire import connect
from assistant.stores.vectors import ChunkPoint, SparseWeights, VectorStore
from tests.fixtures_qdrant import EdgeServer

EVERYONE = SearchFilter(("public",))
ACL = {"key": "acl", "match": {"any": ["public"]}}


def point(number: int) -> ChunkPoint:
    payload = {"acl": ["public"], "document_id": "d", "chunk_index": number, "text": "t"}
    return ChunkPoint(UUID(int=number), [1.0, 0.0], SparseWeights((1,), (1.0,)), payload)


def test_an_address_is_required() -> None:
    with pytest.raises(ConfigurationError, match="QDRANT_URL"):
        VectorStore(QdrantSettings())


async def test_a_wrong_key_is_a_matter_of_configuration(qdrant_server: QdrantSettings) -> None:
    store = VectorStore(qdrant_server.model_copy(update={"api_key": SecretStr("wrong")}))
    wrong_key = pytest.raises(ConfigurationError, match="QDRANT_API_KEY")

    with wrong_key:
        await store.ping()
    with wrong_key:
        await store.candidates("a", dense=[1.0], sparse=None, limit=1, where=EVERYONE)
    await store.close()


async def test_a_server_that_is_away_is_unavailable(unused_tcp_port: int) -> None:
    store = VectorStore(QdrantSettings(url=f"http://127.0.0.1:{unused_tcp_port}", timeout_s=2))

    for call in (
        store.ping(),
        store.count("a"),
        store.upsert("a", [point(1)]),
        store.candidates("a", dense=[1.0], sparse=None, limit=1, where=EVERYONE),
        store.fetch("a", [UUID(int=1)], EVERYONE),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert caught.value.retryable
    await store.close()


async def test_the_same_store_works_again_after_qdrant_was_killed_under_load(edge_server: EdgeServer) -> None:
    store = VectorStore(edge_server.settings)
    await store.ensure_collection("a", "e", 2, {})
    await store.upsert("a", [point(1)])
    answers: list[int] = []
    changed = asyncio.Condition()
    failed = False
    stopping = False

    async def search() -> None:
        nonlocal failed
        while not stopping:
            try:
                found = await store.candidates("a", dense=[1.0, 0.0], sparse=None, limit=5, where=EVERYONE)
                answers.append(len(found.dense))
            except StoreUnavailable:
                failed = True
            async with changed:
                changed.notify_all()

    async def wait_until(happened: Callable[[], bool]) -> None:
        async with changed:
            await changed.wait_for(happened)

    searches = [asyncio.create_task(search()) for _ in range(4)]
    await wait_until(lambda: bool(answers))
    await asyncio.to_thread(edge_server.kill)
    await wait_until(lambda: failed)
    await asyncio.to_thread(edge_server.start)
    before = len(answers)
    await wait_until(lambda: len(answers) >= before + 8)
    stopping = True
    await asyncio.gather(*searches)

    assert set(answers) == {1}
    await store.close()


async def test_connections_are_kept_open(qdrant_server: QdrantSettings) -> None:
    # The client's own default for loopback opens one per request, which doubles its cost.
    store = VectorStore(qdrant_server)
    opened: list[str] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(event)

    http = store._client.http.client
    for _ in range(3):
        request = httpx.Request(
            "GET", f"{qdrant_server.url}/readyz", extensions={"trace": trace, "timeout": {"connect": 10.0}}
        )
        assert (await http.send_inner(request)).status_code == 200

    assert len(opened) == 1
    await store.close()


async def test_over_http_the_key_makes_no_noise_on_loopback(
    qdrant_server: QdrantSettings, recwarn: pytest.WarningsRecorder
) -> None:
    await connect(qdrant_server).close()

    assert [str(w.message) for w in recwarn] == []


async def test_in_memory_errors_are_those_of_a_server() -> None:
    store = VectorStore(QdrantSettings(), AsyncQdrantClient(":memory:"))

    with pytest.raises(NotFound, match="nowhere"):
        await store.candidates("nowhere", dense=[1.0], sparse=None, limit=1, where=EVERYONE)
    await store.close()


@pytest.mark.parametrize(
    ("conditions", "clause"),
    [
        ({"project": "p"}, {"key": "project", "match": {"value": "p"}}),
        ({"project": ("p", "q")}, {"key": "project", "match": {"any": ["p", "q"]}}),
        ({"chunk_index": [1, 2]}, {"key": "chunk_index", "match": {"any": [1, 2]}}),
        ({"chunk_index": Range(gte=1, lt=2.5)}, {"key": "chunk_index", "range": {"gte": 1, "lt": 2.5}}),
        ({"chunk_index": {"lte": 4}}, {"key": "chunk_index", "range": {"lte": 4}}),
        (
            {"created_date": Range(gte=date(2024, 1, 2))},
            {"key": "created_date", "range": {"gte": "2024-01-02T00:00:00Z"}},
        ),
        (
            {"created_date": Range(gt=datetime(2024, 1, 2, 3, tzinfo=UTC))},
            {"key": "created_date", "range": {"gt": "2024-01-02T03:00:00+00:00"}},
        ),
        (
            {"created_date": "2024-01-02"},
            {"key": "created_date", "range": {"gte": "2024-01-02T00:00:00Z", "lte": "2024-01-02T00:00:00Z"}},
        ),
    ],
)
def test_conditions_become_clauses_beside_the_acl(conditions: dict[str, Any], clause: dict[str, Any]) -> None:
    assert SearchFilter(("public",), conditions).clauses() == [ACL, clause]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"colour": "red"}, "Use one of: document_id"),
        ({"acl": "group:a"}, "no filter field 'acl'"),
        ({"metadata": "x"}, "no filter field"),
        ({"project": 3}, "a text"),
        ({"project": ["a", None]}, "a text"),
        ({"chunk_index": "3"}, "an integer"),
        ({"chunk_index": True}, "an integer"),
        ({"chunk_index": Range()}, "at least one of"),
        ({"chunk_index": Range(gte="a")}, "a finite number"),
        ({"chunk_index": Range(lt=float("inf"))}, "a finite number"),
        ({"chunk_index": Range(lt=float("nan"))}, "a finite number"),
        ({"chunk_index": {"over": 1}}, "unknown bounds: over"),
        ({"project": Range(gte=1)}, "has no order"),
        ({"created_date": "yesterday"}, "RFC 3339"),
        ({"created_date": Range(gte=5)}, "RFC 3339"),
    ],
)
def test_a_wrong_condition_names_its_field_and_what_to_give(
    conditions: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidInput, match=expected) as caught:
        SearchFilter(("public",), conditions).clauses()

    assert caught.value.extra["field"] in conditions


def test_who_may_see_what_is_not_a_filter_field() -> None:
    assert "acl" not in FILTER_FIELDS
