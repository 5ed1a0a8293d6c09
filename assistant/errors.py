"""The error tree of the product.

Each class carries a stable `code`, an HTTP `status`, whether repeating the same call may help
(`retryable`), and a message that names what was wrong and what to do, safe to show to a user.
`serve_app` turns any of them into an RFC 9457 problem body in one handler.

    AssistantError
      InvalidInput            400   a field, file or setting is wrong
        ContextTooLong        400   the prompt does not fit the model's context
        TooLarge              413
      Unauthenticated         401
      Forbidden               403
      NotFound                404
      Conflict                409
      RateLimited             429   retryable
      ConfigurationError      500   settings, weights or files of this installation
      Unavailable             503   retryable
        StoreUnavailable      503   Postgres or Qdrant does not answer
        NoBackend             503   no model could answer; `causes` lists why
        BackendFailed         502   one model backend failed
      DeadlineExceeded        504   retryable

Instances cross processes pickled, so every constructor argument goes through `__reduce__`.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class AssistantError(Exception):
    """Base of every error this product raises on purpose."""

    status = 500
    code = "internal"
    retryable = False

    def __init__(self, detail: str, *, hint: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.extra: Mapping[str, Any] = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.detail, self.hint, dict(self.extra)))

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}" if self.hint else self.detail

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 members of this error, without `instance` (the caller knows its request id)."""
        body: dict[str, Any] = {
            "type": f"urn:ai-assistant:problem:{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.hint:
            body["hint"] = self.hint
        return body | dict(self.extra)


def _rebuild(
    cls: type[AssistantError], detail: str, hint: str | None, extra: dict[str, Any]
) -> AssistantError:
    return cls(detail, hint=hint, **extra)


class InvalidInput(AssistantError):
    """A field, file or query is wrong. Pass `field=` to name it."""

    status = 400
    code = "invalid_input"


class ContextTooLong(InvalidInput):
    """The prompt does not fit the context of the chosen model."""

    code = "context_too_long"


class TooLarge(InvalidInput):
    status = 413
    code = "too_large"


class Unauthenticated(AssistantError):
    status = 401
    code = "unauthenticated"


class Forbidden(AssistantError):
    status = 403
    code = "forbidden"


class NotFound(AssistantError):
    status = 404
    code = "not_found"


class Conflict(AssistantError):
    status = 409
    code = "conflict"


class RateLimited(AssistantError):
    """Too much at once. `retry_after_s` in `extra` becomes the Retry-After header."""

    status = 429
    code = "rate_limited"
    retryable = True


class ConfigurationError(AssistantError):
    """This installation is not set up: a setting, a file, a weight, a port."""

    code = "configuration"


class Unavailable(AssistantError):
    status = 503
    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class BackendFailed(Unavailable):
    """One LLM backend failed. `retryable` says whether the same backend may be tried again."""

    status = 502
    code = "backend_failed"


class NoBackend(Unavailable):
    """No backend could answer. `causes` in `extra` lists each attempt."""

    code = "no_backend"

    @classmethod
    def after(cls, model: str, causes: Sequence[Mapping[str, Any]]) -> "NoBackend":
        return cls(
            f"No backend could answer for model {model!r}.",
            hint="Look at /health for the state of each backend.",
            causes=list(causes),
        )


class DeadlineExceeded(AssistantError):
    status = 504
    code = "deadline_exceeded"
    retryable = True
