"""Words that carry meaning, cut to a rough stem so that "alerts" meets "alerting"."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+#-]*[A-Za-z0-9+#]|[^\W\d_]+|\d+")
STOP_WORDS = """
    a about above after again all also am an and any are as at be because been before being below between
    both but by can cannot could did do does doing down during each either else etc every few for from further
    get gets give given go had has have having he hence her here how however i if in instead into is it its
    itself just let like made make makes many may me might more most much must my need needs neither no nor not
    now of off often on once one only onto or other our out over own per please put rather really same say see
    shall she should since so some still such take than that the their them then there these they thing things
    this those though through thus to too under until up upon us use used user users uses using very via want
    wants was way we well were what when where whether which while who whom whose why will with within without
    would yes yet you your new feature today currently able
"""
STOP = frozenset(STOP_WORDS.split())
SUFFIXES = (
    "ations",
    "ation",
    "ements",
    "ement",
    "ings",
    "ing",
    "edly",
    "ers",
    "ies",
    "ed",
    "er",
    "es",
    "ly",
    "s",
    "e",
    "y",
)


def stem(word: str) -> str:
    """A word without its usual English endings; short words and identifiers stay as they are."""
    word = word.casefold()
    if not word.isalpha() or len(word) < 5:
        return word.removesuffix("s") if len(word) == 4 and not word.endswith("ss") else word
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def content(text: str) -> list[str]:
    """Stems of the words of `text` that are no stop words, in order."""
    return [stem(w) for w in raw_content(text)]


def raw_content(text: str) -> list[str]:
    """The words of `text` that are no stop words, as written. Hyphenated words also count in parts."""
    words: list[str] = []
    for match in WORD.finditer(text):
        parts = [match[0]]
        if re.fullmatch(r"[A-Za-z]+(?:[-/][A-Za-z]+)+", match[0]):
            parts = re.split(r"[-/]", match[0])
        words += [w for w in parts if w.casefold() not in STOP and (len(w) > 1 or w.isdigit())]
    return words


def spread(texts: Iterable[str]) -> Mapping[str, float]:
    """The share of `texts` in which each stem occurs."""
    seen: Counter[str] = Counter()
    total = 0
    for text in texts:
        seen.update(set(content(text)))
        total += 1
    return {stem: count / total for stem, count in seen.items()}


def overlap(text: str, sources: Iterable[str]) -> float:
    """Share of the content words of `text` that occur in `sources`; 1.0 for a text without any."""
    own = set(content(text))
    if not own:
        return 1.0
    known = {s for source in sources for s in content(source)}
    return len(own & known) / len(own)


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the content words, for near duplicates."""
    return jaccard(set(content(one)), set(content(other)))


def jaccard(one: Set[str], other: Set[str]) -> float:
    """Shared members over all members; two empty sets are alike."""
    return len(one & other) / len(one | other) if one | other else 1.0
