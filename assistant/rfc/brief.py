"""Stage 1: take the user's brief apart into sentences that can be pointed at, and say what each is about."""

import re
from collections import Counter

from assistant.errors import TooLarge
from assistant.rfc.artefacts import BriefArtefact, BriefSentence
from assistant.rfc.sentences import sentences
from assistant.rfc.templates import SentenceKind, Template
from assistant.rfc.words import raw_content, stem
from assistant.rfc.work import Work

CUES: tuple[tuple[SentenceKind, str], ...] = (
    (
        "non_goal",
        r"\b(non-?goals?|out of scope|not in scope|leave out|left out|for now we (do not|don't)"
        r"|(do|does|will|is|are|need) not (need|want|aim|cover|include|intended|change|touch|replace|part)"
        r"|(won't|don't|doesn't) (need|want|aim|cover|include|change|touch|replace|be))\b",
    ),
    ("problem", r"\b(today|currently|at the moment|so far|the problem is)\b"),
    ("alternative", r"\b(alternatives?|alternatively|(we|was|were) (also )?considered|other options?)\b"),
    (
        "proposal",
        r"\b((we|I) (will|propose|plan|intend|would like|want) (to )?(add|build|introduc|creat|implement|replac|extend"
        r"|stor|expos|provid|deploy|write|run|use|put|keep|send|offer|move|split|switch|make)\w*|(we|I) propose"
        r"|^(add|build|introduce|create|implement|provide|deploy)\b)",
    ),
    ("risk", r"\b(risks?|risky|danger\w*|worr(y|ies|ied)|might break|could break|concerns?|threats?)\b"),
    (
        "rollout",
        r"\b(roll(ed|ing|s)?[ -]?(out|back)|feature flags?|canar\w+|pilot|phased?|gradual\w*|go(es)? live)\b",
    ),
    (
        "observability",
        r"\b(dashboards? (show|for|with)|alerts? (on|when|if|fires?)|(is|are|be) (monitored|logged|measured|traced))\b",
    ),
    (
        "goal",
        r"\b(goals?|should|must|needs? to|shall|want(s|ed)?|so that|in order to|reduces?|improves?|at most|at least"
        r"|within|less than|under \d|below \d|targets?|objectives?|SLOs?|success)\b",
    ),
    (
        "problem",
        r"\b(problems?|pain\w*|slow\w*|fail(s|ed|ing|ures?)?|manual(ly)?|by hand|cannot|can't"
        r"|hard to|difficult|lacks?|missing|incidents?|outages?|complain\w*|errors?|wast\w+|too (many|much|long|often)"
        r"|nobody|no way|runs? out|los(e|es|ing|t))\b",
    ),
    ("test", r"\b(tests?|tested|testing|benchmarks?|acceptance)\b"),
    ("rollout", r"\bmigrat\w+\b"),
    (
        "proposal",
        r"\b(propos\w+|introduc\w+|adds?|builds?|implement\w*|creates?|replaces?|extends?|supports?|provides?"
        r"|deploy\w*|stores?|exposes?|will|plan(s|ned)? to|offers?|keeps?|sends?|runs?)\b",
    ),
)
COMPILED = tuple((kind, re.compile(cue, re.IGNORECASE)) for kind, cue in CUES)
HEADINGS: dict[str, SentenceKind] = {
    "goals": "goal",
    "non_goals": "non_goal",
    "motivation": "problem",
    "alternatives": "alternative",
    "risks": "risk",
    "test_plan": "test",
    "rollout": "rollout",
    "observability": "observability",
    "proposal": "proposal",
    "design_details": "design",
}
TOPIC_WORDS = 8


class BriefStage:
    name = "brief"

    async def run(self, work: Work) -> BriefArtefact:
        longest = work.settings.rfc.max_brief_chars
        size = len(work.brief) + sum(map(len, work.answers.values()))
        if size > longest:
            raise TooLarge(
                f"The brief and its answers have {size} characters, at most {longest} are read.",
                hint="Shorten the brief, or ingest long material as a document so that it can be cited.",
                field="brief",
            )
        return read_brief(work.title, work.brief, work.template)


def read_brief(title: str, brief: str, template: Template) -> BriefArtefact:
    """Sentences with refs b0 (the title), b1, b2 …, their kinds, and the topic of the whole."""
    found = [BriefSentence("b0", " ".join(title.split()), "context")]
    for sentence in sentences(brief):
        text = finished(sentence.text)
        section = section_of(sentence.heading, template)
        kind = HEADINGS.get(section or "") or kind_of(text)
        found.append(BriefSentence(f"b{len(found)}", text, kind, section))
    return BriefArtefact(found[0].text, tuple(found), topic_of(title, [s.text for s in found[1:]]))


def kind_of(text: str) -> SentenceKind:
    """What a sentence of a brief is about, by its first telling cue; context when nothing tells."""
    return next((kind for kind, cue in COMPILED if cue.search(text)), "context")


def section_of(heading: str | None, template: Template) -> str | None:
    """The section that a heading of the brief names ("Non goals:" → non_goals), or None."""
    if not heading:
        return None
    wanted = [stem(w) for w in re.findall(r"[a-z]+", heading.casefold())]
    for section in template.sections:
        own = [stem(w) for w in re.findall(r"[a-z]+", section.title.casefold())]
        if wanted == own or (len(wanted) == 1 and wanted[0] in own and "non" not in own):
            return section.key
    return None


def topic_of(title: str, texts: list[str]) -> tuple[str, ...]:
    """The telling words of title and brief, those of the title first, then by frequency; no two of one stem."""
    counts = Counter(stem(w) for text in texts for w in raw_content(text) if not w.isdigit())
    written: dict[str, str] = {}
    for word in raw_content(title) + [w for t in texts for w in raw_content(t)]:
        written.setdefault(stem(word), word)
    first = list(dict.fromkeys(stem(w) for w in raw_content(title) if not w.isdigit()))
    rest = [s for s, n in counts.most_common() if s not in first and n > 1 and len(s) > 2]
    return tuple(written[s] for s in (first + rest)[:TOPIC_WORDS])


def finished(text: str) -> str:
    """A sentence with a full stop, so that notes and list items read like the rest."""
    return text if re.search(r"[.!?…][\"'”’)\]]*$", text) else f"{text.rstrip(':;, ')}."
