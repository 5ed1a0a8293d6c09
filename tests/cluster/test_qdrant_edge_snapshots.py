"""Snapshots of Qdrant Edge through Qdrant's own routes: what they hold, and what is refused."""

import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models

from assistant.stores.vector_wire import connect
from cluster.qdrant_edge.snapshots import copy_tree
from tests.fixtures_qdrant import KEY, EdgeServer

pytestmark = pytest.mark.integration
NAME = "things"


async def filled(client: AsyncQdrantClient, first: int, last: int) -> None:
    if not await client.collection_exists(NAME):
        await client.create_collection(
            NAME,
            vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
            sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        await client.create_payload_index(NAME, "n", models.PayloadSchemaType.INTEGER)
    points = [
        models.PointStruct(
            id=n,
            vector={"dense": [1.0, n / 1000], "sparse": models.SparseVector(indices=[n], values=[1.0])},
            payload={"n": n},
        )
        for n in range(first, last)
    ]
    await client.upsert(NAME, points, wait=True)


def api(server: EdgeServer, method: str, path: str, body: Any = None) -> httpx.Response:
    url = f"{server.settings.url}/collections/{NAME}/snapshots{path}"
    return httpx.request(method, url, json=body, headers={"api-key": KEY}, trust_env=False, timeout=30)


async def test_a_snapshot_brings_back_what_was_there(edge_server: EdgeServer, tmp_path: Path) -> None:
    client = connect(edge_server.settings)
    await filled(client, 0, 50)
    made = api(edge_server, "POST", "").json()["result"]
    await filled(client, 50, 80)
    await client.delete(NAME, models.PointIdsList(points=[1, 2, 3]), wait=True)
    file = tmp_path / "kept.snapshot"
    file.write_bytes(api(edge_server, "GET", f"/{made['name']}").content)
    assert file.stat().st_size == made["size"]
    assert [s["name"] for s in api(edge_server, "GET", "").json()["result"]] == [made["name"]]
    assert api(edge_server, "DELETE", f"/{made['name']}").json()["result"] is True
    assert api(edge_server, "GET", f"/{made['name']}").status_code == 404

    body = {"location": file.as_uri(), "checksum": made["checksum"]}
    assert api(edge_server, "PUT", "/recover", body).json()["result"] is True
    for _ in range(2):
        assert (await client.count(NAME)).count == 50
        (found,) = await client.retrieve(NAME, [2], with_vectors=["sparse"])
        assert found.vector == {"sparse": models.SparseVector(indices=[2], values=[1.0])}
        hits, _ = await client.scroll(
            NAME, models.Filter.model_validate({"must": [{"key": "n", "match": {"value": 3}}]})
        )
        assert [hit.id for hit in hits] == [3]
        edge_server.kill()
        edge_server.start()
    await client.close()


async def test_a_snapshot_takes_the_room_of_what_is_in_it(edge_server: EdgeServer) -> None:
    client = connect(edge_server.settings)
    await filled(client, 0, 50)
    await client.close()
    made = api(edge_server, "POST", "").json()["result"]
    shard = edge_server.folder / "collections" / NAME / "shard"
    apparent = sum(path.stat().st_size for path in shard.rglob("*") if path.is_file())
    assert made["size"] < apparent / 20


def test_holes_stay_holes_and_data_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "from" / "deep").mkdir(parents=True)
    file = tmp_path / "from" / "deep" / "file"
    with file.open("wb") as sink:
        sink.seek(3 << 20)
        sink.write(b"x" * 5000)
        sink.truncate(64 << 20)
    (tmp_path / "from" / "empty").touch()
    copy_tree(tmp_path / "from", tmp_path / "to")
    copy = tmp_path / "to" / "deep" / "file"
    assert copy.read_bytes() == file.read_bytes()
    assert (tmp_path / "to" / "empty").stat().st_size == 0
    assert copy.stat().st_blocks * 512 <= file.stat().st_blocks * 512 + 4096


async def test_a_collection_that_was_dropped_comes_back(edge_server: EdgeServer, tmp_path: Path) -> None:
    client = connect(edge_server.settings)
    await filled(client, 0, 10)
    made = api(edge_server, "POST", "").json()["result"]
    file = tmp_path / "kept.snapshot"
    file.write_bytes(api(edge_server, "GET", f"/{made['name']}").content)
    await client.delete_collection(NAME)
    assert api(edge_server, "PUT", "/recover", {"location": file.as_uri()}).is_success
    assert (await client.count(NAME)).count == 10
    await client.close()


async def test_what_cannot_be_loaded_changes_nothing(edge_server: EdgeServer, tmp_path: Path) -> None:
    client = connect(edge_server.settings)
    await filled(client, 0, 10)
    made = api(edge_server, "POST", "").json()["result"]
    good = api(edge_server, "GET", f"/{made['name']}").content
    cases = {
        "no tar": b"not a snapshot",
        "cut": good[: len(good) // 2],
        "empty": b"",
    }
    for name, content in cases.items():
        file = tmp_path / f"{name}.snapshot"
        file.write_bytes(content)
        assert api(edge_server, "PUT", "/recover", {"location": file.as_uri()}).status_code == 400, name
    changed = tmp_path / "changed.snapshot"
    changed.write_bytes(good)
    refused = api(edge_server, "PUT", "/recover", {"location": changed.as_uri(), "checksum": "0" * 64})
    assert "checksum differs" in refused.text
    escaping = tmp_path / "escaping.snapshot"
    with tarfile.open(escaping, "w") as archive:
        archive.add(changed, "../../outside")
    assert api(edge_server, "PUT", "/recover", {"location": escaping.as_uri()}).status_code == 400
    assert not list(edge_server.folder.rglob("outside"))
    assert "file:// address" in api(edge_server, "PUT", "/recover", {"location": "http://x/y"}).text
    assert (await client.count(NAME)).count == 10
    await client.close()


def test_names_cannot_leave_the_folder(edge_server: EdgeServer) -> None:
    """Slashes never reach the handler, so such an address is none of ours."""
    assert api(edge_server, "GET", "/..%2F..%2Faliases.json").status_code == 501
