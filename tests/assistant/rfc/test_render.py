import re
from dataclasses import replace

from assistant.rfc.artefacts import (
    Block,
    BriefArtefact,
    ChecksArtefact,
    EvidenceArtefact,
    Pointer,
    RenderArtefact,
    SectionsArtefact,
    Statement,
)
from assistant.rfc.export import export_markdown
from assistant.rfc.render import RenderStage
from assistant.rfc.templates import template
from tests.assistant.rfc.world import WordSearcher, chunk_id, router, until, work


def section(markdown: str, title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.MULTILINE | re.DOTALL)
    assert match
    return match[1]


async def test_all_sections_stand_in_order_and_every_marker_resolves() -> None:
    job = await until(work(), "render")
    rendered = job.of(RenderArtefact)
    titles = re.findall(r"^## (.+)$", rendered.markdown, re.MULTILINE)
    assert titles[:13] == [s.title for s in template("new_feature").sections]
    markers = {
        int(m)
        for m in re.findall(
            r"(?<!\\)\[(\d+)\]", rendered.markdown.split("## Open questions")[0].split("## Summary")[1]
        )
    }
    assert markers == {c.marker for c in rendered.citations}
    assert markers == set(range(1, len(markers) + 1))
    passages = job.of(EvidenceArtefact).by_id()
    for citation in rendered.citations:
        passage = passages[citation.chunk_id]
        assert passage.text[citation.start - passage.start : citation.end - passage.start] == citation.quote
        assert citation.content_hash == passage.content_hash
    refs = set(re.findall(r"\[([ab]\d+)\]", rendered.markdown))
    assert refs - {"a1"} <= {s.ref for s in job.of(BriefArtefact).sentences}


async def test_it_says_how_it_was_written() -> None:
    extractive = (await until(work(), "render")).of(RenderArtefact).markdown
    assert "Extractive" in extractive
    assert "none was available" in extractive
    free = router(["A canary release sends 5% of the traffic to the new version first [1]."], "free")
    written = (await until(work(llm=free, max_questions=0), "render")).of(RenderArtefact).markdown
    assert "Written by script" in written


async def test_open_questions_and_references_are_collected() -> None:
    markdown = (await until(work(), "render")).of(RenderArtefact).markdown
    assert "Who may use it, and how is that checked?" in section(markdown, "Open questions")
    assert "NEEDS CLARIFICATION: Who may use it" in section(markdown, "Risks and mitigations")
    assert "<https://runbooks.example/" in section(markdown, "References")
    assert "| Sentences with a source that resolves |" in section(markdown, "Appendix: checks")


async def test_without_any_evidence_it_invents_no_reference() -> None:
    job = await until(work(searcher=WordSearcher(())), "render")
    rendered = job.of(RenderArtefact)
    assert rendered.citations == ()
    assert "cites nothing" in section(rendered.markdown, "References")
    assert not re.search(r"(?<!\\)\[\d+\]", rendered.markdown.split("## Summary")[1])


async def test_what_people_wrote_cannot_forge_markers_or_markup() -> None:
    job = await until(
        work("A [1] <b>cache</b>", "We add a cache [1]. It is *new* | <script>alert(1)</script>."), "render"
    )
    markdown = job.of(RenderArtefact).markdown
    body = markdown.split("## Summary")[1]
    assert "<script" not in markdown.replace("\\<script", "")
    assert "<b>" not in markdown.replace("\\<b", "")
    assert "[1]" not in section(markdown, "Proposal").replace("\\[1\\]", "")
    assert body


async def test_list_items_stay_one_list() -> None:
    job = await until(work(), "checks")
    checks = job.of(ChecksArtefact)
    blocks = tuple(
        Block(
            "bullet",
            (
                Statement(
                    "A volume must never grow beyond the limit that its team has set.",
                    "brief",
                    (Pointer(ref="b3"),),
                ),
            ),
        )
        for _ in range(2)
    )
    goals = [replace(s, blocks=blocks) if s.key == "goals" else s for s in checks.sections]
    job.artefacts["checks"] = replace(checks, sections=tuple(goals))
    markdown = (await RenderStage().run(job)).markdown
    assert "[b3]\n- A volume" in section(markdown, "Goals")


async def test_the_span_of_a_citation_covers_all_that_is_cited_of_its_chunk() -> None:
    job = await until(work(), "checks")
    passage = job.of(EvidenceArtefact).by_id()[chunk_id("canary")]
    first, second = passage.text.index("A canary"), passage.text.index("Every rollout")
    statements = tuple(
        Statement(
            "x",
            "model",
            (Pointer(chunk_id=passage.chunk_id, start=passage.start + a, end=passage.start + a + 8),),
        )
        for a in (second, first)
    )
    checks = job.of(ChecksArtefact)
    one = replace(checks.sections[0], blocks=(Block("paragraph", statements),))
    job.artefacts["checks"] = replace(
        checks, sections=(one, *[replace(s, blocks=()) for s in checks.sections[1:]])
    )
    (citation,) = (await RenderStage().run(job)).citations
    assert citation.quote == passage.text[first : second + 8]


async def test_export_appends_every_citation_in_full() -> None:
    rendered = (await until(work(), "render")).of(RenderArtefact)
    exported = export_markdown(rendered.markdown, rendered.citations)
    assert exported.startswith(rendered.markdown.rstrip())
    appendix = exported.split("## Appendix: citations")[1]
    for citation in rendered.citations:
        assert f"### [{citation.marker}] {citation.title}" in appendix
        assert f"content `{citation.content_hash}`" in appendix
        assert f"Offsets: {citation.start} to {citation.end}" in appendix
        assert str(citation.chunk_id) in appendix
        assert str(citation.url) in appendix
        assert citation.quote in appendix.replace(">     ", "")
    assert export_markdown("# A\n", ()) == "# A\n"


async def test_artefacts_survive_json() -> None:
    import json

    job = await until(
        work(answers={"security": "Only admins."}, llm=router(["A volume."]), lead_sentences=True), "render"
    )
    assert len(job.artefacts) == 7
    for artefact in job.artefacts.values():
        assert type(artefact).from_dict(json.loads(json.dumps(artefact.to_dict()))) == artefact
    assert job.of(SectionsArtefact).sections[0].to_dict()["key"] == "summary"
