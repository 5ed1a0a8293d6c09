"""LocalLLM as a plain class over the real llama.cpp engine, and over weights that are not there."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from assistant.errors import BackendFailed, ConfigurationError, NotFound
from assistant.llm.adapters import GGUF
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest, Message
from assistant.llm.variants import Route
from assistant.settings import Settings, load_settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.postgres import Database
from serve_app.local_llm import LocalLLM
from tests.fixtures_adapters import TinyLlama

ASK = ChatRequest("small", (Message("user", "Say hello."),), max_tokens=8, temperature=0.0)


def spec(models_dir: Path, **more: Any) -> ModelSpec:
    path = models_dir / "smollm2-135m-instruct"
    return ModelSpec(name="small", engine="llama_cpp", path=path, context_tokens=512, slots=2, **more)


def settings(models_dir: Path, **serve: Any) -> Settings:
    return load_settings({}, overrides={"home": str(models_dir.parent), "serve": serve})


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """A deployment configures logging for its process, which here is everybody's."""
    yield
    structlog.reset_defaults()


async def make(spec: ModelSpec, settings: Settings) -> LocalLLM:
    """Ray Serve awaits constructors."""
    llm = LocalLLM.__new__(LocalLLM)
    await LocalLLM.__init__(llm, spec, settings)  # type: ignore[misc, func-returns-value]
    return llm


@pytest.mark.integration
async def test_answers_at_once_loads_behind_and_streams(models_dir: Path) -> None:
    llm = await make(spec(models_dir), settings(models_dir))
    try:
        assert (await llm.health()).state == "loading"
        await llm.check_health()
        batches = [batch async for batch in llm.stream(ASK, "r1")]
        assert (await llm.health()).state == "ready"
    finally:
        await llm.__del__()  # type: ignore[misc]
    pieces = [piece for batch in batches for piece in batch]
    assert "".join(p.text for p in pieces)
    assert pieces[-1].finish_reason is not None
    assert pieces[-1].usage is not None


@pytest.mark.integration
async def test_what_is_beyond_its_room_is_refused_and_room_comes_back(models_dir: Path) -> None:
    llm = await make(spec(models_dir), settings(models_dir, max_queued_requests=0))
    try:
        long = ChatRequest("small", (Message("user", "Tell a story."),), max_tokens=400)
        held = [llm.stream(long, f"r{n}") for n in range(2)]
        await asyncio.gather(*(anext(stream) for stream in held))
        with pytest.raises(BackendFailed) as caught:
            await anext(llm.stream(ASK, "r3"))
        assert caught.value.extra["cause"] == "rate_limited"
        for stream in held:
            await stream.aclose()
        assert [batch async for batch in llm.stream(ASK, "r4")]
    finally:
        await llm.__del__()  # type: ignore[misc]


async def test_missing_weights_fail_the_constructor_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="are not there"):
        await make(spec(tmp_path), settings(tmp_path))


