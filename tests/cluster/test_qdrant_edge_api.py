"""The server's answers to requests that are wrong, unknown or not permitted, as a client sees them on the wire."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models

from assistant.settings import QdrantSettings
from cluster.qdrant_edge.server import ENDPOINTS, MAX_BODY_BYTES
from tests.fixtures_qdrant import drop_everything

BASE = "/collections/things"
DENSE = {"dense": {"size": 4, "distance": "Cosine"}}
SPARSE = {"sparse": {"modifier": "idf"}}
ONE = "00000000-0000-0000-0000-000000000001"


POINTS = [
    {"id": 1, "vector": {"dense": [1, 0, 0, 0]}, "payload": {"kind": "a", "n": 1}},
    {"id": ONE, "vector": {"dense": [0, 1, 0, 0]}, "payload": {"kind": "b", "n": 2}},
]
EXPECTED = (["things"], [("alias", "things")], [(p["id"], p["payload"]) for p in POINTS])


async def _state(client: httpx.AsyncClient) -> tuple[Any, ...]:
    collections = (await client.get("/collections")).json()["result"]["collections"]
    aliases = (await client.get("/aliases")).json()["result"]["aliases"]
    points: Any = (await client.post(f"{BASE}/points/scroll", json={})).json().get("result", {"points": []})
    return (
        [c["name"] for c in collections],
        [(a["alias_name"], a["collection_name"]) for a in aliases],
        [(p["id"], p["payload"]) for p in points["points"]],
    )


@pytest.fixture
async def http(
    qdrant_server: QdrantSettings, qdrant_client: AsyncQdrantClient
) -> AsyncIterator[httpx.AsyncClient]:
    """A bare HTTP client; the collection `things` holds POINTS, and is called `alias` too."""
    assert qdrant_server.url is not None
    assert qdrant_server.api_key is not None
    async with httpx.AsyncClient(
        base_url=qdrant_server.url,
        headers={"api-key": qdrant_server.api_key.get_secret_value()},
        trust_env=False,
    ) as client:
        if await _state(client) != EXPECTED:
            await drop_everything(qdrant_client)
            await client.put(BASE, json={"vectors": DENSE, "sparse_vectors": SPARSE})
            await client.put(f"{BASE}/points?wait=true", json={"points": POINTS})
            await client.post("/collections/aliases", json={"actions": [_alias("alias", "things")]})
        assert await _state(client) == EXPECTED
        yield client


def _alias(alias: str, collection: str) -> dict[str, Any]:
    return {"create_alias": {"alias_name": alias, "collection_name": collection}}


async def test_it_says_honestly_what_it_is(http: httpx.AsyncClient) -> None:
    body = (await http.get("/")).json()

    assert "Qdrant Edge" in body["title"]
    assert body["version"].startswith("1.20.")


async def test_answers_have_qdrants_envelope(http: httpx.AsyncClient) -> None:
    body = (await http.get(f"{BASE}/exists")).json()

    assert body["result"] == {"exists": True}
    assert body["status"] == "ok"
    assert body["time"] >= 0


@pytest.mark.parametrize("headers", [{}, {"api-key": "wrong"}, {"authorization": "Bearer wrong"}])
async def test_a_wrong_key_is_refused(qdrant_server: QdrantSettings, headers: dict[str, str]) -> None:
    assert qdrant_server.url is not None
    async with httpx.AsyncClient(base_url=qdrant_server.url, headers=headers, trust_env=False) as client:
        refused = await client.get("/collections")
        unknown = await client.get("/no/such/path")
        healthy = [(await client.get(path)).status_code for path in ("/", "/healthz", "/readyz")]

    assert refused.status_code == unknown.status_code == 401
    assert "API key" in refused.json()["status"]["error"]
    assert healthy == [200, 200, 200]


async def test_the_key_is_taken_as_a_bearer_token_too(
    qdrant_server: QdrantSettings,
) -> None:
    assert qdrant_server.api_key is not None
    token = f"Bearer {qdrant_server.api_key.get_secret_value()}"
    async with httpx.AsyncClient(base_url=str(qdrant_server.url), trust_env=False) as client:
        answer = await client.get("/collections", headers={"authorization": token})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/telemetry"),
        ("POST", f"{BASE}/snapshots/upload"),
        ("POST", f"{BASE}/points/query/groups"),
        ("PATCH", BASE),
        ("DELETE", f"{BASE}/points"),
        ("GET", "/cluster"),
    ],
)
async def test_what_is_not_mapped_says_so(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)

    assert answer.status_code == 501
    assert f"{method} {path}" in answer.json()["status"]["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path.replace("{name}", "nowhere").replace("{field}", "kind"))
        for method, path, _, _ in ENDPOINTS
        if "{name}" in path
        and not path.endswith("/exists")
        and (method, path)
        not in {
            ("PUT", "/collections/{name}"),
            ("DELETE", "/collections/{name}"),
            ("PUT", "/collections/{name}/snapshots/recover"),
        }
    ],
)
async def test_an_unknown_collection_is_404_everywhere(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    bodies: dict[str, Any] = {
        "index": {"field_name": "kind", "field_schema": "keyword"},
        "facet": {"key": "kind"},
        "batch": {"searches": [{"query": [1, 0, 0, 0], "using": "dense"}]},
    }
    point_bodies: dict[tuple[str, str], Any] = {
        ("PUT", "points"): {"points": [{"id": 1, "vector": {"dense": [1, 0, 0, 0]}}]},
        ("POST", "points"): {"ids": [1]},
        ("POST", "delete"): {"points": [1], "keys": ["kind"]} if "payload" in path else {"points": [1]},
        ("POST", "payload"): {"payload": {}, "points": [1]},
        ("PUT", "payload"): {"payload": {}, "points": [1]},
    }
    last = path.rpartition("/")[2]
    body = bodies.get(last) or point_bodies.get((method, last), {})

    answer = await http.request(method, path, json=None if method in {"GET", "DELETE"} else body)

    assert answer.status_code == 404
    assert "nowhere" in answer.json()["status"]["error"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"points": [{"id": 2, "vector": {"dense": [1, 0]}}]}, "expected dim: 4, got 2"),
        (
            {"points": [{"id": 2, "vector": {"other": [1, 0, 0, 0]}}]},
            "Not existing vector name error: `other`",
        ),
        ({"points": [{"id": 2, "vector": [1, 0, 0, 0]}]}, "Not existing vector name"),
        (
            {"points": [{"id": "x", "vector": {"dense": [1, 0, 0, 0]}}]},
            "neither an unsigned integer nor a UUID",
        ),
        ({"points": [{"id": -1, "vector": {"dense": [1, 0, 0, 0]}}]}, "not an unsigned 64-bit number"),
        ({"points": [{"id": 2, "vector": {"dense": [1e39, 0, 0, 0]}}]}, "not a finite 32-bit number"),
        ({"points": [{"id": 2, "vector": {"dense": [[1, 0, 0, 0]]}}]}, "must be a list of 4 numbers"),
        ({"points": [{"id": 2, "vector": {"sparse": [1, 0, 0, 0]}}]}, "send indices and values"),
        (
            {"points": [{"id": 2, "vector": {"sparse": {"indices": [1, 1], "values": [1, 1]}}}]},
            "indices must be unique",
        ),
        (
            {"points": [{"id": 2, "vector": {"sparse": {"indices": [1], "values": []}}}]},
            "1 indices but 0 values",
        ),
        (
            {"points": [{"id": 2, "vector": {"sparse": {"indices": [-1], "values": [1]}}}]},
            "indices must be from 0",
        ),
        ({"points": [], "shard_key": "x"}, "shard_key"),
        ({"points": [], "update_mode": "insert_only"}, "conditional upsert"),
        ({"batch": {"ids": [1, 2], "vectors": {"dense": [[1, 0, 0, 0]]}}}, "the same length"),
        ({"points": 3}, "points"),
        ({"surprise": True}, "surprise"),
    ],
)
async def test_a_bad_point_is_400_and_nothing_of_its_request_is_written(
    http: httpx.AsyncClient, body: dict[str, Any], expected: str
) -> None:
    if "points" in body and isinstance(body["points"], list) and body["points"]:
        good = {"id": 77, "vector": {"dense": [0, 0, 1, 0]}}
        body = body | {"points": [good, *body["points"]]}

    answer = await http.put(f"{BASE}/points", json=body)

    assert answer.status_code == 400
    assert expected in answer.json()["status"]["error"]
    assert (await http.post(f"{BASE}/points/count", json={})).json()["result"]["count"] == 2


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_are_not_json_are_400(http: httpx.AsyncClient, value: str) -> None:
    body = json.dumps({"points": [{"id": 2, "vector": {"dense": [float(value), 0, 0, 0]}}]})
    assert value in body

    answer = await http.put(f"{BASE}/points", content=body)

    assert answer.status_code == 400


async def test_texts_may_speak_of_nan(http: httpx.AsyncClient) -> None:
    point = {"id": 2, "vector": {"dense": [1, 0, 0, 0]}, "payload": {"text": "NaN and Infinity"}}

    answer = await http.put(f"{BASE}/points", json={"points": [point]})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("points/query", {"query": [1, 0], "using": "dense"}, 400, "expected dim: 4, got 2"),
        ("points/query", {"query": [1, 0, 0, 0], "using": "other"}, 400, "Not existing vector name"),
        ("points/query", {"query": [1, 0, 0, 0], "using": "dense", "limit": 0}, 400, "limit"),
        ("points/query", {"query": [1, 0, 0, 0], "using": "dense", "limit": 10_001}, 400, "limit"),
        ("points/query", {"query": 99, "using": "dense"}, 404, "No point with id 99"),
        ("points/query", {"query": 1, "using": "sparse"}, 400, "has no vector `sparse`"),
        ("points/query", {"query": {"sample": "random"}}, 400, "SampleQuery"),
        (
            "points/query",
            {"query": {"recommend": {"positive": [1]}}, "using": "dense"},
            400,
            "average_vector",
        ),
        ("points/query", {"query": {"text": "words", "model": "bm25"}}, 400, "Document"),
        ("points/query", {"query": 1, "lookup_from": {"collection": "x"}}, 400, "lookup_from"),
        ("points/query", {"query": 1, "shard_key": "x"}, 400, "shard_key"),
        (
            "points/query",
            {"query": [1, 0, 0, 0], "using": "dense", "params": {"quantization": {}}},
            400,
            "params.quantization",
        ),
        (
            "points/query",
            {
                "filter": {
                    "must": [{"key": "at", "geo_radius": {"center": {"lon": 1, "lat": 1}, "radius": 1}}]
                }
            },
            400,
            "geo_radius",
        ),
        ("points/scroll", {"filter": {"must": [{"slice": {"total": 2, "index": 0}}]}}, 400, "SliceCondition"),
        ("points/scroll", {"filter": {"must": [{"key": "a[", "match": {"value": 1}}]}}, 400, "JSON path"),
        ("points/scroll", {"filter": {"must": [{"key": "a", "match": {"text": "b"}}]}}, 400, "MatchText"),
        ("points/scroll", {"order_by": "n"}, 400, "No range index"),
        ("points/scroll", {"limit": 0}, 400, "limit"),
        ("points/payload", {"payload": {}}, 400, "either points or filter"),
        ("points/payload/delete", {"keys": ["n"]}, 400, "either points or filter"),
        ("facet", {"key": "kind"}, 400, "No appropriate index for faceting"),
        ("points", {"ids": ["x"]}, 400, "neither an unsigned integer nor a UUID"),
    ],
)
async def test_a_bad_request_says_what_is_wrong(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, expected: str
) -> None:
    answer = await http.post(f"{BASE}/{path}", json=body)

    assert answer.status_code == status, answer.text
    assert expected in answer.json()["status"]["error"]


@pytest.mark.parametrize(
    ("name", "body", "status", "expected"),
    [
        ("things", {"vectors": DENSE}, 409, "already exists"),
        ("alias", {"vectors": DENSE}, 409, "already exists"),
        ("bad.name", {"vectors": DENSE}, 400, "letters, digits"),
        ("x" * 256, {"vectors": DENSE}, 400, "letters, digits"),
        ("empty", {}, 400, "at least one of vectors"),
        ("big", {"vectors": {"size": 0, "distance": "Cosine"}}, 400, "size must be"),
        ("sharded", {"vectors": DENSE, "shard_number": 2}, 400, "shard_number=2"),
        ("walled", {"vectors": DENSE, "wal_config": {"wal_capacity_mb": 1}}, 400, "wal_config"),
        ("wrong", {"vectors": {"size": 4, "distance": "Hamming"}}, 400, "distance"),
    ],
)
async def test_a_collection_that_cannot_be_made_leaves_nothing(
    http: httpx.AsyncClient, name: str, body: dict[str, Any], status: int, expected: str
) -> None:
    answer = await http.put(f"/collections/{name}", json=body)

    assert answer.status_code == status, answer.text
    assert expected in answer.json()["status"]["error"]
    assert [c["name"] for c in (await http.get("/collections")).json()["result"]["collections"]] == ["things"]


async def test_a_body_too_large_is_413(http: httpx.AsyncClient) -> None:
    answer = await http.put(f"{BASE}/points", content=b" " * (MAX_BODY_BYTES + 1))

    assert answer.status_code == 413


async def test_settings_come_back_in_the_description(qdrant_client: AsyncQdrantClient) -> None:
    await qdrant_client.delete_collection("described")
    await qdrant_client.create_collection(
        "described",
        vectors_config=models.VectorParams(
            size=3, distance=models.Distance.DOT, hnsw_config=models.HnswConfigDiff(m=8), on_disk=True
        ),
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5000),
        metadata={"embedder": "e"},
    )
    await qdrant_client.create_payload_index("described", "kind", models.PayloadSchemaType.KEYWORD)
    await qdrant_client.create_payload_index(
        "described",
        "n",
        models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True),
    )
    info = await qdrant_client.get_collection("described")

    assert isinstance(info.config.params.vectors, models.VectorParams)
    assert info.config.params.vectors.size == 3
    assert info.config.metadata == {"embedder": "e"}
    assert info.config.optimizer_config.indexing_threshold == 5000
    assert info.status == models.CollectionStatus.GREEN
    assert {name: index.data_type.value for name, index in info.payload_schema.items()} == {
        "kind": "keyword",
        "n": "integer",
    }

    await qdrant_client.delete_payload_index("described", "n")

    assert set((await qdrant_client.get_collection("described")).payload_schema) == {"kind"}


async def test_a_deleted_collection_is_gone_with_its_aliases(http: httpx.AsyncClient) -> None:
    assert (await http.delete("/collections/alias")).json()["result"] is False
    assert (await http.delete(BASE)).json()["result"] is True

    assert (await http.get(BASE)).status_code == 404
    assert (await http.get("/aliases")).json()["result"]["aliases"] == []
    assert (await http.put(BASE, json={"vectors": DENSE})).json()["result"] is True


@pytest.mark.parametrize(
    ("actions", "status", "expected"),
    [
        ([_alias("second", "things")], 200, {"alias": "things", "second": "things"}),
        ([{"delete_alias": {"alias_name": "alias"}}, _alias("new", "things")], 200, {"new": "things"}),
        (
            [{"rename_alias": {"old_alias_name": "alias", "new_alias_name": "new"}}],
            200,
            {"new": "things"},
        ),
        ([{"delete_alias": {"alias_name": "unknown"}}], 200, {"alias": "things"}),
        ([{"delete_alias": {"alias_name": "alias"}}, _alias("new", "nowhere")], 404, {"alias": "things"}),
        (
            [
                {"delete_alias": {"alias_name": "alias"}},
                {"rename_alias": {"old_alias_name": "alias", "new_alias_name": "new"}},
            ],
            404,
            {"alias": "things"},
        ),
        ([_alias("new", "things"), _alias("things", "things")], 409, {"alias": "things"}),
        ([_alias("bad.name", "things")], 400, {"alias": "things"}),
    ],
)
async def test_alias_actions_apply_together_or_not_at_all(
    http: httpx.AsyncClient, actions: list[Any], status: int, expected: dict[str, str]
) -> None:
    answer = await http.post("/collections/aliases", json={"actions": actions})

    assert answer.status_code == status, answer.text
    listed = (await http.get("/aliases")).json()["result"]["aliases"]
    assert {a["alias_name"]: a["collection_name"] for a in listed} == expected
    assert (await http.get(f"{BASE}/aliases")).json()["result"]["aliases"] == listed
