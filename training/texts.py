"""What a model writes with each of several adapters, through the engine that would serve them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from assistant.llm.adapters import Adapter
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine
from assistant.llm.types import ChatRequest, Engine
from training.rows import Row

MAX_WRITTEN_TOKENS = 160
WRITING_AT_ONCE = 2
"""By each system."""


async def write_texts(
    spec: ModelSpec,
    models_dir: Path,
    systems: Mapping[str, Adapter | None],
    rows: Sequence[Row],
    written: Callable[[], None],
) -> dict[str, list[str]]:
    """System → its greedy answer to each row's prompt; a system is the base with an adapter, or without.

    `written` is called after each text. Raises what the engine raises.
    """
    # The catalogue's slots are for many users, and each costs a context of memory in every server.
    few = spec.model_copy(update={"slots": min(spec.slots, WRITING_AT_ONCE * len(systems))})
    engine = create_engine(few, models_dir)
    await engine.start()
    try:
        await engine.set_adapters([adapter for adapter in systems.values() if adapter is not None])
        # At the same time: an engine on a CPU gives each adapter a thread of its own.
        texts = await asyncio.gather(*(_all(engine, few, a, rows, written) for a in systems.values()))
        return dict(zip(systems, texts, strict=True))
    finally:
        await engine.stop()


async def _all(
    engine: Engine,
    spec: ModelSpec,
    adapter: Adapter | None,
    rows: Sequence[Row],
    written: Callable[[], None],
) -> list[str]:
    places = asyncio.Semaphore(WRITING_AT_ONCE)
    name = None if adapter is None else adapter.name

    async def one(number: int, row: Row) -> str:
        request = ChatRequest(
            spec.name, row.prompt, MAX_WRITTEN_TOKENS, temperature=0.0, seed=0, adapter=name
        )
        async with places, aclosing(engine.stream(request, f"{name}-{number}")) as pieces:  # type: ignore[type-var]
            text = "".join([piece.text async for piece in pieces])
        written()
        return text.strip()

    return list(await asyncio.gather(*(one(number, row) for number, row in enumerate(rows))))
