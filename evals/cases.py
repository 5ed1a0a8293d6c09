"""Writing cases: a document's title and summary and the name of a section → the section its authors wrote.

From a folder of design documents (Kubernetes, Rust, gRPC by their templates, any other by its headings), or
from JSON lines. A case is what a model is asked and what it is compared with; the document it comes from and
copies of it must not be retrieved (`exclude_hash`), or the scores would measure copying.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput
from evals.documents import DesignDocument, heading_name, read_folder
from evals.splits import Split, identity, split_of
from evals.structure import OTHER, TEMPLATES, author_words, family_of, places
from evals.text_metrics import words

MIN_WORDS, MAX_WORDS = 30, 600
"""Of a reference. Shorter ones are formulas ("None"), longer ones no model is asked to write at once."""

SECTION_NAMES: Mapping[str, str] = {
    "motivation": "Motivation",
    "goals": "Goals",
    "non_goals": "Non-goals",
    "proposal": "Proposal",
    "risks": "Risks and mitigations",
    "design_details": "Design details",
    "test_plan": "Test plan",
    "graduation": "Graduation criteria",
    "drawbacks": "Drawbacks",
    "alternatives": "Alternatives",
    "unresolved": "Unresolved questions",
    "background": "Background",
    "rationale": "Rationale",
    "implementation": "Implementation",
}
"""The sections of the templates that are cases, as they are asked for; a summary is given, not asked for."""

_GIVEN = {"summary", "abstract", "overview", "references", "acknowledgements", "changelog"}


@dataclass(frozen=True, slots=True)
class SectionCase:
    """`document` is the path in its folder, `exclude_hash` the text hash of the document."""

    id: str
    document: str
    family: str
    title: str
    summary: str
    section: str
    reference: str
    exclude_hash: str


def load_sections(source: Path) -> list[SectionCase]:
    """The cases of a folder of Markdown, or of a file of JSON lines.

    Raises InvalidInput naming the file (and line) that is wrong, or when no case was found.
    """
    if source.is_file():
        return _read_lines(source)
    return sections_of(read_folder(source), str(source))


def sections_of(documents: Sequence[DesignDocument], source: str = "") -> list[SectionCase]:
    """The cases of documents that were read, in their order."""
    cases = [case for document in documents for case in _cases(document)]
    if not cases:
        raise InvalidInput(
            f"{source} holds no document with a summary and a section of {MIN_WORDS} to {MAX_WORDS} words.",
            hint="Documents need a summary section of 15 words or a lead of 25, and headings.",
            field="--data",
        )
    return cases


def choose(cases: Sequence[SectionCase], split: Split | None, limit: int | None = None) -> list[SectionCase]:
    """The cases of one split, at most `limit`: a repeatable mixture of as many documents as possible."""
    wanted = [c for c in cases if split is None or split_of(c.document) == split]
    if limit is None or limit >= len(wanted):
        return wanted
    shuffled = sorted(wanted, key=lambda c: hashlib.sha256(c.id.encode()).digest())
    return _one_of_each_document_first(shuffled)[:limit]


def _one_of_each_document_first(cases: Sequence[SectionCase]) -> list[SectionCase]:
    """More documents tell more than more sections of the same ones."""
    seen: Counter[str] = Counter()
    turns = []
    for case in cases:
        turns.append(seen[case.document])
        seen[case.document] += 1
    return [case for _, case in sorted(zip(turns, cases, strict=True), key=lambda pair: pair[0])]


def _cases(document: DesignDocument) -> Iterator[SectionCase]:
    if not document.summary or not document.title:
        return
    family = family_of(document)
    for name, reference in _references(document, family):
        count = author_words(reference)
        if count >= MIN_WORDS and len(words(reference)) <= MAX_WORDS and document.summary not in reference:
            yield SectionCase(
                id=f"{identity(document.path)}#{name}",
                document=document.path,
                family=family,
                title=document.title,
                summary=document.summary,
                section=name,
                reference=reference,
                exclude_hash=document.text_hash,
            )


def _references(document: DesignDocument, family: str) -> Iterator[tuple[str, str]]:
    if family != OTHER:
        for key, place in places(document, TEMPLATES[family]).items():
            if key in SECTION_NAMES:
                yield SECTION_NAMES[key], document.sections[place].text
        return
    seen = set(_GIVEN)
    for section in document.sections:
        name = heading_name(section.title)
        if section.level == 2 and name not in seen:
            seen.add(name)
            yield section.title, section.text


def _read_lines(file: Path) -> list[SectionCase]:
    cases = []
    for line, record in json_lines(file):
        value = {name: text_field(file, line, record, name) for name in _REQUIRED}
        document = text_field(file, line, record, "document", default=f"{file.stem}-{line}.md")
        cases.append(
            SectionCase(
                id=text_field(file, line, record, "id", default=f"{identity(document)}#{value['section']}"),
                document=document,
                family=text_field(file, line, record, "family", default=OTHER),
                exclude_hash=text_field(file, line, record, "exclude_hash", default=""),
                **value,
            )
        )
    taken: set[str] = set()
    for case in cases:
        if case.id in taken:
            raise InvalidInput(f"{file}: the id {case.id!r} is used twice.", field="--data")
        taken.add(case.id)
    if not cases:
        raise InvalidInput(f"{file} holds no cases.", field="--data")
    return cases


_REQUIRED = ("title", "summary", "section", "reference")


def json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of a file of JSON lines; blank lines are skipped.

    Raises InvalidInput naming file and line.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise wrong_line(file, number, f"is no JSON: {error}") from None
                if not isinstance(record, dict):
                    raise wrong_line(file, number, f"holds a {type(record).__name__}, not an object")
                yield number, record
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as UTF-8 text: {error}.", field="--data") from None


def text_field(
    file: Path, line: int, record: Mapping[str, Any], name: str, default: str | None = None
) -> str:
    """A field that holds text. Raises InvalidInput naming file, line and field."""
    value = record.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and name in {"_id", "id"}:
        value = str(value)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise wrong_line(file, line, f"field {name!r} must be text, and not empty")
    return value


def wrong_line(file: Path, line: int, problem: str) -> InvalidInput:
    return InvalidInput(f"{file}, line {line}: {problem}.", hint="Correct that line.", field="--data")
