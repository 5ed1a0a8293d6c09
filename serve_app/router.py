"""Router: the ingress. Everything it says over HTTP is in `serve_app.api`; this file gives it its services."""

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from assistant import tracing
from assistant.llm.catalog import Catalog
from assistant.retrieval.answer import AnswerService
from assistant.settings import Settings
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.documents import DocumentRepository
from assistant.stores.jobs import JobRepository
from assistant.stores.llm_metrics import LlmMetricLog
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRepository
from assistant.stores.searches import SearchLog
from assistant.stores.sources import SourceRepository
from assistant.stores.vectors import VectorStore
from assistant.telemetry import configure_logging
from assistant.tracing import configure_tracing
from serve_app.api.application import create_app
from serve_app.api.services import Learning, Ping, Services
from serve_app.handles import RetrieverHandle, WriterHandle
from serve_app.live_config import LiveConfig
from serve_app.metrics import RayMeter
from serve_app.models import open_models
from serve_app.pings import store_pings
from serve_app.scheduler import SchedulerHandle

PING_TIMEOUT_S = 1.0


# The application is built in the replica (`__serve_build_asgi_app__`), after the constructor: nothing of
# it is pickled, and it gets its services by value.
@serve.ingress()
class Router:
    async def __init__(  # type: ignore[misc]
        self,
        settings: Settings,
        catalog: Catalog,
        retriever: DeploymentHandle,
        writer: DeploymentHandle,
        scheduler: DeploymentHandle,
        llms: Mapping[str, DeploymentHandle],
    ) -> None:
        configure_tracing(settings.telemetry, "router")
        configure_logging(settings.telemetry, "router")
        meter = RayMeter()
        self._closing = AsyncExitStack()
        self._database = Database(settings.postgres)
        self._closing.push_async_callback(self._database.close)
        await self._database.open()
        self._vectors = VectorStore(settings.qdrant)
        self._closing.push_async_callback(self._vectors.close)
        self._http = httpx.AsyncClient(timeout=PING_TIMEOUT_S, trust_env=False)
        self._closing.push_async_callback(self._http.aclose)
        searches, metrics = SearchLog(self._database, meter), LlmMetricLog(self._database, meter)
        self._closing.push_async_callback(searches.close)
        self._closing.push_async_callback(metrics.close)
        self._scheduler = SchedulerHandle(scheduler)
        learning = Learning.on(self._database, meter, settings.learning, self._scheduler.notify)
        self._closing.push_async_callback(learning.log.close)
        retrieval = RetrieverHandle(retriever, settings)
        self._live = LiveConfig([spec.name for spec in catalog.models])
        models = open_models(catalog, llms, settings, meter, metrics, self._live.share, self._live.order)
        self._services = Services(
            settings=settings,
            catalog=catalog,
            models=models,
            answers=AnswerService(retrieval, models, settings, self._live.answer_prompt),
            retrieval=retrieval,
            writing=WriterHandle(writer),
            documents=DocumentRepository(self._database),
            sources=SourceRepository(self._database),
            rfcs=RfcRepository(self._database),
            jobs=JobRepository(self._database),
            keys=ApiKeyRepository(self._database),
            searches=searches,
            learning=learning,
            deployments=DeploymentRepository(self._database),
            live=self._live,
            pings=self._pings(settings),
            meter=meter,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._services, echo_request_id=False)

    def reconfigure(self, user_config: Any) -> None:
        """Takes the `user_config` of a Serve config file, while requests go on."""
        self._live.apply(user_config)

    async def check_health(self) -> None:
        """A Router that can run this is healthy; what it depends on is the business of /health."""

    async def __del__(self) -> None:
        await self._closing.aclose()
        await tracing.flush()

    def _pings(self, settings: Settings) -> dict[str, Ping]:
        stores = store_pings(settings, self._database, self._vectors, self._http)
        return {**stores, "scheduler": self._ping_scheduler}

    async def _ping_scheduler(self) -> float:
        started = time.perf_counter()
        await self._scheduler.health()
        return (time.perf_counter() - started) * 1000
