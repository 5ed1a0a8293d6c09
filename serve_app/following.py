"""A replica follows the table of deployments: which adapters it loads, and which of them it serves with.

What cannot be loaded never takes away what serves. A champion that is missing or damaged is replaced by the
one before it, or by the base model, and the reason stands in the replica's health until it loads.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol

from assistant.errors import AssistantError
from assistant.llm.adapters import Adapter, find_adapter
from assistant.llm.types import Engine
from assistant.llm.variants import Live
from assistant.stores.deployments import Deployment
from assistant.telemetry import Meter, NullMeter, get_logger

RETRY_S = 10.0
"""Pause before an adapter that could not be loaded is tried again; reading one costs a hash of its files."""

BASE = "base"
"""How metrics call a model without an adapter."""

log = get_logger("adapters")


class Deployments(Protocol):
    """The DeploymentRepository."""

    async def active(self, model: str | None = None) -> list[Deployment]: ...


class Follower:
    """`live` is what requests are served with. One task calls `step` again and again."""

    def __init__(
        self,
        model: str,
        engine: Engine,
        deployments: Deployments,
        adapters_dir: Path,
        meter: Meter | None = None,
    ) -> None:
        self._model = model
        self._engine = engine
        self._deployments = deployments
        self._folder = adapters_dir
        self._meter = meter or NullMeter()
        self._told: set[tuple[str, str]] = set()
        self._known: dict[str, Adapter] = {}
        self._broken: dict[str, tuple[str, float]] = {}
        self._away: str | None = "the deployments of adapters were not read yet"
        self._wanted: dict[str, Deployment] = {}
        self.live = Live()

    async def run(self, pause_s: float) -> None:
        """Follow until cancelled."""
        while True:
            await asyncio.sleep(pause_s)
            await self.step()

    async def step(self) -> None:
        """Look once. Never raises: whatever is wrong, what serves goes on."""
        try:
            active = await self._deployments.active(self._model)
        except AssistantError as error:
            # Postgres is away: nothing says that anything changed.
            self._note_away(error.detail)
            return
        except Exception as error:
            log.exception("deployments_not_read", model=self._model)
            self._note_away(type(error).__name__)
            return
        self._note_away(None)
        self._wanted = {record.alias: record for record in active}
        try:
            await self._follow()
        except Exception:
            log.exception("adapters_not_followed", model=self._model)
        self._tell()

    @property
    def detail(self) -> str | None:
        """What is not as the table says, in one sentence."""
        problems = [reason for reason, _ in self._broken.values()]
        if self._away is not None:
            problems.append(f"It serves what it has: {self._away}")
        return " ".join(problems) or None

    def info(self) -> dict[str, Any]:
        return {
            "champion": self.live.champion,
            "challenger": self.live.challenger,
            "share": self.live.share,
            "loaded": list(self._engine.adapters),
            "problems": {name: reason for name, (reason, _) in self._broken.items()},
        }

    async def _follow(self) -> None:
        champion = await self._champion()
        wanted = self._name("challenger")
        # First without a challenger that is still to be loaded: the less is loaded at once, the better.
        await self._serve(champion, wanted if wanted in self._engine.adapters else None)
        if wanted is not None and self.live.challenger is None and await self._obtain(wanted):
            await self._serve(champion, wanted)
        names = {record.adapter for record in self._wanted.values()}
        self._broken = {name: noted for name, noted in self._broken.items() if name in names}

    def _tell(self) -> None:
        serving = {("champion", self.live.champion or BASE)}
        if self.live.challenger is not None:
            serving.add(("challenger", self.live.challenger))
        for alias, adapter in serving | self._told:
            self._meter.set(
                "ai_assistant_model_info",
                float((alias, adapter) in serving),
                model=self._model,
                alias=alias,
                adapter=adapter,
            )
        self._told |= serving
        self._meter.set("ai_assistant_adapter_problems", len(self._broken), model=self._model)

    async def _champion(self) -> str | None:
        """The champion, or when it cannot be loaded the one before it: the best that is known to work."""
        for alias in ("champion", "previous"):
            name = self._name(alias)
            if name is None or await self._obtain(name):
                return name
        return None

    async def _serve(self, champion: str | None, challenger: str | None) -> None:
        """Choose for requests to come, then let go of what they cannot be sent to any more."""
        share = self._wanted["challenger"].share if challenger is not None else 0.0
        live = Live(champion, challenger, share)
        if live != self.live:
            log.info(
                "adapters_live", model=self._model, champion=champion, challenger=challenger, share=share
            )
        self.live = live
        kept = {name: self._known[name] for name in (champion, challenger) if name is not None}
        if set(self._engine.adapters) != set(kept):
            await self._engine.set_adapters(list(kept.values()))
        self._known = kept

    async def _obtain(self, name: str) -> bool:
        """Whether the engine has this adapter, which is loaded beside what serves if need be."""
        if name in self._engine.adapters:
            return True
        known = self._broken.get(name)
        if known is not None and time.monotonic() - known[1] < RETRY_S:
            return False
        try:
            adapter = await asyncio.to_thread(find_adapter, self._folder, name, self._model)
            await self._engine.set_adapters([*self._known.values(), adapter])
        except Exception as error:
            if not isinstance(error, AssistantError):
                log.exception("adapter_failed", model=self._model, adapter=name)
            reason = str(error) if isinstance(error, AssistantError) else f"{name}: {type(error).__name__}."
            if known is None or known[0] != reason:
                log.warning("adapter_refused", model=self._model, adapter=name, reason=reason)
            self._broken[name] = (reason, time.monotonic())
            return False
        self._known[name] = adapter
        self._broken.pop(name, None)
        return True

    def _name(self, alias: str) -> str | None:
        record = self._wanted.get(alias)
        return record.adapter if record is not None else None

    def _note_away(self, reason: str | None) -> None:
        if reason != self._away:
            log.warning(
                "deployments_away" if reason else "deployments_back", model=self._model, reason=reason
            )
        self._away = reason
