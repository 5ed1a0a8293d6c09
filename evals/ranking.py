"""How good a ranking is, by the definitions of trec_eval, which published figures follow.

A run maps each query to the scores of the documents found; judgements map it to grades (0 is not relevant).
Ranks come from the scores: single precision, equal scores in descending order of the id as a string. A store
with another rule for equal scores hands in `scores_of(ranking)`, so that its own order counts. A judged query
without results counts 0: an average is over the judged queries, not over the answered ones.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from assistant.errors import InvalidInput

Judgements = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]

DEFAULT_METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10")
_NAME = re.compile(r"(ndcg|recall|mrr|ap|p)(?:@([1-9]\d*))?")


def scores_of(ranking: Sequence[str]) -> dict[str, float]:
    """Scores that keep an order: n for the first of n, then n - 1, …"""
    return {id_: float(len(ranking) - rank) for rank, id_ in enumerate(ranking)}


def evaluate(
    judgements: Judgements, run: Run, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, dict[str, float]]:
    """{query: {metric: value}} for every judged query, in the order of `judgements`.

    Metrics are `ndcg`, `recall`, `mrr`, `ap` and `p`, with `@k` for the first k results; `p` needs it.
    Raises InvalidInput for an unknown metric or a score that is not a number.
    """
    chosen = [(name, *_metric(name)) for name in metrics]
    values: dict[str, dict[str, float]] = {}
    for query, grades in judgements.items():
        order = ranked(run.get(query, {}), query)
        gains = np.array([max(grades.get(id_, 0), 0) for id_ in order], dtype=np.float64)
        ideal = np.sort(np.array([g for g in grades.values() if g > 0], dtype=np.float64))[::-1]
        values[query] = {name: measure(gains, ideal, k) for name, measure, k in chosen}
    return values


def ranked(scores: Mapping[str, float], query: str = "") -> list[str]:
    """The ids of one query by trec_eval's rule, best first."""
    single = {id_: float(np.float32(score)) for id_, score in scores.items()}
    wrong = next((id_ for id_, score in single.items() if np.isnan(score)), None)
    if wrong is not None:
        raise InvalidInput(f"Query {query!r}: the score of document {wrong!r} is not a number.", field="run")
    return sorted(sorted(single, reverse=True), key=lambda id_: -single[id_])


def mean(values: Mapping[str, Mapping[str, float]], metric: str) -> float:
    """The average of one metric over all judged queries; 0 when there are none."""
    return float(np.mean([v[metric] for v in values.values()])) if values else 0.0


def ndcg(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """Σ gain / log2(rank + 1) of the first k results over that of the best order (Järvelin, Kekäläinen 2002).

    The gain is the grade itself, as in trec_eval and BEIR.
    """
    best = _discounted(ideal[:k])
    return _discounted(gains[:k]) / best if best else 0.0


def recall(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """The share of the relevant documents among the first k results."""
    return float(np.count_nonzero(gains[:k]) / len(ideal)) if len(ideal) else 0.0


def precision(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """The relevant ones among the first k results over k, also where fewer were found."""
    assert k is not None
    return float(np.count_nonzero(gains[:k]) / k)


def reciprocal_rank(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """1 / rank of the first relevant result, 0 when none is among the first k."""
    hits = np.flatnonzero(gains[:k])
    return float(1 / (hits[0] + 1)) if len(hits) else 0.0


def average_precision(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """The precision at each relevant result, summed and divided by the number of relevant documents."""
    hits = np.flatnonzero(gains[:k])
    precisions = np.arange(1, len(hits) + 1) / (hits + 1)
    return float(precisions.sum() / len(ideal)) if len(ideal) else 0.0


def _discounted(gains: np.ndarray) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


_MEASURES: Mapping[str, Callable[[np.ndarray, np.ndarray, int | None], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": reciprocal_rank,
    "ap": average_precision,
    "p": precision,
}


def _metric(name: str) -> tuple[Callable[[np.ndarray, np.ndarray, int | None], float], int | None]:
    found = _NAME.fullmatch(name)
    if found is None or (found[1] == "p" and not found[2]):
        raise InvalidInput(
            f"Unknown ranking metric {name!r}.",
            hint=f"Use {', '.join(_MEASURES)} with a cut such as @10.",
            field="metrics",
        )
    return _MEASURES[found[1]], int(found[2]) if found[2] else None
