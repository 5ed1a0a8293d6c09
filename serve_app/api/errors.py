"""Every failure as an RFC 9457 problem body: `application/problem+json`, whatever went wrong where."""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from assistant.errors import AssistantError, TooLarge
from assistant.telemetry import get_logger

MEDIA_TYPE = "application/problem+json"
log = get_logger("api")


class InvalidRequest(AssistantError):
    """The body or a parameter does not have the shape of this call. `errors` in `extra` lists each field."""

    status = 422
    code = "invalid_request"


class Refused(AssistantError):
    """An answer of the web framework itself: unknown path, wrong method, too large."""

    def __init__(self, detail: str, *, hint: str | None = None, status: int = 400, **extra: Any) -> None:
        super().__init__(detail, hint=hint, status=status, **extra)
        self.status = status
        self.code = HTTPStatus(status).name.lower()


def problem(error: AssistantError, request_id: str, *, openai: bool = False) -> dict[str, Any]:
    """The body of an error. `openai` adds the member that OpenAI's clients read."""
    body = {**error.problem(), "instance": f"urn:ai-assistant:request:{request_id}"}
    if openai:
        body["error"] = openai_error(error)
    return body


def openai_error(error: AssistantError) -> dict[str, Any]:
    """OpenAI's `error` object for this error."""
    return {
        "message": str(error),
        "type": "server_error" if error.status >= 500 else "invalid_request_error",
        "param": error.extra.get("field"),
        "code": error.code,
    }


def unexpected(error: BaseException) -> AssistantError:
    """What a caller learns of an error that nobody foresaw: nothing but that it was ours."""
    log.error("unexpected_error", exc_info=error)
    return AssistantError(
        "This request failed by a fault of the server.",
        hint="The server's log has the details under this request id.",
    )


def problem_response(error: AssistantError, request_id: str, path: str) -> Response:
    headers: dict[str, str] = {}
    retry_after_s = error.extra.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    elif error.status in {429, 503}:
        headers["retry-after"] = "1"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = problem(error, request_id, openai=path.startswith("/v1/"))
    return Response(json.dumps(body, default=str), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers. What is raised outside of routes is caught by the outermost middleware."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, AssistantError)
        return problem_response(error, request.state.request_id, request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await ours(request, invalid_request(error.errors()))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await ours(request, _refused(request, error))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(AssistantError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """One sentence that names the first field, and the whole list."""
    found = [{"field": _field(e["loc"]), "message": _sentence(e), "type": e["type"]} for e in errors]
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return InvalidRequest(f"{first['field']}: {first['message']}{more}.", field=first["field"], errors=found)


def _field(location: Sequence[str | int]) -> str:
    """`("body", "messages", 0, "role")` as `messages[0].role`; parameters keep where they came from."""
    where, *path = location
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    if where == "body":
        return text if path and not isinstance(path[0], int) else "body"
    return f"{where}.{text}"


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"is not valid JSON ({error.get('ctx', {}).get('error', 'unreadable')})"
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _refused(request: Request, error: HTTPException) -> AssistantError:
    path = request.url.path
    match error.status_code:
        case 404:
            return Refused(
                f"There is nothing at {path}.", hint="GET /openapi.json lists all paths.", status=404
            )
        case 405:
            allowed = (error.headers or {}).get("Allow") or (error.headers or {}).get(
                "allow", "other methods"
            )
            return Refused(f"{request.method} is not possible at {path}.", hint=f"Use {allowed}.", status=405)
        case 413:
            return TooLarge(str(error.detail))
        case status:
            return Refused(str(error.detail), status=status)
