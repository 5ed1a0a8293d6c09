"""Clients that stream without a pause, and what they saw: for changes under load."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx


class Clients:
    """`answers` counts whole streams by the adapter that wrote them; `failures` keeps all others."""

    def __init__(self, client: httpx.AsyncClient, model: str, clients: int) -> None:
        self._client = client
        self._model = model
        self._number = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: Counter[str | None] = Counter()
        self.failures: list[str] = []

    async def __aenter__(self) -> "Clients":
        self._tasks = [asyncio.create_task(self._loop()) for _ in range(self._number)]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def answered(self, adapter: str | None, more: int = 2) -> None:
        """Wait for further answers of this adapter, or for a failure."""
        goal = self.answers[adapter] + more
        async with asyncio.timeout(240):
            while self.answers[adapter] < goal and not self.failures:
                await asyncio.sleep(0.05)

    async def shown(self, alias: str, adapter: str | None) -> None:
        """Wait until /health says that this adapter serves as champion or challenger."""
        async with asyncio.timeout(240):
            while True:
                models = (await self._client.get("/health")).json()["models"]
                (state,) = [model for model in models if model["name"] == self._model]
                if state["adapters"] is not None and state["adapters"][alias] == adapter:
                    return
                await asyncio.sleep(0.2)

    async def _loop(self) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "Count to ten."}],
            "max_tokens": 8,
            "temperature": 0,
            "stream": True,
        }
        while not self._stopping:
            try:
                async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                    lines = [line async for line in response.aiter_lines() if line]
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                return
            last = _whole(lines) if response.status_code == 200 else None
            if last is None:
                self.failures.append(f"{response.status_code}: {lines[-2:]}")
                return
            self.answers[last["adapter"]] += 1


def _whole(lines: list[str]) -> dict[str, Any] | None:
    """The chunk that ends a stream; None when it was not a whole one."""
    if lines[-1:] != ["data: [DONE]"]:
        return None
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    ends = [c for c in chunks if c.get("choices") and c["choices"][0]["finish_reason"] in {"stop", "length"}]
    return ends[0] if len(ends) == 1 and not any("error" in c for c in chunks) else None
