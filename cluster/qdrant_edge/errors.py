"""Errors of the server, in the shape and with the status codes of Qdrant's own."""

import uuid

from pydantic import ValidationError

from assistant.telemetry import get_logger

log = get_logger("qdrant_edge")

BAD_INPUT = (
    "Vector dimension error",
    "Not existing vector name",
    "No range index for `order_by`",
    "No appropriate index for faceting",
    "Wrong input",
    "Validation error",
)
"""Beginnings of the engine's messages that blame the request: it raises bare exceptions only."""


SHOWN_ERRORS = 6
NO_SPACE = "No space left on device"
"""The operating system's words, which the engine passes on inside its own."""


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def bad_request(message: str) -> ApiError:
    return ApiError(400, f"Wrong input: {message}")


def unsupported(what: str) -> ApiError:
    """For a known part of Qdrant's API that this server does not map: refused, never ignored."""
    return bad_request(f"{what} is not supported by the Qdrant Edge server; use a Qdrant server for it")


def unknown_collection(name: str) -> ApiError:
    return ApiError(404, f"Not found: Collection `{name}` doesn't exist!")


def as_api_error(error: Exception) -> ApiError:
    """Map what a handler or the engine raised; an unknown error becomes a 500 that shows only an id."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)
        # A union reports once per member; the first few name the field that matters.
        shown = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in found[:SHOWN_ERRORS]]
        return ApiError(400, f"Format error in JSON body: {'; '.join(shown)}")
    text = str(error)
    if NO_SPACE in text:
        return ApiError(500, "Service internal error: the disk is full; free some space and try again")
    if isinstance(error, ValueError | TypeError | OverflowError) or text.startswith(BAD_INPUT):
        return bad_request(text)
    reference = uuid.uuid4().hex
    log.error("request failed", reference=reference, exc_info=error)
    return ApiError(500, f"Service internal error, reference {reference}")
