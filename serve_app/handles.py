"""The other deployments as plain objects: calls over Serve handles, with Serve's failures made ours.

Serve never repeats a request that was running on a replica that died. What may be repeated (searches,
embeddings, an answer that has not begun) is repeated here, until its time is over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import grpc  # type: ignore[import-untyped]
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from assistant import tracing
from assistant.errors import AssistantError, Unavailable
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import failed
from assistant.llm.types import BackendHealth, ChatRequest, Piece
from assistant.llm.variants import route_of, split_name
from assistant.retrieval.search import Passage, SearchQuery, SearchResult
from assistant.settings import Settings
from assistant.telemetry import get_logger
from assistant.types import Principal, RequestContext
from serve_app.api.services import Embeddings

HEALTH_TIMEOUT_S = 1.2
"""Below the limit of /health, so that one silent part does not hide the others."""
RETRY_PAUSES_S = (0.05, 0.2, 0.5, 1.0)
NOTIFY_TIMEOUT_S = 5.0

log = get_logger("handles")


class ReplicaDied(Unavailable):
    """The replica that worked on a call is gone; another one can take the call."""

    code = "replica_died"


def translated(error: BaseException, who: str) -> Exception:
    """What an exception of a handle call means; one that is not Serve's comes back as it is."""
    if isinstance(error, RayTaskError):
        # Raised by the code behind the handle. Ray's twin of it lacks the attributes of the original.
        error = error.cause
    match error:
        case AssistantError():
            return error
        case RayActorError() | ReplicaUnavailableError():
            return ReplicaDied(f"{who} was replaced while it worked on this.", hint="Try again.")
        case BackPressureError():
            return Unavailable(f"{who} has more to do than it can take.", retry_after_s=1.0)
        case DeploymentUnavailableError():
            return Unavailable(f"{who} could not be deployed.", hint="Serve's log says why.")
        case grpc.RpcError() | RayError() | RayServeException():
            log.warning("call_failed", part=who, reason=str(error))
            return ReplicaDied(f"{who} could not be reached.", hint="Try again.")
        case RuntimeError() if str(error).startswith("Unexpected error ("):
            # Serve's gRPC transport says so when the other side broke off before it accepted.
            return ReplicaDied(f"{who} could not be reached.", hint="Try again.")
        case Exception():
            return error
        case _:
            raise error


async def call(who: str, method: DeploymentHandle, *arguments: Any, timeout_s: float) -> Any:
    """The result of an idempotent call, repeated while replicas die under it.

    Raises what the code behind the handle raised, or Unavailable.
    """
    try:
        async with asyncio.timeout(timeout_s):
            attempt = 0
            while True:
                try:
                    return await _once(who, method, arguments)
                except ReplicaDied as died:
                    log.warning("call_repeated", part=who, attempt=attempt + 1, reason=died.detail)
                await asyncio.sleep(RETRY_PAUSES_S[min(attempt, len(RETRY_PAUSES_S) - 1)])
                attempt += 1
    except TimeoutError:
        raise Unavailable(
            f"{who} did not answer within {timeout_s:g} s.", hint="Look at /health and try again."
        ) from None


async def _once(who: str, method: DeploymentHandle, arguments: Sequence[Any]) -> Any:
    response = method.remote(*arguments)
    try:
        return await response
    except Exception as error:
        raise translated(error, who) from None
    except asyncio.CancelledError:
        response.cancel()
        raise


