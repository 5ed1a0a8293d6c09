"""LocalLLM: one model in one replica. The engine loads behind the constructor, so the graph is up at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from assistant import tracing
from assistant.errors import ConfigurationError, NotFound
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine
from assistant.llm.messages import failed
from assistant.llm.types import BackendHealth, ChatRequest, Piece
from assistant.llm.variants import Live, Route, choose
from assistant.settings import Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.postgres import Database
from assistant.telemetry import configure_logging, get_logger
from assistant.tracing import configure_tracing
from serve_app.closing import Closing
from serve_app.coalesce import coalesced
from serve_app.following import Follower
from serve_app.metrics import RayMeter
from serve_app.options import llm_requests

LOADING_WAIT_S = 5.0
"""How long a request waits for an engine that is still loading, before another backend is tried."""

LIVE = Route()

log = get_logger("local_llm")


class LocalLLM(Closing):
    """Behind the handle: `stream` and `health`. ConfigurationError at once when weights or a package lack."""

    async def __init__(self, spec: ModelSpec, settings: Settings) -> None:  # type: ignore[misc]
        configure_tracing(settings.telemetry, f"llm-{spec.name}")
        configure_logging(settings.telemetry, f"llm-{spec.name}")
        self._spec = spec
        self._interval_s = settings.serve.stream_interval_ms / 1000
        self._room = llm_requests(settings, spec)
        self._inside = 0
        self._engine = create_engine(spec, settings.models_dir)
        self._closing = AsyncExitStack()
        self._follower = await self._follow(settings)
        self._poll_s = settings.learning.poll_s
        self._starting = asyncio.create_task(self._load())
        self._open = True

    async def stream(
        self, request: ChatRequest, request_id: str, route: Route = LIVE, traceparent: str | None = None
    ) -> AsyncGenerator[list[Piece], None]:
        """Lists of pieces, as they are made; each names its adapter.

        Raises InvalidInput, ContextTooLong, BackendFailed, and NotFound for a variant that does not exist.
        """
        if self._inside >= self._room:
            raise failed(self._spec.name, "rate_limited", "too many requests wait for it", retry_after_s=1.0)
        self._inside += 1
        span = tracing.start(
            "LocalLLM.stream",
            kind="server",
            parent=traceparent,
            ai_assistant__request_id=request_id,
            ai_assistant__requests_inside=self._inside,
        )
        try:
            await self._loaded()
            async with aclosing(self._answer(request, request_id, route)) as batches:
                async for batch in batches:
                    yield batch
        except Exception as error:
            tracing.fail(span, type(error).__name__)
            raise
        finally:
            span.end()
            self._inside -= 1

    async def _answer(
        self, request: ChatRequest, request_id: str, route: Route
    ) -> AsyncGenerator[list[Piece], None]:
        while True:
            adapter = choose(self._spec.name, route, self._live)
            source = self._engine.stream(replace(request, adapter=adapter), request_id)
            try:
                async with aclosing(coalesced(source, self._interval_s)) as batches:
                    async for batch in batches:
                        yield [replace(piece, adapter=adapter) for piece in batch] if adapter else batch
                return
            except NotFound:
                # It left between the choice and the engine; nothing was sent, so the next choice can be.
                if choose(self._spec.name, route, self._live) == adapter:
                    raise

    async def health(self) -> BackendHealth:
        if not self._starting.done():
            return self._state("loading", None)
        if (error := self._starting.exception()) is not None:
            return self._state("down", str(error))
        health = await self._engine.health()
        if self._follower is None:
            return health
        info = {**health.info, "adapters": self._follower.info()}
        return replace(health, info=info, detail=health.detail or self._follower.detail)

    async def check_health(self) -> None:
        """Raises when another replica would do better. Wrong weights stay wrong: those are only reported."""
        if self._starting.done():
            error = self._starting.exception()
            if error is not None and not isinstance(error, ConfigurationError):
                raise error

    async def close(self) -> None:
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await self._closing.aclose()
        await self._engine.stop()

    @property
    def _live(self) -> Live:
        return self._follower.live if self._follower is not None else Live()

    async def _follow(self, settings: Settings) -> Follower | None:
        """Nobody to follow where there is no database."""
        if settings.postgres.url is None:
            return None
        # One short query every few seconds.
        database = Database(settings.postgres.model_copy(update={"pool_max_size": 1}))
        self._closing.push_async_callback(database.close)
        await database.open()
        return Follower(
            self._spec.name,
            self._engine,
            DeploymentRepository(database),
            settings.adapters_dir,
            RayMeter(),
        )

    async def _load(self) -> None:
        try:
            await self._engine.start()
        except Exception as error:
            log.exception("engine_not_started", model=self._spec.name, reason=str(error))
            raise
        if self._follower is not None:
            # Before the first answer, so that a new replica serves what the others serve.
            await self._follower.step()
            self._following = asyncio.create_task(self._follower.run(self._poll_s))
            self._closing.push_async_callback(_cancelled, self._following)
        log.info("engine_ready", model=self._spec.name, engine=self._spec.engine)

    async def _loaded(self) -> None:
        await asyncio.wait({self._starting}, timeout=LOADING_WAIT_S)
        if not self._starting.done():
            raise failed(self._spec.name, "stopped", "the model is still being loaded", retry_after_s=5.0)
        if (error := self._starting.exception()) is not None:
            raise failed(self._spec.name, "stopped", str(error), retryable=False)

    def _state(self, state: str, detail: str | None) -> BackendHealth:
        return BackendHealth(
            self._spec.name,
            self._spec.name,
            self._spec.engine,
            state,  # type: ignore[arg-type]
            detail=detail,
        )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
