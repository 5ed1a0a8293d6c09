"""Search over a real store with the real embedder."""

from typing import Any
from uuid import uuid4

import pytest

from assistant.errors import InvalidInput, NotFound, StoreUnavailable
from assistant.retrieval.search import Mode, SearchQuery
from assistant.settings import QdrantSettings, RetrievalSettings, Settings
from assistant.stores.vectors import VectorStore
from assistant.types import Principal
from tests.assistant.retrieval.corpus import ANYONE, RUNBOOK, Corpus, service

pytestmark = pytest.mark.integration

QUESTION = "what should I do when KubePersistentVolumeFillingUp fires?"


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
async def test_the_right_document_comes_first(corpus: Corpus, mode: Mode) -> None:
    result = await corpus.service.search(SearchQuery(QUESTION, 3, mode), ANYONE)
    first = result.hits[0]
    assert first.external_id == "KubePersistentVolumeFillingUp.md"
    assert RUNBOOK[first.start : first.end] == first.text
    assert (first.dense is None, first.sparse is None) == (mode == "sparse", mode == "dense")
    assert [h.score for h in result.hits] == sorted((h.score for h in result.hits), reverse=True)
    assert set(result.timings_ms) == {"total", "embed", "candidates", "fusion", "fetch", "highlight"}


async def test_rank_fusion_is_a_setting(corpus: Corpus, embedder: Any) -> None:
    settings = Settings(retrieval=RetrievalSettings(fusion="rrf"))
    hits = (await service(corpus.store, embedder, settings).search(SearchQuery(QUESTION), ANYONE)).hits
    assert hits[0].external_id == "KubePersistentVolumeFillingUp.md"
    assert hits[0].score == pytest.approx(2 / 61, rel=0.1)


async def test_words_of_the_query_are_highlighted_in_any_form(corpus: Corpus) -> None:
    hit = (await corpus.service.search(SearchQuery("resize a volume"), ANYONE)).hits[0]
    assert "volume resizing" in [hit.text[a:b] for a, b in hit.highlights]


async def test_only_permitted_chunks_are_found(corpus: Corpus) -> None:
    query = SearchQuery("salaries in the payroll database", 20)
    clerk = Principal("clerk", groups=("payroll",))
    assert "payroll.md" not in {h.external_id for h in (await corpus.service.search(query, ANYONE)).hits}
    assert (await corpus.service.search(query, clerk)).hits[0].external_id == "payroll.md"


async def test_filters_narrow_the_search(corpus: Corpus) -> None:
    query = SearchQuery(QUESTION, filters={"external_id": ["cake.md", "budget.md"]})
    found = {h.external_id for h in (await corpus.service.search(query, ANYONE)).hits}
    assert found == {"cake.md", "budget.md"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (SearchQuery("  "), "query"),
        (SearchQuery("x" * 9000), "query"),
        (SearchQuery("x", 0), "limit"),
        (SearchQuery("x", 101), "limit"),
        (SearchQuery("x", mode="magic"), "mode"),  # type: ignore[arg-type]
        (SearchQuery("x", filters={"colour": "red"}), "colour"),
        (SearchQuery("x", filters={"acl": "public"}), "acl"),
    ],
)
async def test_a_wrong_field_is_named(corpus: Corpus, query: SearchQuery, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await corpus.service.search(query, ANYONE)
    assert raised.value.extra["field"] == field


async def test_a_query_of_stop_words_finds_nothing_by_words(corpus: Corpus) -> None:
    assert (await corpus.service.search(SearchQuery("the of and", mode="sparse"), ANYONE)).hits == ()


async def test_a_passage_comes_with_its_neighbours(corpus: Corpus) -> None:
    ids = corpus.chunks["KubePersistentVolumeFillingUp.md"]
    passage = await corpus.service.passage(ids[1], ANYONE)
    assert passage.hit.chunk_id == ids[1]
    assert len(passage.before) == 1
    assert len(passage.after) == 2
    assert passage.hit.text in RUNBOOK


async def test_a_passage_that_may_not_be_seen_is_not_there(corpus: Corpus) -> None:
    for chunk_id in (corpus.chunks["payroll.md"][0], uuid4()):
        with pytest.raises(NotFound):
            await corpus.service.passage(chunk_id, ANYONE)


async def test_a_store_that_is_away_is_told(embedder: Any) -> None:
    store = VectorStore(QdrantSettings(url="http://127.0.0.1:9", timeout_s=1))
    with pytest.raises(StoreUnavailable):
        await service(store, embedder, Settings()).search(SearchQuery("disk"), ANYONE)
    await store.close()
