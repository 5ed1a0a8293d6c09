"""Writing one section of a design document: title, summary and section name in, the authors' section as truth.

Text scores of free drafts are low and depend on length, so three floors stand beside the model on the same
cases: the summary alone, passages of other documents alone, and the same section of another document of the
family. A model that does not beat them has learned nothing about the task.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assistant.settings import Settings
from evals.cases import SectionCase
from evals.evidence import SectionEvidence
from evals.results import CaseResult, SuiteResult, summarise
from evals.splits import split_of
from evals.targets import Writer, prompt_hash
from evals.text_metrics import Meteor, bleu_signature, text_scores, words

NAME = "sections"
MODEL, SUMMARY, EVIDENCE, OTHER = "model", "summary", "evidence", "other document"
EVIDENCE_WORDS = 150
"""Of the floor made of passages: about the median length of the references."""
AT_ONCE = 2

Step = Callable[[str, int, int], None]


async def run(
    cases: Sequence[SectionCase],
    settings: Settings,
    *,
    pool: Sequence[SectionCase] | None = None,
    writer: Writer | None = None,
    evidence: SectionEvidence | None = None,
    evidence_in_prompt: bool = False,
    meteor: Meteor | None = None,
    meta: Mapping[str, Any] | None = None,
    step: Step = lambda *_: None,
) -> SuiteResult:
    """Write, find and score every case. `pool` (or `cases`) is where other documents' sections come from.

    Without a writer only the floors are measured. Raises what the writer raises.
    """
    began = time.perf_counter()
    passages = [await evidence.passages(case) for case in cases] if evidence else [()] * len(cases)
    texts: list[dict[str, str]] = [_floors(case, pool or cases) for case in cases]
    for own, found in zip(texts, passages, strict=True):
        if found:
            own[EVIDENCE] = _first_words("\n\n".join(hit.text for hit in found), EVIDENCE_WORDS)
    if writer is not None:
        shown = [[hit.text for hit in found] if evidence_in_prompt else [] for found in passages]
        drafts = await _write(writer, cases, shown, step)
        for own, draft in zip(texts, drafts, strict=True):
            own[MODEL] = draft
    written = time.perf_counter()
    results = []
    for number, (case, own, found) in enumerate(zip(cases, texts, passages, strict=True), 1):
        results.append(_case(case, own, [hit.external_id for hit in found], meteor))
        step("score", number, len(cases))
        await asyncio.sleep(0)
    systems = [s for s in (MODEL, EVIDENCE, OTHER, SUMMARY) if any(s in own for own in texts)]
    first = systems[0]
    return summarise(
        NAME,
        f"{first}/rouge_l",
        results,
        [(first, other) for other in systems[1:]],
        {
            "data_hash": data_hash(cases),
            "splits": sorted({split_of(case.document) for case in cases}),
            "documents": len({case.document for case in cases}),
            "families": _counts([case.family for case in cases]),
            "sections": _counts([case.section for case in cases]),
            "prompt_hash": prompt_hash(),
            "evidence_in_prompt": evidence_in_prompt,
            "bleu_signature": bleu_signature(),
            "meteor": "WordNet 3.0 by NLTK" if meteor else "not available",
            "seconds": {
                "write": round(written - began, 2),
                "score": round(time.perf_counter() - written, 2),
            },
            **(meta or {}),
        },
        settings.evals.draws,
    )


def data_hash(cases: Sequence[SectionCase]) -> str:
    """The same for the same questions and truths."""
    digest = hashlib.sha256()
    for case in cases:
        for part in (case.id, case.title, case.summary, case.section, case.reference):
            digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


async def _write(
    writer: Writer, cases: Sequence[SectionCase], evidence: Sequence[Sequence[str]], step: Step
) -> list[str]:
    drafts: dict[int, str] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> None:
        async with places:
            drafts[index] = await writer.write(cases[index], evidence[index])
        step("write", len(drafts), len(cases))

    step("write", 0, len(cases))
    try:
        async with asyncio.TaskGroup() as group:
            for index in range(len(cases)):
                group.create_task(one(index))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [drafts[index] for index in range(len(cases))]


def _floors(case: SectionCase, pool: Sequence[SectionCase]) -> dict[str, str]:
    floors = {SUMMARY: case.summary}
    others = [
        c
        for c in pool
        if (c.family, c.section) == (case.family, case.section)
        and c.document != case.document
        and not (c.exclude_hash and c.exclude_hash == case.exclude_hash)
    ]
    if others:
        # Any other document, but the same one in every run.
        chosen = min(others, key=lambda c: hashlib.sha256(f"{case.id}\x1f{c.id}".encode()).digest())
        floors[OTHER] = chosen.reference
    return floors


def _case(
    case: SectionCase, texts: Mapping[str, str], retrieved: Sequence[str], meteor: Meteor | None
) -> CaseResult:
    values: dict[str, float] = {}
    for system, text in texts.items():
        scores = {**text_scores(text, case.reference, meteor), "words": float(len(words(text)))}
        values |= {f"{system}/{name}": value for name, value in scores.items()}
    return CaseResult(
        id=case.id,
        group=case.document,
        values=values,
        detail={
            "title": case.title,
            "section": case.section,
            "family": case.family,
            "summary": case.summary,
            "reference": case.reference,
            "texts": {name: text for name, text in texts.items() if name != SUMMARY},
            "retrieved": list(dict.fromkeys(retrieved)),
        },
    )


def _first_words(text: str, count: int) -> str:
    """The text up to its n-th word."""
    parts = text.split(" ")
    return text if len(parts) <= count else " ".join(parts[:count]) + " …"


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}
