import pytest

from assistant.llm.providers.scripted import Reply
from assistant.rfc.artefacts import (
    BriefSentence,
    OutlineArtefact,
    Passage,
    SectionDraft,
    SectionsArtefact,
    Statement,
)
from assistant.rfc.composing import NO_BRIEF, NO_EVIDENCE
from assistant.rfc.free import judge, read_reply, split_marked
from assistant.rfc.lead import first_sentence, refused
from assistant.rfc.sections import SectionsStage
from tests.assistant.rfc.world import WordSearcher, chunk_id, passage_hit, router, until, work

SAID = [
    BriefSentence("b0", "Automatic expansion of filling volumes", "context"),
    BriefSentence("b1", "A controller expands a volume by 20% when less than 10% of it is free.", "proposal"),
]
FILLING = Passage.of(passage_hit("filling"), 1.0)
CANARY = Passage.of(passage_hit("canary"), 1.0)


def by_key(artefact: SectionsArtefact) -> dict[str, SectionDraft]:
    return {s.key: s for s in artefact.sections}


def words(draft: SectionDraft, origin: str) -> list[str]:
    return [s.text for b in draft.blocks for s in b.statements if s.origin == origin]


async def test_assembled_sections_hold_only_the_users_words_and_quotations() -> None:
    job = await until(work(), "sections")
    written = job.of(SectionsArtefact)
    assert written.writing == "extractive"
    assert written.complete
    for draft in written.sections:
        assert words(draft, "model") == []
        for block in draft.blocks:
            assert all(s.pointers for s in block.statements if s.origin != "template")
    sections = by_key(written)
    assert words(sections["proposal"], "brief") == [
        "We will build a controller that expands a volume by 20% when less than 10% of it is free."
    ]
    assert "A canary release sends 5% of the traffic to the new version first." in words(
        sections["rollout"], "evidence"
    )
    assert [b.kind for b in sections["rollout"].blocks].count("task") == 4


async def test_without_evidence_a_section_says_so() -> None:
    job = await until(work("Cache", "Pages are slow.", searcher=WordSearcher(())), "sections")
    sections = by_key(job.of(SectionsArtefact))
    assert NO_EVIDENCE in words(sections["design_details"], "template")
    assert NO_EVIDENCE in words(sections["observability"], "template")


async def test_a_section_of_the_brief_that_it_does_not_fill_says_so() -> None:
    job = await until(work("Cache", "Pages are slow.", max_questions=0), "sections")
    assert words(by_key(job.of(SectionsArtefact))["goals"], "template") == [NO_BRIEF]


GOOD_LEAD = "Every rollout needs a rollback of less than 5 minutes."


async def test_a_small_model_adds_a_sentence_only_if_it_survives_the_checks() -> None:
    replies = [
        Reply(GOOD_LEAD, match='"Rollout'),
        Reply("Rollouts take 7 hours with Spinnaker on 3 clusters."),
    ]
    job = await until(work(llm=router(replies), lead_sentences=True), "sections")
    sections = by_key(job.of(SectionsArtefact))
    assert words(sections["rollout"], "model") == [GOOD_LEAD]
    (lead,) = [s for b in sections["rollout"].blocks for s in b.statements if s.origin == "model"]
    assert [p.chunk_id for p in lead.pointers] == [chunk_id("canary")] * len(lead.pointers)
    others = [s for k, s in sections.items() if k != "rollout"]
    assert all(words(s, "model") == [] for s in others)
    assert any("not in its source" in d.reason for s in others for d in s.dropped)


async def test_a_small_model_is_left_alone_unless_it_may_lead() -> None:
    llm = router([GOOD_LEAD])
    written = (await until(work(llm=llm), "sections")).of(SectionsArtefact)
    assert written.writing == "extractive"
    (backend,) = [line.backend for line in llm._lines.values()]
    assert backend.requests == []


def test_a_sentence_made_of_two_sources_is_refused() -> None:
    quotes = [
        Statement("Thanos is a set of components that form a highly available setup.", "evidence"),
        Statement("The Compactor also optimizes data reads for long-range queries.", "evidence"),
    ]
    mixed = "The Compactor is a set of components that form a highly available setup."
    assert refused(mixed, quotes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too short.", "length"),
        ("The notes say that a canary release sends traffic to the new version.", "task"),
        ("A canary release sends 5% of the traffic to the new version first.", "repeats"),
        ("A canary release sends 50% of the traffic to the new version.", "50%"),
        ("A canary release never sends traffic to the new version.", "negates"),
        ("Elephants walk slowly through the wide green valleys of home.", "words"),
        ("The new version sends a canary release of 5%.", "order"),
    ],
)
def test_why_a_lead_sentence_is_refused(text: str, reason: str) -> None:
    quotes = [Statement("A canary release sends 5% of the traffic to the new version first.", "evidence")]
    assert reason in str(refused(text, quotes))


