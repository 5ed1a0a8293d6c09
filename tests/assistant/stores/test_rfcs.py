"""RFCs: seen by those who may, kept stage by stage, finished in one piece."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import uuid4

import pytest

from assistant.clock import new_id
from assistant.errors import InvalidInput, NotFound
from assistant.stores.jobs import JobRepository
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRecord, RfcRepository
from assistant.types import Citation, Principal

pytestmark = pytest.mark.integration

ADA = Principal("ada", groups=("platform",))
BOB = Principal("bob")
MALLORY = Principal("mallory", groups=("sales",))


@pytest.fixture
def rfcs(database: Database) -> RfcRepository:
    return RfcRepository(database)


async def submit(rfcs: RfcRepository, title: str = "Queue", acl: Sequence[str] = ("user:ada",)) -> RfcRecord:
    return await rfcs.submit(title, "Make it durable.", "new_feature", "ada", acl, {"Why?": "Losses."})


def citation(marker: int) -> Citation:
    return Citation(
        marker, uuid4(), uuid4(), "Runbook", ("Disk", "Full"), 10, 20, "text", "hash", "https://x", "v1"
    )


async def test_a_submitted_rfc_comes_with_its_job(database: Database, rfcs: RfcRepository) -> None:
    rfc = await rfcs.submit(
        "  A \n title ", "brief", "new_feature", "ada", ["user:ada"], {"q": "a"}, {"groups": ["platform"]}
    )
    assert (rfc.title, rfc.status, rfc.template, rfc.answers) == (
        "A title",
        "queued",
        "new_feature",
        {"q": "a"},
    )
    job = await JobRepository(database).claim("rfc", "w", 60)
    assert job is not None
    assert job.id == rfc.job_id
    assert job.payload == {"rfc_id": str(rfc.id), "groups": ["platform"]}


async def test_the_same_key_returns_the_first_rfc(database: Database, rfcs: RfcRepository) -> None:
    first = await rfcs.submit("One", "", "t", "ada", ["user:ada"], {}, idempotency_key="ada:k")
    again = await rfcs.submit("Two", "", "t", "ada", ["user:ada"], {}, idempotency_key="ada:k")
    assert again == first
    assert len((await rfcs.page(["user:ada"], None, 10)).items) == 1


async def test_create_for_a_job_is_repeatable(database: Database, rfcs: RfcRepository) -> None:
    job = await JobRepository(database).enqueue("rfc", {})
    rfc_id = new_id()
    made = [
        await rfcs.create(rfc_id, title, "", "t", "ada", ["user:ada"], job.id, {}) for title in ("One", "Two")
    ]
    assert made[0] == made[1]
    with pytest.raises(NotFound):
        await rfcs.create(new_id(), "One", "", "t", "ada", ["user:ada"], uuid4(), {})


async def test_only_holders_of_a_shared_term_see_it(rfcs: RfcRepository) -> None:
    shared = await submit(rfcs, acl=["user:bob", "group:platform"])
    private = await submit(rfcs, acl=["user:bob"])
    assert await rfcs.get(shared.id, ADA.acl_terms()) == shared
    assert await rfcs.get(private.id, ADA.acl_terms()) is None
    assert await rfcs.get(shared.id, MALLORY.acl_terms()) is None
    assert await rfcs.get(shared.id, ()) is None
    assert [r.id for r in (await rfcs.page(BOB.acl_terms(), None, 10)).items] == [private.id, shared.id]
    assert [r.id for r in (await rfcs.page(ADA.acl_terms(), None, 10)).items] == [shared.id]
    assert (await rfcs.page(MALLORY.acl_terms(), None, 10)).items == ()


async def test_pages_are_newest_first_and_complete(rfcs: RfcRepository) -> None:
    made = [(await submit(rfcs, f"Nr {n}")).id for n in range(7)]
    await submit(rfcs, acl=["user:bob"])
    seen, cursor = [], None
    for size in (3, 3, 1):
        page = await rfcs.page(ADA.acl_terms(), cursor, 3)
        assert len(page.items) == size
        seen += [rfc.id for rfc in page.items]
        cursor = page.next_cursor
    assert seen == made[::-1]
    assert cursor is None
    assert (await rfcs.page(ADA.acl_terms(), None, 7)).next_cursor is None


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_page_of_strange_size_is_refused(rfcs: RfcRepository, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit must be between 1 and 200"):
        await rfcs.page(["public"], None, limit)


@pytest.mark.parametrize(
    ("title", "acl", "field"), [(" \n", ["x"], "title"), ("x" * 501, ["x"], "title"), ("x", [], "acl")]
)
async def test_bad_fields_are_named(rfcs: RfcRepository, title: str, acl: list[str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await submit(rfcs, title, acl)
    assert caught.value.extra["field"] == field


async def test_stages_are_kept_in_order_and_replaced(rfcs: RfcRepository) -> None:
    rfc = await submit(rfcs)
    await rfcs.save_stage(rfc.id, "questions", {"items": ["a\x00", float("nan")]}, "m", 12)
    await rfcs.save_stage(rfc.id, "brief", {"n": 1}, None, None)
    await rfcs.save_stage(rfc.id, "questions", {"items": ["b"]}, "n", 13)
    stages = await rfcs.stages(rfc.id)
    assert list(stages) == ["questions", "brief"]
    assert (stages["questions"].artefact, stages["questions"].model) == ({"items": ["b"]}, "n")
    assert (stages["brief"].model, stages["brief"].duration_ms) == (None, None)
    running = await rfcs.get(rfc.id, ADA.acl_terms())
    assert running is not None
    assert running.status == "running"


async def test_finishing_stores_document_and_citations_together(rfcs: RfcRepository) -> None:
    rfc = await submit(rfcs)
    cited = [citation(1), citation(2)]
    for _ in range(2):
        await rfcs.finish(rfc.id, "# Queue [1][2]", cited, "llama_cpp", 900, Decimal("0.012345"), 4200)
    done = await rfcs.get(rfc.id, ADA.acl_terms())
    assert done is not None
    assert (done.status, done.content_markdown, done.tokens_used) == ("done", "# Queue [1][2]", 900)
    assert (done.cost_usd, done.generation_time_ms) == (Decimal("0.012345"), 4200)
    assert await rfcs.citations(rfc.id) == tuple(cited)
    await rfcs.fail(rfc.id, "late")
    assert await rfcs.get(rfc.id, ADA.acl_terms()) == done


async def test_a_broken_citation_leaves_the_rfc_as_it_was(rfcs: RfcRepository) -> None:
    rfc = await submit(rfcs)
    with pytest.raises(InvalidInput):
        await rfcs.finish(rfc.id, "text", [citation(1), citation(0)], None, None, None, None)
    assert await rfcs.get(rfc.id, ADA.acl_terms()) == rfc
    assert await rfcs.citations(rfc.id) == ()


async def test_failure_and_cancelling_end_an_rfc(rfcs: RfcRepository) -> None:
    failed, cancelled = await submit(rfcs), await submit(rfcs)
    await rfcs.fail(failed.id, "No model answers.")
    await rfcs.cancel(cancelled.id)
    records = {r.id: r for r in (await rfcs.page(ADA.acl_terms(), None, 10)).items}
    assert (records[failed.id].status, records[failed.id].error) == ("failed", "No model answers.")
    assert records[cancelled.id].status == "cancelled"
