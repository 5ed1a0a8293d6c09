"""What every Qdrant must do for us: Qdrant Edge behind our server, the client's in-memory mode, a real server.

The last one runs when QDRANT_TEST_URL (and QDRANT_TEST_API_KEY) name one. Each test uses a name of its own and
removes only its own collections.
"""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient

from assistant.clock import new_id, stable_id
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.settings import QdrantSettings
from assistant.stores import vectors
from assistant.stores.vector_wire import connect
from assistant.stores.vectors import ChunkPoint, Range, SearchFilter, SparseWeights, VectorStore

DIMENSION = 8
PARAMETERS = {"language": "english", "average_length": 120.0}
EVERYONE = SearchFilter(("public",))
BACKENDS = ["edge", "memory", "server"]
SHARED = f"test-shared-{new_id().hex}"


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest, fresh: str) -> AsyncIterator[VectorStore]:
    settings, client = _backend(request)
    store = VectorStore(settings, client)
    yield store
    await _drop(client, fresh)
    await store.close()


async def _drop(client: AsyncQdrantClient, prefix: str) -> None:
    for collection in (await client.get_collections()).collections:
        if collection.name.startswith(prefix):
            await client.delete_collection(collection.name)


def _backend(request: pytest.FixtureRequest) -> tuple[QdrantSettings, AsyncQdrantClient]:
    if request.param == "memory":
        return QdrantSettings(), AsyncQdrantClient(":memory:")
    if request.param == "edge":
        settings = request.getfixturevalue("qdrant_server")
        return settings, connect(settings)
    url = os.environ.get("QDRANT_TEST_URL")
    if url is None:
        pytest.skip("no real Qdrant server: QDRANT_TEST_URL is not set")
    key = os.environ.get("QDRANT_TEST_API_KEY")
    settings = QdrantSettings(url=url, api_key=SecretStr(key) if key else None)
    return settings, connect(settings)


@pytest.fixture
def fresh() -> str:
    """A name that no collection has; what a test makes under it is removed afterwards."""
    return f"test-{new_id().hex}"


@pytest.fixture
async def alias(store: VectorStore) -> str:
    """An empty collection, made once per backend: its indexes take seconds. IDF remembers deleted points."""
    await store.ensure_collection(SHARED, "tiny/embedder v1", DIMENSION, PARAMETERS)
    await store.delete_documents(SHARED, [*"abc"])
    assert await store.count(SHARED) == 0
    return SHARED


def axis(number: int) -> list[float]:
    return [1.0 if i == number else 0.0 for i in range(DIMENSION)]


def chunk(
    number: int,
    *,
    dense: Sequence[float] | None = None,
    tokens: Sequence[int] = (1,),
    acl: Sequence[str] = ("public",),
    document: str = "a",
    **payload: Any,
) -> ChunkPoint:
    return ChunkPoint(
        id=UUID(int=number),
        dense=axis(number % DIMENSION) if dense is None else dense,
        sparse=SparseWeights(tuple(tokens), (1.0,) * len(tokens)),
        payload={
            "text": f"text {number}",
            "document_id": document,
            "chunk_index": number,
            "content_hash": "h1",
            "acl": list(acl),
            **payload,
        },
    )


def weights(*tokens: int) -> SparseWeights:
    return SparseWeights(tokens, (1.0,) * len(tokens))


def numbers(found: Sequence[Any]) -> list[int]:
    return [hit.id.int for hit in found]


async def test_a_collection_is_made_behind_its_alias_once(store: VectorStore, fresh: str) -> None:
    name = await store.ensure_collection(fresh, "tiny/embedder v1", DIMENSION, PARAMETERS)

    assert name == f"{fresh}__tiny-embedder-v1__1"
    assert await store.ensure_collection(fresh, "tiny/embedder v1", DIMENSION, PARAMETERS) == name
    assert await store.count(fresh) == 0


