"""What happens to every request: its id, its log line, its limits, its headers, and its last error handler.

Plain ASGI classes, outermost first: RequestScope, BodyLimit, AdmissionLimit. Framework middleware built on
request and response objects would buffer streams and lose cancellation.
"""

import asyncio
import re
import time
from contextlib import AbstractContextManager

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant import tracing
from assistant.clock import new_id
from assistant.errors import AssistantError, TooLarge
from assistant.telemetry import Meter, get_logger
from serve_app.api.admission import Admission
from serve_app.api.errors import problem_response, unexpected

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499
"""The status logged when the client left before the answer was complete."""

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
QUIET = ("/health/live", "/health/ready")
"""Asked every few seconds by machines: counted, but not logged."""

log = get_logger("access")


class RequestScope:
    """Gives the request its id, catches what nobody caught, writes one log line and the metrics.

    `echo_id` adds the `x-request-id` header; under Ray Serve the proxy already does.
    """

    def __init__(self, app: ASGIApp, meter: Meter, echo_id: bool) -> None:
        self._app = app
        self._meter = meter
        self._echo_id = echo_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = accept_request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_decorated(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if self._echo_id:
                    headers["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), _span(scope, request_id) as span:
            try:
                await self._app(scope, receive, send_decorated)
            except Exception as error:
                known = error if isinstance(error, AssistantError) else unexpected(error)
                if not status:
                    await problem_response(known, request_id, scope["path"])(scope, receive, send_decorated)
            except asyncio.CancelledError:
                status = CLIENT_GONE
                raise
            finally:
                self._note(scope, status or CLIENT_GONE, time.perf_counter() - started)
                _name(span, scope, status or CLIENT_GONE)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = route_of(scope), str(scope["method"])
        self._meter.add("ai_assistant_requests_total", route=route, method=method, status=str(status))
        self._meter.observe("ai_assistant_request_seconds", seconds, route=route, method=method)
        if scope["path"] in QUIET and status < 400:
            return
        log.info(
            "request",
            method=method,
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 1),
            principal=scope["state"].get("principal_id"),
        )


def _span(scope: Scope, request_id: str) -> AbstractContextManager[tracing.Span]:
    """The span of a request, child of the caller's when it sent a traceparent. Probes and files have none."""
    path, method = str(scope["path"]), str(scope["method"])
    if not tracing.enabled() or path in QUIET or path.startswith("/static/"):
        return tracing.OFF
    return tracing.span(
        method,
        kind="server",
        parent=dict(Headers(scope=scope)),
        http__request__method=method,
        url__path=path,
        ai_assistant__request_id=request_id,
    )


def _name(span: tracing.Span, scope: Scope, status: int) -> None:
    """What is known only at the end: the route and how it went."""
    if not span.is_recording():
        return
    route = route_of(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        tracing.fail(span, str(status))


class BodyLimit:
    """Refuses bodies above `limit` bytes with 413, also those that do not announce their length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._message = f"The body is larger than the {limit} bytes that are taken."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > self._limit:
            raise TooLarge(self._message)
        read = 0

        async def receive_counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                # The one exception that FastAPI lets through while it reads a body.
                raise HTTPException(413, self._message)
            return message

        await self._app(scope, receive_counted, send)


class AdmissionLimit:
    """Holds a slot for the whole answer, streams included. Health and the page are always let in."""

    def __init__(self, app: ASGIApp, work: Admission, watching: Admission) -> None:
        self._app = app
        self._work = work
        self._watching = watching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        async with limit:
            await self._app(scope, receive, send)

    def _limit(self, path: str) -> Admission | None:
        if not path.startswith(("/v1/", "/api/")):
            return None
        # Watching a draft takes minutes and costs next to nothing: it must not keep chats out.
        return self._watching if path.endswith("/events") else self._work


def accept_request_id(header: str | None) -> str:
    """The client's id when it is short and plain, else a new one."""
    return header if header and REQUEST_ID.fullmatch(header) else str(new_id())


def route_of(scope: Scope) -> str:
    """The path template, so that metrics have few label values."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    return "/static" if scope["path"].startswith("/static/") else "unmatched"
