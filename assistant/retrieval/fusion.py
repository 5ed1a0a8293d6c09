"""Join the dense and the sparse ranking of one query. Pure functions; equal scores are ordered by id.

Neither is better than one side alone on every corpus, so the weight is a setting, and 1.0 (dense only)
and 0.0 (BM25 only) are legal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from assistant.stores.vectors import Scored


@dataclass(frozen=True, slots=True)
class Fused:
    """`score` orders; `dense` and `sparse` are the raw scores of the sides that found it."""

    id: UUID
    score: float
    dense: float | None
    sparse: float | None


def weighted(dense: Sequence[Scored], sparse: Sequence[Scored], dense_weight: float) -> list[Fused]:
    """`w * dense + (1 - w) * sparse`, each scaled to 0..1 within its candidates; an absent side counts 0."""
    scaled = [
        {id_: dense_weight * score for id_, score in _scaled(dense).items()},
        {id_: (1 - dense_weight) * score for id_, score in _scaled(sparse).items()},
    ]
    return _join(dense, sparse, scaled)


def reciprocal_rank(dense: Sequence[Scored], sparse: Sequence[Scored], k: int) -> list[Fused]:
    """The sum of `1 / (k + rank)` over both sides, ranks from 1 (Cormack, Clarke and Buettcher, 2009)."""
    return _join(dense, sparse, [_ranked(dense, k), _ranked(sparse, k)])


def _scaled(side: Sequence[Scored]) -> dict[UUID, float]:
    if not side:
        return {}
    low, high = min(s.score for s in side), max(s.score for s in side)
    span = high - low
    return {s.id: (s.score - low) / span if span else 1.0 for s in side}


def _ranked(side: Sequence[Scored], k: int) -> dict[UUID, float]:
    ordered = sorted(side, key=lambda s: (-s.score, s.id.int))
    return {s.id: 1 / (k + rank) for rank, s in enumerate(ordered, start=1)}


def _join(
    dense: Sequence[Scored], sparse: Sequence[Scored], parts: Sequence[Mapping[UUID, float]]
) -> list[Fused]:
    by_dense, by_sparse = {s.id: s.score for s in dense}, {s.id: s.score for s in sparse}
    fused = [
        Fused(id_, sum(part.get(id_, 0.0) for part in parts), by_dense.get(id_), by_sparse.get(id_))
        for id_ in by_dense.keys() | by_sparse.keys()
    ]
    return sorted(fused, key=lambda f: (-f.score, f.id.int))
