"""A section written freely by a large model, taken apart and kept sentence by sentence."""

import re
from dataclasses import replace

from assistant.retrieval.sentences import sentence_spans
from assistant.rfc.artefacts import (
    Block,
    BriefArtefact,
    BriefSentence,
    Dropped,
    EvidenceArtefact,
    Passage,
    PlannedSection,
    Pointer,
    QuestionsArtefact,
    SectionDraft,
    Statement,
)
from assistant.rfc.brief import finished
from assistant.rfc.composing import TO_CONFIRM, notice
from assistant.rfc.sentences import clean
from assistant.rfc.support import missing, unsupported
from assistant.rfc.templates import TemplateSection
from assistant.rfc.words import overlap
from assistant.rfc.work import Work

CHARS_PER_TOKEN = 3.5
PROMPT_TOKENS = 400
LEAST_OVERLAP = 0.5
WORDS_PER_TOKEN = 0.6
MARKER = re.compile(r"\[((?:[ab]?\d{1,3})(?:\s*[,;]\s*[ab]?\d{1,3})*)\]")
UNCLEAR = re.compile(r"\[NEEDS CLARIFICATION:\s*([^\]]{3,300})\]", re.IGNORECASE)
LATE_MARKER = re.compile(r"([.!?])((?:\s*\[[ab]?\d[^\]]{0,12}\])+)")


async def write_freely(
    plan: PlannedSection, section: TemplateSection, work: Work, context_tokens: int
) -> SectionDraft:
    """The section by the model, every sentence with a source that supports it; without blocks when none is left."""
    said = [*work.of(BriefArtefact).sentences, *work.of(QuestionsArtefact).answers]
    known = work.of(EvidenceArtefact).by_id()
    tokens = work.settings.rfc.section_tokens
    room = int((context_tokens - tokens - PROMPT_TOKENS) * CHARS_PER_TOKEN) - sum(
        len(s.text) + 8 for s in said
    )
    passages = fitting([known[i] for i in plan.passages], room)
    phraser = work.phraser("sections")
    reply = await phraser.ask(
        "section",
        max_tokens=tokens,
        section=section.title,
        title=work.title,
        guidance=section.guidance,
        words=int(tokens * WORDS_PER_TOKEN),
        brief="\n".join(f"[{s.ref}] {s.text}" for s in said),
        passages="\n\n".join(f"[{n}] {p.label()}\n{p.text}" for n, p in enumerate(passages, 1)) or "none",
    )
    use = phraser.used()
    draft = SectionDraft(plan.key, plan.title, (), extractive=False, use=use)
    draft = read_reply(draft, reply or "", said, passages)
    if not any(s.pointers for b in draft.blocks for s in b.statements):
        return replace(draft, blocks=())
    blocks = [*draft.blocks, *(Block("clarification", (Statement(q, "template"),)) for q in plan.clarify)]
    if section.checklist:
        blocks += [
            notice(TO_CONFIRM),
            *(Block("task", (Statement(i, "template"),)) for i in section.checklist),
        ]
    return replace(draft, blocks=tuple(blocks))


def fitting(passages: list[Passage], chars: int) -> list[Passage]:
    """The first passages that fit into so many characters of a prompt."""
    kept: list[Passage] = []
    for passage in passages:
        chars -= len(passage.text) + len(passage.label()) + 10
        if chars < 0:
            break
        kept.append(passage)
    return kept


def read_reply(
    draft: SectionDraft, reply: str, said: list[BriefSentence], passages: list[Passage]
) -> SectionDraft:
    """Blocks of checked statements out of a model's Markdown; headings, tables and code are dropped."""
    blocks: list[Block] = []
    dropped: list[Dropped] = []
    prose = re.sub(
        r"```.*?(```|\Z)", lambda m: _note(dropped, draft.key, m[0], "code is not checked"), reply, flags=re.S
    )
    for question in UNCLEAR.findall(prose):
        blocks.append(Block("clarification", (Statement(clean(question), "template"),)))
    prose = UNCLEAR.sub("", prose)
    kept: list[Block] = []
    for raw in re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+[.)])\s)|(?<=\n)(?=#)", prose):
        line = raw.strip()
        if not line or line.startswith(("#", "|", "---")) or line.strip(".").upper() == "NOTHING":
            continue
        item = re.match(r"(?:[-*+]|\d+[.)])\s+", line)
        statements: list[Statement] = []
        for sentence, marks in split_marked(line[item.end() :] if item else line):
            result = judge(sentence, marks, said, passages)
            if isinstance(result, Statement):
                statements.append(result)
            else:
                dropped.append(Dropped(draft.key, sentence, result))
        if statements:
            kept.append(Block("bullet" if item else "paragraph", tuple(statements)))
    return replace(draft, blocks=(*kept, *blocks), dropped=(*draft.dropped, *dropped))


def split_marked(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Sentences of a paragraph, cleaned, each with the markers it carries."""
    text = LATE_MARKER.sub(lambda m: f"{m[2]}{m[1]}", " ".join(text.split()))
    found: list[tuple[str, tuple[str, ...]]] = []
    for first, last in sentence_spans(text):
        raw = text[first:last]
        marks = tuple(x for m in MARKER.finditer(raw) for x in re.split(r"\s*[,;]\s*", m[1]))
        words = clean(MARKER.sub("", raw))
        if re.search(r"\w", words):
            found.append((finished(words), tuple(dict.fromkeys(marks))))
    return found


def judge(
    sentence: str, marks: tuple[str, ...], said: list[BriefSentence], passages: list[Passage]
) -> Statement | str:
    """The sentence with its resolved pointers, or the reason why it cannot stand.

    A sentence without a known marker gets the one source that covers its words best, if that supports it.
    """
    by_ref = {s.ref: s for s in said}
    sources: list[tuple[Pointer, str]] = []
    for mark in marks:
        if mark in by_ref:
            sources.append((Pointer(ref=mark), by_ref[mark].text))
        elif mark.isdigit() and 1 <= int(mark) <= len(passages):
            sources.append(_source(passages[int(mark) - 1]))
    if not sources:
        offers = [(Pointer(ref=s.ref), s.text) for s in said] + [_source(p) for p in passages]
        sources = sorted(offers, key=lambda o: (len(missing(sentence, [o[1]])), -overlap(sentence, [o[1]])))[
            :1
        ]
    reason = unsupported(sentence, [text for _, text in sources], least_overlap=LEAST_OVERLAP)
    return reason or Statement(sentence, "model", tuple(p for p, _ in sources))


def _source(passage: Passage) -> tuple[Pointer, str]:
    pointer = Pointer(chunk_id=passage.chunk_id, start=passage.start, end=passage.end)
    return pointer, f"{passage.label()}\n{passage.text}"


def _note(dropped: list[Dropped], key: str, text: str, reason: str) -> str:
    dropped.append(Dropped(key, text[:200], reason))
    return ""
