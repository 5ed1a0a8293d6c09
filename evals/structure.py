"""Is a design document built as documents of its family are: what is there, in which order, and filled?

The templates and their order are those that the authors of real proposals nearly always follow, so that good
writing scores high. Short is not empty: "None." is an answer; a comment of the template, "TBD" or nothing is
not. A section counts with its subsections, since most "Design Details" have no words of their own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from evals.documents import DesignDocument, heading_name
from evals.text_metrics import words


@dataclass(frozen=True, slots=True)
class Template:
    """Required sections in their order: key → what the heading may be called."""

    family: str
    required: Mapping[str, re.Pattern[str]]


def _template(family: str, **sections: str) -> Template:
    patterns = {key: re.compile(names, re.IGNORECASE) for key, names in sections.items()}
    return Template(family, patterns)


KUBERNETES = _template(
    "kubernetes",
    summary=r"summary",
    motivation=r"motivation",
    goals=r"goals",
    non_goals=r"non[- ]?goals",
    proposal=r"proposal",
    risks=r"risks?( and |/| & )mitigations?|risks?",
    design_details=r"design( details)?|design overview|implementation details",
    test_plan=r"test(ing)?( plan)?s?",
    graduation=r"graduation criteria|graduation",
    drawbacks=r"drawbacks.*",
    alternatives=r".*alternatives.*",
)
RUST = _template(
    "rust",
    summary=r"summary",
    motivation=r"motivation",
    drawbacks=r".*drawbacks.*|.*downsides.*|disadvantages",
    alternatives=r".*alternatives.*|rationale",
    unresolved=r".*(unresolved|open) (questions|issues).*|unresolved",
)
GRPC = _template(
    "grpc",
    abstract=r"abstract",
    background=r"background.*",
    proposal=r"proposals?",
    rationale=r"rationale.*",
    implementation=r"implementation.*",
)
TEMPLATES: Mapping[str, Template] = {t.family: t for t in (KUBERNETES, RUST, GRPC)}
OTHER = "other"
_MIN_RECALL = 0.4
"""A document with less of every template belongs to none of the three families."""

_PLACEHOLDER = re.compile(
    r"\[?\(?(tbd|tba|todo|to be (determined|decided|done|filled( in)?|added|written)|coming soon|"
    r"wip|work in progress|fill (me )?in|placeholder|your text here|lorem ipsum)\b[^\n]{0,60}",
    re.IGNORECASE,
)
_EMPTY_MARKS = re.compile(r"[\s\-*_.…<>?]*")
_MIN_BLOCK_WORDS = 5


@dataclass(frozen=True, slots=True)
class Structure:
    """Shares from 0 to 1. `order` is None where fewer than two required sections are there.

    recall: required sections that are there; filled: of those, the ones with words of an author; order:
    Kendall's τ against the template, as (τ + 1) / 2; distinct: paragraphs that do not repeat another;
    score: their product. `words` counts the words below each required section.
    """

    family: str
    recall: float
    filled: float
    order: float | None
    distinct: float
    score: float
    words: Mapping[str, int]


def family_of(document: DesignDocument) -> str:
    """The family whose template the headings fit best: kubernetes, rust, grpc, or other."""
    recalls = {t.family: _recall(document, t) for t in TEMPLATES.values()}
    best = max(recalls, key=lambda family: recalls[family])
    return best if recalls[best] >= _MIN_RECALL else OTHER


def structure(document: DesignDocument, family: str | None = None) -> Structure:
    """How well a document follows its family's template, or that of the `family` it was asked for.

    Raises KeyError for a family without a template.
    """
    template = TEMPLATES[family or family_of(document)]
    found = places(document, template)
    counts = {key: author_words(document.sections[place].text) for key, place in found.items()}
    filled = sum(_is_filled(document.sections[place].text) for place in found.values())
    recall = len(found) / len(template.required)
    share = filled / len(found) if found else 0.0
    order = kendall_tau(list(found.values()))
    scaled = None if order is None else (order + 1) / 2
    once = distinct(document.text)
    score = recall * share * (1.0 if scaled is None else scaled) * once
    return Structure(template.family, recall, share, scaled, once, score, counts)


def kendall_tau(positions: Sequence[int]) -> float | None:
    """Kendall's τ of positions against their order in the template, -1 to 1; None for fewer than two.

    Equal positions (one heading that serves two sections) count neither way.
    """
    pairs = [(a, b) for a, b in combinations(positions, 2) if a != b]
    if not pairs:
        return None
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


def author_words(text: str) -> int:
    """Words that are no placeholder."""
    return len(words(_PLACEHOLDER.sub(" ", text)))


def distinct(text: str) -> float:
    """The share of paragraphs, of five words or more, that did not stand before; 1 without any."""
    blocks = [tuple(found) for block in text.split("\n\n") if len(found := words(block)) >= _MIN_BLOCK_WORDS]
    return len(set(blocks)) / len(blocks) if blocks else 1.0


def _is_filled(text: str) -> bool:
    return author_words(text) > 0 and not _EMPTY_MARKS.fullmatch(text)


def _recall(document: DesignDocument, template: Template) -> float:
    return len(places(document, template)) / len(template.required)


def places(document: DesignDocument, template: Template) -> dict[str, int]:
    """Where each required section first stands, in the template's order; a title is no section."""
    found: dict[str, int] = {}
    names = [heading_name(section.title) for section in document.sections]
    for key, pattern in template.required.items():
        place = next(
            (i for i, name in enumerate(names) if document.sections[i].level > 1 and pattern.fullmatch(name)),
            None,
        )
        if place is None:
            place = next((i for i, name in enumerate(names) if pattern.fullmatch(name)), None)
        if place is not None:
            found[key] = place
    return found
