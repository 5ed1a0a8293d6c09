"""What was acknowledged survives kills and restarts; what was refused or half-made does not."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import qdrant_edge
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException
from structlog.testing import capture_logs

from assistant.errors import ConfigurationError
from assistant.stores.vector_wire import connect
from cluster.qdrant_edge.__main__ import optimize
from cluster.qdrant_edge.collections import Collections
from cluster.qdrant_edge.errors import as_api_error
from tests.fixtures_qdrant import KEY, ROOT, EdgeServer

NAME = "things"
CONFIG = models.CreateCollection(
    vectors={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
    sparse_vectors={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
)


async def create(client: AsyncQdrantClient) -> None:
    await client.create_collection(
        NAME,
        vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )


def point(number: int) -> models.PointStruct:
    vector: dict[str, Any] = {
        "dense": [1.0, number / 1000],
        "sparse": models.SparseVector(indices=[number % 7], values=[1.0]),
    }
    return models.PointStruct(id=number, vector=vector, payload={"n": number})


async def test_kill_9_under_two_writers_loses_no_acknowledged_point(edge_server: EdgeServer) -> None:
    client = connect(edge_server.settings)
    await create(client)
    await client.close()
    acknowledged: set[int] = set()
    enough = asyncio.Event()

    async def write(first: int) -> None:
        writer = connect(edge_server.settings)
        number = first
        try:
            while True:
                batch = list(range(number, number + 10))
                await writer.upsert(NAME, [point(i) for i in batch])
                acknowledged.update(batch)
                number += 10
                if len(acknowledged) >= 400:
                    enough.set()
        except ApiException:
            pass
        finally:
            await writer.close()

    writers = [asyncio.create_task(write(first)) for first in (0, 1_000_000)]
    await enough.wait()
    await asyncio.to_thread(edge_server.kill)
    await asyncio.gather(*writers)
    await asyncio.to_thread(edge_server.start)

    client = connect(edge_server.settings)
    kept, _ = await client.scroll(NAME, limit=10_000, with_vectors=False)
    await client.close()
    assert acknowledged <= {r.id for r in kept}
    assert {r.id: r.payload for r in kept} == {r.id: {"n": r.id} for r in kept}


async def test_a_clean_restart_keeps_points_indexes_and_aliases(edge_server: EdgeServer) -> None:
    client = connect(edge_server.settings)
    await create(client)
    await client.create_payload_index(NAME, "n", models.PayloadSchemaType.INTEGER)
    await client.upsert(NAME, [point(i) for i in range(50)])
    await client.update_collection_aliases(
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=NAME, alias_name="other")
            )
        ]
    )

    await asyncio.to_thread(edge_server.stop)
    await asyncio.to_thread(edge_server.start)

    info = await client.get_collection("other")
    assert info.points_count == 50
    assert set(info.payload_schema) == {"n"}
    assert info.config.params.sparse_vectors is not None
    await client.close()


async def test_a_refused_upsert_leaves_nothing_even_after_the_log_is_replayed(
    edge_server: EdgeServer,
) -> None:
    client = connect(edge_server.settings)
    await create(client)
    await client.upsert(NAME, [point(1)])
    with pytest.raises(ApiException):
        await client.upsert(NAME, [point(2), models.PointStruct(id=3, vector={"dense": [1.0]}, payload={})])

    await asyncio.to_thread(edge_server.kill)
    await asyncio.to_thread(edge_server.start)

    assert (await client.count(NAME)).count == 1
    await client.close()


def test_a_second_process_on_the_folder_is_refused_in_one_sentence(edge_server: EdgeServer) -> None:
    assert edge_server.process is not None
    second = EdgeServer(edge_server.folder).spawn()

    _, errors = second.communicate(timeout=60)

    assert second.returncode == 2
    assert f"Another process (pid {edge_server.process.pid}) already serves" in errors
    assert str(edge_server.folder) in errors
    assert "Traceback" not in errors
    assert httpx.get(f"{edge_server.settings.url}/readyz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("key", "port", "expected"), [("", 0, "Set QDRANT_API_KEY"), (KEY, 1, "Choose another --port")]
)
def test_what_is_missing_at_start_is_one_sentence(
    edge_server: EdgeServer, tmp_path: Path, key: str, port: int, expected: str
) -> None:
    taken = str(edge_server.port if port else 0)
    command = ["-m", "cluster.qdrant_edge", "--folder", str(tmp_path / "other"), "--port", taken]

    done = subprocess.run(
        [sys.executable, *command],
        env={"QDRANT_API_KEY": key},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_half_made_collection_is_removed_at_boot(tmp_path: Path) -> None:
    store = Collections(tmp_path)
    store.create("whole", CONFIG)
    store.close()
    half = tmp_path / "collections" / "half"
    (half / "shard").mkdir(parents=True)
    (half / "collection.json.new").write_text('{"vec', encoding="ascii")

    store = Collections(tmp_path)

    assert store.names() == ["whole"]
    assert not half.exists()
    assert store.create("half", CONFIG)
    store.close()


def test_a_deletion_cut_short_by_a_crash_is_finished_at_boot(tmp_path: Path) -> None:
    store = Collections(tmp_path)
    store.create("gone", CONFIG)
    wanted = models.CreateAlias(collection_name="gone", alias_name="alias")
    store.change_aliases([models.CreateAliasOperation(create_alias=wanted)])
    store.close()
    (tmp_path / "collections" / "gone" / "collection.json").unlink()

    store = Collections(tmp_path)

    assert store.names() == []
    assert store.aliases == {}
    assert list((tmp_path / "collections").iterdir()) == []
    store.close()


@pytest.mark.parametrize("content", ['{"vectors": ', '{"vectors": {"size": "x"}}', '{"surprise": 1}'])
def test_a_damaged_collection_is_named_and_never_removed(tmp_path: Path, content: str) -> None:
    store = Collections(tmp_path)
    store.create("things", CONFIG)
    store.close()
    meta = tmp_path / "collections" / "things" / "collection.json"
    meta.write_text(content, encoding="ascii")

    with pytest.raises(ConfigurationError, match="things"):
        Collections(tmp_path)

    assert meta.read_text(encoding="ascii") == content
    meta.write_text(CONFIG.model_dump_json(exclude_none=True), encoding="ascii")
    store = Collections(tmp_path)
    assert store.names() == ["things"]
    store.close()


def test_a_quiet_moment_cures_bm25_of_deleted_points(tmp_path: Path) -> None:
    store = Collections(tmp_path)
    store.create(NAME, CONFIG)
    things = store.get(NAME)
    update, query = qdrant_edge.UpdateOperation, qdrant_edge.Query

    def best() -> float:
        tokens = qdrant_edge.SparseVector([1], [1.0])
        nearest = query.Nearest(tokens, using="sparse")
        return float(things.shard.query(qdrant_edge.QueryRequest(limit=1, query=nearest))[0].score)

    def points(token: int, first: int, count: int) -> Any:
        return update.upsert_points(
            [
                qdrant_edge.Point(i, {"sparse": qdrant_edge.SparseVector([token], [1.0])}, {})
                for i in range(first, first + count)
            ]
        )

    things.write(points(1, 0, 10), 10)
    fresh = best()
    things.write(points(2, 100, 30), 30)
    things.delete(update.delete_points(list(range(100, 130))))
    drifted = best()

    store.tidy()

    assert drifted != pytest.approx(fresh, rel=1e-3)
    assert best() == pytest.approx(fresh, rel=1e-5)
    assert things.count() == 10
    store.close()


def test_a_large_collection_without_index_is_grey_until_it_is_optimized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.qdrant_edge.collections.OPTIMIZE_FROM", 1000)
    store = Collections(tmp_path)
    store.create(
        NAME,
        CONFIG.model_copy(update={"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=1)}),
    )
    points = [qdrant_edge.Point(i, {"dense": [1.0, i / 1000]}, {}) for i in range(1000)]
    store.get(NAME).write(qdrant_edge.UpdateOperation.upsert_points(points), len(points))
    assert store.get(NAME).info()["status"] == "grey"
    store.close()

    optimize(tmp_path, NAME)

    store = Collections(tmp_path)
    assert store.get(NAME).info()["status"] == "green"
    assert store.get(NAME).count() == 1000
    with pytest.raises(ConfigurationError, match="already serves"):
        optimize(tmp_path, NAME)
    store.close()
    with pytest.raises(ConfigurationError, match="Known: things"):
        optimize(tmp_path, "nowhere")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        Exception("Service runtime error: failed to write WAL: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named(error: Exception) -> None:
    answer = as_api_error(error)

    assert answer.status == 500
    assert "disk is full" in answer.message


def test_an_unknown_failure_shows_only_a_reference() -> None:
    with capture_logs() as logs:
        answer = as_api_error(RuntimeError("secret path"))

    assert answer.status == 500
    assert "secret" not in answer.message
    assert answer.message.endswith(logs[0]["reference"])
