"""The ASGI application: routes, the API key, bodies and answers.

A handler works synchronously between two awaits in the one event loop. The engine would hold the
interpreter lock anyway, and so no request sees a half-done change of another. Long writes are cut into
batches, between which other requests get their turn.
"""

import asyncio
import hmac
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from qdrant_client import models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from assistant.telemetry import get_logger
from cluster.qdrant_edge import collection_api, point_api, snapshots
from cluster.qdrant_edge.collections import Collections
from cluster.qdrant_edge.errors import ApiError, as_api_error, bad_request

log = get_logger("qdrant_edge")

REST_LEVEL = "1.20.0"
"""The version of Qdrant's REST API that the mapped subset follows; clients compare it with their own."""
MAX_BODY_BYTES = 32 * 1024 * 1024
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/livez"})
QUIET_S = 5.0
"""Housekeeping waits for a pause this long."""
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

Handler = Callable[..., Any]
ENDPOINTS: tuple[tuple[str, str, Any, Handler], ...] = (
    ("POST", "/collections/{name}/points/query/batch", models.QueryRequestBatch, point_api.query_batch),
    ("POST", "/collections/{name}/points/query", models.QueryRequest, point_api.query),
    ("POST", "/collections/{name}/points/scroll", models.ScrollRequest, point_api.scroll),
    ("PUT", "/collections/{name}/points", models.PointInsertOperations, point_api.upsert),
    ("POST", "/collections/{name}/points", models.PointRequest, point_api.retrieve),
    ("POST", "/collections/{name}/points/delete", models.PointsSelector, point_api.delete_points),
    ("POST", "/collections/{name}/points/payload", models.SetPayload, point_api.set_payload),
    ("PUT", "/collections/{name}/points/payload", models.SetPayload, point_api.overwrite_payload),
    ("POST", "/collections/{name}/points/payload/delete", models.DeletePayload, point_api.delete_payload),
    ("POST", "/collections/{name}/points/count", models.CountRequest, point_api.count),
    ("POST", "/collections/{name}/facet", models.FacetRequest, point_api.facet),
    ("GET", "/collections", None, collection_api.list_collections),
    ("POST", "/collections/aliases", models.ChangeAliasesOperation, collection_api.change_aliases),
    ("GET", "/aliases", None, collection_api.list_aliases),
    ("GET", "/collections/{name}", None, collection_api.get_collection),
    ("PUT", "/collections/{name}", models.CreateCollection, collection_api.create_collection),
    ("DELETE", "/collections/{name}", None, collection_api.delete_collection),
    ("GET", "/collections/{name}/exists", None, collection_api.collection_exists),
    ("GET", "/collections/{name}/aliases", None, collection_api.collection_aliases),
    ("PUT", "/collections/{name}/index", models.CreateFieldIndex, collection_api.create_index),
    ("DELETE", "/collections/{name}/index/{field}", None, collection_api.delete_index),
    ("POST", "/collections/{name}/snapshots", None, snapshots.create_snapshot),
    ("GET", "/collections/{name}/snapshots", None, snapshots.list_snapshots),
    ("PUT", "/collections/{name}/snapshots/recover", models.SnapshotRecover, snapshots.recover),
    ("GET", "/collections/{name}/snapshots/{snapshot}", None, snapshots.download_snapshot),
    ("DELETE", "/collections/{name}/snapshots/{snapshot}", None, snapshots.delete_snapshot),
)
"""Method, path, model of the body, handler(collections, [body], **path parameters)."""


def create_app(store: Collections, api_key: str) -> ASGIApp:
    """The server over `store`, which it closes when it stops."""
    service = _Service(store)
    routes = [
        Route(path, service.endpoint(model, handler), methods=[method])
        for method, path, model, handler in ENDPOINTS
    ]
    routes += [
        Route("/", service.root),
        *(Route(path, service.healthy) for path in sorted(OPEN_PATHS - {"/"})),
        Route("/{path:path}", service.unknown, methods=METHODS),
    ]
    app = Starlette(routes=routes, lifespan=service.lifespan)
    return _ApiKey(app, api_key)


class _Service:
    def __init__(self, store: Collections) -> None:
        self._store = store
        self._last_request = time.monotonic()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        housekeeping = asyncio.create_task(self._keep_house())
        try:
            yield
        finally:
            housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await housekeeping
            self._store.close()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(QUIET_S)
            if time.monotonic() - self._last_request >= QUIET_S:
                try:
                    self._store.tidy()
                except Exception as error:
                    log.error("housekeeping failed; it is tried again", exc_info=error)

    def endpoint(self, model: Any, handler: Handler) -> Callable[[Request], Any]:
        adapter: TypeAdapter[Any] | None = TypeAdapter(model) if model is not None else None

        async def respond(request: Request) -> Response:
            started = self._last_request = time.monotonic()
            try:
                body = () if adapter is None else (_parsed(adapter, await _read(request)),)
                result = handler(self._store, *body, **request.path_params)
                if inspect.isawaitable(result):
                    result = await result
            except Exception as error:
                return _failure(as_api_error(error), started)
            if isinstance(result, Response):
                return result
            return _answer({"result": result, "status": "ok", "time": time.monotonic() - started})

        return respond

    async def root(self, _: Request) -> Response:
        title = f"Qdrant Edge {version('qdrant-edge-py')} behind the REST server of AI Assistant"
        return _answer({"title": title, "version": REST_LEVEL})

    async def healthy(self, _: Request) -> Response:
        return Response(b"healthz check passed", media_type="text/plain")

    async def unknown(self, request: Request) -> Response:
        error = ApiError(
            501, f"{request.method} {request.url.path} is not part of the Qdrant API that this server speaks"
        )
        return _failure(error, time.monotonic())


async def _read(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> ApiError:
    return ApiError(413, f"Payload error: the body is larger than {MAX_BODY_BYTES} bytes")


def _parsed(adapter: TypeAdapter[Any], body: bytes) -> Any:
    # The models' parser takes NaN and Infinity, which are not JSON and can neither be stored nor found.
    if b"NaN" in body or b"Infinity" in body:
        try:
            from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise bad_request(f"not JSON: {error}") from None
    return adapter.validate_json(body)


def _answer(body: Any, status: int = 200) -> Response:
    return Response(to_json(body, inf_nan_mode="null"), status, media_type="application/json")


def _failure(error: ApiError, started: float) -> Response:
    body = {"status": {"error": error.message}, "time": time.monotonic() - started}
    return _answer(body, error.status)


class _ApiKey:
    """Refuses requests without the key, before anything of them is read."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._permits(scope):
            refused = ApiError(401, "Must provide an API key or an Authorization bearer token")
            await _failure(refused, time.monotonic())(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _permits(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        given = headers.get(b"api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return hmac.compare_digest(given, self._key)
