"""/health under good and bad weather: never slow, never failing, honest."""

import asyncio
from collections.abc import Callable

import pytest

from assistant.errors import StoreUnavailable, Unavailable
from serve_app.api import health
from tests.serve_app.conftest import Bench, pong


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LIMIT_S", 0.1)
    monkeypatch.setattr(health, "FRESH_S", 0.0)


async def test_all_is_well(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench()

    async def counts() -> dict[str, int]:
        return {"documents": 2, "chunks": 9, "sources": 1}

    monkeypatch.setattr(bench.services.documents, "counts", counts)
    async with bench.client() as client:
        report = (await client.get("/health")).json()
        ready = await client.get("/health/ready")
    assert report["status"] == "ok"
    assert report["version"] == health.version()
    assert set(report["checks"]) == {"postgres", "qdrant", "retriever", "writer", "small"}
    assert report["counts"] == {"documents": 2, "chunks": 9, "sources": 1}
    assert [(m["name"], m["state"]) for m in report["models"]] == [("small", "ready")]
    assert ready.json() == {"status": "ready"}


@pytest.mark.usefixtures("quick")
async def test_dead_and_silent_parts_are_named_without_waiting_for_them(
    make_bench: Callable[..., Bench],
) -> None:
    async def away() -> float:
        raise StoreUnavailable("Qdrant does not answer: refused.")

    async def silent() -> float:
        await asyncio.sleep(60)
        return 0

    bench = make_bench(pings={"postgres": silent, "qdrant": away})
    bench.retrieval.failure = ValueError("internal words")
    bench.writing.failure = Unavailable("No Writer.")
    bench.backends["small"].state = "down"
    async with bench.client() as client, asyncio.timeout(5):
        report = (await client.get("/health")).json()
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
    checks = report["checks"]
    assert report["status"] == "down"
    assert {name: check["state"] for name, check in checks.items()} == dict.fromkeys(checks, "down")
    assert "no answer within" in checks["postgres"]["detail"]
    assert checks["qdrant"]["detail"] == "Qdrant does not answer: refused."
    assert checks["retriever"]["detail"] == "ValueError"
    assert report["counts"] is None
    assert (ready.status_code, ready.json()["missing"]) == (503, ["postgres", "qdrant", "retriever"])
    assert live.status_code == 200


async def test_loading_model_does_not_fail_readiness(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.backends["small"].state = "loading"
    async with bench.client() as client:
        report = (await client.get("/health")).json()
        ready = await client.get("/health/ready")
    assert (report["status"], report["models"][0]["state"]) == ("degraded", "loading")
    assert ready.status_code == 200


async def test_many_callers_share_one_round(make_bench: Callable[..., Bench]) -> None:
    asked = 0

    async def counted() -> float:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return 1.0

    bench = make_bench(pings={"postgres": counted, "qdrant": pong})
    async with bench.client() as client:
        await asyncio.gather(*(client.get("/health") for _ in range(20)))
        await client.get("/health")
    assert asked == 1


@pytest.mark.usefixtures("quick")
async def test_caller_that_leaves_does_not_spoil_the_round_of_others(
    make_bench: Callable[..., Bench],
) -> None:
    released = asyncio.Event()

    async def slow() -> float:
        await released.wait()
        return 1.0

    bench = make_bench(pings={"postgres": slow, "qdrant": pong})
    board = bench.app.state.health
    first, second = asyncio.create_task(board.report()), asyncio.create_task(board.report())
    await asyncio.sleep(0)
    first.cancel()
    released.set()
    assert (await second).checks["postgres"].state == "ready"
