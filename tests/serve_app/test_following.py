"""A replica follows the table: what is wrong with an adapter never takes away what serves."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from assistant.clock import new_id, now
from assistant.errors import ConfigurationError, StoreUnavailable
from assistant.llm.adapters import GGUF, Adapter, write_card
from assistant.llm.types import BackendHealth, ChatRequest, Piece
from assistant.llm.variants import Live
from assistant.stores.deployments import Alias, Deployment
from serve_app import following
from serve_app.following import Follower
from tests.metering import RecordingMeter

FIELDS = {"base_model": "small", "base_fingerprint": "f" * 64, "rank": 4, "alpha": 8}


class FakeEngine:
    """`loads` keeps every set of adapters it was given; names in `broken` are refused."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.loads: list[list[str]] = []
        self._names: tuple[str, ...] = ()

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._names

    async def set_adapters(self, adapters: Sequence[Adapter]) -> None:
        names = [adapter.name for adapter in adapters]
        if self.broken & set(names):
            raise ConfigurationError(f"cannot load {self.broken & set(names)}")
        self.loads.append(names)
        self._names = tuple(names)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]:
        raise NotImplementedError

    async def health(self) -> BackendHealth:
        raise NotImplementedError


class Table:
    """`rows` by alias: an adapter's name or None, and a share."""

    def __init__(self) -> None:
        self.rows: dict[Alias, tuple[str | None, float]] = {}
        self.failure: Exception | None = None

    async def active(self, model: str | None = None) -> list[Deployment]:
        assert model == "small"
        if self.failure is not None:
            raise self.failure
        return [
            Deployment(new_id(), "small", adapter, alias, "promoted", now(), share=share)
            for alias, (adapter, share) in self.rows.items()
        ]


class Replica:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.engine, self.table = FakeEngine(), Table()
        self.meter = RecordingMeter()
        self.follower = Follower("small", self.engine, self.table, home, self.meter)

    def make(self, *names: str) -> None:
        for name in names:
            (self.home / name).mkdir()
            (self.home / name / GGUF).write_bytes(name.encode())
            write_card(self.home / name, **FIELDS)

    async def see(self, **rows: str | tuple[str, float] | None) -> Live:
        given = cast("dict[Alias, str | tuple[str, float] | None]", rows)
        self.table.rows = {a: row if isinstance(row, tuple) else (row, 0.0) for a, row in given.items()}
        await self.follower.step()
        return self.follower.live


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    replica = Replica(tmp_path)
    replica.make("a-1", "a-2", "a-3", "a-4")
    return replica


async def test_serves_what_the_table_says(replica: Replica) -> None:
    assert await replica.see() == Live()
    assert await replica.see(champion="a-1", previous=None) == Live("a-1")
    assert await replica.see(champion="a-1", challenger=("a-2", 0.2)) == Live("a-1", "a-2", 0.2)
    assert await replica.see(champion="a-1", challenger=("a-2", 0.5)) == Live("a-1", "a-2", 0.5)
    assert await replica.see(champion="a-2", previous="a-1") == Live("a-2")
    assert await replica.see(champion=None, previous=None) == Live()
    assert replica.engine.loads == [["a-1"], ["a-1", "a-2"], ["a-2"], []]
    assert replica.follower.detail is None


async def test_metrics_name_what_serves_and_what_does_not_load(replica: Replica) -> None:
    await replica.see()
    assert replica.meter.named("ai_assistant_model_info") == {("small", "champion", "base"): 1.0}
    await replica.see(champion="a-1", challenger=("a-2", 0.2))
    await replica.see(champion="a-2", previous="a-1")
    assert replica.meter.named("ai_assistant_model_info") == {
        ("small", "champion", "base"): 0.0,
        ("small", "champion", "a-1"): 0.0,
        ("small", "challenger", "a-2"): 0.0,
        ("small", "champion", "a-2"): 1.0,
    }
    assert replica.meter.named("ai_assistant_adapter_problems") == {("small",): 0.0}
    await replica.see(champion="a-9", previous="a-2")
    assert replica.meter.named("ai_assistant_adapter_problems") == {("small",): 1.0}


async def test_both_change_at_once_and_three_are_the_most_that_are_loaded(replica: Replica) -> None:
    await replica.see(champion="a-1", challenger=("a-2", 0.1))
    assert await replica.see(champion="a-3", challenger=("a-4", 0.1)) == Live("a-3", "a-4", 0.1)
    assert max(map(len, replica.engine.loads)) == 3
    assert replica.engine.adapters == ("a-3", "a-4")


async def test_a_missing_champion_leaves_the_one_before_it(replica: Replica) -> None:
    await replica.see(champion="a-1")
    assert await replica.see(champion="a-9", previous="a-1") == Live("a-1")
    assert "a-9" in str(replica.follower.detail)
    assert replica.follower.info()["problems"].keys() == {"a-9"}
    fresh = Replica(replica.home)
    assert await fresh.see(champion="a-9", previous="a-1") == Live("a-1")
    assert await Replica(replica.home).see(champion="a-9", previous=None) == Live()


async def test_a_damaged_challenger_is_left_out(replica: Replica) -> None:
    (replica.home / "a-2" / GGUF).write_bytes(b"cut")
    assert await replica.see(champion="a-1", challenger=("a-2", 1.0)) == Live("a-1")
    assert "is damaged" in str(replica.follower.detail)
    assert await replica.see(champion="a-1") == Live("a-1")
    assert replica.follower.detail is None


async def test_one_that_the_engine_refuses_is_left_out(replica: Replica) -> None:
    await replica.see(champion="a-1")
    replica.engine.broken = {"a-2"}
    assert await replica.see(champion="a-2", previous="a-1", challenger=("a-3", 0.1)) == Live(
        "a-1", "a-3", 0.1
    )
    assert "cannot load" in str(replica.follower.detail)


async def test_what_could_not_be_loaded_is_tried_again_after_a_pause(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await replica.see(champion="a-9") == Live()
    replica.make("a-9")
    assert await replica.see(champion="a-9") == Live()
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    assert await replica.see(champion="a-9") == Live("a-9")
    assert replica.follower.detail is None


@pytest.mark.parametrize("failure", [StoreUnavailable("Postgres does not answer."), RuntimeError("a bug")])
async def test_serves_on_while_the_table_is_away(replica: Replica, failure: Exception) -> None:
    assert "not read yet" in str(replica.follower.detail)
    await replica.see(champion="a-1")
    replica.table.failure = failure
    assert await replica.see() == Live("a-1")
    assert "serves what it has" in str(replica.follower.detail)
    replica.table.failure = None
    assert await replica.see(champion="a-2") == Live("a-2")
    assert replica.follower.detail is None


async def test_a_name_in_the_table_never_leads_out_of_the_folder(replica: Replica) -> None:
    replica.make("../outside")
    assert await replica.see(champion="../outside") == Live()
    assert "is no adapter name" in str(replica.follower.detail)


async def test_an_engine_that_breaks_in_the_middle_does_not_end_the_following(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.see(champion="a-1", challenger=("a-2", 0.1))

    async def stopped(adapters: Any) -> None:
        raise RuntimeError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(replica.engine, "set_adapters", stopped)
        assert await replica.see(champion="a-1") == Live("a-1")
    assert await replica.see(champion="a-2", previous="a-1") == Live("a-2")
