"""What a suite found: a value per case and metric, the mean of each with its interval, and pairs compared.

A metric is named `system/metric`, as in `hybrid/ndcg@10`: one run measures several systems on the same cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.statistics import DRAWS, Interval, Paired, bootstrap_mean, paired

NEUTRAL = {"words"}
"""Measures of which more is not better; they are shown and not compared."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """`group` is what makes cases dependent: the document they come from. `detail` is for people.

    A metric that could not be measured is absent from `values`, never 0.
    """

    id: str
    group: str
    values: Mapping[str, float]
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two systems on the same cases; `result` is first minus second."""

    metric: str
    first: str
    second: str
    result: Paired


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """`meta` says what was measured with what: split, data hash, model, settings, seconds."""

    name: str
    headline: str
    per_case: Sequence[CaseResult]
    metrics: Mapping[str, Interval]
    comparisons: Sequence[Comparison]
    meta: Mapping[str, Any]


def summarise(
    name: str,
    headline: str,
    cases: Sequence[CaseResult],
    pairs: Sequence[tuple[str, str]],
    meta: Mapping[str, Any],
    draws: int = DRAWS,
) -> SuiteResult:
    """Means with intervals of every metric, and each of `pairs` compared.

    A pair compares metric with metric, or system with system on every metric that both have.
    """
    names = list(dict.fromkeys(metric for case in cases for metric in case.values))
    metrics = {m: bootstrap_mean([c.values[m] for c in cases if m in c.values], draws) for m in names}
    comparisons = [
        Comparison(metric, first, second, compared)
        for first, second in pairs
        for metric, a, b in _matched(first, second, names)
        if (compared := compare(cases, cases, a, b, draws)) is not None
    ]
    return SuiteResult(name, headline, list(cases), metrics, comparisons, dict(meta))


def compare(
    first: Sequence[CaseResult],
    second: Sequence[CaseResult],
    metric: str,
    other: str | None = None,
    draws: int = DRAWS,
) -> Paired | None:
    """`metric` of the first minus `other` (or the same) of the second, on the cases that have both."""
    theirs = {case.id: case.values[other or metric] for case in second if (other or metric) in case.values}
    common = [case for case in first if metric in case.values and case.id in theirs]
    if not common:
        return None
    return paired(
        [case.values[metric] for case in common],
        [theirs[case.id] for case in common],
        draws,
        groups=[case.group for case in common],
    )


def system_of(metric: str) -> str:
    return metric.rpartition("/")[0]


def measure_of(metric: str) -> str:
    return metric.rpartition("/")[2]


def _matched(first: str, second: str, names: Sequence[str]) -> list[tuple[str, str, str]]:
    if "/" in first:
        return [(measure_of(first), first, second)]
    ours = [n for n in names if system_of(n) == first and measure_of(n) not in NEUTRAL]
    known = set(names)
    both = [(measure_of(n), n, f"{second}/{measure_of(n)}") for n in ours]
    return [found for found in both if found[2] in known]
