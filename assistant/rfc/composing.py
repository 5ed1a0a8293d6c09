"""Assemble a section from the user's sentences and quotations, without any model."""

from collections.abc import Mapping

from assistant.rfc.artefacts import (
    Block,
    BriefArtefact,
    BriefSentence,
    EvidenceArtefact,
    OutlineArtefact,
    PlannedSection,
    Pointer,
    QuestionsArtefact,
    SectionDraft,
    Statement,
)
from assistant.rfc.evidence import about
from assistant.rfc.quoting import Quoter
from assistant.rfc.templates import TemplateSection
from assistant.rfc.words import content, spread, stem
from assistant.rfc.work import Work

NO_EVIDENCE = "Nothing was found in the knowledge base for this section."
NOT_QUOTABLE = "The knowledge base has related passages, but no sentence of them fits this section."
NO_BRIEF = "The brief says nothing about this."
FROM_KNOWLEDGE = "From the knowledge base:"
TO_CONFIRM = "To be confirmed by the author:"


class Composer:
    """Drafts all sections of one document; what was quoted in one is not quoted in the next."""

    def __init__(self, work: Work) -> None:
        brief = work.of(BriefArtefact)
        asked = work.of(QuestionsArtefact)
        self._evidence = work.of(EvidenceArtefact)
        self._said: Mapping[str, BriefSentence] = {s.ref: s for s in (*brief.sentences, *asked.answers)}
        self._template = work.template
        self._limit = work.settings.rfc.passages_per_section
        self._quoter = Quoter(
            title=set(content(brief.title)),
            topic={stem(w) for w in brief.topic},
            spread=spread([p.text for p in self._evidence.passages]),
        )

    def compose_all(self, outline: OutlineArtefact) -> list[SectionDraft]:
        return [self.compose(plan) for plan in outline.kept()]

    def compose(self, plan: PlannedSection) -> SectionDraft:
        section = self._template.section(plan.key)
        if section.kind in {"questions", "references"}:
            return SectionDraft(plan.key, plan.title, ())
        blocks = [*self._from_brief(section, plan), *self._questions(plan)]
        quoted = self._quotes(section, plan)
        if quoted and blocks:
            blocks.append(notice(FROM_KNOWLEDGE))
        blocks += quoted
        if section.queries and not quoted:
            blocks.append(notice(NOT_QUOTABLE if plan.passages else NO_EVIDENCE))
        elif not blocks:
            blocks.append(notice(NO_BRIEF))
        if section.checklist:
            blocks.append(notice(TO_CONFIRM))
            blocks += [Block("task", (Statement(item, "template"),)) for item in section.checklist]
        return SectionDraft(plan.key, plan.title, tuple(blocks))

    def _from_brief(self, section: TemplateSection, plan: PlannedSection) -> list[Block]:
        statements = [said(self._said[ref]) for ref in plan.brief]
        if section.takes[:1] in {("goal",), ("non_goal",)}:
            return [Block("bullet", (s,)) for s in statements]
        return [Block("paragraph", tuple(statements))] if statements else []

    def _questions(self, plan: PlannedSection) -> list[Block]:
        return [Block("clarification", (Statement(q, "template"),)) for q in plan.clarify]

    def _quotes(self, section: TemplateSection, plan: PlannedSection) -> list[Block]:
        known = self._evidence.by_id()
        return self._quoter.quote(
            [known[i] for i in plan.passages],
            about(section),
            self._limit,
            general=section.kind == "checklist",
        )


def said(sentence: BriefSentence) -> Statement:
    """A sentence of the user, pointing at itself."""
    return Statement(sentence.text, "brief", (Pointer(ref=sentence.ref),))


def notice(text: str) -> Block:
    return Block("notice", (Statement(text, "template"),))
