"""Feedback becomes examples: whole, once, for the right eyes, and in step with what people change."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from assistant.clock import new_id, stable_id
from assistant.learning.examples import MAKER
from assistant.stores.answers import AnswerLog, AnswerRecord, AnswerRepository
from assistant.stores.documents import DocumentRecord, DocumentRepository
from assistant.stores.examples import ExampleRepository, Maker, RatedAnswer
from assistant.stores.feedback import FeedbackRepository, Opinion
from assistant.stores.learning_runs import LearningRunRepository
from assistant.stores.postgres import Database
from assistant.stores.rfcs import RfcRepository
from assistant.stores.sources import SourceRepository
from assistant.types import Answer, Citation, Hit, Message, Usage

pytestmark = pytest.mark.integration

TEXT = "Delete old snapshots first, then grow the volume by ten gigabytes [1]."
GOOD = Opinion(thumb=1)


class Desk:
    """The stores of one test and what people do with them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.documents = DocumentRepository(database)
        self.sources = SourceRepository(database)
        self.answers = AnswerRepository(database)
        self.feedback = FeedbackRepository(database)
        self.examples = ExampleRepository(database)
        self.rfcs = RfcRepository(database)

    async def document(self, *acl: str, name: str | None = None) -> UUID:
        source = await self.sources.ensure("runbooks", "search_sources", "folder", {})
        name = name or str(uuid4())
        record = DocumentRecord(
            stable_id(str(source.id), name), source.id, name, name, "hash", "text/plain", acl=acl
        )
        return (await self.documents.begin([record]))[0]

    async def answered(
        self,
        *documents: UUID,
        who: str = "ada",
        question: str = "What when the disk is full?",
        text: str = TEXT,
        history: Sequence[Message] = (),
        store: bool = True,
    ) -> AnswerRecord:
        hits = tuple(hit(document) for document in documents)
        cited = tuple(citation(n, h) for n, h in enumerate(hits, 1))
        answer = Answer(text, cited, "m", bool(hits), True, Usage(), evidence=hits)
        record = AnswerRecord.of(answer, [*history, Message("user", question)], who)
        if store:
            await self.store(record)
        return record

    async def store(self, record: AnswerRecord) -> None:
        log = AnswerLog(self.database)
        log.record(record)
        await log.close()
        assert log.dropped == 0

    async def rate(self, answer: AnswerRecord, opinion: Opinion, who: str = "ada", **more: Any) -> None:
        await self.feedback.give("answer", answer.id, who, opinion, **more)

    async def refresh(self) -> int:
        return await self.examples.refresh(MAKER)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def hit(document_id: UUID) -> Hit:
    return Hit(
        chunk_id=uuid4(),
        document_id=document_id,
        score=1.0,
        text="Delete old snapshots. Then grow the volume.",
        title="Runbook",
        headings=("Disk",),
        start=0,
        end=10,
        source="runbooks",
        source_type="search_sources",
        external_id="a.md",
        content_hash="h",
    )


def citation(marker: int, of: Hit) -> Citation:
    return Citation(marker, of.chunk_id, of.document_id, of.title, of.headings, 0, 10, "Delete", "h")


async def test_a_good_answer_becomes_an_example(desk: Desk) -> None:
    document = await desk.document("public")
    answer = await desk.answered(document)
    await desk.rate(answer, GOOD)
    assert await desk.refresh() == 1
    (example,) = await desk.examples.usable(0.6)
    assert (example.kind, example.response, example.quality) == ("answer", TEXT, 1.0)
    assert (example.acl, example.document_ids) == (("public",), (document,))
    assert [m.role for m in example.messages] == ["system", "user"]
    assert '<passage number="1" title="Runbook" section="Disk">' in example.messages[0].content
    assert example.messages[1].content == "What when the disk is full?"
    assert example.metadata["model"] == "m"
    stats = await desk.examples.stats()
    assert (stats["usable"], stats["by_kind"], stats["quality"][9]) == (1, {"answer": 1, "rfc_section": 0}, 1)


async def test_refreshing_again_changes_nothing(desk: Desk) -> None:
    answer = await desk.answered(await desk.document("public"))
    await desk.rate(answer, GOOD)
    assert await desk.refresh() == 1
    (before,) = await desk.examples.usable(0.6)
    assert await desk.refresh() == 0
    assert (await desk.examples.usable(0.6)) == [before]
    since = (await LearningRunRepository(desk.database).start({}))[0].created_at
    await desk.rate(answer, GOOD)
    assert await desk.refresh() == 1
    assert await desk.examples.new_since(since) == 0


