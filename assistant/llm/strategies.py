"""In which order the models are tried: pure functions, so that a choice can be tested and replayed.

A strategy gets the request and the candidates that may serve it and returns them in the order to try.
It may leave some out, never add any.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest


@dataclass(frozen=True, slots=True)
class Candidate:
    """One backend as the router sees it now.

    `available` is False while it cools down after a failure or said that it is down.
    `first_token_s` is a moving average, None without samples.
    """

    spec: ModelSpec
    backend: str
    available: bool = True
    in_flight: int = 0
    first_token_s: float | None = None


Strategy = Callable[[ChatRequest, Sequence[Candidate]], Sequence[Candidate]]


def priority(request: ChatRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Lowest priority number first; of equals the least busy, then the first in the catalogue.

    Backends that are not available come last instead of being dropped: when all are, trying beats refusing.
    """
    return by_priority({})(request, candidates)


def by_priority(instead: Mapping[str, int]) -> Strategy:
    """`priority`, with other numbers for the models that are named."""

    def order(request: ChatRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        del request
        return sorted(
            candidates,
            key=lambda c: (
                not c.available,
                instead.get(c.spec.name, c.spec.priority),
                c.in_flight / c.spec.slots,
            ),
        )

    return order