class RetrieverHandle:
    """The Retriever as the API and the Writer use it."""

    def __init__(self, handle: DeploymentHandle, settings: Settings) -> None:
        self._timeout_s = settings.serve.search_timeout_s
        self._search = handle.options(method_name="search")
        self._passage = handle.options(method_name="passage")
        self._embeddings = handle.options(method_name="embeddings")
        self._health = handle.options(method_name="health")

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        with tracing.span("Retriever.search", kind="client"):
            found: SearchResult = await call(
                "The Retriever",
                self._search,
                query,
                principal,
                tracing.traceparent(),
                timeout_s=self._timeout_s,
            )
        return found

    async def passage(self, chunk_id: UUID, principal: Principal) -> Passage:
        with tracing.span("Retriever.passage", kind="client"):
            found: Passage = await call(
                "The Retriever",
                self._passage,
                chunk_id,
                principal,
                tracing.traceparent(),
                timeout_s=self._timeout_s,
            )
        return found

    async def embeddings(self, texts: Sequence[str], model: str | None = None) -> Embeddings:
        with tracing.span("Retriever.embeddings", kind="client"):
            made: Embeddings = await call(
                "The Retriever",
                self._embeddings,
                list(texts),
                model,
                tracing.traceparent(),
                timeout_s=self._timeout_s,
            )
        return made

    async def health(self) -> Mapping[str, Any]:
        said: Mapping[str, Any] = await call("The Retriever", self._health, timeout_s=HEALTH_TIMEOUT_S)
        return said


class WriterHandle:
    """The Writer. It looks for jobs by itself; `notify` only saves the pause before."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._notify = handle.options(method_name="notify")
        self._health = handle.options(method_name="health")
        self._sent: set[asyncio.Task[None]] = set()

    async def notify(self) -> None:
        task = asyncio.create_task(self._tell())
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)

    async def _tell(self) -> None:
        with suppress(AssistantError):
            await call("The Writer", self._notify, timeout_s=NOTIFY_TIMEOUT_S)

    async def health(self) -> Mapping[str, Any]:
        said: Mapping[str, Any] = await call("The Writer", self._health, timeout_s=HEALTH_TIMEOUT_S)
        return said


class HandleBackend:
    """A model in a LocalLLM deployment, behind the protocol of all backends.

    An answer that has not begun is repeated on another replica, where nothing else could answer: the model
    was asked for by name, or it is the `only` one. Otherwise the router's fallback is faster.

    `canary_share` overrides the challenger's share in the table of deployments; None leaves it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        handle: DeploymentHandle,
        *,
        only: bool,
        canary_share: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._only = only
        self._canary_share = canary_share
        self._stream = handle.options(method_name="stream", stream=True)
        self._health = handle.options(method_name="health")
        self._suspect = False

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def model(self) -> str:
        return self._spec.name

    async def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[Piece]:
        """Pieces of the answer. Raises InvalidInput, ContextTooLong, NotFound, BackendFailed."""
        patient = self._only or split_name(request.model, (self.name,))[0] == self.name
        route = route_of(request.model, self.name, context, self._canary_share())
        if self._suspect and not patient:
            await self._probe()
        began = False
        while True:
            response = self._stream.remote(request, context.request_id, route, context.traceparent)
            finished = False
            try:
                async for pieces in response:
                    began, self._suspect = True, False
                    for piece in pieces:
                        yield piece
                finished = True
                return
            except Exception as error:
                finished = True
                self._suspect = True
                known = translated(error, self.name)
                if not (isinstance(known, ReplicaDied) and patient and not began):
                    raise self._failure(known) from None
                log.warning("answer_repeated", backend=self.name, reason=known.detail)
            finally:
                if not finished:
                    response.cancel()
            await asyncio.sleep(RETRY_PAUSES_S[1])

    async def health(self) -> BackendHealth:
        """Never raises and never waits long: a replica that does not answer is down."""
        try:
            said: BackendHealth = await call(self.name, self._health, timeout_s=HEALTH_TIMEOUT_S)
            return said
        except Exception as error:
            detail = error.detail if isinstance(error, AssistantError) else type(error).__name__
            return BackendHealth(self.name, self.model, self._spec.engine, "down", detail=detail)

    async def _probe(self) -> None:
        """After a failure a call would wait for the next replica: better to pass the request on."""
        health = await self.health()
        if health.state != "ready":
            raise failed(self.name, "stopped", health.detail or f"it is {health.state}")

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, Unavailable) and not error.extra.get("backend"):
            cause = "rate_limited" if "retry_after_s" in error.extra else "stopped"
            return failed(self.name, cause, error.detail)
        return error
