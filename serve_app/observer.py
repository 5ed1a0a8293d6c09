"""What no single request can tell: whether the stores answer, how old the knowledge is, what waits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from assistant.errors import AssistantError
from assistant.stores.overview import Overview
from assistant.telemetry import Meter, get_logger
from serve_app.api.services import Ping

PING_LIMIT_S = 3.0
COUNT_LIMIT_S = 20.0

log = get_logger("observer")


class Observer:
    """One round of questions per `tick`; each answer is a gauge.

    A series that has no value any more (a source that was removed) is set to 0, because an exporter
    would repeat its last value until the process ends.
    """

    def __init__(
        self,
        pings: Mapping[str, Ping],
        overview: Callable[[], Awaitable[Overview]],
        examples: Callable[[], Awaitable[Mapping[str, Any]]],
        meter: Meter,
    ) -> None:
        self._pings = pings
        self._overview = overview
        self._examples = examples
        self._meter = meter
        self._known: dict[str, set[tuple[tuple[str, str], ...]]] = {}

    async def tick(self) -> None:
        """Never raises what a store does: that it is away is one of the answers."""
        await asyncio.gather(*(self._ask(name, ping) for name, ping in self._pings.items()))
        try:
            async with asyncio.timeout(COUNT_LIMIT_S):
                overview, examples = await self._overview(), await self._examples()
        except (AssistantError, TimeoutError) as error:
            log.warning("not_counted", reason=str(error) or "no answer in time")
            return
        self._set(
            "ai_assistant_ingestion_age_seconds", {_of(source=s): a for s, a in overview.ages_s.items()}
        )
        self._set(
            "ai_assistant_documents",
            {_of(source=source, status=status): n for (source, status), n in overview.documents.items()},
        )
        self._set(
            "ai_assistant_jobs",
            {_of(kind=kind, status=status): n for (kind, status), n in overview.jobs.items()},
        )
        self._set(
            "ai_assistant_learning_examples",
            {_of(state=state): float(examples[state]) for state in ("total", "usable")},
        )

    async def _ask(self, store: str, ping: Ping) -> None:
        up = 1.0
        try:
            async with asyncio.timeout(PING_LIMIT_S):
                await ping()
        except Exception as error:
            up = 0.0
            log.warning("store_down", store=store, reason=str(error) or type(error).__name__)
        self._meter.set("ai_assistant_store_up", up, store=store)

    def _set(self, name: str, values: Mapping[tuple[tuple[str, str], ...], float]) -> None:
        for labels in self._known.get(name, set()) - set(values):
            self._meter.set(name, 0.0, **dict(labels))
        for labels, value in values.items():
            self._meter.set(name, float(value), **dict(labels))
        self._known[name] = set(values) | self._known.get(name, set())


def _of(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(labels.items())