async def test_many_processes_making_the_same_collection_agree(store: VectorStore, fresh: str) -> None:
    names = await asyncio.gather(
        *(store.ensure_collection(fresh, "e", DIMENSION, PARAMETERS) for _ in range(5))
    )

    assert set(names) == {f"{fresh}__e__1"}


@pytest.mark.parametrize(
    ("embedder", "dimension", "parameters", "named"),
    [
        ("other", DIMENSION, PARAMETERS, "embedder"),
        ("tiny/embedder v1", DIMENSION + 1, PARAMETERS, "dimension"),
        ("tiny/embedder v1", DIMENSION, {"language": "russian"}, "parameters"),
    ],
)
async def test_a_collection_built_otherwise_is_a_conflict(
    store: VectorStore,
    alias: str,
    embedder: str,
    dimension: int,
    parameters: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(Conflict, match=named):
        await store.ensure_collection(alias, embedder, dimension, parameters)


async def test_a_collection_left_without_alias_by_a_crash_is_adopted(store: VectorStore, fresh: str) -> None:
    left = await store.create_collection(fresh, "e", DIMENSION, PARAMETERS)

    assert await store.ensure_collection(fresh, "e", DIMENSION, PARAMETERS) == left


async def test_points_are_counted_and_overwritten(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(i) for i in range(600)])
    await store.upsert(alias, [chunk(i, document="b") for i in range(100)])

    assert await store.count(alias) == 600
    assert await store.count(alias, SearchFilter(("public",), {"document_id": "b"})) == 100
    assert await store.count(alias, SearchFilter(("group:x",))) == 0


async def test_dense_candidates_are_the_nearest_by_cosine(store: VectorStore, alias: str) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(50, DIMENSION)).astype(np.float32)
    query = rng.normal(size=DIMENSION).astype(np.float32)
    await store.upsert(alias, [chunk(i, dense=vectors[i]) for i in range(50)])

    found = await store.candidates(alias, dense=query, sparse=None, limit=10, where=EVERYONE)

    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert numbers(found.dense) == np.argsort(-cosines)[:10].tolist()
    assert [hit.score for hit in found.dense] == pytest.approx(sorted(cosines, reverse=True)[:10], abs=1e-5)
    assert found.sparse == []


