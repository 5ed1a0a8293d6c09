"""Does a sentence say nothing that its source does not say?

Not entailment: agreement of what can be compared exactly (numbers with their units, versions, dates,
identifiers, names, quotations), of the words used, and of negation. A sentence that fails is not shown;
one that passes can still be wrong, which is why its source is one click away.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from assistant.rfc.words import content, overlap

COUNTED = "two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = {word: str(n) for n, word in enumerate(COUNTED.split(), start=2)}
UNITS = {
    "ms": ("ms", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "min": ("min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "%": ("%", "percent", "per cent"),
    "kb": ("kb", "kib", "kilobytes"),
    "mb": ("mb", "mib", "megabytes"),
    "gb": ("gb", "gib", "gigabytes"),
    "tb": ("tb", "tib", "terabytes"),
}
UNIT = {alias: unit for unit, aliases in UNITS.items() for alias in aliases}
QUANTITY = re.compile(r"(?<![\w.])v?(\d+(?:[.,:\-/]\d+)*)\s?(%|[A-Za-zµ]+)?(?![\w%])", re.IGNORECASE)
CODE = re.compile(r"`([^`]+)`")
QUOTED = re.compile(r"[\"“]([^\"”]{3,}?)[\"”]")
IDENTIFIER = re.compile(
    r"https?://\S+|(?<!\w)--?[a-z][\w.-]{2,}|[A-Za-z]\w*(?:[_.:/\\]+\w+)+|[a-z]+[A-Z]\w*|[A-Z][a-z0-9]+(?:[A-Z]\w*)+"
    r"|\b[A-Z][A-Z0-9]+\b|\b(?=\w*\d)(?=\w*[A-Za-z])\w{2,}\b"
)
NAME = re.compile(r"(?<=[a-z,;:)] )[A-Z][a-z]{2,}\b")
NEGATION = re.compile(r"\b(?:not|no|never|none|cannot|without|neither|nor|unable|\w+n['’]t)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be compared exactly: numbers (with a unit where one is known), identifiers and quotations."""

    quantities: frozenset[str]
    names: frozenset[str]
    quotes: tuple[str, ...]


def facts(text: str) -> Facts:
    """The facts of a sentence."""
    quantities = set(_quantities(CODE.sub(" ", text)))
    names = {m[1].strip() for m in CODE.finditer(text)}
    plain = CODE.sub(" ", text)
    names |= {m[0].rstrip(".,:;/") for m in IDENTIFIER.finditer(plain)}
    names |= {m[0] for m in NAME.finditer(plain)}
    names = {n for n in names if not QUANTITY.fullmatch(n)}
    return Facts(
        frozenset(quantities),
        frozenset(n.casefold() for n in names if n),
        tuple(_flat(m[1]) for m in QUOTED.finditer(plain)),
    )


def missing(sentence: str, sources: Iterable[str]) -> tuple[str, ...]:
    """The facts of `sentence` that occur in none of `sources`, as written; empty when all agree."""
    texts = list(sources)
    known: set[str] = set()
    for text in texts:
        known |= set(_quantities(text))
    bare = {re.sub(r"[^\d.,:\-/]", "", k) for k in known}
    flat = "\n".join(_flat(t) for t in texts)
    wanted = facts(sentence)
    lost = [q for q in sorted(wanted.quantities) if q not in known and not (q in bare and q[-1:].isdigit())]
    lost += [n for n in sorted(wanted.names) if not _occurs(n, flat)]
    lost += [q for q in wanted.quotes if q not in flat]
    return tuple(lost)


def _quantities(text: str) -> Iterable[str]:
    for match in QUANTITY.finditer(text):
        number = match[1].replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", match[1]) else match[1]
        unit = (match[2] or "").casefold()
        yield number + UNIT.get(unit, "")
        for part in re.split(r"[-/]", number) if "-" in number and unit in UNIT else ():
            yield part + UNIT[unit]
    for word in re.findall(r"[a-z]+", text.casefold()):
        if word in NUMBER_WORDS:
            yield NUMBER_WORDS[word]


def _flat(text: str) -> str:
    return " ".join(re.sub(r"[`*\\]", "", text).split()).casefold()


def _occurs(name: str, flat: str) -> bool:
    name = _flat(name)
    found = re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", flat)
    plural = name.removesuffix("s") if len(name) > 3 else name
    return bool(found) or bool(re.search(rf"(?<![^\W_]){re.escape(plural)}s?(?![^\W_])", flat))


def negated(text: str) -> bool:
    return bool(NEGATION.search(text))


def unsupported(sentence: str, sources: Iterable[str], *, least_overlap: float) -> str | None:
    """Why `sentence` must not be shown with these sources, or None.

    `least_overlap` is the share of its content words that the sources must contain.
    """
    texts = list(sources)
    if not texts:
        return "it has no source"
    lost = missing(sentence, texts)
    if lost:
        return f"not in its source: {', '.join(lost)}"
    share = overlap(sentence, texts)
    if share < least_overlap:
        return f"only {share:.0%} of its words are in its source"
    closest = max(texts, key=lambda t: len(set(content(t)) & set(content(sentence))))
    if negated(sentence) and not negated(closest):
        return "it negates something and its source does not"
    return None