async def test_a_changed_opinion_changes_its_example(desk: Desk) -> None:
    answer = await desk.answered(await desk.document("public"))
    await desk.rate(answer, GOOD)
    await desk.refresh()
    await desk.rate(answer, Opinion(thumb=-1, comment="outdated"))
    await desk.refresh()
    assert await desk.examples.usable(0.0) == []
    (row,) = (await desk.examples.page(["public"], None, 10)).items
    assert (row.positive, row.stars, row.improvement_areas) == (False, 1, ("freshness",))
    edited = TEXT.replace("ten", "twenty")
    await desk.rate(answer, Opinion(thumb=-1, edited_text=edited))
    await desk.refresh()
    (example,) = await desk.examples.usable(0.6)
    assert example.response == edited
    assert example.metadata["edited"] is True
    await desk.rate(answer, Opinion(comment="never mind"))
    await desk.refresh()
    assert (await desk.examples.stats())["total"] == 0


async def test_an_answer_without_evidence_is_nothing_to_imitate(desk: Desk) -> None:
    answer = await desk.answered(text="I found nothing in the knowledge base that answers this question.")
    await desk.rate(answer, GOOD)
    await desk.refresh()
    assert await desk.examples.usable(0.0) == []


@pytest.mark.parametrize(
    ("acls", "expected"),
    [
        ([["public"], ["public", "group:x"]], ("public",)),
        ([["public"], ["group:x", "group:y"]], ("group:x", "group:y")),
        ([["group:x", "group:y"], ["group:y", "group:z"]], ("group:y",)),
        ([["group:x"], ["group:y"]], ("user:ada",)),
        ([["user:bob"]], ("user:bob",)),
    ],
)
async def test_an_example_is_for_who_may_see_all_evidence(
    desk: Desk, acls: list[list[str]], expected: tuple[str, ...]
) -> None:
    answer = await desk.answered(*[await desk.document(*acl) for acl in acls])
    await desk.rate(answer, GOOD)
    await desk.refresh()
    everything = ExampleRepository(
        desk.database, audience=("public", "group:x", "group:y", "group:z", "user:ada", "user:bob")
    )
    (example,) = await everything.usable(0.6)
    assert example.acl == expected
    assert len(await desk.examples.usable(0.6)) == (expected == ("public",))
    terms = ["public", *expected]
    visible = (await desk.examples.page(terms, None, 10)).items
    # The owner's own term stands for what was seen; the documents are asked as well.
    assert len(visible) == (expected != ("user:ada",))
    assert (await desk.examples.page(["public", "group:none"], None, 10)).items == (
        visible if expected == ("public",) else ()
    )


async def test_earlier_turns_keep_an_example_with_its_author(desk: Desk) -> None:
    history = [Message("user", "Hello?"), Message("assistant", "A secret of another document.")]
    answer = await desk.answered(await desk.document("public"), history=history)
    assert await desk.answers.visible(answer.id, "bob", ["public", "user:bob"]) is False
    assert await desk.answers.visible(answer.id, "ada", ["public"]) is True
    await desk.rate(answer, GOOD)
    await desk.refresh()
    assert await desk.examples.usable(0.6) == []


async def test_documents_that_close_or_vanish_take_their_examples_along(desk: Desk) -> None:
    document = await desk.document("public", name="a.md")
    answer = await desk.answered(document)
    await desk.rate(answer, GOOD)
    await desk.refresh()
    assert await desk.answers.visible(answer.id, "bob", ["public"]) is True
    await desk.document("group:x", name="a.md")
    assert await desk.answers.visible(answer.id, "bob", ["public"]) is False
    assert await desk.examples.usable(0.6) == []
    assert (await desk.examples.page(["public"], None, 10)).items == ()
    assert await desk.examples.renew_access() == 1
    assert [r.example.acl for r in (await desk.examples.page(["group:x"], None, 10)).items] == [("group:x",)]
    await desk.document("public", name="a.md")
    await desk.examples.renew_access()
    assert len(await desk.examples.usable(0.6)) == 1
    await desk.documents.forget([document])
    assert await desk.examples.usable(0.6) == []
    assert await desk.answers.visible(answer.id, "bob", ["public"]) is False


async def test_the_same_answer_twice_is_one_example(desk: Desk) -> None:
    document = await desk.document("public")
    one = await desk.answered(document)
    two = await desk.answered(document, who="bob", question="what when  the disk is full?")
    await desk.rate(one, Opinion(stars=4))
    await desk.rate(two, Opinion(stars=5), "bob")
    await desk.refresh()
    (example,) = await desk.examples.usable(0.6)
    assert example.quality == pytest.approx(0.875 * 0.875, abs=0.01)
    assert (await desk.examples.stats())["total"] == 2


async def test_raters_of_the_same_words_contradict_each_other(desk: Desk) -> None:
    document = await desk.document("public")
    one, two = await desk.answered(document), await desk.answered(document, who="bob")
    await desk.rate(one, GOOD)
    await desk.refresh()
    assert len(await desk.examples.usable(0.6)) == 1
    await desk.rate(two, Opinion(thumb=-1), "bob")
    await desk.refresh()
    assert await desk.examples.usable(0.6) == []
    assert "agreement" in (await desk.examples.stats())["improvement_areas"]


