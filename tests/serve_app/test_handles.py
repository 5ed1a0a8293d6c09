"""Calls over handles: which failures are repeated, which are told, and what happens to calls given up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from assistant.clock import epoch_s
from assistant.errors import (
    AssistantError,
    BackendFailed,
    ContextTooLong,
    InvalidInput,
    NotFound,
    Unavailable,
)
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import BackendHealth, ChatRequest, Message, Piece
from assistant.llm.variants import Route
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.settings import load_settings
from assistant.types import Principal, RequestContext, Usage
from serve_app import handles
from serve_app.handles import HandleBackend, ReplicaDied, RetrieverHandle, WriterHandle, call, translated

DIED = ActorDiedError()
ME = Principal("local", "anonymous")
SPEC = ModelSpec(name="small", engine="scripted")
END = Piece("", "stop", Usage(1, 1))


def task_error(cause: Exception) -> Exception:
    """The exception as Ray raises it on the caller's side."""
    error: Exception = RayTaskError("stream", "traceback", cause).as_instanceof_cause()
    return error


class FakeResponse:
    """One call: `script` holds values, exceptions, and None for "never answers"."""

    def __init__(self, script: list[Any]) -> None:
        self._script = list(script)
        self.cancelled = False

    def __await__(self) -> Any:
        return self._next().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._script:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> Any:
        item = self._script.pop(0)
        if item is None:
            await asyncio.Event().wait()
        if isinstance(item, BaseException):
            raise item
        return item

    def cancel(self) -> None:
        self.cancelled = True


class FakeHandle:
    """Answers the calls of each method by scripts in order, the last one for ever."""

    def __init__(self, **methods: list[list[Any]]) -> None:
        self._methods = methods
        self.responses: list[FakeResponse] = []
        self.arguments: list[tuple[Any, ...]] = []

    def options(self, *, method_name: str, stream: bool = False) -> "FakeHandle":
        bound = FakeHandle()
        bound._methods, bound.responses, bound.arguments = self._methods, self.responses, self.arguments
        bound._name = method_name
        return bound

    _name = ""

    def remote(self, *arguments: Any) -> FakeResponse:
        scripts = self._methods[self._name]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        self.arguments.append(arguments)
        self.responses.append(FakeResponse(script))
        return self.responses[-1]


def context(seconds: float = 30) -> RequestContext:
    return RequestContext("r1", ME, epoch_s() + seconds)


def request(model: str = "auto") -> ChatRequest:
    return ChatRequest(model, (Message("user", "Hi"),))


async def collect(backend: HandleBackend, model: str = "auto") -> list[Piece]:
    return [piece async for piece in backend.stream(request(model), context())]


