"""Who stays and who leaves when adapters change, with an engine that only notes it."""

import asyncio
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from assistant.llm.adapters import Adapter
from assistant.llm.engines.residents import Residents


def adapter(name: str, version: int = 1) -> Adapter:
    return Adapter(name, Path(name), "small", 4, {"files": {}, "registry_version": version})


class Engine:
    """`log` has + for a load and - for an unload. Names in `broken` are refused."""

    def __init__(self, *broken: str) -> None:
        self.log: list[str] = []
        self.broken = broken
        self.gate = asyncio.Event()
        self.gate.set()
        self.residents = Residents[str](self.load, self.unload)

    async def load(self, adapter: Adapter) -> str:
        await self.gate.wait()
        if adapter.name in self.broken:
            raise ConfigurationError("broken")
        self.log.append(f"+{adapter.name}")
        return adapter.name

    async def unload(self, inside: str) -> None:
        self.log.append(f"-{inside}")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_what_is_new_is_loaded_and_only_what_left_is_unloaded() -> None:
    engine = Engine()
    await engine.residents.change([adapter("a"), adapter("b")])
    await engine.residents.change([adapter("b"), adapter("c")])
    await settle()
    assert engine.log == ["+a", "+b", "+c", "-a"]
    assert engine.residents.names == ("b", "c")


async def test_the_same_name_with_another_card_is_loaded_again() -> None:
    engine = Engine()
    await engine.residents.change([adapter("a", 1)])
    await engine.residents.change([adapter("a", 2)])
    await settle()
    assert engine.log == ["+a", "+a", "-a"]
    assert engine.residents.names == ("a",)


async def test_one_that_is_used_leaves_with_its_last_user() -> None:
    engine = Engine()
    await engine.residents.change([adapter("a")])
    first, second = engine.residents.hold("a"), engine.residents.hold("a")
    await engine.residents.change([])
    with pytest.raises(KeyError):
        engine.residents.hold("a")
    engine.residents.release(first)
    await settle()
    assert engine.log == ["+a"]
    engine.residents.release(second)
    await settle()
    assert engine.log == ["+a", "-a"]


async def test_a_broken_one_changes_nothing_and_leaves_nothing_behind() -> None:
    engine = Engine("c")
    await engine.residents.change([adapter("a")])
    with pytest.raises(ConfigurationError):
        await engine.residents.change([adapter("b"), adapter("c")])
    await settle()
    assert engine.log == ["+a", "+b", "-b"]
    assert engine.residents.names == ("a",)


async def test_changes_at_once_happen_one_after_the_other() -> None:
    engine = Engine()
    await asyncio.gather(*(engine.residents.change([adapter(name)]) for name in "abc"))
    await settle()
    assert [step for step in engine.log if step[0] == "+"] == ["+a", "+b", "+c"]
    assert set(engine.log) == {"+a", "+b", "+c", "-a", "-b"}
    assert engine.residents.names == ("c",)


async def test_what_was_being_loaded_at_the_end_is_unloaded_too() -> None:
    engine = Engine()
    engine.gate.clear()
    change = asyncio.create_task(engine.residents.change([adapter("a")]))
    await settle()
    closing = asyncio.create_task(engine.residents.close())
    await settle()
    engine.gate.set()
    await asyncio.gather(change, closing)
    assert engine.log == ["+a", "-a"]
    assert engine.residents.names == ()


async def test_one_that_does_not_go_away_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    async def stuck(inside: str) -> None:
        raise RuntimeError("still here")

    engine = Engine()
    residents = Residents[str](engine.load, stuck)
    await residents.change([adapter("a")])
    await residents.close()
    assert residents.names == ()
    assert "still here" in capsys.readouterr().out
