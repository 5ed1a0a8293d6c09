"""What a search may be narrowed by, and how that reads in Qdrant's JSON.

The ACL is part of every filter made here: a query without it cannot be built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from assistant.errors import InvalidInput

FieldType = Literal["keyword", "integer", "datetime"]

INDEXED: Mapping[str, FieldType] = {
    "acl": "keyword",
    "document_id": "keyword",
    "source_id": "keyword",
    "source": "keyword",
    "source_type": "keyword",
    "external_id": "keyword",
    "url": "keyword",
    "title": "keyword",
    "headings": "keyword",
    "content_type": "keyword",
    "content_hash": "keyword",
    "version": "keyword",
    "category": "keyword",
    "project": "keyword",
    "team": "keyword",
    "user_id": "keyword",
    "privacy_level": "keyword",
    "chunk_index": "integer",
    "created_date": "datetime",
}
"""Payload fields with an index, and its type.

Without one: `text`, `metadata`, and what nobody narrows a search by (`start`, `end`, `token_count`,
`embedder`): each index costs a flush, 0.1 s, when the collection is made.
"""

FILTER_FIELDS: Mapping[str, FieldType] = {name: kind for name, kind in INDEXED.items() if name != "acl"}
"""The fields a caller may filter by; who may see what is not the caller's to say."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, or of a date (a datetime, date or RFC 3339 text)."""

    gte: float | date | str | None = None
    lte: float | date | str | None = None
    gt: float | date | str | None = None
    lt: float | date | str | None = None


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """`acl_terms`: those of the principal who asks. `conditions`: field → value, values (any of) or Range.

    A mapping with the keys gte, lte, gt, lt means a Range, as it arrives in JSON.
    """

    acl_terms: tuple[str, ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def clauses(self) -> list[dict[str, Any]]:
        """The conditions of Qdrant's `must`; InvalidInput for an unknown field or a wrong type."""
        must = [any_of("acl", self.acl_terms)]
        return must + [_condition(name, value) for name, value in self.conditions.items()]


def equals(name: str, value: str | int) -> dict[str, Any]:
    return {"key": name, "match": {"value": value}}


def any_of(name: str, values: Sequence[str | int]) -> dict[str, Any]:
    """An empty list matches nothing."""
    return {"key": name, "match": {"any": list(values)}}


def _condition(name: str, value: Any) -> dict[str, Any]:
    kind = FILTER_FIELDS.get(name)
    if kind is None:
        raise InvalidInput(
            f"There is no filter field {name!r}.", hint=f"Use one of: {', '.join(FILTER_FIELDS)}.", field=name
        )
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"gte", "lte", "gt", "lt"})
        if unknown:
            raise _wrong(name, f"has unknown bounds: {', '.join(map(str, unknown))}", "gte, lte, gt and lt")
        value = Range(**value)
    if isinstance(value, Range):
        return {"key": name, "range": _bounds(name, kind, value)}
    if kind == "datetime":
        return {"key": name, "range": _bounds(name, kind, Range(gte=value, lte=value))}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any_of(name, [_scalar(name, kind, item) for item in value])
    return equals(name, _scalar(name, kind, value))


def _scalar(name: str, kind: FieldType, value: Any) -> str | int:
    if kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "keyword" and isinstance(value, str):
        return value
    expected = "an integer" if kind == "integer" else "a text"
    raise _wrong(name, f"does not take {value!r}", f"{expected}, a list of them" + _or_range(kind))


def _or_range(kind: FieldType) -> str:
    return " or a range" if kind == "integer" else ""


def _bounds(name: str, kind: FieldType, bounds: Range) -> dict[str, Any]:
    if kind == "keyword":
        raise _wrong(name, "has no order", "a text or a list of texts")
    given = {key: value for key in ("gte", "lte", "gt", "lt") if (value := getattr(bounds, key)) is not None}
    if not given:
        raise _wrong(name, "has an empty range", "at least one of gte, lte, gt and lt")
    convert = _moment if kind == "datetime" else _number
    return {key: convert(name, value) for key, value in given.items()}


def _number(name: str, value: Any) -> float:
    # Neither NaN nor an infinity is a JSON number; a bound left out is the same as an infinite one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise _wrong(name, f"does not take the bound {value!r}", "a finite number")
    return value


def _moment(name: str, value: Any) -> str:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _wrong(name, f"does not take {value!r}", "an RFC 3339 date or time") from None
    if not isinstance(value, date):
        raise _wrong(name, f"does not take {value!r}", "an RFC 3339 date or time")
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    return moment.isoformat() + ("" if moment.tzinfo else "Z")


def _wrong(name: str, what: str, expected: str) -> InvalidInput:
    return InvalidInput(f"The filter field {name!r} {what}.", hint=f"Give {expected}.", field=name)