async def test_sparse_candidates_are_scored_by_rarity(store: VectorStore, fresh: str) -> None:
    await store.ensure_collection(fresh, "e", DIMENSION, PARAMETERS)
    # Token 1 is in every chunk, token 2 in one of the ten.
    await store.upsert(fresh, [chunk(i, tokens=(1, 2) if i == 4 else (1,)) for i in range(10)])

    found = await store.candidates(fresh, dense=None, sparse=weights(1, 2), limit=10, where=EVERYONE)

    def idf(n: int) -> float:
        return math.log(1 + (10 - n + 0.5) / (n + 0.5))

    assert numbers(found.sparse) == [4, 0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert found.sparse[0].score == pytest.approx(idf(10) + idf(1), rel=1e-4)
    assert found.sparse[1].score == pytest.approx(idf(10), rel=1e-4)
    assert found.dense == []


async def test_equal_scores_are_in_order_of_id(store: VectorStore, alias: str) -> None:
    order = [stable_id(str(i)) for i in range(30)]
    payload = {"acl": ["public"], "document_id": "a"}
    same = [ChunkPoint(i, axis(0), weights(1), payload) for i in order]
    await store.upsert(alias, same)

    found = await store.candidates(alias, dense=axis(0), sparse=weights(1), limit=30, where=EVERYONE)

    assert [hit.id for hit in found.dense] == sorted(order)
    assert [hit.id for hit in found.sparse] == sorted(order)


async def test_both_sides_of_candidates_obey_the_acl(store: VectorStore, alias: str) -> None:
    # The forbidden chunks would fill the limit if the ACL were applied to the results.
    secret = [chunk(i, dense=axis(0), acl=["group:a"]) for i in range(20)]
    seen = [chunk(i, dense=axis(1), acl=["group:b", "user:x"]) for i in range(20, 23)]
    await store.upsert(alias, secret + seen)

    found = await store.candidates(
        alias, dense=axis(0), sparse=weights(1), limit=5, where=SearchFilter(("public", "user:x"))
    )

    assert set(numbers(found.dense)) == set(numbers(found.sparse)) == {20, 21, 22}


async def test_nobody_sees_nothing(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(1)])
    nobody = SearchFilter(())

    found = await store.candidates(alias, dense=axis(1), sparse=weights(1), limit=5, where=nobody)

    assert (found.dense, found.sparse) == ([], [])
    assert await store.fetch(alias, [UUID(int=1)], nobody) == {}
    assert await store.document_chunks(alias, "a", nobody, 0, 5) == []
    assert await store.count(alias, nobody) == 0


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"project": "p1"}, [0, 1]),
        ({"project": ["p1", "p2"]}, [0, 1, 2]),
        ({"project": []}, []),
        ({"headings": "Alerts"}, [1, 2]),
        ({"chunk_index": 2}, [2]),
        ({"chunk_index": Range(gte=1, lt=3)}, [1, 2]),
        ({"chunk_index": {"gt": 2}}, [3]),
        ({"created_date": Range(gte="2024-02-01", lt="2024-04-01")}, [1, 2]),
        ({"created_date": "2024-03-01T00:00:00Z"}, [2]),
        ({"project": "p1", "chunk_index": Range(lte=0)}, [0]),
        ({"team": "nobody"}, []),
    ],
)
async def test_conditions_narrow_the_search(
    store: VectorStore, alias: str, conditions: dict[str, Any], expected: list[int]
) -> None:
    projects, headings = ["p1", "p1", "p2", "p3"], [[], ["Alerts"], ["Intro", "Alerts"], ["Intro"]]
    await store.upsert(
        alias,
        [
            chunk(i, project=projects[i], headings=headings[i], created_date=f"2024-0{i + 1}-01T00:00:00Z")
            for i in range(4)
        ],
    )

    found = await store.candidates(
        alias, dense=axis(0), sparse=weights(1), limit=10, where=SearchFilter(("public",), conditions)
    )

    assert sorted(numbers(found.dense)) == sorted(numbers(found.sparse)) == expected


async def test_a_query_without_vectors_finds_nothing(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(1)])

    found = await store.candidates(alias, dense=None, sparse=weights(), limit=5, where=EVERYONE)

    assert (found.dense, found.sparse) == ([], [])


async def test_chunks_without_tokens_are_stored_and_found_by_meaning(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(3, tokens=())])

    found = await store.candidates(alias, dense=axis(3), sparse=weights(1), limit=5, where=EVERYONE)

    assert numbers(found.dense) == [3]
    assert found.sparse == []


async def test_payloads_come_back_whole_and_only_to_whom_they_belong(store: VectorStore, alias: str) -> None:
    metadata = {"nested": {"list": [1, 2.5, None, "é"]}, "flag": True}
    await store.upsert(alias, [chunk(1, metadata=metadata), chunk(2, acl=["user:x"]), chunk(3)])
    wanted = [UUID(int=i) for i in (1, 2, 99)]

    found = await store.fetch(alias, wanted, EVERYONE)

    assert set(found) == {UUID(int=1)}
    assert found[UUID(int=1)] == dict(chunk(1, metadata=metadata).payload)
    assert set(await store.fetch(alias, wanted, SearchFilter(("public", "user:x")))) == set(wanted[:2])


async def test_the_chunks_of_a_document_are_in_order_of_their_index(store: VectorStore, alias: str) -> None:
    points = [chunk(1000 - i, chunk_index=i) for i in range(300)]
    hidden = chunk(2000, chunk_index=7, acl=["user:x"])
    await store.upsert(alias, [*points, hidden, chunk(2001, document="b", chunk_index=5)])

    found = await store.document_chunks(alias, "a", EVERYONE, 2, 290)

    assert [payload["chunk_index"] for _, payload in found] == list(range(2, 291))
    assert await store.document_chunks(alias, "a", EVERYONE, 5, 4) == []


