"""Retrieval over a collection that people judged (SciFact), through the product's own search path.

Every document is one chunk; its vector is that of its first tokens, as many as the embedder reads. The three
modes of search are asked the same queries, and BM25 by another hand stands beside them.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from assistant.retrieval.search import MODES, Mode
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from assistant.types import Hit
from evals.beir import JudgedCollection
from evals.collection import Searcher, fill, whole_document
from evals.oracle import PUBLISHED, Bm25Oracle
from evals.ranking import DEFAULT_METRICS, evaluate, scores_of
from evals.results import CaseResult, SuiteResult, summarise

DEPTH = 100
"""Results scored per query, the most that a search gives."""
AT_ONCE = 4
WORST_SHOWN = 3

Step = Callable[[str, int, int], None]
"""(what is being done, how many are done, how many there are)."""


class SearchTarget(Protocol):
    """Anything that ranks documents for a text."""

    async def search(self, text: str, mode: Mode, limit: int) -> tuple[Hit, ...]: ...


@dataclass(frozen=True, slots=True)
class Vectorised:
    """A judged collection with the vectors of its documents and queries, rows in their order."""

    collection: JudgedCollection
    documents: np.ndarray
    queries: np.ndarray


async def run(
    data: Vectorised,
    store: VectorStore,
    settings: Settings,
    *,
    modes: Sequence[Mode] = MODES,
    limit: int | None = None,
    depth: int = DEPTH,
    oracle: bool = True,
    meta: Mapping[str, Any] | None = None,
    step: Step = lambda *_: None,
) -> SuiteResult:
    """Index, ask and score. `settings.qdrant.collection` names the alias, whose content is replaced.

    `limit` keeps the first queries only, `depth` the first results of each. Raises StoreUnavailable when
    Qdrant is away.
    """
    began = time.perf_counter()
    collection = data.collection
    queries = dict(list(collection.queries.items())[:limit])
    judgements = {query: collection.judgements[query] for query in queries}
    items = [whole_document(id_, text) for id_, text in collection.documents.items()]
    await fill(store, settings, items, data.documents, lambda done, all_: step("store", done, all_))
    stored = time.perf_counter()
    vectors = {t.strip(): v for t, v in zip(collection.queries.values(), data.queries, strict=True)}
    searcher = Searcher(store, settings, vectors)
    runs: dict[str, dict[str, list[str]]] = {}
    seconds = {"store": stored - began}
    for mode in modes:
        began = time.perf_counter()
        runs[mode] = await _rankings(searcher, queries, mode, depth, step)
        seconds[mode] = time.perf_counter() - began
    scored = {name: _scores(found, judgements) for name, found in runs.items()}
    if oracle:
        began = time.perf_counter()
        step("bm25s", 0, len(PUBLISHED))
        reference = Bm25Oracle(collection.documents)
        for number, parameters in enumerate(PUBLISHED, 1):
            scored[parameters.name] = evaluate(judgements, reference.runs(queries, parameters, depth))
            step("bm25s", number, len(PUBLISHED))
        seconds["bm25s"] = time.perf_counter() - began
    ordered = sorted(modes, key=MODES.index)
    headline = f"{ordered[0]}/ndcg@10"
    return summarise(
        collection.name,
        headline,
        [_case(query, collection, scored, runs) for query in queries],
        list(combinations(ordered, 2)),
        {
            "split": collection.split,
            "documents": len(collection.documents),
            "data_hash": collection.data_hash,
            "embedder": settings.embedder.name,
            "max_tokens": settings.embedder.max_tokens,
            "retrieval": settings.retrieval.model_dump(mode="json"),
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            **(meta or {}),
        },
        settings.evals.draws,
    )


async def _rankings(
    target: SearchTarget, queries: Mapping[str, str], mode: Mode, depth: int, step: Step
) -> dict[str, list[str]]:
    rankings: dict[str, list[str]] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(query: str, text: str) -> None:
        async with places:
            hits = await target.search(text, mode, depth)
        rankings[query] = list(dict.fromkeys(hit.external_id for hit in hits))
        step(mode, len(rankings), len(queries))

    await asyncio.gather(*(ask(query, text) for query, text in queries.items()))
    return rankings


def _scores(
    rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    return evaluate(judgements, {q: scores_of(order) for q, order in rankings.items()}, DEFAULT_METRICS)


def _case(
    query: str,
    collection: JudgedCollection,
    scored: Mapping[str, Mapping[str, Mapping[str, float]]],
    runs: Mapping[str, Mapping[str, Sequence[str]]],
) -> CaseResult:
    relevant = [d for d, grade in collection.judgements[query].items() if grade > 0]
    ranks = {
        mode: {d: order.index(d) + 1 if d in order else None for d in relevant}
        for mode, order in ((mode, list(found[query])) for mode, found in runs.items())
    }
    return CaseResult(
        id=query,
        group=query,
        values={f"{system}/{name}": v for system, all_ in scored.items() for name, v in all_[query].items()},
        detail={
            "query": collection.queries[query],
            "relevant": {d: _excerpt(collection.documents[d]) for d in relevant},
            "ranks": ranks,
            "first": {
                mode: [f"{d}: {_excerpt(collection.documents[d])}" for d in found[query][:WORST_SHOWN]]
                for mode, found in runs.items()
            },
        },
    )


def _excerpt(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"
