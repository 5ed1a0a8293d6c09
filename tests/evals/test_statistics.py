"""Intervals and paired tests: known cases, coverage of the truth, and honesty about little data."""

import numpy as np
import pytest

from assistant.errors import InvalidInput
from evals.gate import GateDecision, decide
from evals.statistics import Paired, bootstrap_mean, paired


def test_an_interval_is_the_same_every_time_and_holds_the_mean() -> None:
    values = np.random.default_rng(3).normal(0.6, 0.2, 200).tolist()
    found = bootstrap_mean(values)
    assert found == bootstrap_mean(values)
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2 / 200**0.5, rel=0.15)
    assert found.n == 200


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        found = bootstrap_mean(random.exponential(1.0, 80).tolist(), draws=400, seed=trial)
        inside += found.low <= 1.0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_better_worse_and_cannot_tell() -> None:
    random = np.random.default_rng(1)
    base = random.uniform(0, 1, 300)
    noise = random.normal(0, 0.1, 300)
    better = paired((base + 0.05 + noise).tolist(), base.tolist())
    assert better.verdict == "better"
    assert better.low < better.difference < better.high
    assert better.p_value < 0.001
    assert paired(base.tolist(), (base + 0.05 + noise).tolist()).verdict == "worse"
    equal = paired((base + noise).tolist(), (base + random.normal(0, 0.1, 300)).tolist())
    assert equal.verdict == "cannot tell"
    assert equal.low < 0 < equal.high


def test_identical_systems_cannot_be_told_apart() -> None:
    same = paired([0.1, 0.5, 0.9], [0.1, 0.5, 0.9])
    assert (same.difference, same.p_value, same.verdict, same.changed) == (0.0, 1.0, "cannot tell", 0)


def test_a_handful_of_pairs_proves_nothing() -> None:
    few = paired([0.9, 0.8, 0.9], [0.1, 0.1, 0.2])
    assert few.low > 0
    assert few.verdict == "cannot tell"


def test_cases_of_one_document_do_not_count_as_many() -> None:
    random = np.random.default_rng(11)
    per_document = np.repeat(random.normal(0.02, 0.1, 12), 40)
    values, documents = per_document.tolist(), np.repeat(np.arange(12), 40).tolist()
    zeros = [0.0] * len(values)
    alone, grouped = paired(values, zeros), paired(values, zeros, groups=documents)
    assert grouped.groups == 12
    assert grouped.difference == alone.difference
    assert grouped.high - grouped.low > 4 * (alone.high - alone.low)
    assert grouped.p_value > alone.p_value


def test_the_smallest_difference_that_can_be_found_is_told() -> None:
    """300 queries: .024 where differences have sd .13, .049 where sd .26."""
    random = np.random.default_rng(2)
    for spread, expected in ((0.13, 0.024), (0.26, 0.049)):
        values = random.normal(0, 1, 300)
        values = (values - values.mean()) / values.std(ddof=1) * spread
        assert paired(values.tolist(), [0.0] * 300).detectable == pytest.approx(expected, abs=0.001)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no values"):
        bootstrap_mean([])
    with pytest.raises(InvalidInput, match="value 2 of 2 is nan"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(InvalidInput, match="equal lengths: 2, 1"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(InvalidInput, match="1 groups"):
        paired([1.0, 2.0], [1.0, 2.0], groups=["a"])


def difference(low: float, high: float, groups: int = 100) -> Paired:
    return Paired((low + high) / 2, low, high, 0.01, "better", groups, groups, groups, 0.02)


def test_the_gate_promotes_only_what_is_better_and_harms_nothing() -> None:
    good, harmless = difference(0.01, 0.05), difference(-0.01, 0.02)
    assert decide(good, harmless, harm_margin=0.02).promote
    assert decide(good, None, harm_margin=0.02).promote
    noisy = decide(difference(-0.001, 0.05), harmless, harm_margin=0.02)
    assert not noisy.promote
    assert noisy.reasons[0].startswith("frozen set: +0.0245 [-0.0010, +0.0500]")
    harmful = decide(good, difference(-0.03, 0.02), harm_margin=0.02)
    assert not harmful.promote
    assert harmful.reasons[0].startswith("guard set")
    assert not decide(good, harmless, min_gain=0.01, harm_margin=0.02).promote


def test_the_gate_does_not_decide_over_a_handful() -> None:
    refused = decide(difference(0.1, 0.2, groups=5), None, harm_margin=0.02)
    assert not refused.promote
    assert "at least 6" in refused.reasons[0]


def test_a_decision_is_a_record() -> None:
    made = decide(difference(0.01, 0.05), difference(-0.01, 0.02), harm_margin=0.02)
    assert GateDecision.of(made.as_json()) == made
    with pytest.raises(InvalidInput, match="harm_margin"):
        decide(difference(0.01, 0.05), None, harm_margin=-1)
