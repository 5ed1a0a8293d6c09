import json

from assistant.llm.providers.scripted import Reply
from assistant.rfc.artefacts import BriefArtefact, QuestionsArtefact
from assistant.rfc.questions import QuestionsStage, parse
from tests.assistant.rfc.world import router, until, work


async def test_only_what_the_brief_leaves_open_is_asked() -> None:
    asked = (await until(work(), "questions")).of(QuestionsArtefact)
    ids = {q.id for q in asked.open()}
    assert {"security", "rollout", "data"} <= ids
    assert "users" not in ids, "the brief names the engineer on call"
    assert "non_goals" not in ids, "the brief says what is out of scope"


async def test_at_most_max_questions_are_asked() -> None:
    asked = (await until(work("A cache", "We want one.", max_questions=2), "questions")).of(QuestionsArtefact)
    assert len(asked.open()) == 2


async def test_answers_count_whether_keyed_by_id_or_by_the_question() -> None:
    answers = {
        "security": "Only the storage team may, by its OIDC group.",
        "In which steps is it introduced, and how is it switched off again?": "One cluster a week. A flag stops it.",
        "Which colour is it?": "Blue.",
        "scale": "  ",
    }
    asked = (await until(work(answers=answers), "questions")).of(QuestionsArtefact)
    assert {q.id for q in asked.questions if q.answer} == {"security", "rollout", "user-1"}
    assert not {q.id for q in asked.open()} & {"security", "rollout"}
    assert [(a.ref, a.section) for a in asked.answers] == [
        ("a1", "risks"),
        ("a2", "rollout"),
        ("a3", "rollout"),
        ("a4", "design_details"),
    ]


async def test_a_free_model_adds_questions_and_a_small_one_is_not_asked() -> None:
    reply = json.dumps(
        {
            "questions": [
                {"question": "What happens when the provider refuses the expansion?", "section": "risks"},
                {"question": "Not a question", "section": "risks"},
                {"question": "Who may use it, and how is it checked?", "section": "risks"},
                {"question": "Which place?", "section": "nowhere"},
            ]
        }
    )
    free = (await until(work(llm=router([reply], "free")), "questions")).of(QuestionsArtefact)
    assert [q.text for q in free.questions if q.origin == "model"] == [
        "What happens when the provider refuses the expansion?"
    ]
    assert free.use.calls == 1
    assert set(free.use.prompts) == {"questions"}
    small = (await until(work(llm=router([reply], "extractive")), "questions")).of(QuestionsArtefact)
    assert small.use.calls == 0


async def test_a_model_that_fails_or_babbles_costs_only_its_questions() -> None:
    for replies in ([Reply("x", fail_after=0)], ["I have no questions, thank you."], ['{"questions": 3}']):
        asked = (await until(work(llm=router(replies, "free")), "questions")).of(QuestionsArtefact)
        assert asked.open()
        assert all(q.origin == "template" for q in asked.open())


async def test_the_model_is_told_to_answer_by_schema() -> None:
    job = work(llm=router(['{"questions": []}'], "free"))
    await until(job, "brief")
    assert isinstance(job.artefacts["brief"], BriefArtefact)
    await QuestionsStage().run(job)
    (backend,) = [line.backend for line in job.llm._lines.values()]  # type: ignore[attr-defined]
    assert backend.requests[0].json_schema["required"] == ["questions"]


def test_unreadable_replies_give_no_questions() -> None:
    assert parse("{broken", ["risks"], []) == []
    assert parse('{"questions": [1, null, "x"]}', ["risks"], []) == []
