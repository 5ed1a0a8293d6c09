"""The one sentence that a small model may add to an assembled section, if it survives the checks."""

import re
from dataclasses import replace
from difflib import SequenceMatcher

from assistant.retrieval.sentences import sentence_spans
from assistant.rfc.artefacts import Block, Dropped, SectionDraft, Statement
from assistant.rfc.sentences import clean
from assistant.rfc.support import unsupported
from assistant.rfc.words import content, similarity
from assistant.rfc.work import Work

LEAST_QUOTES = 2
"""Below this many quotations there is nothing to sum up."""
MOST_WORDS, LEAST_WORDS = 35, 6
LEAST_OVERLAP = 0.8
COPY = 0.8
LEAST_IN_ORDER = 0.8
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
    lead = Block("paragraph", (Statement(text, "model", closest(text, quotes).pointers),))
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
    source = closest(text, quotes).text
    if reason := unsupported(text, [source], least_overlap=LEAST_OVERLAP):
        return reason
    if in_order(text, source) < LEAST_IN_ORDER:
        return "it puts the words of its source into another order"
    return None


def closest(text: str, quotes: list[Statement]) -> Statement:
    """The quotation that shares most words with the sentence.

    One only: a sentence made of two sources' words easily says of one thing what is true of the other.
    """
    words = set(content(text))
    return max(quotes, key=lambda q: len(words & set(content(q.text))))


def in_order(text: str, source: str) -> float:
    """Share of the sentence's words that stand in its source in the same order: who does what to whom."""
    own, other = content(text), content(source)
    blocks = SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks()
    return sum(b.size for b in blocks) / max(1, len(own))
