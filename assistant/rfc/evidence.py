"""Stage 3: search for each section with several queries, as the principal, and keep what is on topic.

A passage serves the section where it ranks best, so that sections do not repeat each other; only a
section that would stay short may share one.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

from assistant.retrieval.search import SearchQuery
from assistant.rfc.artefacts import (
    BriefArtefact,
    EvidenceArtefact,
    Passage,
    QuestionsArtefact,
    SectionEvidence,
)
from assistant.rfc.sentences import sentences
from assistant.rfc.templates import Template, TemplateSection
from assistant.rfc.words import content
from assistant.rfc.work import Work
from assistant.settings import RfcSettings
from assistant.types import Hit

RANK_OFFSET = 10
"""Of reciprocal rank fusion over a section's queries: small, because lists are short."""
QUERY_CHARS = 400


class EvidenceStage:
    name = "evidence"

    async def run(self, work: Work) -> EvidenceArtefact:
        brief = work.of(BriefArtefact)
        answers = [a.text for a in work.of(QuestionsArtefact).answers]
        settings = work.settings.rfc
        queries = {
            s.key: queries_of(s, brief, answers)[: settings.queries_per_section]
            for s in work.template.sections
            if s.queries
        }
        distinct = list(dict.fromkeys(q for qs in queries.values() for q in qs))
        gate = asyncio.Semaphore(settings.parallel_sections)

        async def search(text: str) -> tuple[Hit, ...]:
            async with gate:
                query = SearchQuery(text=text, limit=settings.hits_per_query, mode="hybrid", filters={})
                return (await work.searcher.search(query, work.context.principal)).hits

        found = dict(zip(distinct, await asyncio.gather(*map(search, distinct)), strict=True))
        ranked = {
            key: rank([found[q] for q in qs], work.settings.retrieval.min_dense_score)
            for key, qs in queries.items()
        }
        return assemble(work.template, queries, ranked, settings, len(distinct))


def queries_of(section: TemplateSection, brief: BriefArtefact, answers: Sequence[str]) -> tuple[str, ...]:
    """The template's queries for this brief, and what the user wrote for this very section."""
    topic = " ".join(brief.topic)
    own = [s.text for s in brief.sentences[1:] if s.section == section.key or s.kind in section.takes]
    filled = [q.format(title=brief.title, topic=topic) for q in section.queries]
    return tuple(dict.fromkeys(q[:QUERY_CHARS] for q in [*filled, *own, *answers] if q.strip()))


def about(section: TemplateSection) -> set[str]:
    """The stems that a section's queries add to the topic."""
    return {s for q in section.queries for s in content(q.format(title="", topic=""))}


def rank(lists: Sequence[Sequence[Hit]], least_dense: float) -> list[Passage]:
    """One list out of several: by reciprocal ranks, without off-topic hits and repeated texts."""
    points: Counter[UUID] = Counter()
    best: dict[UUID, Hit] = {}
    for hits in lists:
        for place, hit in enumerate(hits):
            if hit.dense is not None and hit.dense < least_dense:
                continue
            points[hit.chunk_id] += 1 / (RANK_OFFSET + place)  # type: ignore[assignment]
            if hit.chunk_id not in best or (hit.dense or 0) > (best[hit.chunk_id].dense or 0):
                best[hit.chunk_id] = hit
    texts: set[str] = set()
    kept: list[Passage] = []
    for chunk_id in sorted(best, key=lambda c: (-points[c], str(c))):
        text = " ".join(best[chunk_id].text.split()).casefold()
        if text in texts or not sentences(best[chunk_id].text):
            continue
        texts.add(text)
        kept.append(Passage.of(best[chunk_id], score=float(points[chunk_id])))
    return kept


def assemble(
    template: Template,
    queries: Mapping[str, tuple[str, ...]],
    ranked: Mapping[str, Sequence[Passage]],
    settings: RfcSettings,
    searches: int,
) -> EvidenceArtefact:
    """Give each passage to the section where it ranks best, then fill short sections with shared ones."""
    chosen: dict[str, list[Passage]] = {key: [] for key in ranked}
    uses: Counter[UUID] = Counter()
    bids = sorted(
        (
            (place, -len(about(template.section(key)) & set(content(f"{p.label()} {p.text}"))), key, p)
            for key, ps in ranked.items()
            for place, p in enumerate(ps)
        ),
        key=lambda bid: (bid[0], bid[1], -bid[3].score, bid[2]),
    )
    full = settings.passages_per_section
    for uses_allowed, size in ((1, full), (len(chosen), 1), (2, full // 2)):
        for _, _, key, passage in bids:
            mine = chosen[key]
            crowded = (
                sum(p.document_id == passage.document_id for p in mine) >= settings.passages_per_document
            )
            if len(mine) >= size or crowded or uses[passage.chunk_id] >= uses_allowed or _echo(passage, mine):
                continue
            mine.append(passage)
            uses[passage.chunk_id] += 1
    for passages in chosen.values():
        passages.sort(key=lambda p: (-p.score, str(p.chunk_id)))
    pool = {p.chunk_id: p for ps in chosen.values() for p in ps}
    sections = [
        SectionEvidence(s.key, queries[s.key], tuple(p.chunk_id for p in chosen[s.key]), len(ranked[s.key]))
        for s in template.sections
        if s.key in ranked
    ]
    return EvidenceArtefact(tuple(pool.values()), tuple(sections), searches)


def _echo(passage: Passage, others: Sequence[Passage]) -> bool:
    """Whether another passage says nearly the same, as copies and overlapping chunks do."""
    own = set(content(passage.text))
    return any(
        len(own & set(content(o.text))) > 0.8 * max(1, min(len(own), len(set(content(o.text)))))
        for o in others
    )
