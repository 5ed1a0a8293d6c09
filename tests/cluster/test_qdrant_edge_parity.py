"""The rest of the mapped API gives what the client's in-memory mode gives, over the same points."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from tests.fixtures_qdrant import drop_everything

NAME = "parity"
POINTS = 60
INDEXES = {
    "kind": models.PayloadSchemaType.KEYWORD,
    "n": models.PayloadSchemaType.INTEGER,
    "at": models.PayloadSchemaType.DATETIME,
}
RNG = np.random.default_rng(3)
QUERY: list[float] = RNG.normal(size=6).tolist()
TOKENS = models.SparseVector(indices=[1, 5, 9, 20], values=[1.0, 0.5, 2.0, 1.0])


def _sparse() -> models.SparseVector:
    indices = np.unique(RNG.integers(0, 40, 6)).tolist()
    return models.SparseVector(indices=indices, values=RNG.random(len(indices)).tolist())


def _maybe(i: int) -> dict[str, Any]:
    return {"maybe": None} if i % 5 == 0 else {"maybe": i} if i % 5 == 1 else {}


DATA = [
    models.PointStruct(
        id=i if i % 2 else str(UUID(int=i)),
        vector={"dense": RNG.normal(size=6).tolist(), "sparse": _sparse()},
        payload={
            "kind": "abc"[i % 3],
            "n": i,
            "at": f"2024-01-{i % 28 + 1:02}T00:00:00Z",
            "tags": [f"t{i % 4}", f"u{i % 5}"][: 1 if i % 7 == 0 else 2],
            "parts": [{"a": i % 2, "b": i % 3}, {"a": 1, "b": 0}],
            **_maybe(i),
        },
    )
    for i in range(1, POINTS)
]


async def _fill(client: AsyncQdrantClient) -> None:
    await client.create_collection(
        NAME,
        vectors_config={"dense": models.VectorParams(size=6, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    await client.upsert(NAME, DATA)


@pytest.fixture
async def memory() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    await _fill(client)
    yield client
    await client.close()


@pytest.fixture
async def edge(qdrant_client: AsyncQdrantClient) -> AsyncQdrantClient:
    """The same points behind the server, kept between the tests that only read."""
    if not await qdrant_client.collection_exists(NAME):
        await drop_everything(qdrant_client)
        await _fill(qdrant_client)
        for field, kind in INDEXES.items():
            await qdrant_client.create_payload_index(NAME, field, kind)
    return qdrant_client


def field(key: str, **wanted: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **wanted)


CONDITIONS: dict[str, models.Filter] = {
    "value": models.Filter(must=field("kind", match=models.MatchValue(value="a"))),
    "integer": models.Filter(must=[field("n", match=models.MatchValue(value=7))]),
    "any": models.Filter(must=[field("tags", match=models.MatchAny(any=["t1", "u2"]))]),
    "except": models.Filter(must=[field("kind", match=models.MatchExcept(**{"except": ["a", "b"]}))]),
    "not": models.Filter(must_not=[field("kind", match=models.MatchValue(value="a"))]),
    "should": models.Filter(
        should=[field("n", match=models.MatchValue(value=3)), field("n", match=models.MatchValue(value=4))]
    ),
    "range": models.Filter(must=[field("n", range=models.Range(gt=10, lte=20))]),
    "dates": models.Filter(
        must=[
            field(
                "at",
                range=models.DatetimeRange(
                    gte=datetime(2024, 1, 5, tzinfo=UTC), lt=datetime(2024, 1, 9, tzinfo=UTC)
                ),
            )
        ]
    ),
    "ids": models.Filter(must=[models.HasIdCondition(has_id=[1, 3, str(UUID(int=2)), 999])]),
    "empty": models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="maybe"))]),
    "null": models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="maybe"))]),
    "count": models.Filter(must=[field("tags", values_count=models.ValuesCount(gte=2))]),
    "nested": models.Filter(
        must=[
            models.NestedCondition(
                nested=models.Nested(
                    key="parts",
                    filter=models.Filter(
                        must=[
                            field("a", match=models.MatchValue(value=1)),
                            field("b", match=models.MatchValue(value=2)),
                        ]
                    ),
                )
            )
        ]
    ),
    "min_should": models.Filter(
        min_should=models.MinShould(
            conditions=[
                field("kind", match=models.MatchValue(value="a")),
                field("tags", match=models.MatchValue(value="t1")),
                field("n", range=models.Range(lt=30)),
            ],
            min_count=2,
        )
    ),
    "filter": models.Filter(
        must=[
            models.Filter(
                should=[
                    field("kind", match=models.MatchValue(value="a")),
                    models.Filter(must_not=[field("n", range=models.Range(lt=50))]),
                ]
            )
        ]
    ),
    "vector": models.Filter(must=[models.HasVectorCondition(has_vector="sparse")]),
}


@pytest.mark.parametrize("name", list(CONDITIONS))
async def test_filters_select_the_same_points(
    memory: AsyncQdrantClient, edge: AsyncQdrantClient, name: str
) -> None:
    wanted = CONDITIONS[name]

    expected, _ = await memory.scroll(NAME, wanted, limit=100)
    found, _ = await edge.scroll(NAME, wanted, limit=100)

    assert {r.id: r.payload for r in found} == {r.id: r.payload for r in expected}
    assert (await edge.count(NAME, wanted)).count == len(expected)
    assert len(expected) > 0
    assert name == "vector" or len(expected) < POINTS - 1


PREFETCH = [
    models.Prefetch(query=QUERY, using="dense", limit=20),
    models.Prefetch(query=TOKENS, using="sparse", limit=20),
]
FILTERED = [models.Prefetch(query=QUERY, using="dense", limit=20, filter=CONDITIONS["not"]), PREFETCH[1]]
QUERIES: dict[str, dict[str, Any]] = {
    "dense": {"query": QUERY, "using": "dense"},
    "offset": {"query": QUERY, "using": "dense", "offset": 5, "limit": 5},
    "threshold": {"query": QUERY, "using": "dense", "score_threshold": 0.2},
    "filter": {"query": QUERY, "using": "dense", "query_filter": CONDITIONS["any"]},
    "nearest": {"query": models.NearestQuery(nearest=QUERY), "using": "dense"},
    "sparse": {"query": TOKENS, "using": "sparse"},
    "by id": {"query": 7, "using": "dense"},
    "by uuid": {"query": str(UUID(int=8)), "using": "sparse"},
    "by id, filtered": {"query": 7, "using": "dense", "query_filter": CONDITIONS["not"]},
    "rrf": {"query": models.FusionQuery(fusion=models.Fusion.RRF), "prefetch": PREFETCH},
    "rrf k": {"query": models.RrfQuery(rrf=models.Rrf(k=60)), "prefetch": PREFETCH},
    "rrf weights": {"query": models.RrfQuery(rrf=models.Rrf(k=10, weights=[3.0, 1.0])), "prefetch": PREFETCH},
    "rrf filter": {"query": models.FusionQuery(fusion=models.Fusion.RRF), "prefetch": FILTERED},
    "dbsf": {"query": models.FusionQuery(fusion=models.Fusion.DBSF), "prefetch": PREFETCH},
    "rescore": {"query": QUERY, "using": "dense", "prefetch": PREFETCH[1]},
    "nested prefetch": {
        "query": QUERY,
        "using": "dense",
        "prefetch": models.Prefetch(query=TOKENS, using="sparse", limit=10, prefetch=PREFETCH[0]),
    },
    "order": {
        "query": models.OrderByQuery(order_by=models.OrderBy(key="n", direction=models.Direction.DESC))
    },
    "best score": {
        "query": models.RecommendQuery(
            recommend=models.RecommendInput(
                positive=[3, QUERY], negative=[5], strategy=models.RecommendStrategy.BEST_SCORE
            )
        ),
        "using": "dense",
    },
    "sum scores": {
        "query": models.RecommendQuery(
            recommend=models.RecommendInput(positive=[3], strategy=models.RecommendStrategy.SUM_SCORES)
        ),
        "using": "dense",
    },
}


@pytest.mark.parametrize("name", list(QUERIES))
async def test_queries_score_the_same(memory: AsyncQdrantClient, edge: AsyncQdrantClient, name: str) -> None:
    query = {"limit": 100} | QUERIES[name]

    expected = (await memory.query_points(NAME, **query)).points
    found = (await edge.query_points(NAME, **query)).points

    assert [p.score for p in found] == pytest.approx([p.score for p in expected], abs=1e-5)
    assert {p.id: p.score for p in found} == pytest.approx({p.id: p.score for p in expected}, abs=1e-5)
    assert len(found) > 3
    assert found[0].payload is not None


async def test_what_to_return_is_the_callers_choice(
    memory: AsyncQdrantClient, edge: AsyncQdrantClient
) -> None:
    for client in (memory, edge):
        included = await client.query_points(
            NAME, QUERY, using="dense", limit=1, with_payload=["n"], with_vectors=["sparse"]
        )
        excluded = await client.query_points(
            NAME,
            QUERY,
            using="dense",
            limit=1,
            with_payload=models.PayloadSelectorExclude(exclude=["n", "at"]),
        )
        bare = await client.query_points(NAME, QUERY, using="dense", limit=1, with_payload=False)

        assert set(included.points[0].payload or {}) == {"n"}
        assert isinstance(included.points[0].vector, dict)
        assert isinstance(included.points[0].vector["sparse"], models.SparseVector)
        assert not {"n", "at"} & set(excluded.points[0].payload or {"n": 0})
        assert not bare.points[0].payload
        assert bare.points[0].vector is None


async def test_pages_and_order(memory: AsyncQdrantClient, edge: AsyncQdrantClient) -> None:
    pages: list[list[Any]] = []
    for client in (memory, edge):
        seen: list[Any] = []
        offset: Any = None
        while True:
            records, offset = await client.scroll(NAME, limit=17, offset=offset, with_vectors=False)
            seen += [r.id for r in records]
            if offset is None:
                break
        pages.append(seen)
        ordered, _ = await client.scroll(NAME, limit=5, order_by=models.OrderBy(key="n", start_from=30))
        assert [r.payload["n"] for r in ordered if r.payload] == [30, 31, 32, 33, 34]

    assert pages[0] == pages[1]
    assert len(pages[1]) == POINTS - 1


async def test_facets_and_retrieval(memory: AsyncQdrantClient, edge: AsyncQdrantClient) -> None:
    for client in (memory, edge):
        facet = await client.facet(NAME, "kind", facet_filter=CONDITIONS["range"], exact=True)
        records = await client.retrieve(NAME, [3, str(UUID(int=4)), 999], with_vectors=True)

        assert {hit.value: hit.count for hit in facet.hits} == {"a": 3, "b": 3, "c": 4}
        assert {r.id: r.payload for r in records} == {
            p.id: p.payload for p in DATA if p.id in (3, str(UUID(int=4)))
        }
        assert isinstance(records[0].vector, dict)
        assert len(records[0].vector["dense"]) == 6


async def test_payloads_are_set_overwritten_and_cut(
    memory: AsyncQdrantClient, edge: AsyncQdrantClient
) -> None:
    states = []
    for client in (memory, edge):
        await client.set_payload(NAME, {"new": 1}, points=[1, 3])
        await client.set_payload(NAME, {"b": 9}, points=CONDITIONS["integer"], key="inner")
        await client.overwrite_payload(NAME, {"only": [1]}, points=[5])
        await client.overwrite_payload(
            NAME,
            {"kind": "z", "n": 9},
            points=models.Filter(must=field("n", match=models.MatchValue(value=9))),
        )
        await client.delete_payload(NAME, ["kind", "at"], points=[11])
        await client.delete_payload(NAME, ["tags"], points=CONDITIONS["range"])
        records, _ = await client.scroll(NAME, limit=100)
        states.append({r.id: r.payload for r in records})
    await drop_everything(edge)

    assert states[0] == states[1]
    assert states[1][5] == {"only": [1]}


async def test_points_are_written_as_a_batch_and_deleted(
    memory: AsyncQdrantClient, edge: AsyncQdrantClient
) -> None:
    states = []
    for client in (memory, edge):
        batch = models.Batch(ids=[901, 902], vectors={"dense": [QUERY, QUERY]}, payloads=[{"n": 901}, {}])
        await client.upsert(NAME, batch)
        await client.delete(NAME, [1, 3, 999])
        await client.delete(NAME, models.FilterSelector(filter=CONDITIONS["range"]))
        records, _ = await client.scroll(NAME, limit=100, with_vectors=["dense"])
        states.append({r.id: (r.payload, r.vector) for r in records})
    await drop_everything(edge)

    assert states[0].keys() == states[1].keys()
    assert states[1][901][0] == {"n": 901}


async def test_a_collection_with_one_unnamed_vector(qdrant_client: AsyncQdrantClient) -> None:
    await drop_everything(qdrant_client)
    await qdrant_client.create_collection(
        "plain", vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT)
    )
    points = [models.PointStruct(id=i, vector=[float(i), 0.0, 1.0], payload={}) for i in range(3)]
    await qdrant_client.upsert("plain", points)
    await qdrant_client.upsert("plain", models.Batch(ids=[3], vectors=[[3.0, 0.0, 1.0]]))

    found = await qdrant_client.query_points("plain", [1.0, 0.0, 0.0], with_vectors=True)

    assert [(p.id, p.score, p.vector) for p in found.points][:2] == [
        (3, 3.0, [3.0, 0.0, 1.0]),
        (2, 2.0, [2.0, 0.0, 1.0]),
    ]