async def test_stale_chunks_of_one_document_are_removed(store: VectorStore, alias: str) -> None:
    old = [chunk(i, document="a") for i in range(5)] + [chunk(5, document="b")]
    await store.upsert(alias, [*old, chunk(6, document="a", content_hash="h2")])

    await store.delete_stale(alias, "a", keep_hash="h2")

    found = await store.fetch(alias, [UUID(int=i) for i in range(7)], EVERYONE)
    assert sorted(i.int for i in found) == [5, 6]


async def test_documents_are_removed_with_all_their_chunks(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(i, document="abc"[i % 3]) for i in range(9)])

    await store.delete_documents(alias, ["a", "c", "unknown"])

    assert await store.count(alias) == await store.count(
        alias, SearchFilter(("public",), {"document_id": "b"})
    )
    assert await store.count(alias) == 3


async def test_the_alias_moves_while_searches_run(store: VectorStore, fresh: str) -> None:
    collection = await store.ensure_collection(fresh, "e", DIMENSION, PARAMETERS)
    following = await store.create_collection(fresh, "next", DIMENSION, PARAMETERS)
    await store.upsert(collection, [chunk(1)])
    await store.upsert(following, [chunk(2)])
    seen: list[list[int]] = []
    moved = asyncio.Event()

    async def search() -> None:
        after = 0
        while after < 5:
            after += moved.is_set()
            found = await store.candidates(fresh, dense=axis(1), sparse=weights(1), limit=5, where=EVERYONE)
            seen.append(numbers(found.dense))
            await asyncio.sleep(0)

    searches = [asyncio.create_task(search()) for _ in range(4)]
    for target in (following, collection) * 5 + (following,):
        await store.move_alias(fresh, target)
    moved.set()
    await asyncio.gather(*searches)

    assert all(hits in ([1], [2]) for hits in seen)
    assert seen[-1] == [2]


async def test_the_collections_behind_an_alias_tell_who_is_live_and_who_was(
    store: VectorStore, fresh: str
) -> None:
    assert await store.live(fresh) is None
    assert await store.live_name(fresh) is None
    first = await store.ensure_collection(fresh, "tiny/embedder v1", DIMENSION, PARAMETERS)
    second = await store.create_collection(fresh, "next", DIMENSION + 1, PARAMETERS)
    await store.create_collection(f"{fresh}_2", "next", DIMENSION, PARAMETERS)
    await store.upsert(first, [chunk(1), chunk(2)])
    states = [(c.name, c.embedder, c.dimension, c.points) for c in await store.collections(fresh)]
    assert sorted(states) == sorted(
        [(first, "tiny/embedder v1", DIMENSION, 2), (second, "next", DIMENSION + 1, 0)]
    )

    async def roles() -> tuple[str | None, list[str], list[bool]]:
        found = await store.collections(fresh)
        previous = [c.name for c in found if c.previous]
        return await store.live_name(fresh), previous, [await store.is_live(n) for n in (first, second)]

    assert await roles() == (first, [], [True, False])
    await store.move_alias(fresh, second)
    assert await roles() == (second, [first], [False, True])
    await store.move_alias(fresh, second)
    assert await roles() == (second, [first], [False, True])
    await store.move_alias(fresh, first)
    assert await roles() == (first, [second], [True, False])
    live = await store.live(fresh)
    assert live is not None
    assert (live.name, dict(live.parameters), live.live) == (first, PARAMETERS, True)


async def test_a_dropped_collection_is_gone_with_its_aliases(store: VectorStore, fresh: str) -> None:
    first = await store.ensure_collection(fresh, "e", DIMENSION, PARAMETERS)
    second = await store.create_collection(fresh, "next", DIMENSION, PARAMETERS)
    await store.move_alias(fresh, second)

    await store.drop_collection(first)

    assert [(c.name, c.live, c.previous) for c in await store.collections(fresh)] == [(second, True, False)]
    assert not await store.is_live(first)