def test_the_first_sentence_of_a_chatty_reply() -> None:
    assert first_sentence('Sentence: "A volume grows. It is good."') == "A volume grows."
    assert first_sentence("- A **volume** grows.\n- And more.") == "A volume grows."
    assert first_sentence("  ") == ""


FREE = """## Design details

The capacity of the volume is increased where resizing is available. [1] A controller expands a volume by 20% [b1].
It also needs 99 servers [1].

- The storage class says whether a volume can grow: look at `ALLOWVOLUMEEXPANSION` [1].
- Bananas are yellow [1].

```python
print("hello")
```

| a | b |
|---|---|

[NEEDS CLARIFICATION: Which storage classes are used?]
"""


def test_free_text_is_kept_sentence_by_sentence() -> None:
    draft = read_reply(SectionDraft("design", "Design details", ()), FREE, SAID, [FILLING, CANARY])
    assert words(draft, "model") == [
        "The capacity of the volume is increased where resizing is available.",
        "A controller expands a volume by 20%.",
        "The storage class says whether a volume can grow: look at `ALLOWVOLUMEEXPANSION`.",
    ]
    assert [b.kind for b in draft.blocks] == ["paragraph", "bullet", "clarification"]
    assert {d.reason.split(":")[0] for d in draft.dropped} == {
        "code is not checked",
        "not in its source",
        "only 0% of its words are in its source",
    }


def test_markers_before_and_after_the_full_stop_belong_to_the_same_sentence() -> None:
    assert split_marked("One here. [1] Two there [2, b1]. Three. [3][4]") == [
        ("One here.", ("1",)),
        ("Two there.", ("2", "b1")),
        ("Three.", ("3", "4")),
    ]


def test_a_sentence_with_a_wrong_or_no_marker_gets_the_source_that_supports_it_or_goes() -> None:
    sentence = "A canary release sends 5% of the traffic to the new version."
    for marks in ((), ("9",)):
        kept = judge(sentence, marks, SAID, [FILLING, CANARY])
        assert isinstance(kept, Statement)
        assert [p.chunk_id for p in kept.pointers] == [chunk_id("canary")]
    assert isinstance(judge(sentence, ("1",), SAID, [FILLING, CANARY]), str)
    assert isinstance(judge("The moon is made of cheese.", (), SAID, [FILLING, CANARY]), str)


async def test_a_large_model_writes_and_a_section_it_fails_is_assembled() -> None:
    said = "An integration test of a controller runs against a real API server."
    replies = [
        Reply(f"{said} [1]", match='"Test plan"'),
        Reply("x", match='"Rollout', fail_after=0),
        Reply("NOTHING"),
    ]
    job = await until(work(llm=router(replies, "free"), parallel_sections=1, max_questions=0), "sections")
    written = job.of(SectionsArtefact)
    sections = by_key(written)
    assert written.writing == "free"
    assert not sections["test_plan"].extractive
    assert words(sections["test_plan"], "model") == [said]
    assert sections["rollout"].extractive
    assert words(sections["rollout"], "evidence")
    assert sections["rollout"].use.failures
    assert sections["proposal"].extractive
    assert words(sections["proposal"], "brief")


async def test_sections_are_reported_in_order_and_a_rerun_writes_only_the_missing() -> None:
    llm = router(["NOTHING"], "free")
    job = await until(work(llm=llm, parallel_sections=4, max_questions=0), "outline")
    seen: list[SectionsArtefact] = []

    async def keep(so_far: SectionsArtefact) -> None:
        seen.append(so_far)

    whole = await SectionsStage().run(job, keep)
    kept = [p.key for p in job.of(OutlineArtefact).kept()]
    assert [s.sections[-1].key for s in seen] == kept
    assert not any(s.complete for s in seen)
    (backend,) = [line.backend for line in llm._lines.values()]
    before = len(backend.requests)
    again = await SectionsStage().run(job, keep, seen[7])
    assert again == whole
    assert len(backend.requests) - before == before - 8
