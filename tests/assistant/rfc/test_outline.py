from assistant.rfc.artefacts import OutlineArtefact, PlannedSection
from assistant.rfc.outline import OutlineStage
from assistant.rfc.work import Work
from tests.assistant.rfc.world import WordSearcher, until, work


async def planned(job: Work) -> dict[str, PlannedSection]:
    return {s.key: s for s in (await until(job, "outline")).of(OutlineArtefact).sections}


async def test_each_sentence_of_the_user_has_one_home_besides_the_summary() -> None:
    sections = await planned(work())
    refs = [ref for key, s in sections.items() if key != "summary" for ref in s.brief]
    assert sorted(refs) == ["b1", "b2", "b3", "b4"]
    assert sections["motivation"].brief == ("b1",)
    assert sections["proposal"].brief == ("b2",)
    assert sections["goals"].brief == ("b3",)
    assert sections["non_goals"].brief == ("b4",)
    assert sections["summary"].brief == ("b1", "b2", "b3")


async def test_without_a_proposing_sentence_the_title_is_the_proposal() -> None:
    sections = await planned(work("A read cache", "Pages are slow."))
    assert sections["proposal"].brief == ("b0",)


async def test_answers_go_where_their_question_belongs() -> None:
    sections = await planned(work(answers={"security": "Only the storage team may."}))
    assert "a1" in sections["risks"].brief
    assert "a1" not in sections["summary"].brief
    assert all("Who may use it" not in q for q in sections["risks"].clarify)


async def test_clarifications_stay_few() -> None:
    sections = await planned(work("A cache", "We want one.", max_questions=7, max_clarifications=2))
    assert sum(len(s.clarify) for s in sections.values()) == 2


async def test_an_optional_section_without_anything_is_left_out_with_a_reason() -> None:
    job = work("Cache", "Pages are slow.", searcher=WordSearcher(()), max_questions=0)
    optional = [s.model_copy(update={"required": s.key != "alternatives"}) for s in job.template.sections]
    job.template = job.template.model_copy(update={"sections": tuple(optional)})
    await until(job, "evidence")
    outline = await OutlineStage().run(job)
    gone = [s for s in outline.sections if not s.keep]
    assert [s.key for s in gone] == ["alternatives"]
    assert "left out" in gone[0].reason
    assert "Alternatives" not in [s.title for s in outline.kept()]
    risks = next(s for s in outline.sections if s.key == "risks")
    assert risks.keep
    assert "nothing is known" in risks.reason
