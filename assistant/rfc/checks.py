"""Stage 6: judge every sentence once more, whoever wrote it, and the document as a whole.

The earlier stages are meant to produce nothing that fails here; this one does not trust them. What fails
is taken out. The figures go into an appendix of the document.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from assistant.rfc.artefacts import (
    Block,
    BriefArtefact,
    Check,
    ChecksArtefact,
    Dropped,
    EvidenceArtefact,
    OutlineArtefact,
    Passage,
    Pointer,
    QuestionsArtefact,
    SectionDraft,
    SectionsArtefact,
    Statement,
)
from assistant.rfc.brief import finished
from assistant.rfc.composing import NO_BRIEF, notice
from assistant.rfc.free import LEAST_OVERLAP
from assistant.rfc.sentences import clean
from assistant.rfc.support import unsupported
from assistant.rfc.words import content, jaccard
from assistant.rfc.work import Work

VAGUE = re.compile(
    r"\b(fast(er)?|quick(ly|er)?|slow(er|ly)?|easy|easily|simple|simply|robust|scalable|efficient(ly)?|flexible"
    r"|user-friendly|intuitive|seamless(ly)?|soon|many|several|various|some|lots? of|appropriate|reasonable"
    r"|high performance|high availability|low latency|as needed|if possible|modern|better)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(r"\b(TBD|TODO|FIXME|XXX|lorem ipsum|\?\?\?)\b|<[a-z][a-z _-]*>", re.IGNORECASE)
SAME = 0.85
MOST_VAGUE = 3


@dataclass(slots=True)
class Tally:
    """What was seen on the way through the document."""

    dropped: list[Dropped] = field(default_factory=list)
    seen: list[set[str]] = field(default_factory=list)
    kept: int = 0
    cited: int = 0
    from_brief: int = 0
    by_model: int = 0
    unresolved: int = 0
    unsupported: int = 0
    repeated: int = 0
    placeholders: int = 0
    clarifications: list[str] = field(default_factory=list)
    vague: dict[str, str] = field(default_factory=dict)


class ChecksStage:
    name = "checks"

    async def run(self, work: Work) -> ChecksArtefact:
        sources = Sources(work)
        tally = Tally()
        drafts = work.of(SectionsArtefact).sections
        limit = work.settings.rfc.max_clarifications
        sections = tuple(
            checked(d, sources, tally, work.template.section(d.key).repeats, limit) for d in drafts
        )
        tally.dropped[:0] = [d for s in drafts for d in s.dropped]
        return ChecksArtefact(
            report(work, sections, tally), sections, tuple(tally.dropped), open_points(work, tally)
        )


class Sources:
    """Resolves pointers against what this RFC was given, and nothing else."""

    def __init__(self, work: Work) -> None:
        said = (*work.of(BriefArtefact).sentences, *work.of(QuestionsArtefact).answers)
        self.said: Mapping[str, str] = {s.ref: s.text for s in said}
        self.passages: Mapping[UUID, Passage] = work.of(EvidenceArtefact).by_id()

    def text_of(self, pointer: Pointer) -> str | None:
        """The text it points at, or None when it points at nothing."""
        if pointer.ref is not None:
            return self.said.get(pointer.ref)
        passage = self.passages.get(pointer.chunk_id) if pointer.chunk_id else None
        if passage is None or pointer.start is None or pointer.end is None:
            return None
        if not passage.start <= pointer.start < pointer.end <= passage.end:
            return None
        return passage.text[pointer.start - passage.start : pointer.end - passage.start]

    def context_of(self, pointer: Pointer) -> str:
        """The text with the headings it stands under, which name what it is about."""
        text = self.text_of(pointer) or ""
        passage = self.passages.get(pointer.chunk_id) if pointer.chunk_id else None
        return f"{passage.label()}\n{text}" if passage else text


def checked(draft: SectionDraft, sources: Sources, tally: Tally, repeats: bool, limit: int) -> SectionDraft:
    """The section without what fails; `repeats` allows sentences that stand elsewhere too."""
    blocks: list[Block] = []
    for block in draft.blocks:
        if block.kind == "clarification":
            text = block.statements[0].text
            tally.clarifications.append(text)
            if len(tally.clarifications) > limit:
                continue
        kept = [s for s in block.statements if passes(s, draft.key, sources, tally, repeats)]
        if kept:
            blocks.append(replace(block, statements=tuple(kept)))
    blocks = [b for i, b in enumerate(blocks) if not _leads_nowhere(b, blocks[i + 1 :])]
    if not blocks and draft.blocks:
        blocks = [notice(NO_BRIEF)]
    return replace(draft, blocks=tuple(blocks))


def passes(statement: Statement, section: str, sources: Sources, tally: Tally, repeats: bool) -> bool:
    """Whether a statement may be shown; the tally takes note of why not."""
    if statement.origin == "template":
        return True
    reason = None
    stems = set(content(statement.text))
    texts = [sources.text_of(p) for p in statement.pointers]
    if not texts or any(t is None for t in texts):
        tally.unresolved += 1
        reason = "its citation does not resolve"
    elif why := disagreement(statement, sources):
        tally.unsupported += 1
        reason = why
    elif PLACEHOLDER.search(statement.text) and statement.origin != "brief":
        tally.placeholders += 1
        reason = "it holds a placeholder"
    elif not repeats and any(jaccard(stems, seen) >= SAME for seen in tally.seen):
        tally.repeated += 1
        reason = "it stands in the document already"
    if reason:
        tally.dropped.append(Dropped(section, statement.text, reason))
        return False
    if not repeats:
        tally.seen.append(stems)
    tally.kept += 1
    tally.cited += any(p.chunk_id for p in statement.pointers)
    tally.from_brief += statement.origin == "brief"
    tally.by_model += statement.origin == "model"
    if statement.origin == "brief":
        for match in VAGUE.finditer(statement.text):
            tally.vague.setdefault(match[0].casefold(), statement.pointers[0].ref or "")
        tally.placeholders += bool(not repeats and PLACEHOLDER.search(statement.text))
    return True


def disagreement(statement: Statement, sources: Sources) -> str | None:
    """Why the statement is not what its sources say. Quotations must be exact, other sentences supported."""
    texts = [sources.text_of(p) or "" for p in statement.pointers]
    if statement.origin == "brief":
        return None if texts == [statement.text] else "it is not what the user wrote"
    if statement.origin == "evidence":
        return None if finished(clean(texts[0])) == statement.text else "it is not what the source says"
    contexts = [sources.context_of(p) for p in statement.pointers]
    return unsupported(statement.text, contexts, least_overlap=LEAST_OVERLAP)


def _leads_nowhere(block: Block, after: list[Block]) -> bool:
    return block.kind == "notice" and block.statements[0].text.endswith(":") and not after


def open_points(work: Work, tally: Tally) -> tuple[str, ...]:
    """What the author must still find out: unanswered questions, unclear places, words without a figure."""
    points = [q.text for q in work.of(QuestionsArtefact).open()] + tally.clarifications
    points += [
        f"What does “{word}” mean as a figure ({ref})?"
        for word, ref in list(tally.vague.items())[:MOST_VAGUE]
    ]
    return tuple(dict.fromkeys(points))


def report(work: Work, sections: tuple[SectionDraft, ...], tally: Tally) -> tuple[Check, ...]:
    """The table of the appendix."""
    wanted = [p.key for p in work.of(OutlineArtefact).kept()]
    keys = [s.key for s in sections]
    own = [s for s in sections if work.template.section(s.key).kind not in {"questions", "references"}]
    filled = [s for s in own if any(st.pointers for b in s.blocks for st in b.statements)]
    evidence = work.of(EvidenceArtefact)
    used = {
        p.chunk_id for s in own for b in s.blocks for st in b.statements for p in st.pointers if p.chunk_id
    }
    documents = {evidence.by_id()[c].document_id for c in used}
    empty = ", ".join(s.title for s in own if s not in filled)
    return (
        Check("Sections present and in order", keys == wanted, f"{len(keys)} of {len(wanted)}"),
        Check(
            "Sections with sourced content",
            len(filled) == len(own),
            f"{len(filled)} of {len(own)}",
            f"empty: {empty}" if empty else "",
        ),
        Check(
            "Sentences with a source that resolves",
            True,
            f"{tally.kept}",
            f"{tally.cited} cite the knowledge base, {tally.from_brief} are the user's",
        ),
        Check("Sentences written by a model", True, f"{tally.by_model}", "each checked against its source"),
        Check("Dropped: citation does not resolve", tally.unresolved == 0, f"{tally.unresolved}"),
        Check(
            "Dropped: source does not say so",
            tally.unsupported == 0,
            f"{tally.unsupported + sum(len(s.dropped) for s in work.of(SectionsArtefact).sections)}",
        ),
        Check("Dropped: repeated", tally.repeated == 0, f"{tally.repeated}"),
        Check("Placeholders", tally.placeholders == 0, f"{tally.placeholders}"),
        Check(
            "Vague words in the brief", not tally.vague, f"{len(tally.vague)}", ", ".join(sorted(tally.vague))
        ),
        Check("Open points", not open_points(work, tally), f"{len(open_points(work, tally))}"),
        Check(
            "Evidence used",
            bool(used),
            f"{len(used)} of {len(evidence.passages)} passages",
            f"from {len(documents)} documents",
        ),
    )
