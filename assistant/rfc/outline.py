"""Stage 4: which sections the document has, and what of the brief and the evidence each one gets."""

from assistant.rfc.artefacts import (
    BriefArtefact,
    BriefSentence,
    EvidenceArtefact,
    OutlineArtefact,
    PlannedSection,
    QuestionsArtefact,
)
from assistant.rfc.templates import TemplateSection
from assistant.rfc.work import Work


class OutlineStage:
    name = "outline"

    async def run(self, work: Work) -> OutlineArtefact:
        brief, asked = work.of(BriefArtefact), work.of(QuestionsArtefact)
        evidence = work.of(EvidenceArtefact)
        said = [*brief.sentences[1:], *asked.answers]
        homes = {s.ref: home(s, work.template.sections) for s in said}
        room = work.settings.rfc.max_clarifications
        planned: list[PlannedSection] = []
        for section in work.template.sections:
            refs = [s.ref for s in said if homes[s.ref] == section.key]
            if section.repeats:
                refs = summary(list(brief.sentences[1:]), section)
            if section.takes[:1] == ("proposal",) and not refs:
                refs = ["b0"]
            refs = refs[: section.limit]
            passages = tuple(p.chunk_id for p in evidence.of(section.key))
            clarify = tuple(q.text for q in asked.open() if q.section == section.key)[:room]
            room -= len(clarify)
            keep = section.required or bool(refs or passages or clarify)
            reason = reason_for(section, len(refs), len(passages), keep)
            planned.append(
                PlannedSection(section.key, section.title, keep, reason, tuple(refs), passages, clarify)
            )
        return OutlineArtefact(tuple(planned))


def home(sentence: BriefSentence, sections: tuple[TemplateSection, ...]) -> str | None:
    """The one section a sentence of the user belongs to: where they put it, else the first that takes its kind."""
    if sentence.section:
        return sentence.section
    takers = (s.key for s in sections if sentence.kind in s.takes and not s.repeats)
    return next(takers, None) or next((s.key for s in sections if s.takes and not s.repeats), None)


def summary(said: list[BriefSentence], section: TemplateSection) -> list[str]:
    """At most `limit` sentences for a summary, one of each kind first, in the order they were written."""
    chosen: list[BriefSentence] = []
    for kind in section.takes:
        chosen += [s for s in said if s.kind == kind][:1]
    chosen += [s for s in said if s.kind in section.takes and s not in chosen]
    chosen = chosen[: section.limit] or said[:1]
    return [s.ref for s in said if s in chosen]


def reason_for(section: TemplateSection, brief: int, passages: int, keep: bool) -> str:
    if not keep:
        return "left out: neither the brief nor the knowledge base has anything for it"
    if section.kind in {"questions", "references"}:
        return "collected from the other sections"
    parts = [f"{n} {what}" for n, what in ((brief, "sentences of the user"), (passages, "passages")) if n]
    return ", ".join(parts) or "required by the template, though nothing is known for it yet"
