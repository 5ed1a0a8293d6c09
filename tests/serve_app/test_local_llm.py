"""LocalLLM as a plain class over the real llama.cpp engine, and over weights that are not there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from assistant.errors import BackendFailed, ConfigurationError
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest, Message
from assistant.settings import Settings, load_settings
from serve_app.local_llm import LocalLLM

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
