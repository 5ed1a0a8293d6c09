"""Feedback: one opinion per person and thing, kept before its target is, forgotten never."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from assistant.clock import new_id, now
from assistant.errors import InvalidInput
from assistant.stores.feedback import FeedbackRepository, Opinion, was_just_made
from assistant.stores.postgres import Database
from assistant.stores.searches import SearchLog, SearchRecord

pytestmark = pytest.mark.integration


@pytest.fixture
def feedback(database: Database) -> FeedbackRepository:
    return FeedbackRepository(database)


async def test_the_last_opinion_of_a_person_replaces_the_former(feedback: FeedbackRepository) -> None:
    target = new_id()
    first = await feedback.give("answer", target, "ada", Opinion(thumb=1, comment=" good \x00"))
    assert (first.thumb, first.comment) == (1, "good")
    again = await feedback.give("answer", target, "ada", Opinion(stars=2), verified=False)
    assert again.id == first.id
    assert (again.thumb, again.stars, again.comment) == (None, 2, None)
    assert again.verified
    assert again.updated_at > first.updated_at
    await feedback.give("answer", target, "bob", Opinion(thumb=-1))
    assert [f.stars for f in await feedback.own("answer", target, "ada")] == [2]
    assert (await feedback.stats())["total"] == 2


async def test_parts_are_things_of_their_own(feedback: FeedbackRepository) -> None:
    search, rfc = new_id(), new_id()
    chunks = [uuid4(), uuid4()]
    for chunk in (None, *chunks):
        await feedback.give("search", search, "ada", Opinion(thumb=1), chunk_id=chunk)
    for section in (None, "Goals", "Goals", "Risks"):
        await feedback.give("rfc", rfc, "ada", Opinion(stars=4), section=section)
    assert {f.chunk_id for f in await feedback.own("search", search, "ada")} == {None, *chunks}
    assert {f.section for f in await feedback.own("rfc", rfc, "ada")} == {None, "Goals", "Risks"}
    stats = await feedback.stats()
    assert stats["by_target"] == {"answer": 0, "search": 3, "rfc": 3}
    assert (stats["thumbs"], stats["stars"]["4"], stats["waiting"]) == ({"up": 3, "down": 0}, 3, 3)


@pytest.mark.parametrize(
    ("opinion", "field"),
    [
        (Opinion(), "thumb"),
        (Opinion(comment="  "), "thumb"),
        (Opinion(stars=6), "stars"),
        (Opinion(thumb=2), "thumb"),  # type: ignore[arg-type]
        (Opinion(comment="x" * 4001), "comment"),
        (Opinion(edited_text="x" * 50_001), "edited_text"),
    ],
)
async def test_a_bad_opinion_names_its_field(
    feedback: FeedbackRepository, opinion: Opinion, field: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        await feedback.give("answer", new_id(), "ada", opinion)
    assert raised.value.extra["field"] == field
    assert (await feedback.stats())["total"] == 0


async def test_rated_hits_come_with_their_query(database: Database, feedback: FeedbackRepository) -> None:
    chunk, other = uuid4(), uuid4()
    search = SearchRecord("disk full", principal_id="ada", chunk_ids=(chunk,))
    log = SearchLog(database)
    log.record(search)
    await log.close()
    seen = await feedback.search(search.id)
    assert seen is not None
    assert (seen.principal_id, seen.chunk_ids) == ("ada", (chunk,))
    assert await feedback.search(new_id()) is None
    await feedback.give("search", search.id, "ada", Opinion(stars=4), chunk_id=chunk)
    await feedback.give("search", search.id, "ada", Opinion(stars=4), chunk_id=other)
    await feedback.give("search", search.id, "eve", Opinion(thumb=-1), chunk_id=chunk, verified=False)
    (hit,) = await feedback.rated_hits()
    assert (hit.query, hit.chunk_id, hit.rating, hit.principal_id) == ("disk full", chunk, 0.75, "ada")


def test_only_fresh_ids_may_be_unknown() -> None:
    fresh = new_id()
    assert was_just_made(fresh)
    assert not was_just_made(fresh, now() + timedelta(minutes=3))
    assert not was_just_made(fresh, now() - timedelta(minutes=1))
    assert not was_just_made(uuid4())
    assert not was_just_made(UUID(int=0))
