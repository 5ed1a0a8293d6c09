"""llama.cpp's servers come and go: none is left behind, and none takes the process with it."""

import asyncio
from pathlib import Path

import psutil
import pytest

from assistant.errors import BackendFailed, ConfigurationError
from assistant.llm.adapters import Adapter
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine
from assistant.llm.types import Engine
from tests.contract.swaps import Load, damaged, text_of
from tests.fixtures_adapters import TinyLlama

pytestmark = pytest.mark.integration


def engine_of(tiny: TinyLlama) -> Engine:
    spec = ModelSpec(name="subject", engine="llama_cpp", path=tiny.gguf, context_tokens=256, slots=2)
    return create_engine(spec, tiny.folder)


def two(tiny: TinyLlama) -> tuple[Adapter, Adapter]:
    return tiny.adapters["answerer-1"], tiny.adapters["answerer-2"]


async def test_servers_that_never_had_a_request_are_freed_at_once(tiny_llama: TinyLlama) -> None:
    engine, (a, b) = engine_of(tiny_llama), two(tiny_llama)
    await engine.start()
    threads = psutil.Process().num_threads()
    for _ in range(4):
        await engine.set_adapters([a])
        await engine.set_adapters([b])
    await engine.set_adapters([])
    async with asyncio.timeout(30):
        while psutil.Process().num_threads() > threads + 4:
            await asyncio.sleep(0.05)
    await engine.stop()


async def test_an_engine_may_be_stopped_as_soon_as_it_has_started(tiny_llama: TinyLlama) -> None:
    for _ in range(3):
        engine = engine_of(tiny_llama)
        await engine.start()
        await engine.set_adapters(two(tiny_llama))
        await engine.stop()
    with pytest.raises(BackendFailed, match="stopped"):
        await engine.set_adapters([])


async def test_each_adapter_answers_as_if_it_were_alone(tiny_llama: TinyLlama) -> None:
    engine, (a, b) = engine_of(tiny_llama), two(tiny_llama)
    await engine.start()
    try:
        alone = {}
        for adapter in (a, b):
            await engine.set_adapters([adapter])
            alone[adapter.name] = await text_of(engine, adapter.name)
        base = await text_of(engine, None)
        async with Load(engine).running(2) as load:
            await engine.set_adapters([a, b])
            await load.served([None, a.name, b.name])
            together = {name: await text_of(engine, name) for name in alone}
            assert await text_of(engine, None) == base
    finally:
        await engine.stop()
    assert load.failures == []
    assert together == alone
    assert len({base, *alone.values()}) == 3


async def test_a_broken_one_leaves_no_server_behind(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    engine, (a, b) = engine_of(tiny_llama), two(tiny_llama)
    await engine.start()
    try:
        await engine.set_adapters([a])
        with pytest.raises(ConfigurationError, match="could not load the adapter answerer-9"):
            await engine.set_adapters([b, damaged(a, tmp_path / "answerer-9")])
        assert engine.adapters == (a.name,)
        assert await text_of(engine, a.name)
    finally:
        await engine.stop()
