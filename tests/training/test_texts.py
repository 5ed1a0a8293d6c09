"""Texts of several systems through one engine: each by its own adapter, in the order of the rows."""

from pathlib import Path

import pytest

import training.texts
from assistant.llm.adapters import Adapter
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import Engine
from assistant.types import Message
from tests.fixtures_adapters import TinyLlama
from training.rows import Row
from training.texts import WRITING_AT_ONCE, write_texts

pytestmark = pytest.mark.integration

ROWS = [Row((Message("user", f"Tell me of {n}."), Message("assistant", "No.")), "test") for n in range(3)]


async def test_each_system_writes_what_it_would_alone(
    tiny_llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ModelSpec] = []
    real = training.texts.create_engine

    def remembering(spec: ModelSpec, models_dir: Path) -> Engine:
        made.append(spec)
        return real(spec, models_dir)

    monkeypatch.setattr(training.texts, "create_engine", remembering)
    monkeypatch.setattr(training.texts, "MAX_WRITTEN_TOKENS", 8)
    spec = ModelSpec(name="subject", engine="llama_cpp", path=tiny_llama.gguf, context_tokens=256)
    systems: dict[str, Adapter | None] = {
        "champion": None,
        "candidate": tiny_llama.adapters["answerer-1"],
    }
    count = 0

    def written() -> None:
        nonlocal count
        count += 1

    texts = await write_texts(spec, tiny_llama.folder, systems, ROWS, written)
    assert count == 6
    assert texts["champion"] != texts["candidate"]
    assert len(set(texts["candidate"])) > 1, "the rows have texts of their own"
    for system, adapter in systems.items():
        alone = await write_texts(spec, tiny_llama.folder, {system: adapter}, ROWS, written)
        assert alone[system] == texts[system]
    assert made[0].slots == 2 * WRITING_AT_ONCE < spec.slots
