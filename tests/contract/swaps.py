"""Streams without a pause while the adapters under them change: what an engine has to survive."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from assistant.llm.adapters import PEFT_WEIGHTS, Adapter, file_sha256, read_adapter, write_card
from assistant.llm.types import ChatRequest, Engine, Message


def request(adapter: str | None, max_tokens: int = 6, text: str = "Tell a story.") -> ChatRequest:
    return ChatRequest(
        "subject", (Message("user", text),), max_tokens=max_tokens, temperature=0, adapter=adapter
    )


class Load:
    """Closed-loop clients, each asking for one of the adapters that are loaded at that moment, or none.

    `answers` counts whole answers per adapter, `failures` keeps everything else that a client saw.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked = 0
        self._stopping = False
        self.answers: Counter[str | None] = Counter()
        self.failures: list[object] = []

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator["Load"]:
        tasks = [asyncio.create_task(self._client(n)) for n in range(clients)]
        try:
            yield self
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def served(self, adapters: Sequence[str | None], more: int = 1) -> None:
        """Wait until each of these has given `more` further answers, or one request failed."""
        goal = {name: self.answers[name] + more for name in adapters}
        async with asyncio.timeout(240):
            while not self.failures and any(self.answers[name] < n for name, n in goal.items()):
                await asyncio.sleep(0.02)

    async def _client(self, number: int) -> None:
        while not self._stopping:
            self._asked += 1
            loaded = [None, *self._engine.adapters]
            adapter = loaded[self._asked % len(loaded)]
            try:
                pieces = [
                    p async for p in self._engine.stream(request(adapter), f"load-{number}-{self._asked}")
                ]
            except Exception as error:
                self.failures.append(error)
                return
            if pieces[-1].finish_reason in {"stop", "length"}:
                self.answers[adapter] += 1
            else:
                self.failures.append(pieces[-1])


async def text_of(engine: Engine, adapter: str | None) -> str:
    pieces = [p async for p in engine.stream(request(adapter, 12), f"text-{adapter}")]
    return "".join(p.text for p in pieces)


def damaged(adapter: Adapter, folder: Path) -> Adapter:
    """An adapter whose files are cut short, with a card that says that this is right."""
    folder.mkdir()
    for name in adapter.card["files"]:
        data = (adapter.folder / name).read_bytes()
        (folder / name).write_bytes(data if name.endswith(".json") else data[: len(data) // 3])
    assert file_sha256(folder / PEFT_WEIGHTS) != adapter.card["files"][PEFT_WEIGHTS]
    kept = {k: adapter.card[k] for k in ("base_model", "base_fingerprint", "rank", "alpha")}
    write_card(folder, **kept)
    return read_adapter(folder, adapter.base_model)
