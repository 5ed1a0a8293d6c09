"""/health asks every dependency at once, with a short limit each, and never makes anybody wait for a dead one."""

import asyncio
import importlib.metadata
import time
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response

from assistant.errors import AssistantError, Unauthenticated
from assistant.llm.types import BackendHealth
from assistant.telemetry import get_logger
from serve_app.api.auth import Graph, get_principal
from serve_app.api.schemas import Check, HealthAnswer, ModelState
from serve_app.api.services import Services

LIMIT_S = 1.5
FRESH_S = 1.0
NEEDED = ("postgres", "qdrant", "retriever")
"""Without one of these nothing useful can be answered."""
ADAPTERS = "adapters"
"""The member of a backend's `info` that says what it serves with."""

log = get_logger("health")
router = APIRouter(prefix="/health", tags=["Health"])


def version() -> str:
    return importlib.metadata.version("ai-assistant")


class HealthBoard:
    """What is known of each dependency. One round of questions at a time, whoever asks."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._started = time.monotonic()
        self._answer: HealthAnswer | None = None
        self._asked_at = 0.0
        self._round: asyncio.Task[HealthAnswer] | None = None
        self._models: dict[str, BackendHealth] = {}
        self._asking_models: asyncio.Task[None] | None = None

    async def report(self) -> HealthAnswer:
        if self._answer is not None and time.monotonic() - self._asked_at < FRESH_S:
            return self._answer.model_copy(update={"uptime_s": self.uptime_s})
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask())
        # Shielded: others may wait for the same round when this caller leaves.
        return await asyncio.shield(self._round)

    @property
    def uptime_s(self) -> float:
        return round(time.monotonic() - self._started, 1)

    async def adapters(self) -> Mapping[str, Mapping[str, Any]]:
        """What each local model serves with, by name, as far as its replica has told."""
        await self.report()
        told = {name: _adapters(health) for name, health in self._models.items()}
        return {name: adapters for name, adapters in told.items() if adapters is not None}

    async def _ask(self) -> HealthAnswer:
        services = self._services
        asked: dict[str, Awaitable[Check]] = {
            name: self._pinged(ping()) for name, ping in services.pings.items()
        }
        asked["retriever"] = self._answered(services.retrieval.health())
        asked["writer"] = self._answered(services.writing.health())
        checks_made, _, counts = await asyncio.gather(
            asyncio.gather(*asked.values()), self._ask_models(), self._counts()
        )
        checks = dict(zip(asked, checks_made, strict=True))
        models = [self._model(spec.name) for spec in services.catalog.models]
        checks |= {spec.name: self._backend(spec.name) for spec in services.catalog.models}
        self._answer = HealthAnswer(
            status=_status(checks),
            version=version(),
            uptime_s=self.uptime_s,
            checks=checks,
            models=models,
            counts=counts,
        )
        self._asked_at = time.monotonic()
        return self._answer

    async def _pinged(self, ping: Awaitable[float]) -> Check:
        try:
            async with asyncio.timeout(LIMIT_S):
                return Check(state="ready", latency_ms=round(await ping, 2))
        except Exception as error:
            return _down(error)

    async def _answered(self, question: Awaitable[Mapping[str, Any]]) -> Check:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT_S):
                await question
            return Check(state="ready", latency_ms=round((time.perf_counter() - started) * 1000, 2))
        except Exception as error:
            return _down(error)

    async def _ask_models(self) -> None:
        """A model that takes longer keeps what was last known of it; its answer counts in the next round."""
        if self._asking_models is None or self._asking_models.done():
            self._asking_models = asyncio.create_task(self._remember_models())
        await asyncio.wait({self._asking_models}, timeout=LIMIT_S)

    async def _remember_models(self) -> None:
        try:
            for health in await self._services.models.health():
                self._models[health.model] = health
        except Exception as error:
            log.warning("models_not_asked", reason=str(error))

    async def _counts(self) -> dict[str, int] | None:
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._services.documents.counts()
        except (AssistantError, TimeoutError):
            return None

    def _backend(self, name: str) -> Check:
        health = self._models.get(name)
        if health is None:
            return Check(state="loading", detail=f"no answer within {LIMIT_S} s yet")
        latency_ms = None if health.latency_ms is None else round(health.latency_ms, 2)
        return Check(state=health.state, latency_ms=latency_ms, detail=health.detail)

    def _model(self, name: str) -> ModelState:
        spec = self._services.catalog.get(name)
        health = self._models.get(name)
        return ModelState(
            name=name,
            engine=spec.engine,
            state=health.state if health else "loading",
            writing=spec.writing,
            context_tokens=spec.context_tokens,
            adapters=_adapters(health),
            info={k: v for k, v in health.info.items() if k != ADAPTERS} if health else {},
        )


def _adapters(health: BackendHealth | None) -> Mapping[str, Any] | None:
    told = health.info.get(ADAPTERS) if health is not None else None
    return told if isinstance(told, Mapping) else None


def _down(error: Exception) -> Check:
    if isinstance(error, TimeoutError):
        return Check(state="down", detail=f"no answer within {LIMIT_S} s")
    if isinstance(error, AssistantError):
        return Check(state="down", detail=error.detail)
    log.warning("health_check_failed", exc_info=error)
    return Check(state="down", detail=type(error).__name__)


def _status(checks: Mapping[str, Check]) -> Literal["ok", "degraded", "down"]:
    if any(checks[name].state != "ready" for name in NEEDED):
        return "down"
    return "ok" if all(check.state == "ready" for check in checks.values()) else "degraded"


async def get_board(request: Request) -> HealthBoard:
    board: HealthBoard = request.app.state.health
    return board


Board = Annotated[HealthBoard, Depends(get_board)]


@router.get("", summary="Every dependency, the models, what is stored")
async def health(request: Request, graph: Graph, board: Board) -> HealthAnswer:
    """Always 200. Without a valid key, where keys are needed, only the first three members."""
    answer = await board.report()
    try:
        await get_principal(request)
    except (Unauthenticated, AssistantError):
        return HealthAnswer(status=answer.status, version=answer.version, uptime_s=answer.uptime_s)
    return answer


@router.get("/live", summary="This process answers")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready", summary="Postgres, Qdrant and the Retriever answer; 503 when one does not")
async def ready(response: Response, board: Board) -> dict[str, Any]:
    checks = (await board.report()).checks
    missing = [name for name in NEEDED if checks[name].state != "ready"]
    if missing:
        response.status_code = 503
        return {"status": "not ready", "missing": missing}
    return {"status": "ready"}
