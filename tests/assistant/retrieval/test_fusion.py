"""Fusion is pure: weights at their ends, degenerate lists, ties."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.retrieval.fusion import reciprocal_rank, weighted
from assistant.stores.vectors import Scored

A, B, C = (UUID(int=n) for n in (1, 2, 3))
sides = st.dictionaries(st.integers(0, 30).map(lambda n: UUID(int=n)), st.floats(-1, 30), max_size=20).map(
    lambda scores: [Scored(i, s) for i, s in scores.items()]
)


def test_both_sides_are_scaled_before_they_are_added() -> None:
    dense = [Scored(A, 0.9), Scored(B, 0.5), Scored(C, 0.1)]
    sparse = [Scored(B, 20.0), Scored(C, 10.0)]
    fused = weighted(dense, sparse, 0.6)
    assert [(f.id, pytest.approx(f.score)) for f in fused] == [(B, 0.7), (A, 0.6), (C, 0.0)]
    assert (fused[0].dense, fused[0].sparse) == (0.5, 20.0)
    assert fused[1].sparse is None


def test_a_single_candidate_counts_fully() -> None:
    assert weighted([Scored(A, 0.2)], [], 0.6)[0].score == pytest.approx(0.6)


def test_equal_scores_are_ordered_by_id() -> None:
    same = [Scored(C, 0.5), Scored(A, 0.5), Scored(B, 0.5)]
    assert [f.id for f in weighted(same, [], 1.0)] == [A, B, C]
    assert [f.id for f in reciprocal_rank(same, [], 60)] == [A, B, C]


def test_reciprocal_rank_sums_over_the_sides() -> None:
    fused = reciprocal_rank([Scored(A, 0.9), Scored(B, 0.5)], [Scored(B, 7.0)], 60)
    assert [(f.id, pytest.approx(f.score)) for f in fused] == [(B, 1 / 62 + 1 / 61), (A, 1 / 61)]


@settings(deadline=None)
@given(dense=sides, sparse=sides, weight=st.floats(0, 1))
def test_every_candidate_comes_out_once_in_order(
    dense: list[Scored], sparse: list[Scored], weight: float
) -> None:
    for fused in (weighted(dense, sparse, weight), reciprocal_rank(dense, sparse, 60)):
        assert {f.id for f in fused} == {s.id for s in [*dense, *sparse]}
        assert [(-f.score, str(f.id)) for f in fused] == sorted((-f.score, str(f.id)) for f in fused)
        assert all(0 <= f.score <= 1 for f in fused)


@settings(deadline=None)
@given(dense=sides, sparse=sides)
def test_the_ends_of_the_weight_are_one_side_alone(dense: list[Scored], sparse: list[Scored]) -> None:
    by_dense = {f.id: f.score for f in weighted(dense, sparse, 1.0)}
    assert by_dense == {f.id: f.score for f in weighted(dense, [], 1.0)} | {
        s.id: 0.0 for s in sparse if s.id not in {d.id for d in dense}
    }
