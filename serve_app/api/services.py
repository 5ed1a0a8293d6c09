"""What the HTTP API needs from the rest, as one value that the Router builds and tests can build too."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.routing import RoutedPiece
from assistant.llm.types import BackendHealth, ChatRequest, Completion, Message
from assistant.retrieval.answer import AnswerPiece
from assistant.retrieval.search import Passage, SearchQuery, SearchResult
from assistant.settings import LearningSettings, Settings
from assistant.stores.answers import AnswerLog, AnswerRepository
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.documents import DocumentRepository
from assistant.stores.examples import ExampleRepository
from assistant.stores.feedback import FeedbackRepository
from assistant.stores.jobs import JobRepository
from assistant.stores.learning_runs import LearningRunRepository
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRepository
from assistant.stores.searches import SearchLog
from assistant.stores.sources import SourceRepository
from assistant.telemetry import Meter
from assistant.types import Principal, RequestContext
from serve_app.live_config import LiveConfig


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of shape (n, dimension), float32 and L2-normalised, and the tokens that were read for them."""

    vectors: npt.NDArray[np.float32]
    tokens: int


class Retrieval(Protocol):
    """The Retriever, here or behind a handle."""

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult: ...

    async def passage(self, chunk_id: UUID, principal: Principal) -> Passage: ...

    async def embeddings(self, texts: Sequence[str], model: str | None = None) -> Embeddings: ...

    async def health(self) -> Mapping[str, Any]: ...


class Writing(Protocol):
    """The Writer: `notify` says that there may be a job; it never fails for want of a Writer."""

    async def notify(self) -> None: ...

    async def health(self) -> Mapping[str, Any]: ...


class Models(Protocol):
    """The LlmRouter."""

    def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[RoutedPiece]: ...

    async def complete(self, request: ChatRequest, context: RequestContext) -> Completion: ...

    async def health(self) -> list[BackendHealth]: ...

    def spec_for(self, model: str) -> ModelSpec: ...


class Answers(Protocol):
    """The AnswerService."""

    def stream(
        self, messages: Sequence[Message], context: RequestContext, model: str = "auto"
    ) -> AsyncIterator[AnswerPiece]: ...


Ping = Callable[[], Awaitable[float]]
"""Milliseconds of one round trip; raises when the other side does not answer."""


@dataclass(frozen=True, slots=True)
class Learning:
    """What is kept of answers and of what people think of them. `wake` tells the Scheduler to look."""

    log: AnswerLog
    answers: AnswerRepository
    feedback: FeedbackRepository
    examples: ExampleRepository
    runs: LearningRunRepository
    wake: Callable[[], Awaitable[None]]

    @classmethod
    def on(
        cls,
        database: Database,
        meter: Meter,
        settings: LearningSettings,
        wake: Callable[[], Awaitable[None]],
    ) -> "Learning":
        return cls(
            AnswerLog(database, meter),
            AnswerRepository(database),
            FeedbackRepository(database),
            ExampleRepository(database, settings.audience),
            LearningRunRepository(database),
            wake,
        )


@dataclass(frozen=True, slots=True)
class Services:
    """`pings` are the stores and servers that /health asks, by name; postgres and qdrant must be there."""

    settings: Settings
    catalog: Catalog
    models: Models
    answers: Answers
    retrieval: Retrieval
    writing: Writing
    documents: DocumentRepository
    sources: SourceRepository
    rfcs: RfcRepository
    jobs: JobRepository
    keys: ApiKeyRepository
    searches: SearchLog
    learning: Learning
    deployments: DeploymentRepository
    live: LiveConfig
    pings: Mapping[str, Ping]
    meter: Meter
