"""What a difference between two systems is worth: intervals, paired tests, and the verdict "cannot tell".

Everything is resampled with a fixed seed, so the same values give the same interval. At 300 queries the mean
of nDCG@10 is only known to about ±0.045, while the difference of two variants on the *same* queries is known
five times better: hence pairs.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from assistant.errors import InvalidInput

Verdict = Literal["better", "worse", "cannot tell"]
Floats = npt.NDArray[np.float64]

DRAWS = 10_000
LEVEL = 0.95
_CELLS = 4_000_000
"""Resampled values held at once: 32 MB."""
_POWER = 1.959964 + 1.281552
"""Normal quantiles of a two-sided test at 5 % and of 90 % power."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` values with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean of first minus second over pairs, with its 95 % interval.

    `n` counts pairs, `groups` what was resampled. `changed` pairs differ at all. `detectable` is the smallest
    true difference that this many pairs find nine times out of ten. The verdict speaks of the first.
    """

    difference: float
    low: float
    high: float
    p_value: float
    verdict: Verdict
    n: int
    groups: int
    changed: int
    detectable: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def bootstrap_mean(values: Sequence[float], draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean and its percentile bootstrap interval. Raises InvalidInput for no values or NaN."""
    array = _checked(values, "values")
    low, high = _interval(array, np.ones_like(array), draws, seed)
    return Interval(float(array.mean()), low, high, len(array))


def paired(
    a: Sequence[float],
    b: Sequence[float],
    draws: int = DRAWS,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Paired:
    """Compare `a` with `b`, measured on the same cases in the same order.

    `groups` names what each case belongs to, such as its document: cases of one are not independent, so whole
    groups are drawn, and their signs flipped. The p-value is that of the two-sided sign-flip test (Fisher's
    randomisation test). "better" and "worse" need both an interval without 0 and p < 0.05, so a handful of
    cases always ends in "cannot tell". Raises InvalidInput for unequal lengths, no values or NaN.
    """
    first, second = _checked(a, "a"), _checked(b, "b")
    if len(first) != len(second) or (groups is not None and len(groups) != len(first)):
        raise InvalidInput(
            f"Pairs need equal lengths: {len(first)}, {len(second)}"
            + (f" and {len(groups)} groups." if groups is not None else "."),
            field="b",
        )
    difference = first - second
    sums, sizes = _by_group(difference, groups)
    low, high = _interval(sums, sizes, draws, seed)
    mean, p_value = float(difference.mean()), _sign_flip(sums, draws, seed)
    verdict: Verdict = "cannot tell"
    if p_value < 1 - LEVEL and (low > 0 or high < 0):
        verdict = "better" if low > 0 else "worse"
    spread = float(np.std(sums, ddof=1)) * np.sqrt(len(sums)) / len(difference) if len(sums) > 1 else np.inf
    return Paired(
        difference=mean,
        low=low,
        high=high,
        p_value=p_value,
        verdict=verdict,
        n=len(difference),
        groups=len(sums),
        changed=int(np.count_nonzero(difference)),
        detectable=float(_POWER * spread),
    )


def _by_group(values: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    if groups is None:
        return values, np.ones_like(values)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sums = np.zeros(len(numbers))
    np.add.at(sums, index, values)
    return sums, np.bincount(index).astype(np.float64)


def _interval(sums: Floats, sizes: Floats, draws: int, seed: int) -> tuple[float, float]:
    """Percentiles of Σ sums / Σ sizes over resampled groups."""
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, _CELLS // len(sums))
    for start in range(0, draws, step):
        stop = min(draws, start + step)
        drawn = random.integers(0, len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _sign_flip(sums: Floats, draws: int, seed: int) -> float:
    """P(|Σ ± sums| ≥ |Σ sums|), the observed assignment counted among the draws."""
    random = np.random.default_rng(seed + 1)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    observed = abs(sums.sum()) * (1 - 1e-12)
    extreme = 0
    step = max(1, _CELLS // len(sums))
    for start in range(0, draws, step):
        signs = random.integers(0, 2, size=(min(draws, start + step) - start, len(sums))) * 2.0 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= observed))
    return (extreme + 1) / (draws + 1)


def _checked(values: Sequence[float], name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InvalidInput(f"{name}: there are no values to compare.", field=name)
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise InvalidInput(
            f"{name}: value {wrong[0] + 1} of {len(array)} is {array[wrong[0]]}, not a number.", field=name
        )
    return array
