"""Text and JSON as Postgres can hold them, and pages of records.

Postgres text has no NUL and no lone surrogates, its JSON no NaN; what people's files contain does.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from assistant.errors import InvalidInput

T = TypeVar("T")

MAX_PAGE = 200


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, newest first. `next_cursor` goes into the next call; None: this was the last."""

    items: tuple[T, ...]
    next_cursor: UUID | None


def from_row(record: type[T], row: DictRow) -> T:
    """A dataclass from the columns named like its fields; columns of a newer schema are left aside."""
    values = {field.name: row[field.name] for field in fields(record)}  # type: ignore[arg-type]
    return record(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def page_of(items: Sequence[T], ids: Sequence[UUID], limit: int) -> Page[T]:
    """A page from `limit` + 1 fetched records: the extra one only tells that there is more."""
    more = len(items) > limit
    return Page(tuple(items[:limit]), ids[limit - 1] if more else None)


def page_size(limit: int) -> int:
    """`limit` itself; InvalidInput naming the field when it is out of range."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be between 1 and {MAX_PAGE}, not {limit}.", field="limit")
    return limit


def storable(text: str, max_length: int | None = None) -> str:
    """`text` without NULs and lone surrogates, cut to `max_length` characters."""
    clean = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return clean if max_length is None else clean[:max_length]


def identifier(text: str, field: str, max_length: int = 2000) -> str:
    """`text` itself: a name that is compared later may not be changed, so a bad one is InvalidInput."""
    if not text or len(text) > max_length or storable(text) != text:
        raise InvalidInput(
            f"{field} must be 1 to {max_length} valid Unicode characters, not {text[:80]!r}.", field=field
        )
    return text


def jsonb(value: Any) -> Jsonb:
    """`value` as JSON that Postgres accepts: mappings, sequences, numbers; anything else as its text."""
    return Jsonb(plain(value))


def plain(value: Any) -> Any:
    """`value` with plain dicts and lists; not-a-number and infinity become null."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return storable(value)
        case Mapping():
            return {storable(str(key)): plain(item) for key, item in value.items()}
        case Set():
            return sorted((plain(item) for item in value), key=str)
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [plain(item) for item in value]
        case _:
            return storable(str(value))
