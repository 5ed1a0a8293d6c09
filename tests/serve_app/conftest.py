"""The HTTP API over real parts where they are cheap: scripted models, a fake Retriever, real repositories."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from assistant.errors import NotFound
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.providers.scripted import Reply, ScriptedBackend
from assistant.llm.routing import LlmRouter
from assistant.retrieval.answer import AnswerService
from assistant.retrieval.search import Passage, SearchQuery, SearchResult
from assistant.settings import PostgresSettings, Settings, load_settings
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.documents import DocumentRepository
from assistant.stores.jobs import JobRepository
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRepository
from assistant.stores.searches import SearchLog
from assistant.stores.sources import SourceRepository
from assistant.stores.vectors import SearchFilter
from assistant.telemetry import NullMeter
from assistant.types import Hit, Principal
from serve_app.api.application import create_app
from serve_app.api.services import Embeddings, Learning, Services
from serve_app.live_config import LiveConfig
from tests.fixtures_cluster import import_serve
from tests.metering import RecordingMeter

import_serve()

AWAY = PostgresSettings(url=SecretStr("postgresql://nobody@127.0.0.1:9/none"))
"""A database that is never opened: every use says that Postgres is closed."""


def make_hit(text: str, title: str = "Runbook", dense: float = 0.9) -> Hit:
    return Hit(
        chunk_id=uuid4(),
        document_id=UUID(int=1),
        score=dense,
        text=text,
        title=title,
        headings=("Mitigation",),
        start=0,
        end=len(text),
        source="runbooks",
        source_type="folder",
        external_id="runbook.md",
        content_hash="abc",
        url="https://runbooks.example/pv",
        dense=dense,
    )


@dataclass
class FakeRetrieval:
    """Serves `hits`; `failure` is raised instead. `searches` keeps who asked for what."""

    hits: tuple[Hit, ...] = ()
    failure: Exception | None = None
    delay_s: float = 0.0
    searches: list[tuple[SearchQuery, Principal]] = field(default_factory=list)
    embedders: Mapping[str, int] = field(default_factory=dict)

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.searches.append((query, principal))
        await self._act()
        SearchFilter(principal.acl_terms(), query.filters).clauses()
        return SearchResult(self.hits, {"embed": 1.5, "total": 2.0})

    async def passage(self, chunk_id: UUID, principal: Principal) -> Passage:
        await self._act()
        for hit in self.hits:
            if hit.chunk_id == chunk_id:
                return Passage(hit, ("before",), ("after",))
        raise NotFound(f"There is no passage {chunk_id} that you may read.")

    async def embeddings(self, texts: Sequence[str], model: str | None = None) -> Embeddings:
        await self._act()
        return Embeddings(
            np.array([[len(t), 1.0, 0.5] for t in texts], dtype=np.float32), sum(map(len, texts))
        )

    async def health(self) -> Mapping[str, Any]:
        await self._act()
        return {"embedders": self.embedders}

    async def _act(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure


@dataclass
class FakeWriting:
    notified: int = 0
    failure: Exception | None = None

    async def notify(self) -> None:
        self.notified += 1

    async def health(self) -> Mapping[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {}


@dataclass
class FakeScheduler:
    woken: int = 0

    async def wake(self) -> None:
        self.woken += 1


@dataclass
class Bench:
    """One application with its parts in reach."""

    app: FastAPI
    services: Services
    retrieval: FakeRetrieval
    writing: FakeWriting
    backends: dict[str, ScriptedBackend]
    scheduler: FakeScheduler
    meter: RecordingMeter

    def client(self, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Builds an application. `replies` script the model `small`, `others` further ones by name.

    `engine` is what the catalogue calls them: `llama_cpp` plays models that take adapters.
    """

    def build(
        replies: Sequence[Reply | str] = ("Hello from the model.",),
        *,
        hits: Sequence[Hit] = (),
        database: Database | None = None,
        overrides: Mapping[str, Any] | None = None,
        others: Mapping[str, Sequence[Reply | str]] | None = None,
        writing: str = "extractive",
        engine: str = "scripted",
        pings: Mapping[str, Any] | None = None,
    ) -> Bench:
        settings: Settings = load_settings({}, overrides={"embedder": {"dimension": 3}, **(overrides or {})})
        backends: dict[str, ScriptedBackend] = {}
        for position, (name, script) in enumerate({"small": replies, **(others or {})}.items()):
            spec = ModelSpec.model_validate(
                {"name": name, "engine": engine, "path": "x", "priority": position, "writing": writing}
            )
            backends[name] = ScriptedBackend(spec, script)
        catalog = Catalog(tuple(b._spec for b in backends.values()))
        live = LiveConfig([spec.name for spec in catalog.models])
        models = LlmRouter(
            catalog, list(backends.values()), NullMeter(), lambda attempt: None, strategy=live.order
        )
        meter = RecordingMeter()
        retrieval, writer = FakeRetrieval(tuple(hits)), FakeWriting()
        store, waker = database or Database(AWAY), FakeScheduler()
        services = Services(
            settings=settings,
            catalog=catalog,
            models=models,
            answers=AnswerService(retrieval, models, settings, live.answer_prompt),
            retrieval=retrieval,
            writing=writer,
            documents=DocumentRepository(store),
            sources=SourceRepository(store),
            rfcs=RfcRepository(store),
            jobs=JobRepository(store),
            keys=ApiKeyRepository(store),
            searches=SearchLog(store),
            learning=Learning.on(store, NullMeter(), settings.learning, waker.wake),
            deployments=DeploymentRepository(store),
            live=live,
            pings=pings if pings is not None else {"postgres": pong, "qdrant": pong},
            meter=meter,
        )
        return Bench(create_app(services), services, retrieval, writer, backends, waker, meter)

    return build


async def pong() -> float:
    return 0.5


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The application behind a real HTTP server: its URL. For streams and for clients that leave."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def stock_client(bench: Bench) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client on the application."""
    async with (
        served(bench.app) as url,
        openai.AsyncOpenAI(api_key="unused", base_url=f"{url}/v1", max_retries=0) as client,
    ):
        yield client


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for a condition; TimeoutError when it does not come true."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)