def retriever(handle: FakeHandle, timeout_s: float = 5) -> RetrieverHandle:
    settings = load_settings({}, overrides={"serve": {"search_timeout_s": timeout_s}})
    return RetrieverHandle(handle, settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (task_error(NotFound("no", field="x")), NotFound),
        (task_error(ContextTooLong("long", prompt_tokens=9)), ContextTooLong),
        (DIED, ReplicaDied),
        (ActorUnavailableError("away", b"0" * 16), ReplicaDied),
        (RequestCancelledError("r"), ReplicaDied),
        (RuntimeError("Unexpected error (StatusCode.UNAVAILABLE): gone."), ReplicaDied),
        (DeploymentUnavailableError("d"), Unavailable),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), Unavailable),
        (task_error(KeyError("bug")), KeyError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_failures_of_handles_become_ours(raised: Exception, expected: type[Exception]) -> None:
    assert type(translated(raised, "The Retriever")) is expected


def test_our_errors_keep_their_members_over_a_handle() -> None:
    error = translated(task_error(NotFound("no", hint="look", field="x")), "The Retriever")
    assert isinstance(error, AssistantError)
    assert (error.detail, error.hint, error.extra, error.status) == ("no", "look", {"field": "x"}, 404)


async def test_search_is_repeated_while_replicas_die() -> None:
    found = SearchResult((), {"total": 1.0})
    handle = FakeHandle(search=[[DIED], [ActorUnavailableError("x", b"0" * 16)], [found]])
    assert await retriever(handle).search(SearchQuery("x"), ME) == found
    assert len(handle.responses) == 3
    assert handle.arguments[0] == (SearchQuery("x"), ME, None)


async def test_search_that_is_wrong_is_not_repeated() -> None:
    handle = FakeHandle(search=[[task_error(InvalidInput("empty", field="query"))]])
    with pytest.raises(InvalidInput):
        await retriever(handle).search(SearchQuery(""), ME)
    assert len(handle.responses) == 1


async def test_silence_ends_as_unavailable_and_gives_the_call_up() -> None:
    handle = FakeHandle(passage=[[None]])
    with pytest.raises(Unavailable, match=r"did not answer within 0\.05 s"):
        await retriever(handle, 0.05).passage(uuid4(), ME)
    assert handle.responses[0].cancelled


async def test_caller_that_leaves_gives_the_call_up() -> None:
    handle = FakeHandle(health=[[None]])
    task = asyncio.create_task(call("The Writer", handle.options(method_name="health"), timeout_s=9))  # type: ignore[arg-type]
    while not handle.responses:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.responses[0].cancelled


async def test_notify_neither_waits_nor_fails() -> None:
    handle = FakeHandle(notify=[[DeploymentUnavailableError("d")]])  # type: ignore[list-item]
    writer = WriterHandle(handle)  # type: ignore[arg-type]
    await writer.notify()
    assert handle.responses == []
    await asyncio.gather(*writer._sent)
    assert len(handle.responses) == 1


async def test_pieces_come_in_order_and_the_request_crosses() -> None:
    handle = FakeHandle(stream=[[[Piece("a")], [Piece("b"), END]]])
    assert await collect(HandleBackend(SPEC, handle, only=False)) == [Piece("a"), Piece("b"), END]  # type: ignore[arg-type]
    assert handle.arguments == [(request(), "r1", Route("live", "r1"), None)]
    assert not handle.responses[0].cancelled


@pytest.mark.parametrize(("only", "model"), [(True, "auto"), (False, "small"), (False, "small:base")])
async def test_answer_not_begun_is_repeated_where_nothing_else_could_answer(only: bool, model: str) -> None:
    handle = FakeHandle(stream=[[DIED], [[Piece("a"), END]]])
    backend = HandleBackend(SPEC, handle, only=only)  # type: ignore[arg-type]
    assert await collect(backend, model) == [Piece("a"), END]
    assert len(handle.responses) == 2


async def test_variant_the_caller_and_the_canary_share_cross() -> None:
    handle = FakeHandle(stream=[[[END]]])
    backend = HandleBackend(SPEC, handle, only=False, canary_share=lambda: 0.5)  # type: ignore[arg-type]
    await collect(backend, "small:challenger")
    ada = RequestContext("r2", Principal("ada"), epoch_s() + 30)
    assert [piece async for piece in backend.stream(request("small"), ada)] == [END]
    routes = [arguments[2] for arguments in handle.arguments]
    assert routes == [Route("challenger", "r1", 0.5), Route("live", "ada", 0.5)]


async def test_answer_not_begun_goes_to_another_model_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = FakeHandle(stream=[[DIED]], health=[[DIED]])
    backend = HandleBackend(SPEC, handle, only=False)  # type: ignore[arg-type]
    with pytest.raises(BackendFailed) as caught:
        await collect(backend)
    assert caught.value.extra["cause"] == "stopped"
    assert handle.arguments == [(request(), "r1", Route("live", "r1"), None)]
    # The next request asks for health first, instead of waiting for a replica that is not there.
    monkeypatch.setattr(handles, "HEALTH_TIMEOUT_S", 0.05)
    with pytest.raises(BackendFailed):
        await collect(backend)
    assert set(handle.arguments[1:]) == {()}


async def test_answer_that_has_begun_is_not_repeated() -> None:
    handle = FakeHandle(stream=[[[Piece("a")], DIED]])
    backend = HandleBackend(SPEC, handle, only=True)  # type: ignore[arg-type]
    got: list[Piece] = []

    async def read() -> None:
        async for piece in backend.stream(request(), context()):
            got.append(piece)

    with pytest.raises(BackendFailed):
        await read()
    assert got == [Piece("a")]
    assert len(handle.responses) == 1


@pytest.mark.parametrize(
    "error",
    [ContextTooLong("long"), InvalidInput("bad"), BackendFailed("x", backend="small", cause="engine")],
)
async def test_refusals_of_the_engine_pass_unchanged(error: AssistantError) -> None:
    handle = FakeHandle(stream=[[task_error(error)]])
    with pytest.raises(type(error)) as caught:
        await collect(HandleBackend(SPEC, handle, only=True))  # type: ignore[arg-type]
    assert caught.value.extra == error.extra


async def test_backpressure_is_told_as_a_rate_limit() -> None:
    handle = FakeHandle(stream=[[BackPressureError(num_queued_requests=1, max_queued_requests=1)]])
    with pytest.raises(BackendFailed) as caught:
        await collect(HandleBackend(SPEC, handle, only=True))  # type: ignore[arg-type]
    assert caught.value.extra["cause"] == "rate_limited"


async def test_stream_that_is_closed_early_is_cancelled_there() -> None:
    handle = FakeHandle(stream=[[[Piece("a")], None]])
    stream = HandleBackend(SPEC, handle, only=True).stream(request(), context())  # type: ignore[arg-type]
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert handle.responses[0].cancelled


@pytest.mark.parametrize("script", [[DIED], [None], [task_error(KeyError("bug"))]])
async def test_health_never_raises(script: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "HEALTH_TIMEOUT_S", 0.05)
    health = await HandleBackend(SPEC, FakeHandle(health=[script]), only=True).health()  # type: ignore[arg-type]
    assert (health.state, health.backend) == ("down", "small")
    assert health.detail


async def test_health_is_that_of_the_engine() -> None:
    said = BackendHealth("small", "small", "scripted", "ready", info={"slots": 8})
    assert await HandleBackend(SPEC, FakeHandle(health=[[said]]), only=True).health() == said  # type: ignore[arg-type]
