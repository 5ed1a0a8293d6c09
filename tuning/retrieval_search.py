"""Tune retrieval on a dev split, through the product's own search, and write the winning setting.

Fusion, its weight or k, the number of candidates, and the chunk size when sizes are named. The setting of now
is tried first, and the winner is compared with it on the same questions. An interrupted search goes on.
`ai-assistant tune retrieval` runs it.
"""

import asyncio
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assistant.errors import InvalidInput
from assistant.retrieval.embedders import Embedder
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from evals.collection import Searcher, dropped, fill
from evals.ranking import evaluate, scores_of
from evals.statistics import Paired, paired
from evals.vector_cache import VectorCache, model_hash
from training.folders import write_json, writing
from tuning.corpus import Corpus, indexed
from tuning.fragment import write_fragment
from tuning.search_space import RetrievalSpace, retrieval_settings

METRIC = "ndcg@10"
DEPTH = 100
AT_ONCE = 4
BEST = "best.yaml"
RESULTS = "trials.json"


@dataclass(frozen=True)
class RetrievalSearch:
    """`folder` keeps the trials and vectors, and takes the result."""

    folder: Path
    trials: int = 30
    space: RetrievalSpace = field(default_factory=RetrievalSpace)
    seed: int = 0


@dataclass(frozen=True)
class RetrievalResult:
    """`best` is the winning draw; `gain` compares it with the setting of now, None when that is outside the
    space or has won itself."""

    best: Mapping[str, Any]
    score: float
    now: float | None
    gain: Paired | None
    trials: int
    fragment: Path


async def tune_retrieval(
    search: RetrievalSearch,
    corpus: Corpus,
    store: VectorStore,
    settings: Settings,
    embedder: Embedder,
    tell: Callable[[str], None] = lambda _: None,
) -> RetrievalResult:
    """Search, or go on with the search of the same data in this folder.

    A collection of its own is made and dropped; live ones are not touched. Raises StoreUnavailable when Qdrant
    is away, ConfigurationError when the folder cannot be written.
    """
    if search.trials < 1:
        raise InvalidInput("A search needs one trial at least.", field="trials")
    with writing(search.folder):
        search.folder.mkdir(parents=True, exist_ok=True)
    study = _study(search, corpus, settings)
    objective = _Objective(search.folder, corpus, store, settings, embedder)
    try:
        while (number := len(_done(study))) < search.trials:
            trial = study.ask()
            draw = search.space.draw(trial)
            values = await objective.scores(draw)
            score = float(np.mean(list(values.values())))
            trial.set_user_attr("values", list(values.values()))
            trial.set_user_attr("draw", draw)
            study.tell(trial, score)
            tell(f"trial {number + 1} of {search.trials}: {_shown(draw)}: {METRIC} {score:.4f}")
    finally:
        await objective.close()
    return _conclude(search, study, corpus, settings)


class _Objective:
    """The scores of a draw on every question; the index is made anew only when the chunk size changes."""

    def __init__(
        self, folder: Path, corpus: Corpus, store: VectorStore, settings: Settings, embedder: Embedder
    ) -> None:
        self._corpus, self._store, self._embedder = corpus, store, embedder
        digest = hashlib.sha256(f"{folder.absolute()} {corpus.data_hash}".encode()).hexdigest()[:12]
        qdrant = settings.qdrant.model_copy(update={"collection": f"tuning_{digest}"})
        self._settings = settings.model_copy(update={"qdrant": qdrant})
        self._cache = VectorCache(
            folder / "vectors",
            model_hash(settings.embedder_path),
            settings.embedder.max_tokens,
            settings.embedder.dimension,
        )
        self._chunk_tokens: int | None = -1
        self._queries: dict[str, np.ndarray] = {}

    async def scores(self, draw: Mapping[str, Any]) -> dict[str, float]:
        await self._index(draw.get("chunk_tokens"))
        retrieval = retrieval_settings(draw, self._settings.retrieval)
        searcher = Searcher(
            self._store, self._settings.model_copy(update={"retrieval": retrieval}), self._queries
        )
        places = asyncio.Semaphore(AT_ONCE)
        run: dict[str, dict[str, float]] = {}

        async def ask(query: str, text: str) -> None:
            async with places:
                hits = await searcher.search(text, "hybrid", DEPTH)
            run[query] = scores_of(list(dict.fromkeys(hit.external_id for hit in hits)))

        await asyncio.gather(*(ask(query, text) for query, text in self._corpus.queries.items()))
        found = evaluate(self._corpus.judgements, run, (METRIC,))
        return {query: found[query][METRIC] for query in self._corpus.queries}

    async def close(self) -> None:
        if self._chunk_tokens != -1:
            await dropped(self._store, self._settings.qdrant.collection)

    async def _index(self, chunk_tokens: int | None) -> None:
        if chunk_tokens == self._chunk_tokens:
            return
        chunk = None
        if chunk_tokens is not None:
            chunk = self._settings.chunk.model_copy(update={"max_tokens": chunk_tokens})
        items = indexed(self._corpus, chunk, self._embedder)
        vectors = await asyncio.to_thread(
            self._cache.vectors, [item.text for item in items], self._embedder.embed
        )
        texts = list(self._corpus.queries.values())
        asked = await asyncio.to_thread(self._cache.vectors, texts, self._embedder.embed)
        self._queries = {text.strip(): vector for text, vector in zip(texts, asked, strict=True)}
        await fill(self._store, self._settings, items, vectors)
        self._chunk_tokens = chunk_tokens


