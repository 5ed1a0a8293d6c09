"""The observer turns what stores say, and that they say nothing, into gauges."""

import asyncio
from collections.abc import Mapping
from typing import Any

from assistant.errors import StoreUnavailable
from assistant.stores.overview import Overview
from serve_app import observer
from serve_app.api.services import Ping
from serve_app.observer import Observer
from tests.metering import RecordingMeter


class World:
    """Stores under a test's control."""

    def __init__(self) -> None:
        self.overview = Overview({"docs": 90.0}, {("docs", "ready"): 3}, {("rfc.draft", "queued"): 2})
        self.failure: Exception | None = None
        self.gauges = RecordingMeter()

    def observer(self, pings: Mapping[str, Ping] | None = None) -> Observer:
        return Observer(pings or {}, self.count, self.stats, self.gauges)

    async def count(self) -> Overview:
        if self.failure is not None:
            raise self.failure
        return self.overview

    async def stats(self) -> Mapping[str, Any]:
        return {"total": 7, "usable": 4, "by_kind": {}}


async def answers() -> float:
    return 1.0


async def fails() -> float:
    raise StoreUnavailable("away")


async def hangs() -> float:
    await asyncio.sleep(3600)
    return 0.0


async def test_counts_become_gauges() -> None:
    world = World()
    await world.observer().tick()
    assert world.gauges.values == {
        ("ai_assistant_ingestion_age_seconds", "docs"): 90.0,
        ("ai_assistant_documents", "docs", "ready"): 3.0,
        ("ai_assistant_jobs", "rfc.draft", "queued"): 2.0,
        ("ai_assistant_learning_examples", "total"): 7.0,
        ("ai_assistant_learning_examples", "usable"): 4.0,
    }


async def test_a_store_that_fails_or_hangs_is_down_and_the_others_are_not(monkeypatch: Any) -> None:
    monkeypatch.setattr(observer, "PING_LIMIT_S", 0.05)
    world = World()
    await world.observer({"postgres": answers, "qdrant": fails, "mlflow": hangs}).tick()
    up = {key[1]: value for key, value in world.gauges.values.items() if key[0] == "ai_assistant_store_up"}
    assert up == {"postgres": 1.0, "qdrant": 0.0, "mlflow": 0.0}


async def test_postgres_away_leaves_the_pings() -> None:
    world = World()
    world.failure = StoreUnavailable("away")
    await world.observer({"postgres": fails}).tick()
    assert world.gauges.values == {("ai_assistant_store_up", "postgres"): 0.0}


async def test_what_vanished_is_zero_and_comes_back() -> None:
    world = World()
    watch = world.observer()
    await watch.tick()
    before = world.overview
    world.overview = Overview({}, {}, {})
    await watch.tick()
    assert world.gauges.values[("ai_assistant_ingestion_age_seconds", "docs")] == 0.0
    assert world.gauges.values[("ai_assistant_jobs", "rfc.draft", "queued")] == 0.0
    world.overview = before
    await watch.tick()
    assert world.gauges.values[("ai_assistant_ingestion_age_seconds", "docs")] == 90.0
