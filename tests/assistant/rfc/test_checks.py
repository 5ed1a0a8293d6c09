from dataclasses import replace
from uuid import uuid4

import pytest

from assistant.rfc.artefacts import (
    Block,
    ChecksArtefact,
    EvidenceArtefact,
    Pointer,
    SectionsArtefact,
    Statement,
)
from assistant.rfc.checks import ChecksStage
from assistant.rfc.work import Work
from tests.assistant.rfc.world import chunk_id, until, work

QUOTE = "A canary release sends 5% of the traffic to the new version first."


async def planted(statement: Statement, key: str = "alternatives") -> tuple[Work, ChecksArtefact]:
    """The checks of a document into which somebody put one more statement."""
    job = await until(work(), "sections")
    written = job.of(SectionsArtefact)
    drafts = [
        replace(s, blocks=(*s.blocks, Block("paragraph", (statement,)))) if s.key == key else s
        for s in written.sections
    ]
    job.artefacts["sections"] = replace(written, sections=tuple(drafts))
    return job, await ChecksStage().run(job)


def shown(checks: ChecksArtefact) -> list[str]:
    return [s.text for d in checks.sections for b in d.blocks for s in b.statements]


def pointer(name: str = "canary", start: int = 100, end: int | None = None) -> Pointer:
    return Pointer(chunk_id=chunk_id(name), start=start, end=end if end is not None else start + len(QUOTE))


async def test_a_clean_document_loses_nothing() -> None:
    job = await until(work(), "checks")
    checks = job.of(ChecksArtefact)
    assert checks.dropped == ()
    assert shown(checks) == [
        s.text for d in job.of(SectionsArtefact).sections for b in d.blocks for s in b.statements
    ]
    assert all(c.ok for c in checks.checks if c.name.startswith("Dropped"))


PLANTED = [
    (
        "a chunk that is not evidence",
        Statement(QUOTE, "model", (Pointer(chunk_id=uuid4(), start=100, end=120),)),
    ),
    ("offsets outside the passage", Statement(QUOTE, "model", (pointer(start=0, end=50),))),
    ("offsets behind the passage", Statement(QUOTE, "model", (pointer(start=100, end=9000),))),
    ("no citation at all", Statement(QUOTE, "model")),
    ("a brief sentence that does not exist", Statement("We expand volumes.", "brief", (Pointer(ref="b99"),))),
    ("words that the user did not write", Statement("We expand volumes.", "brief", (Pointer(ref="b2"),))),
    ("a quotation with a changed number", Statement(QUOTE.replace("5%", "50%"), "evidence", (pointer(),))),
    (
        "a number changed by the model",
        Statement("A canary sends 9% of the traffic first.", "model", (pointer(),)),
    ),
    (
        "a name changed by the model",
        Statement("A canary release uses Spinnaker for traffic.", "model", (pointer(),)),
    ),
    ("another passage than cited", Statement(QUOTE, "model", (pointer("alerts", 100, 180),))),
    (
        "a negated claim",
        Statement("A canary release never sends traffic to the new version.", "model", (pointer(),)),
    ),
]


@pytest.mark.parametrize(("fault", "statement"), PLANTED, ids=[name for name, _ in PLANTED])
async def test_a_planted_fault_is_taken_out_and_counted(fault: str, statement: Statement) -> None:
    job, checks = await planted(statement)
    assert statement.text not in shown(checks) or statement.text == QUOTE
    assert [d.text for d in checks.dropped] == [statement.text], fault
    assert not all(c.ok for c in checks.checks if c.name.startswith("Dropped"))
    assert job.of(EvidenceArtefact).passages


async def test_a_repeated_sentence_stays_once() -> None:
    _, checks = await planted(Statement(QUOTE, "evidence", (pointer(),)))
    assert shown(checks).count(QUOTE) == 1
    assert any("already" in d.reason for d in checks.dropped)


async def test_vague_words_and_unanswered_questions_become_open_points() -> None:
    job = await until(
        work("A cache", "Pages should be fast and robust for users. TBD by the team."), "checks"
    )
    checks = job.of(ChecksArtefact)
    assert any("fast" in p for p in checks.open_points)
    assert any("Who may use it" in p for p in checks.open_points)
    figures = {c.name: c.figure for c in checks.checks}
    assert figures["Vague words in the brief"] == "2"
    assert figures["Placeholders"] == "1"


async def test_clarifications_beyond_the_limit_are_only_listed() -> None:
    job = await until(work(max_clarifications=5), "sections")
    written = job.of(SectionsArtefact)
    many = tuple(Block("clarification", (Statement(f"What about part {n}?", "template"),)) for n in range(8))
    job.artefacts["sections"] = replace(
        written, sections=(replace(written.sections[0], blocks=many), *written.sections[1:])
    )
    checks = await ChecksStage().run(job)
    marks = [b for d in checks.sections for b in d.blocks if b.kind == "clarification"]
    assert len(marks) == 5
    assert {f"What about part {n}?" for n in range(8)} <= set(checks.open_points)


async def test_a_missing_section_is_seen() -> None:
    job = await until(work(), "sections")
    written = job.of(SectionsArtefact)
    job.artefacts["sections"] = replace(written, sections=written.sections[1:])
    checks = await ChecksStage().run(job)
    assert not checks.checks[0].ok
