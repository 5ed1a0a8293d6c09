"""Choose sentences of passages that can be quoted: whole, readable alone, about the topic and the section."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from assistant.rfc.artefacts import Block, Passage, Pointer, Statement
from assistant.rfc.brief import finished
from assistant.rfc.sentences import Sentence, sentences
from assistant.rfc.words import content

MOST_WORDS, LEAST_WORDS = 45, 5
WINDOW_WORDS, WINDOW_SENTENCES = 70, 3
LEANING = re.compile(
    r"^(this|these|those|that|it|its|they|their|he|she|such|however|but|and|or|so|then|thus|therefore|hence|also"
    r"|otherwise|instead|additionally|moreover|furthermore|in (this|that|these|such|addition|contrast|other words)"
    r"|for (this|that|these|example|instance)|as (such|a result|mentioned|described|above)|both|neither|either"
    r"|the (former|latter|above|following|same)|here|there|similarly|likewise|consequently|because of (this|that)"
    r"|again|another|first|second|third|finally|lastly|next|note|notice|after that|to do (this|so|that)"
    r"|if (so|not|this))\b",
    re.IGNORECASE,
)
UNFIT = re.compile(
    r"\b(TODO|TBD|FIXME|XXX|lorem ipsum|below|above|as follows|following|click|this (page|section|document|chapter"
    r"|guide|article|post|runbook|tutorial|table|figure|issue|PR|doc)|figure|screenshot"
    r"|see (also|the|our|here|issue)|read more|learn more"
    r"|stay tuned|let'?s|I|I'm|I've|my|copyright|licen[cs]e|blog post|talk|video|table of contents)\b",
)
JUNK = re.compile(r"[{}|<>$^~=]|\\|https?:|\.\.\.|…|^\W*[-–—*]|(?<!`)::|[#]{2}")


@dataclass(slots=True)
class Quoter:
    """Scores sentences for one document. `weights` say how telling a stem is; `topic` are the brief's.

    Sentences that were quoted once are not quoted again.
    """

    topic: Mapping[str, float]
    rarity: Mapping[str, float]
    used: set[str] = field(default_factory=set)

    def quote(self, passages: Sequence[Passage], about: Set[str], limit: int) -> list[Block]:
        """At most `limit` quotations, one per passage, best first; `about` are the stems of the section."""
        offers = [
            (score, i, window, p) for i, p in enumerate(passages) for score, window in self._best(p, about)
        ]
        blocks: list[Block] = []
        for _, _, window, passage in sorted(offers, key=lambda o: (-o[0], o[1]))[:limit]:
            window = [s for s in window if self._fresh(s)]
            if not window or LEANING.match(window[0].text):
                continue
            self.used |= {_key(s.text) for s in window}
            label = passage.label(*filter(None, [window[0].heading]))
            blocks.append(Block("bullet", tuple(statement(s, passage) for s in window), label))
        return blocks

    def _best(self, passage: Passage, about: Set[str]) -> list[tuple[float, list[Sentence]]]:
        scored = [s for s in ((self._score(w, passage, about), w) for w in windows(passage)) if s[0] > 0]
        return sorted(scored, key=lambda s: -s[0])[:1]

    def _score(self, window: Sequence[Sentence], passage: Passage, about: Set[str]) -> float:
        stems = {t for s in window for t in content(s.text)}
        around = set(content(passage.label()))
        on_topic = sum(w for t, w in self.topic.items() if t in stems) + 0.5 * sum(
            w for t, w in self.topic.items() if t in around - stems
        )
        on_section = sum(self.rarity.get(t, 1.0) for t in about & stems)
        if not on_topic or not (set(self.topic) | about) & stems:
            return 0.0
        stale = sum(not self._fresh(s) for s in window)
        return (on_topic + 0.8 * on_section) / math.sqrt(8 + len(stems)) * (0.2 if stale else 1.0)

    def _fresh(self, sentence: Sentence) -> bool:
        return _key(sentence.text) not in self.used


def windows(passage: Passage) -> Iterator[list[Sentence]]:
    """Runs of one to three neighbouring quotable sentences of one paragraph that start on their own feet."""
    found = sentences(passage.text)
    for first, sentence in enumerate(found):
        if not quotable(sentence, passage) or LEANING.match(sentence.text):
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
    torn = sentence.end >= len(passage.text.rstrip()) and not sentence.item
    if not whole and (not sentence.item or text.endswith((":", ";", ",", "?")) or torn):
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
