"""Tuning retrieval against the real store, the real search and the real embedder."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from assistant.errors import InvalidInput
from assistant.settings import EmbedderSettings, EvalSettings, QdrantSettings, Settings, load_settings
from assistant.stores.vectors import VectorStore
from evals.splits import split_of
from tuning.corpus import Corpus, from_documents, judged
from tuning.retrieval_search import RetrievalSearch, tune_retrieval
from tuning.search_space import RetrievalSpace

pytestmark = pytest.mark.integration

TEXTS = {
    "cache": "A cache keeps copies of answers near the reader, so that the slow store is asked less often.",
    "queue": "Work waits in a line until somebody is free to take it; the oldest entry leaves first.",
    "lock": "Only one process may hold the guard at any time, the others wait until it is released.",
    "index": "A sorted list of terms points to the pages where they stand, like at the end of a book.",
    "shard": "Large tables are cut into pieces that live on different machines.",
    "retry": "When a call fails for a moment it is made again after a pause that grows.",
    "quota": "Nobody may use more than an agreed amount in a given hour.",
    "audit": "Who did what and when is written down and never changed afterwards.",
}
QUERIES = {
    "q1": ("speed up reads with a copy nearby", "cache"),
    "q2": ("first in first out", "queue"),
    "q3": ("mutual exclusion", "lock"),
    "q4": ("partition data over servers", "shard"),
    "q5": ("exponential backoff", "retry"),
    "q6": ("rate limit per hour", "quota"),
}


@pytest.fixture
def settings(qdrant_server: QdrantSettings, models_dir: Path) -> Settings:
    return Settings(
        qdrant=qdrant_server,
        embedder=EmbedderSettings(path=models_dir / "all-MiniLM-L6-v2"),
        evals=EvalSettings(draws=200),
    )


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(
        "terms/dev",
        TEXTS,
        {query: text for query, (text, _) in QUERIES.items()},
        {query: {answer: 1} for query, (_, answer) in QUERIES.items()},
        {query: query for query in QUERIES},
        "hash",
    )


async def test_a_search_tries_now_first_resumes_and_writes_the_winner(
    settings: Settings, corpus: Corpus, vector_store: VectorStore, embedder: Any, tmp_path: Path
) -> None:
    search = RetrievalSearch(tmp_path / "search", trials=6)
    lines: list[str] = []

    def until_the_third(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await tune_retrieval(search, corpus, vector_store, settings, embedder, until_the_third)
    assert "fusion weighted, candidates 100, dense_weight 0.6" in lines[0]
    lines = ["", "", ""]
    result = await tune_retrieval(search, corpus, vector_store, settings, embedder, lines.append)
    assert len(lines) == 6
    assert result.trials == 6
    assert result.now is not None
    assert result.score >= result.now
    assert (result.gain is None) == (result.score == result.now)
    tuned = load_settings(environ={}, config_file=result.fragment).retrieval
    assert {name: getattr(tuned, name) for name in result.best} == dict(result.best)
    record = json.loads((tmp_path / "search" / "trials.json").read_text())
    assert len(record["trials"]) == 6
    assert max(t["ndcg@10"] for t in record["trials"]) == result.score
    async with httpx.AsyncClient(trust_env=False) as client:
        key = settings.qdrant.api_key
        assert key is not None
        answer = await client.get(
            f"{settings.qdrant.url}/collections", headers={"api-key": key.get_secret_value()}
        )
    names = [found["name"] for found in answer.json()["result"]["collections"]]
    assert not [name for name in names if name.startswith("tuning_")]


async def test_chunk_sizes_index_anew(
    settings: Settings, vector_store: VectorStore, embedder: Any, tmp_path: Path
) -> None:
    long = {id_: f"{text} " + "Further words follow. " * 30 for id_, text in TEXTS.items()}
    corpus = Corpus(
        "long/dev",
        long,
        {query: text for query, (text, _) in QUERIES.items()},
        {query: {answer: 1} for query, (_, answer) in QUERIES.items()},
        {query: query for query in QUERIES},
        "long",
    )
    space = RetrievalSpace(chunk_tokens=(48, 160), candidates=(20, 100))
    search = RetrievalSearch(tmp_path, trials=9, space=space)
    result = await tune_retrieval(search, corpus, vector_store, settings, embedder)
    assert result.now is None, "chunks of 220 tokens are outside the space"
    assert load_settings(environ={}, config_file=result.fragment).chunk.max_tokens in (48, 160)
    tried = {t["chunk_tokens"] for t in json.loads((tmp_path / "trials.json").read_text())["trials"]}
    assert tried == {48, 160}


async def test_a_search_without_trials_is_refused(
    settings: Settings, corpus: Corpus, vector_store: VectorStore, embedder: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="one trial at least"):
        await tune_retrieval(RetrievalSearch(tmp_path, trials=0), corpus, vector_store, settings, embedder)


def test_headings_of_the_dev_split_ask_for_sections_of_all(tmp_path: Path) -> None:
    body = "plain words of section {i} tell what nobody asked for " * 6
    names = [f"doc{i}.md" for i in range(60)]
    for i, name in enumerate(names):
        (tmp_path / name).write_text(
            f"# Title{i}\n\n## Reason\n\n{body.format(i=i)}\n\n## Short\n\nfew\n\n"
            f"## Covered\n\nTitle{i} covered {body.format(i=i)}\n"
        )
    found = from_documents([tmp_path])
    asked = {id_.split("/")[1].split("#")[0] for id_ in found.queries}
    assert asked == {name for name in names if split_of(name) == "dev"}
    assert len(found.texts) == 120
    assert all(text.endswith(": Reason") for text in found.queries.values())
    assert found.data_hash == from_documents([tmp_path]).data_hash


def test_the_test_split_is_refused_and_so_are_folders_without_dev_documents(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="for reporting"):
        judged(tmp_path, "test")
    name = next(f"d{i}.md" for i in range(99) if split_of(f"d{i}.md") == "train")
    (tmp_path / name).write_text("# T\n\n## H\n\n" + "word " * 50)
    with pytest.raises(InvalidInput, match="no document of the dev split"):
        from_documents([tmp_path])
