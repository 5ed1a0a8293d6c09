"""Exit codes, and what error ends with which: scripts rely on them, so they are a contract."""

from assistant.errors import (
    AssistantError,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
)

OK = 0
ERROR = 1
USAGE = 2
NOT_RUNNING = 3
UNHEALTHY = 4
NOT_FOUND = 5
NOT_PERMITTED = 6
INTERRUPTED = 130

MANUAL = (
    "Exit codes: 0 done · 1 failed · 2 wrong usage or input · 3 the stack does not run · "
    "4 it runs, but not in good health · 5 not found · 6 not permitted · 130 interrupted"
)


class NotRunning(AssistantError):
    """The stack of this state folder does not run."""

    code = "not_running"


def exit_code(error: AssistantError) -> int:
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    if isinstance(error, InvalidInput) or error.extra.get("status") in {400, 413, 422}:
        return USAGE
    if isinstance(error, NotFound) or error.extra.get("status") == 404:
        return NOT_FOUND
    if isinstance(error, Unauthenticated | Forbidden) or error.extra.get("status") in {401, 403}:
        return NOT_PERMITTED
    return ERROR
