"""The one sentence that a small model may add to an assembled section, if it survives the checks."""

import re
from dataclasses import replace

from assistant.retrieval.sentences import sentence_spans
from assistant.rfc.artefacts import Block, Dropped, Pointer, SectionDraft, Statement
from assistant.rfc.sentences import clean
from assistant.rfc.support import unsupported
from assistant.rfc.words import content, overlap, similarity
from assistant.rfc.work import Work

LEAST_QUOTES = 2
"""Below this many quotations there is nothing to sum up."""
MOST_WORDS, LEAST_WORDS = 35, 6
LEAST_OVERLAP = 0.8
COPY = 0.7
SOURCES = 2
TOKENS = 60
CHATTER = re.compile(
    r"\b(notes?|section|sentence|proposal called|in common|summary|here (is|are)|sure|I|we|you|our|this document)\b",
    re.IGNORECASE,
)


async def with_lead(draft: SectionDraft, work: Work) -> SectionDraft:
    """The draft with a lead sentence in front of its quotations, or as it was with the reason why not."""
    quotes = [s for b in draft.blocks for s in b.statements if s.origin == "evidence"]
    if len(quotes) < LEAST_QUOTES:
        return draft
    phraser = work.phraser("sections")
    reply = await phraser.ask(
        "lead",
        max_tokens=TOKENS,
        section=draft.title,
        title=work.title,
        notes="\n".join(f"- {s.text}" for s in quotes),
    )
    use = phraser.used()
    if reply is None:
        return replace(draft, use=use)
    text = first_sentence(reply)
    reason = refused(text, quotes)
    if reason:
        return replace(draft, use=use, dropped=(*draft.dropped, Dropped(draft.key, text, reason)))
    lead = Block("paragraph", (Statement(text, "model", pointers(text, quotes)),))
    first = next(i for i, b in enumerate(draft.blocks) if any(s.origin == "evidence" for s in b.statements))
    return replace(draft, use=use, blocks=(*draft.blocks[:first], lead, *draft.blocks[first:]))


def first_sentence(reply: str) -> str:
    """The first sentence of a reply, without quotation marks, list marks or a label in front."""
    line = next((line for line in reply.splitlines() if line.strip()), "")
    text = clean(re.sub(r"^\s*(?:[-*\d.)\s]+|\w+:)\s*", "", line))
    spans = list(sentence_spans(text))
    return text[spans[0][0] : spans[0][1]].strip('"“” ') if spans else ""


def refused(text: str, quotes: list[Statement]) -> str | None:
    """Why a lead sentence is not used, or None."""
    if not LEAST_WORDS <= len(text.split()) <= MOST_WORDS or not text.endswith("."):
        return "not one whole sentence of fitting length"
    if CHATTER.search(text):
        return "it speaks about the task"
    if any(similarity(text, q.text) > COPY for q in quotes):
        return "it repeats a quotation"
    return unsupported(text, [q.text for q in closest(text, quotes)], least_overlap=LEAST_OVERLAP)


def closest(text: str, quotes: list[Statement]) -> list[Statement]:
    """The few quotations that share most words with the sentence, best first."""
    words = set(content(text))
    ranked = sorted(quotes, key=lambda q: -len(words & set(content(q.text))))
    best = ranked[:1]
    if best and overlap(text, [best[0].text]) < 1:
        best = ranked[:SOURCES]
    return best


def pointers(text: str, quotes: list[Statement]) -> tuple[Pointer, ...]:
    return tuple(dict.fromkeys(p for q in closest(text, quotes) for p in q.pointers))
