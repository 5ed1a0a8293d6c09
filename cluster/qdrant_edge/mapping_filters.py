"""Qdrant's filter models to the engine's, one pure function per family."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from cluster.qdrant_edge.errors import unsupported

MATCHES: dict[type, Callable[[Any], Any]] = {
    models.MatchValue: lambda m: edge.MatchValue(m.value),
    models.MatchAny: lambda m: edge.MatchAny(m.any),
    models.MatchExcept: lambda m: edge.MatchExcept(m.except_),
}

CONDITIONS: dict[type, Callable[[Any], Any]] = {
    models.FieldCondition: lambda c: _field(c),
    models.Filter: lambda c: edge_filter(c),
    models.HasIdCondition: lambda c: edge.HasIdCondition(set(c.has_id)),
    models.IsEmptyCondition: lambda c: edge.IsEmptyCondition(c.is_empty.key),
    models.IsNullCondition: lambda c: edge.IsNullCondition(c.is_null.key),
    models.HasVectorCondition: lambda c: edge.HasVectorCondition(c.has_vector),
    models.NestedCondition: lambda c: edge.NestedCondition(c.nested.key, edge_filter(c.nested.filter)),
}

Clause = models.Condition | Sequence[models.Condition] | None


def edge_filter(wanted: models.Filter | None, *, without_ids: Sequence[Any] = ()) -> Any:
    """The engine's filter. `without_ids` leaves these points out as well (queries by example)."""
    if wanted is None and not without_ids:
        return None
    wanted = wanted or models.Filter()
    must_not = _clause(wanted.must_not)
    if without_ids:
        must_not = [*(must_not or []), edge.HasIdCondition(set(without_ids))]
    least = wanted.min_should
    return edge.Filter(
        must=_clause(wanted.must),
        should=_clause(wanted.should),
        must_not=must_not,
        min_should=edge.MinShould([_condition(c) for c in least.conditions], least.min_count)
        if least
        else None,
    )


def _clause(clause: Clause) -> list[Any] | None:
    if clause is None:
        return None
    conditions = clause if isinstance(clause, Sequence) else [clause]
    return [_condition(condition) for condition in conditions]


def _condition(condition: models.Condition) -> Any:
    build = CONDITIONS.get(type(condition))
    if build is None:
        raise unsupported(type(condition).__name__)
    return build(condition)


def _field(condition: models.FieldCondition) -> Any:
    for name in ("geo_bounding_box", "geo_radius", "geo_polygon"):
        if getattr(condition, name) is not None:
            raise unsupported(f"condition {name}")
    count = condition.values_count
    return edge.FieldCondition(
        condition.key,
        match=_match(condition.match),
        range=_range(condition.range),
        values_count=edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte)
        if count
        else None,
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _match(match: models.Match | None) -> Any:
    if match is None:
        return None
    build = MATCHES.get(type(match))
    if build is None:
        raise unsupported(type(match).__name__)
    return build(match)


def _range(bounds: models.RangeInterface | None) -> Any:
    if bounds is None:
        return None
    if isinstance(bounds, models.DatetimeRange):
        return edge.RangeDateTime(
            gte=_rfc3339(bounds.gte), gt=_rfc3339(bounds.gt), lte=_rfc3339(bounds.lte), lt=_rfc3339(bounds.lt)
        )
    return edge.RangeFloat(gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)


def _rfc3339(moment: Any) -> str | None:
    if moment is None:
        return None
    if isinstance(moment, datetime) and moment.tzinfo is None:
        return moment.isoformat() + "Z"
    return str(moment.isoformat())