async def test_all_chunks_are_scanned_in_order_and_read_without_dense_vectors(
    store: VectorStore, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "SCAN_PAGE", 7)
    written = [UUID(int=i << 64 | i) for i in range(20)]
    made = [chunk(i, tokens=(i, i + 1), acl=["user:x"], content_hash=f"h{i}") for i in range(20)]
    made = [replace(point, id=id_) for id_, point in zip(reversed(written), made, strict=True)]
    await store.upsert(alias, [*made, chunk(10**20, tokens=())])

    scanned = [item async for item in store.scan(alias)]

    assert [id_ for id_, _ in scanned] == sorted([*written, UUID(int=10**20)])
    assert dict(scanned)[written[0]] == "h19"
    read = {c.id: c for c in await store.read(alias, [written[0], UUID(int=5), UUID(int=10**20)])}
    assert set(read) == {written[0], UUID(int=10**20)}
    found = read[written[0]]
    assert (sorted(found.sparse.indices), found.payload) == ([19, 20], made[19].payload)
    assert read[UUID(int=10**20)].sparse.indices == ()
    await store.delete(alias, [written[0], UUID(int=5)])
    assert await store.count(alias) == 20


UNKNOWN: dict[str, Callable[[VectorStore], Any]] = {
    "upsert": lambda s: s.upsert("nowhere", [chunk(1)]),
    "count": lambda s: s.count("nowhere"),
    "candidates": lambda s: s.candidates("nowhere", dense=axis(0), sparse=None, limit=1, where=EVERYONE),
    "fetch": lambda s: s.fetch("nowhere", [UUID(int=1)], EVERYONE),
    "document_chunks": lambda s: s.document_chunks("nowhere", "a", EVERYONE, 0, 1),
    "delete_stale": lambda s: s.delete_stale("nowhere", "a", "h"),
    "delete_documents": lambda s: s.delete_documents("nowhere", ["a"]),
    "drop_collection": lambda s: s.drop_collection("nowhere"),
    "read": lambda s: s.read("nowhere", [UUID(int=1)]),
    "scan": lambda s: anext(s.scan("nowhere")),
    "delete": lambda s: s.delete("nowhere", [UUID(int=1)]),
    "move_alias": lambda s: s.move_alias("somewhere", "nowhere"),
}


@pytest.mark.parametrize("method", list(UNKNOWN))
async def test_an_unknown_collection_is_not_found(store: VectorStore, method: str) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await UNKNOWN[method](store)


@pytest.mark.parametrize(
    "dense",
    [[0.0] * (DIMENSION - 1), [float("nan")] + [0.0] * 7, [float("inf")] + [0.0] * 7, [1e39] + [0.0] * 7],
)
async def test_a_vector_that_could_never_be_found_is_refused(
    store: VectorStore, alias: str, dense: list[float]
) -> None:
    with np.errstate(over="ignore"), pytest.raises(InvalidInput, match="dense"):
        await store.upsert(alias, [chunk(1), chunk(2, dense=dense)])

    assert await store.count(alias) == 0


@pytest.mark.parametrize(
    "sparse", [SparseWeights((1, 1), (1.0, 1.0)), SparseWeights((1,), ()), SparseWeights((1,), (math.nan,))]
)
async def test_a_broken_sparse_vector_is_refused(
    store: VectorStore, alias: str, sparse: SparseWeights
) -> None:
    with pytest.raises(InvalidInput, match="sparse"):
        await store.upsert(alias, [ChunkPoint(UUID(int=1), axis(0), sparse, {"acl": ["public"]})])


async def test_a_query_of_the_wrong_dimension_is_refused(store: VectorStore, alias: str) -> None:
    await store.upsert(alias, [chunk(1)])

    with pytest.raises(InvalidInput):
        await store.candidates(alias, dense=[1.0, 2.0], sparse=None, limit=1, where=EVERYONE)


async def test_ping_takes_time(store: VectorStore) -> None:
    assert await store.ping() > 0