async def test_broken_weights_are_reported_and_not_tried_for_ever(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    (folder / "x.gguf").write_bytes(b"not a model")
    llm = await make(spec(tmp_path), settings(tmp_path))
    try:
        with pytest.raises(BackendFailed, match="could not load"):
            await anext(llm.stream(ASK, "r1"))
        health = await llm.health()
        await llm.check_health()
    finally:
        await llm.__del__()  # type: ignore[misc]
    assert health.state == "down"
    assert "could not load" in str(health.detail)


@pytest.fixture
async def tiny(
    tiny_llama: TinyLlama, database: Database, database_url: str, tmp_path: Path
) -> AsyncIterator[LocalLLM]:
    """A replica of a small model on a real table, with three adapters in its home."""
    for adapter in tiny_llama.adapters.values():
        shutil.copytree(adapter.folder, tmp_path / "adapters" / adapter.name)
    overrides = {"home": str(tmp_path), "postgres": {"url": database_url}, "learning": {"poll_s": 0.05}}
    spec = ModelSpec(name="subject", engine="llama_cpp", path=tiny_llama.gguf, context_tokens=512, slots=4)
    llm = await make(spec, load_settings({}, overrides=overrides))
    yield llm
    await llm.__del__()  # type: ignore[misc]


async def adapter_of(llm: LocalLLM, route: Route, max_tokens: int = 6) -> str | None:
    """Which adapter wrote the whole of one answer."""
    ask = ChatRequest("subject", (Message("user", "Say hello."),), max_tokens=max_tokens, temperature=0.0)
    pieces = [piece async for batch in llm.stream(ask, "r1", route) for piece in batch]
    assert pieces[-1].finish_reason in {"stop", "length"}
    (adapter,) = {piece.adapter for piece in pieces}
    return adapter


@asynccontextmanager
async def under_load(llm: LocalLLM, clients: int = 3) -> AsyncIterator[Counter[str | None]]:
    """Clients without a pause. Counts whole answers by adapter; fails with the first that is not one."""
    answers: Counter[str | None] = Counter()
    stopping = False

    async def client(number: int) -> None:
        while not stopping:
            answers[await adapter_of(llm, Route("live", f"person-{number}"))] += 1

    tasks = [asyncio.create_task(client(n)) for n in range(clients)]
    try:
        yield answers
    finally:
        stopping = True
        await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def more(answers: Counter[str | None], adapter: str | None) -> None:
    """Wait for two further answers of an adapter."""
    goal = answers[adapter] + 2
    await until(lambda: answers[adapter] >= goal)


@pytest.mark.integration
async def test_follows_the_table_under_load_and_loses_no_answer(tiny: LocalLLM, database: Database) -> None:
    table = DeploymentRepository(database)
    async with under_load(tiny) as answers:
        await more(answers, None)
        await table.challenge("subject", "answerer-1", 1.0)
        await more(answers, "answerer-1")
        await table.promote("subject", "answerer-1", "gate")
        await table.challenge("subject", "answerer-2", 0.0)
        await until(lambda: tiny._live.challenger == "answerer-2")
        assert await adapter_of(tiny, Route("challenger")) == "answerer-2"
        assert await adapter_of(tiny, Route("live", "ada", 1.0)) == "answerer-2"
        assert await adapter_of(tiny, Route("champion")) == "answerer-1"
        assert await adapter_of(tiny, Route("base")) is None
        told = (await tiny.health()).info["adapters"]
        assert (told["champion"], told["challenger"]) == ("answerer-1", "answerer-2")
        assert sorted(told["loaded"]) == ["answerer-1", "answerer-2"]
        await table.promote("subject", "answerer-2", "gate")
        await more(answers, "answerer-2")
        await table.rollback("subject", "ada")
        await more(answers, "answerer-1")
        await table.rollback("subject", "ada")
        await more(answers, None)
    assert (await tiny.health()).detail is None
    with pytest.raises(NotFound, match="has no champion now"):
        await adapter_of(tiny, Route("champion"))


@pytest.mark.integration
async def test_a_damaged_adapter_is_a_detail_and_not_an_outage(
    tiny: LocalLLM, database: Database, tmp_path: Path
) -> None:
    table = DeploymentRepository(database)
    await table.promote("subject", "answerer-1", "gate")
    assert await adapter_of(tiny, Route()) in {None, "answerer-1"}
    await until(lambda: tiny._live.champion == "answerer-1")
    (tmp_path / "adapters" / "answerer-2" / GGUF).write_bytes(b"cut")
    await table.promote("subject", "answerer-2", "gate")
    async with under_load(tiny) as answers:
        async with asyncio.timeout(60):
            while (await tiny.health()).detail is None:
                await asyncio.sleep(0.05)
        await more(answers, "answerer-1")
    health = await tiny.health()
    await tiny.check_health()
    assert health.state == "ready"
    assert "is damaged" in str(health.detail)
    assert health.info["adapters"]["problems"].keys() == {"answerer-2"}


@pytest.mark.integration
async def test_a_new_replica_serves_the_champion_from_its_first_answer(
    tiny_llama: TinyLlama, database: Database, database_url: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama.adapters["answerer-1"].folder, tmp_path / "adapters" / "answerer-1")
    await DeploymentRepository(database).promote("subject", "answerer-1", "gate")
    overrides = {"home": str(tmp_path), "postgres": {"url": database_url}, "learning": {"poll_s": 3600}}
    spec = ModelSpec(name="subject", engine="llama_cpp", path=tiny_llama.gguf, context_tokens=512, slots=4)
    llm = await make(spec, load_settings({}, overrides=overrides))
    try:
        assert await adapter_of(llm, Route()) == "answerer-1"
    finally:
        await llm.__del__()  # type: ignore[misc]


@pytest.mark.integration
async def test_answers_from_the_base_while_postgres_is_away(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    away = {"url": "postgresql://nobody@127.0.0.1:9/none", "pool_timeout_s": 0.2}
    spec = ModelSpec(name="subject", engine="llama_cpp", path=tiny_llama.gguf, context_tokens=512, slots=4)
    llm = await make(spec, load_settings({}, overrides={"home": str(tmp_path), "postgres": away}))
    try:
        assert await adapter_of(llm, Route()) is None
        health = await llm.health()
    finally:
        await llm.__del__()  # type: ignore[misc]
    assert health.state == "ready"
    assert "serves what it has" in str(health.detail)