def _study(search: RetrievalSearch, corpus: Corpus, settings: Settings) -> Any:
    """The study of this data and space; trials that a killed search left unfinished count as failed."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = json.dumps(
        [corpus.data_hash, vars(search.space), settings.embedder.name, settings.chunk.model_dump()],
        default=str,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=hashlib.sha256(about.encode()).hexdigest()[:16],
            storage=JournalStorage(JournalFileBackend(str(search.folder / "trials.log"))),
            direction="maximize",
            load_if_exists=True,
            # A resumed search must not draw what it has drawn before.
            sampler=optuna.samplers.TPESampler(seed=search.seed + _log_size(search)),
        )
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    start = search.space.start(settings.retrieval, settings.chunk.max_tokens)
    if start is not None:
        study.enqueue_trial(start, skip_if_exists=True)
    return study


def _log_size(search: RetrievalSearch) -> int:
    log = search.folder / "trials.log"
    return log.stat().st_size if log.is_file() else 0


def _done(study: Any) -> list[Any]:
    return [t for t in study.get_trials(deepcopy=False) if t.value is not None]


def _conclude(search: RetrievalSearch, study: Any, corpus: Corpus, settings: Settings) -> RetrievalResult:
    trials = _done(study)
    # Of equal scores the first, which is the setting of now when it is among them.
    best = min(trials, key=lambda t: (-t.value, t.number))
    start = search.space.start(settings.retrieval, settings.chunk.max_tokens)
    now = next((t for t in trials if t.user_attrs["draw"] == start), None)
    gain = None
    if now is not None and now.number != best.number:
        gain = paired(
            best.user_attrs["values"],
            now.user_attrs["values"],
            settings.evals.draws,
            groups=[corpus.groups[query] for query in corpus.queries],
        )
    draw = best.user_attrs["draw"]
    sections = {"retrieval": {k: v for k, v in draw.items() if k != "chunk_tokens"}}
    if "chunk_tokens" in draw:
        sections["chunk"] = {"max_tokens": draw["chunk_tokens"]}
    notes = [
        f"Best of {len(trials)} trials on {corpus.name} ({len(corpus.queries)} questions): "
        f"{METRIC} {best.value:.4f}.",
        "The setting of before is outside the searched space."
        if now is None
        else f"Before: {now.value:.4f}."
        + (
            f" Difference {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]: {gain.verdict}."
            if gain
            else ""
        ),
        *(["Chunks of another size mean to ingest again."] if "chunk" in sections else []),
    ]
    write_json(
        search.folder / RESULTS,
        {
            "corpus": corpus.name,
            "data_hash": corpus.data_hash,
            "trials": [{**t.user_attrs["draw"], METRIC: t.value} for t in trials],
            "gain": None if gain is None else gain.as_json(),
        },
    )
    write_fragment(search.folder / BEST, sections, notes)
    return RetrievalResult(
        best=draw,
        score=float(best.value),
        now=None if now is None else float(now.value),
        gain=gain,
        trials=len(trials),
        fragment=search.folder / BEST,
    )


def _shown(draw: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in draw.items())
