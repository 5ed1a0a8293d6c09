"""Stage 7: one Markdown document out of checked sections, with numbered citations."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from assistant.retrieval.passages import display_path
from assistant.rfc.artefacts import (
    Block,
    BriefArtefact,
    Check,
    ChecksArtefact,
    EvidenceArtefact,
    Passage,
    Pointer,
    QuestionsArtefact,
    RenderArtefact,
    SectionDraft,
    SectionsArtefact,
    Statement,
)
from assistant.rfc.work import Work
from assistant.types import Citation

SPECIAL = re.compile(r"[\\*\[\]<>~|`]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
NO_OPEN_POINTS = "*None were found. That is not the same as none.*"
NO_REFERENCES = "*This document cites nothing: no evidence was found in the knowledge base.*"


class RenderStage:
    name = "render"

    async def run(self, work: Work) -> RenderArtefact:
        checks = work.of(ChecksArtefact)
        numbering = Numbering(work.of(EvidenceArtefact).by_id())
        kinds = {s.key: s.kind for s in work.template.sections}
        parts = [f"# {escape(work.title)}", header(work)]
        for section in checks.sections:
            if kinds[section.key] == "questions":
                points = "\n".join(f"- {escape(p)}" for p in checks.open_points)
                parts.append(f"## {section.title}\n\n{points or NO_OPEN_POINTS}")
            elif kinds[section.key] == "references":
                parts.append(f"## {section.title}\n\n{references(numbering.citations()) or NO_REFERENCES}")
            else:
                parts.append(section_markdown(section, numbering))
        parts += [appendix_checks(checks.checks), appendix_brief(work)]
        return RenderArtefact("\n\n".join(p for p in parts if p) + "\n", numbering.citations())


@dataclass(slots=True)
class Numbering:
    """Gives each cited chunk the next number at its first mention and remembers which part was cited."""

    passages: Mapping[UUID, Passage]
    spans: dict[UUID, tuple[int, int]] = field(default_factory=dict)

    def markers(self, pointers: Iterable[Pointer]) -> str:
        marks: list[str] = []
        for pointer in pointers:
            if pointer.ref is not None:
                marks.append(f"[{pointer.ref}]")
            elif pointer.chunk_id is not None:
                marks.append(f"[{self._number(pointer.chunk_id, pointer)}]")
        return "".join(dict.fromkeys(marks))

    def _number(self, chunk_id: UUID, pointer: Pointer) -> int:
        passage = self.passages[chunk_id]
        start = passage.start if pointer.start is None else pointer.start
        end = passage.end if pointer.end is None else pointer.end
        old = self.spans.get(chunk_id, (start, end))
        self.spans[chunk_id] = (min(start, old[0]), max(end, old[1]))
        return list(self.spans).index(chunk_id) + 1

    def citations(self) -> tuple[Citation, ...]:
        """One per cited chunk; `quote` is exactly the document's text from `start` to `end`."""
        found = []
        for marker, (chunk_id, (start, end)) in enumerate(self.spans.items(), 1):
            p = self.passages[chunk_id]
            quote = p.text[start - p.start : end - p.start]
            found.append(
                Citation(
                    marker,
                    chunk_id,
                    p.document_id,
                    p.title,
                    p.headings,
                    start,
                    end,
                    quote,
                    p.content_hash,
                    p.url,
                    p.version,
                )
            )
        return tuple(found)


def section_markdown(section: SectionDraft, numbering: Numbering) -> str:
    """A section with its heading; list items stay together, everything else is its own paragraph."""
    lines = [f"## {section.title}", ""]
    previous = ""
    for block in section.blocks:
        if previous and (previous != block.kind or block.kind not in {"bullet", "task"}):
            lines.append("")
        lines.append(block_markdown(block, numbering))
        previous = block.kind
    return "\n".join(lines).rstrip()


def block_markdown(block: Block, numbering: Numbering) -> str:
    if block.kind == "clarification":
        return f"**\\[NEEDS CLARIFICATION: {escape(block.statements[0].text)}\\]**"
    text = " ".join(sentence(s, numbering) for s in block.statements)
    if block.kind == "notice":
        return f"*{text}*"
    if block.kind == "task":
        return f"- [ ] {text}"
    label = f"**{escape(block.label)}:** " if block.label else ""
    return f"- {label}{text}" if block.kind == "bullet" else f"{label}{text}"


def sentence(statement: Statement, numbering: Numbering) -> str:
    marks = numbering.markers(statement.pointers)
    return f"{escape(statement.text)} {marks}" if marks else escape(statement.text)


def header(work: Work) -> str:
    """What a reader must know before believing anything: how this was written and from what."""
    sections = work.of(SectionsArtefact)
    citing = work.of(EvidenceArtefact)
    models = sorted({s.use.model for s in sections.sections if s.use.model})
    failures = sum(bool(s.use.failures) for s in sections.sections)
    assembled = [s.title for s in sections.sections if s.extractive and s.blocks]
    if sections.writing == "free" and models:
        how = f"Written by {', '.join(models)} from the passages cited, checked sentence by sentence."
        if assembled:
            how += f" Extractive (quotations only): {', '.join(assembled)}."
        if failures:
            how += f" No model answered for {failures} sections."
    else:
        how = "Extractive: sentences of the brief and quotations from the knowledge base. "
        how += (
            f"{', '.join(models)} offered lead sentences; only those that passed the checks are shown."
            if models
            else "No language model wrote any of it"
        )
        if failures:
            how += f" It failed {failures} times." if models else ": none was available."
        elif not models:
            how += "."
    documents = len({p.document_id for p in citing.passages})
    rows = [
        ("Status", "Draft, to be reviewed by its author"),
        ("Template", work.template.title),
        ("Writing", how),
        (
            "Evidence",
            f"{len(citing.passages)} passages of {documents} documents, found by {citing.searches} searches",
        ),
        ("Marks", "[n] cites the knowledge base, [b n] the brief, [a n] an answer of the author"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {cell(v)} |" for k, v in rows)])


def references(citations: Iterable[Citation]) -> str:
    return "\n".join(f"- [{c.marker}] {escape(trail(c))}{link(c)}" for c in citations)


def trail(citation: Citation) -> str:
    """`Title › Heading › Heading`."""
    return display_path(citation.title, citation.headings)


def link(citation: Citation) -> str:
    parts = [f", version {escape(citation.version)}"] if citation.version else []
    if citation.url and re.match(r"https?://[^\s<>]+$", citation.url):
        parts.append(f", <{citation.url}>")
    return "".join(parts)


def appendix_checks(checks: Iterable[Check]) -> str:
    rows = [f"| {c.name} | {c.figure} | {'ok' if c.ok else 'look'} | {cell(c.detail)} |" for c in checks]
    head = ["## Appendix: checks", "", "| check | figure | | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def appendix_brief(work: Work) -> str:
    """What the user wrote, sentence by sentence: the target of the [b…] and [a…] marks."""
    said = [*work.of(BriefArtefact).sentences, *work.of(QuestionsArtefact).answers]
    return "\n".join(["## Appendix: brief and answers", "", *(f"- [{s.ref}] {escape(s.text)}" for s in said)])


def escape(text: str) -> str:
    """Plain words as Markdown that shows exactly them; inline code stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    shown = "".join(p if i % 2 else SPECIAL.sub(r"\\\g<0>", p) for i, p in enumerate(parts))
    return re.sub(r"^(\d*)([#+.)-])", r"\1\\\2", shown)


def cell(text: str) -> str:
    """Text for one table cell."""
    return text.replace("|", "\\|").replace("\n", " ")
