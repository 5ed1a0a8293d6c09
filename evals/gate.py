"""The decision whether a candidate may replace the champion, as a record that can be kept.

The candidate must be better on a frozen set that nobody tuned on, and not worse than a margin on a guard set
of what it must not forget. Both are read at the lower bound of a paired interval, so noise never promotes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from assistant.errors import InvalidInput
from evals.statistics import Paired

MIN_GROUPS = 6
"""Fewer independent pairs cannot be significant at 5 % whatever they show (2 / 2⁵ > 0.05)."""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """`reasons` say, check by check, why; the first failed ones come first."""

    promote: bool
    reasons: tuple[str, ...]
    frozen: Paired
    guard: Paired | None
    min_gain: float
    harm_margin: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "GateDecision":
        """The decision that `as_json` wrote."""
        guard = record["guard"]
        return cls(
            promote=record["promote"],
            reasons=tuple(record["reasons"]),
            frozen=Paired(**record["frozen"]),
            guard=None if guard is None else Paired(**guard),
            min_gain=record["min_gain"],
            harm_margin=record["harm_margin"],
        )


def decide(
    frozen: Paired,
    guard: Paired | None,
    *,
    min_gain: float = 0.0,
    harm_margin: float,
    min_groups: int = MIN_GROUPS,
) -> GateDecision:
    """Both comparisons are candidate minus champion, higher is better; negate losses before.

    Promote when frozen.low > `min_gain` and guard.low > -`harm_margin`, each over at least `min_groups`.
    Without a guard set only the first is asked. Raises InvalidInput for a negative margin or gain.
    """
    for name, value in (("min_gain", min_gain), ("harm_margin", harm_margin)):
        if value < 0:
            raise InvalidInput(f"{name} is {value}, it must not be negative.", field=name)
    checks = [_check("frozen set", frozen, min_gain, min_groups)]
    if guard is not None:
        checks.append(_check("guard set", guard, -harm_margin, min_groups))
    checks.sort(key=lambda check: check[0])
    reasons = [reason for _, reason in checks]
    if guard is None:
        reasons.append("guard set: none was given, so harm elsewhere was not looked for")
    return GateDecision(
        all(passed for passed, _ in checks), tuple(reasons), frozen, guard, min_gain, harm_margin
    )


def _check(name: str, found: Paired, bound: float, min_groups: int) -> tuple[bool, str]:
    shown = f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] over {found.n} cases"
    if found.groups < min_groups:
        return False, f"{name}: {shown}; at least {min_groups} independent cases are needed to decide"
    if found.low > bound:
        return True, f"{name}: {shown}; the lower bound is above {bound:+.4f}"
    return False, f"{name}: {shown}; the lower bound is not above {bound:+.4f}"