async def test_feedback_waits_for_an_answer_that_is_written_later(desk: Desk) -> None:
    answer = await desk.answered(await desk.document("public"), store=False)
    await desk.rate(answer, GOOD, verified=False)
    await desk.rate(answer, Opinion(thumb=-1), "eve", verified=False)
    assert await desk.refresh() == 0
    assert (await desk.feedback.stats())["waiting"] == 2
    await desk.store(answer)
    assert await desk.refresh() == 1
    (example,) = await desk.examples.usable(0.6)
    assert example.quality == 1.0
    assert (await desk.feedback.stats())["waiting"] == 1


async def test_a_crash_in_the_middle_loses_nothing(desk: Desk) -> None:
    answers = [
        await desk.answered(await desk.document("public"), question=f"Question number {n}?") for n in range(3)
    ]
    for answer in answers:
        await desk.rate(answer, GOOD)

    def breaks(rated: RatedAnswer) -> Any:
        if rated.answer.id == answers[2].id:
            raise RuntimeError("killed")
        return MAKER.of_answer(rated)

    with pytest.raises(RuntimeError):
        await desk.examples.refresh(Maker(breaks, MAKER.of_rfc))
    assert (await desk.feedback.stats())["waiting"] == 3
    assert await desk.refresh() == 3
    assert len(await desk.examples.usable(0.6)) == 3


async def test_many_at_once_make_each_example_once(desk: Desk) -> None:
    for n in range(5):
        answer = await desk.answered(await desk.document("public"), question=f"Question number {n}?")
        await desk.rate(answer, GOOD)
    counts = await asyncio.gather(*(desk.refresh() for _ in range(4)))
    assert sum(counts) == 5
    assert await desk.examples.new_since(None) == 5


async def rfc_of(desk: Desk, owner: str, acl: list[str], document: UUID) -> UUID:
    rfc = await desk.rfcs.submit("Rate limits", "Protect the API.", "new_feature", owner, acl, {})
    body = "The API answers 429 beyond the limit of a team [1]. It keeps the others alive [b1]."
    markdown = (
        f"# Rate limits\n\n## Summary\n\n{body}\n\n## Goals\n\n{body}\n\n## References\n\n- [1] Runbook\n"
    )
    await desk.rfcs.finish(rfc.id, markdown, [citation(1, hit(document))], None, None, None, None)
    return rfc.id


async def test_sections_of_a_rated_rfc_become_examples(desk: Desk) -> None:
    document = await desk.document("public")
    rfc_id = await rfc_of(desk, "local", ["public"], document)
    await desk.feedback.give("rfc", rfc_id, "local", Opinion(thumb=1))
    await desk.refresh()
    whole = await desk.examples.usable(0.6)
    assert {e.metadata["quality"]["opinion"] for e in whole} == {0.85}
    assert await desk.examples.new_since(None) == 1
    await desk.feedback.give(
        "rfc", rfc_id, "local", Opinion(edited_text="Better words. " * 5), section="Goals"
    )
    await desk.refresh()
    by_section = {str(e.messages[0].content).split('"')[1]: e for e in await desk.examples.usable(0.6)}
    assert set(by_section) == {"Summary", "Goals"}
    assert by_section["Goals"].response == ("Better words. " * 5).strip()
    summary = by_section["Summary"]
    assert summary.response == ("The API answers 429 beyond the limit of a team. It keeps the others alive.")
    assert (summary.document_ids, summary.rfc_id, summary.acl) == ((document,), rfc_id, ("public",))
    assert "Protect the API." in summary.messages[0].content
    assert await desk.examples.new_since(None) == 2


async def test_an_rfc_of_one_person_stays_theirs(desk: Desk) -> None:
    rfc_id = await rfc_of(desk, "ada", ["user:ada"], await desk.document("public"))
    await desk.feedback.give("rfc", rfc_id, "ada", Opinion(stars=5))
    await desk.refresh()
    assert await desk.examples.usable(0.6) == []
    seen = (await desk.examples.page(["public", "user:ada"], None, 10)).items
    assert {row.example.acl for row in seen} == {("user:ada",)}
    assert (await desk.examples.page(["public", "user:bob"], None, 10)).items == ()


async def test_pages_follow_each_other(desk: Desk) -> None:
    document = await desk.document("public")
    for n in range(3):
        await desk.rate(await desk.answered(document, question=f"Question number {n}?"), GOOD)
    await desk.refresh()
    first = await desk.examples.page(["public"], None, 2)
    rest = await desk.examples.page(["public"], first.next_cursor, 2)
    assert len({row.example.id for row in (*first.items, *rest.items)}) == 3
    assert rest.next_cursor is None


async def test_hostile_text_is_stored_as_it_can_be(desk: Desk) -> None:
    answer = await desk.answered(
        await desk.document("public"), text="NUL \x00 and \ud800 in it, eight words [1]."
    )
    answer = replace(answer, id=new_id())
    await desk.store(answer)
    await desk.rate(answer, GOOD)
    await desk.refresh()
    (example,) = await desk.examples.usable(0.6)
    assert example.response == "NUL  and ? in it, eight words [1]."
