"""What every backend checks before it spends time on a request, so that all refuse the same things."""

from collections.abc import Collection, Mapping
from typing import Any

from jsonschema import SchemaError  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]

from assistant.errors import BackendFailed, ContextTooLong, InvalidInput, NotFound
from assistant.llm.types import ChatRequest

MAX_STOPS = 16


def check_request(request: ChatRequest, adapters: Collection[str] = ()) -> None:
    """Raises InvalidInput naming the field, and NotFound for an adapter that is not among `adapters`."""
    if request.adapter is not None and request.adapter not in adapters:
        raise NotFound(
            f"{request.model} has no adapter {request.adapter!r}.",
            hint=f"Loaded adapters: {', '.join(sorted(adapters)) or 'none'}.",
            field="adapter",
        )
    if not request.messages:
        raise _wrong("messages", "is empty", "Send at least one message.")
    for index, message in enumerate(request.messages):
        if message.role not in {"system", "user", "assistant"}:
            raise _wrong(f"messages[{index}].role", f"is {message.role!r}", "Use system, user or assistant.")
    if not any(message.content.strip() for message in request.messages):
        raise _wrong("messages", "hold no text", "Say something.")
    _between("max_tokens", request.max_tokens, 1, 1_000_000)
    _between("temperature", request.temperature, 0, 2)
    _between("top_p", request.top_p, 0, 1)
    if request.top_p == 0:
        raise _wrong("top_p", "is 0", "Use a value above 0; temperature 0 gives the likeliest token.")
    if len(request.stop) > MAX_STOPS or not all(request.stop):
        raise _wrong("stop", "has an empty or too many strings", f"Give up to {MAX_STOPS}, none empty.")
    if request.json_schema is not None:
        _check_schema(request.json_schema)


def too_long(model: str, prompt_tokens: int, context_tokens: int) -> ContextTooLong:
    return ContextTooLong(
        f"The prompt has {prompt_tokens} tokens; {model} takes {context_tokens}, its answer included.",
        hint="Shorten the messages, or use a model with a longer context.",
        field="messages",
        prompt_tokens=prompt_tokens,
        context_tokens=context_tokens,
    )


def failed(
    backend: str,
    cause: str,
    detail: str,
    *,
    retryable: bool = True,
    retry_after_s: float | None = None,
    hint: str | None = None,
) -> BackendFailed:
    """A BackendFailed with its `cause`: one word of engine, stopped, connect, timeout, rate_limited,
    server_error, auth, unknown_model, malformed, truncated, rejected."""
    extra: dict[str, Any] = {"backend": backend, "cause": cause, "retryable": retryable}
    if retry_after_s is not None:
        extra["retry_after_s"] = retry_after_s
    return BackendFailed(f"{backend}: {detail}", hint=hint, **extra)


def _check_schema(schema: Mapping[str, Any]) -> None:
    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.path)) or "its root"
        raise _wrong("json_schema", f"is no JSON schema: {error.message} at {where}", "Fix it.") from None


def _between(field: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise _wrong(field, f"is {value}", f"Use a value from {low} to {high}.")


def _wrong(field: str, what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{field} {what}.", hint=hint, field=field)
