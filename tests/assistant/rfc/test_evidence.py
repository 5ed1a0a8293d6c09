from dataclasses import replace

from assistant.clock import stable_id
from assistant.rfc.artefacts import EvidenceArtefact
from assistant.rfc.evidence import assemble, rank
from assistant.rfc.templates import template
from assistant.types import Hit, Principal
from tests.assistant.rfc.world import CALLER, WordSearcher, chunk_id, passage_hit, settings, until, work


def variant(hit: Hit, name: str, text: str) -> Hit:
    return replace(hit, chunk_id=stable_id("variant", name), text=text)


async def test_every_search_is_made_as_the_principal() -> None:
    searcher = WordSearcher()
    job = await until(work(searcher=searcher), "evidence")
    assert searcher.queries
    assert {principal for _, principal in searcher.queries} == {CALLER}
    assert chunk_id("secret") not in job.of(EvidenceArtefact).by_id()
    finance = Principal("eve", groups=("finance",))
    job = await until(work(principal=finance), "evidence")
    assert chunk_id("secret") in job.of(EvidenceArtefact).by_id()


async def test_one_query_is_searched_once_and_each_section_keeps_to_its_number() -> None:
    searcher = WordSearcher()
    evidence = (await until(work(searcher=searcher, queries_per_section=2), "evidence")).of(EvidenceArtefact)
    texts = [text for text, _ in searcher.queries]
    assert len(texts) == len(set(texts)) == evidence.searches
    assert all(len(s.queries) <= 2 for s in evidence.sections)


async def test_a_passage_serves_the_section_it_fits_best() -> None:
    evidence = (await until(work(), "evidence")).of(EvidenceArtefact)
    assert evidence.of("test_plan")[0].chunk_id == chunk_id("testing")
    assert evidence.of("rollout")[0].chunk_id == chunk_id("canary")
    assert evidence.of("observability")[0].chunk_id == chunk_id("alerts")


async def test_no_hits_give_no_evidence() -> None:
    evidence = (await until(work(searcher=WordSearcher(())), "evidence")).of(EvidenceArtefact)
    assert evidence.passages == ()
    assert all(s.passages == () for s in evidence.sections)


def test_off_topic_and_copied_passages_are_put_aside() -> None:
    near, far = passage_hit("filling"), passage_hit("canary", dense=0.1)
    copy = variant(near, "copy", f"  {near.text.upper()}")
    sparse_only = passage_hit("alerts", dense=None)
    table = variant(near, "table", "| a | b |\n|---|---|\n| c | d |\n")
    found = rank([[near, far, copy, sparse_only, table]], least_dense=0.25)
    assert [p.chunk_id for p in found] == [near.chunk_id, sparse_only.chunk_id]


def test_found_by_two_queries_ranks_above_found_by_one() -> None:
    a, b, c = passage_hit("filling"), passage_hit("canary"), passage_hit("alerts")
    assert rank([[a, b], [c, b]], 0.25)[0].chunk_id == b.chunk_id


def test_no_document_fills_a_section_alone() -> None:
    base = passage_hit("filling")
    words = ["alpha beta gamma", "delta epsilon zeta", "eta theta iota", "kappa lambda mu"]
    crowd = [variant(base, str(i), f"Volume number {i} holds {w}.") for i, w in enumerate(words)]
    ranked = {"motivation": rank([[*crowd, passage_hit("alerts")]], 0.25)}
    evidence = assemble(
        template("new_feature"), {"motivation": ("q",)}, ranked, settings(passages_per_document=2).rfc, 1
    )
    documents = [p.document_id for p in evidence.of("motivation")]
    assert documents.count(base.document_id) == 2
    assert len(documents) == 3
