"""Choose sentences of passages that can be quoted: whole, readable alone, about the topic and the section."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from assistant.retrieval.passages import display_path
from assistant.rfc.artefacts import Block, Passage, Pointer, Statement
from assistant.rfc.brief import finished
from assistant.rfc.sentences import Sentence, sentences
from assistant.rfc.words import content

MOST_WORDS, LEAST_WORDS = 45, 5
LEAST_NOTE_WORDS = 9
"""A list item without a full stop must be this long to pass for a sentence."""
WINDOW_WORDS, WINDOW_SENTENCES = 70, 3
AROUND = 0.5
"""What a word in the headings above counts, against one in the sentence itself."""
LEAST_TOPIC = 0.3
"""Share of the title's weight that a quotation must meet."""
LEAST_GENERAL = 2
"""Words of the section that general advice must share."""
LEANING = re.compile(
    r"^(this|these|those|that|it|its|they|their|he|she|such|however|but|and|or|so|then|thus|therefore|hence|also"
    r"|otherwise|instead|additionally|moreover|furthermore|in (this|that|these|such|addition|contrast|other words)"
    r"|for (this|that|these|example|instance)|as (such|a result|mentioned|described|above)|both|neither|either"
    r"|the (former|latter|above|following|same)|here|similarly|likewise|consequently|because of (this|that)"
    r"|again|another|first|second|third|finally|lastly|next|note|notice|after that|to do (this|so|that)"
    r"|if (so|not|this)|eventually|meanwhile|now|afterwards|yet|still|even so|at (this|that) point"
    r"|once (this|that|it))\b",
    re.IGNORECASE,
)
UNFIT = re.compile(
    r"\b(NOTE|TODO|TBD|FIXME|XXX|lorem ipsum|below|above|as follows|following|click|this (page|section|document|chapter"
    r"|guide|article|post|runbook|tutorial|table|figure|issue|PR|doc)|figure|screenshot"
    r"|see (also|the|our|here|issue)|read more|learn more"
    r"|stay tuned|let'?s|I|I'm|I've|my|copyright|licen[cs]e|blog post|talk|video|table of contents)\b",
)
POINTING = re.compile(r"\b(this|these|those|run (it|the command))\b", re.IGNORECASE)
OURS = re.compile(r"\b(we|our|us|you|your)\b", re.IGNORECASE)
FRAGMENT = re.compile(
    r"^(\w+ing|\w+ed|supports?|allows?|provides?|enables?|contains?|includes?|uses?|makes?|can|is|are|has|have"
    r"|ability|elimination|support|\d[\w.,]*|\w+s (the|an?|its|their|each|all|if|whether))\b",
    re.IGNORECASE,
)
COLUMNS = re.compile(r"\n {8,}")
"""Text in columns, such as the help of a command line whose code fence the chunk has lost."""
LINK = re.compile(r"\[.*\]\([^)]*\)[.!]?", re.DOTALL)
JUNK = re.compile(r"[{}|<>$^~=]| - [A-Z]|\\|https?:|\.\.\.|…|^\W*[-–—*]|(?<!`)::|[#]{2}")


