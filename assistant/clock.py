"""Time and identifiers, from one place that a test can fix."""

import time
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from uuid_utils.compat import uuid7


def now() -> datetime:
    """The current instant, in UTC."""
    return datetime.now(UTC)


def epoch_s() -> float:
    """Seconds since 1970, for deadlines that cross processes."""
    return time.time()


def new_id() -> UUID:
    """A new UUIDv7: sortable by creation time, so it indexes well."""
    return uuid7()


def stable_id(*parts: str) -> UUID:
    """The same UUID for the same parts, so that writing twice overwrites instead of doubling."""
    return uuid5(NAMESPACE_URL, "\x1f".join(parts))