@dataclass(slots=True)
class Quoter:
    """Scores sentences for one document.

    `title` are the stems of its title, `topic` those of the whole brief. `spread` is the share of the passages
    that hold a stem: what the search agreed on is the topic, so "automatic" weighs less than "volume".
    Sentences that were quoted once are not quoted again.
    """

    title: Set[str]
    topic: Set[str]
    spread: Mapping[str, float]
    used: set[str] = field(default_factory=set)

    def quote(self, passages: Sequence[Passage], about: Set[str], limit: int, general: bool) -> list[Block]:
        """At most `limit` quotations, one per passage, best first; `about` are the stems of the section.

        `general` also allows advice that fits the section but does not mention the topic.
        """
        offers = []
        for passage in passages:
            scored = [(self._score(w, passage, about, general), w) for w in windows(passage)]
            offers += [(*best, passage) for best in sorted(scored, key=lambda s: -s[0])[:1] if best[0] > 0]
        blocks: list[Block] = []
        for _, window, passage in sorted(offers, key=lambda o: -o[0])[:limit]:
            if any(_key(s.text) in self.used for s in window):
                continue
            self.used |= {_key(s.text) for s in window}
            label = short(passage.title, (*passage.headings, *filter(None, [window[0].heading])))
            blocks.append(Block("bullet", tuple(statement(s, passage) for s in window), label))
        return blocks

    def _score(self, window: Sequence[Sentence], passage: Passage, about: Set[str], general: bool) -> float:
        if any(_key(s.text) in self.used for s in window):
            return 0.0
        stems = {t for s in window for t in content(s.text)}
        around = set(content(passage.label(*filter(None, [window[0].heading])))) - stems
        own = self._on_topic(stems)
        on_topic = own + AROUND * self._on_topic(around)
        advises = bool(about & stems) and len(about & (stems | around)) >= LEAST_GENERAL
        topical = own >= LEAST_TOPIC or (on_topic >= LEAST_TOPIC and bool(about & stems))
        if not (advises or (topical and about & (stems | around)) if general else topical):
            return 0.0
        if OURS.search(" ".join(s.text for s in window)):
            on_topic *= 0.5
        on_section = self._telling(about & stems) + AROUND * self._telling(about & around)
        on_section /= self._telling(about) or 1.0
        closeness = 0.5 + (passage.dense if passage.dense is not None else 0.5)
        return (on_topic + on_section) * closeness / math.sqrt(10 + len(stems))

    def _on_topic(self, stems: Set[str]) -> float:
        """Share of the title's words, each counted by how many of the passages found speak of it."""
        whole = sum(self.spread.get(t, 0.0) for t in self.title)
        return sum(self.spread.get(t, 0.0) for t in self.topic & stems) / (whole or 1.0)

    def _telling(self, stems: Set[str]) -> float:
        """Words that few passages hold say more about a section."""
        return sum(1.0 - 0.8 * self.spread.get(t, 0.0) for t in stems)


def short(title: str, path: Sequence[str]) -> str:
    """Title and innermost heading; the whole path stands in the references."""
    return display_path(title, tuple(path[-1:]))


def windows(passage: Passage) -> Iterator[list[Sentence]]:
    """Runs of one to three neighbouring quotable sentences of one paragraph that start on their own feet."""
    found = sentences(passage.text)
    for first, sentence in enumerate(found):
        if not quotable(sentence, passage) or LEANING.match(sentence.text) or POINTING.search(sentence.text):
            continue
        words = 0
        for last in range(first, min(first + WINDOW_SENTENCES, len(found))):
            if found[last].block != sentence.block or not quotable(found[last], passage):
                break
            words += len(found[last].text.split())
            if words > WINDOW_WORDS and last > first:
                break
            yield found[first : last + 1]


def quotable(sentence: Sentence, passage: Passage) -> bool:
    """Whether it is a whole sentence of prose that is worth reading outside of its page."""
    text = sentence.text
    bare = re.sub(r"`[^`]*`", "x", text)
    words = bare.split()
    if not LEAST_WORDS <= len(words) <= MOST_WORDS or not re.match(r"[\"“'(`]?[A-Z0-9`]", text):
        return False
    whole = re.search(r"[.!][\"'”’)\]]*$", text)
    source = passage.text[sentence.start : sentence.end]
    if (sentence.item and FRAGMENT.match(text)) or LINK.fullmatch(source.strip("*_ ")):
        return False
    if COLUMNS.search(source):
        return False
    if re.search(r"[.!]\)$", text) and not text.startswith("("):
        return False
    torn = sentence.end >= len(passage.text.rstrip()) and not sentence.item
    noted = sentence.item and len(words) >= LEAST_NOTE_WORDS and not text.endswith((":", ";", ",", "?"))
    if not whole and (not noted or torn):
        return False
    if text.endswith("?") or JUNK.search(bare) or UNFIT.search(bare) or text.count("(") != text.count(")"):
        return False
    letters = sum(c.isalpha() or c.isspace() for c in bare)
    return letters / len(bare) > 0.85 and text.count("`") // 2 <= len(words) / 3


def statement(sentence: Sentence, passage: Passage) -> Statement:
    """The sentence with the offsets of its source in the document."""
    pointer = Pointer(
        chunk_id=passage.chunk_id, start=passage.start + sentence.start, end=passage.start + sentence.end
    )
    return Statement(finished(sentence.text), "evidence", (pointer,))


def _key(text: str) -> str:
    return " ".join(content(text))
