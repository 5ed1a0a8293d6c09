"""Design documents as their authors wrote them: title, summary, sections with everything below them.

Any folder of Markdown will do. HTML comments (a template's instructions) and tables of contents go before
anything is counted; front matter and lists of authors are not text of the document.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from assistant.errors import InvalidInput
from assistant.retrieval.structure import Block, markdown_blocks
from evals.text_metrics import words

SUFFIXES = {".md", ".markdown"}
MIN_SUMMARY_WORDS, MIN_LEAD_WORDS = 15, 25

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1|\Z)", re.DOTALL | re.MULTILINE)
_ID = re.compile(
    r"^\W*(?:(?i:kep|g?rfc|proposal|enhancement)\b[\s#:.-]*\d+|(?i:kep|g?rfc):|[AGLP]\d+(?=[\s:.-])|\d{3,5}(?=[\s:.-]))"
    r"[\s:.)\]-]*"
)
_FILE_ID = re.compile(r"^(?:[A-Za-z]{0,2}\d+|0+)[-_.\s]+")
_NO_TITLE = re.compile(
    r"(?:kep |rfc )?(?:title|template)|table of contents|readme|release signoff checklist|"
    r"summary|abstract|overview|motivation|background|introduction",
    re.IGNORECASE,
)
_CONTENTS = re.compile(r"table of contents|contents|toc", re.IGNORECASE)
_SUMMARY = re.compile(r"(?:executive )?summary|abstract|overview|tl;?dr", re.IGNORECASE)
_NUMBERING = re.compile(r"^(?:\d+(?:\.\d+)*[.)]?|[ivx]+\.)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Section:
    """`text` is what stands below the heading, its subsections with their headings included."""

    title: str
    level: int
    text: str

    @property
    def words(self) -> int:
        return len(words(self.text))


@dataclass(frozen=True, slots=True)
class DesignDocument:
    """`path` is relative to the folder that was read; `text_hash` is the same for copies of the text."""

    path: str
    title: str
    summary: str
    sections: tuple[Section, ...]
    text: str
    text_hash: str


def read_folder(folder: Path) -> list[DesignDocument]:
    """Every Markdown file below `folder`, in order of path; of copies of one text the first.

    Raises InvalidInput naming a folder that is not there or holds none, and a file that is not UTF-8.
    """
    if not folder.is_dir():
        raise InvalidInput(
            f"The folder of documents {folder} does not exist.", hint="Name it with --data.", field="--data"
        )
    documents: dict[str, DesignDocument] = {}
    for file in _files(folder):
        relative = file.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{file} cannot be read as UTF-8 text: {error}.",
                hint="Save it as UTF-8, or move it out of the folder.",
                field="--data",
            ) from None
        document = parse(relative.as_posix(), text)
        documents.setdefault(document.text_hash, document)
    if not documents:
        raise InvalidInput(
            f"{folder} holds no Markdown files ({', '.join(sorted(SUFFIXES))}).", field="--data"
        )
    return list(documents.values())


def parse(path: str, text: str) -> DesignDocument:
    """One document. Never fails: a text without headings has no sections."""
    body = clean(text)
    blocks = markdown_blocks(body)
    headings = [b for b in blocks if b.kind == "heading"]
    sections = tuple(_sections(body, headings))
    return DesignDocument(
        path=path,
        title=_title(path, headings),
        summary=_summary(body, blocks, sections),
        sections=sections,
        text=body,
        text_hash=hashlib.sha256(" ".join(words(body)).encode()).hexdigest(),
    )


def clean(text: str) -> str:
    """Without front matter and without HTML comments, those in code excepted."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = _FRONT_MATTER.sub("", text, count=1)
    kept, end = [], 0
    fences = [f.span() for f in _FENCE.finditer(text)]
    for comment in _COMMENT.finditer(text):
        if comment.start() < end or any(a < comment.start() < b for a, b in fences):
            continue
        kept.append(text[end : comment.start()])
        end = comment.end()
    return "".join([*kept, text[end:]])


def heading_name(title: str) -> str:
    """A heading to compare by: lower case, without number and closing punctuation."""
    return _NUMBERING.sub("", " ".join(title.split())).strip(" :.*_").casefold()


def clean_title(title: str) -> str:
    """Without the document's id: `KEP-3104: Introduce kuberc` and `A114: WRR metrics` lose what is before."""
    found = _ID.match(title)
    rest = title[found.end() :].strip() if found else title.strip()
    return rest or title.strip()


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _sections(text: str, headings: Sequence[Block]) -> Iterator[Section]:
    for index, heading in enumerate(headings):
        if not heading.title or _CONTENTS.fullmatch(heading_name(heading.title)):
            continue
        following = next((h for h in headings[index + 1 :] if h.level <= heading.level), None)
        end = following.start if following else len(text)
        yield Section(heading.title, heading.level, text[heading.end : end].strip())


def _title(path: str, headings: Sequence[Block]) -> str:
    first = headings[0] if headings else None
    named = first is not None and (first.level == 1 or _ID.match(first.title) is not None)
    if first is not None and named and not _NO_TITLE.fullmatch(heading_name(first.title)):
        title = clean_title(first.title)
        if words(title):
            return title
    file = PurePosixPath(path)
    name = file.parent.name if file.stem.casefold() in {"readme", "index"} else file.stem
    name = re.sub(r"[-_\s]+", " ", _FILE_ID.sub("", name)).strip()
    return name[:1].upper() + name[1:]


def _summary(text: str, blocks: Sequence[Block], sections: Sequence[Section]) -> str:
    """The summary section when it has words enough, else the prose before the first section, else nothing."""
    for section in sections:
        named = _SUMMARY.fullmatch(heading_name(section.title))
        if named and section.words >= MIN_SUMMARY_WORDS:
            return section.text
    lead = []
    for block in blocks:
        if block.kind == "heading":
            if block.level > 1:
                break
        elif block.kind == "prose":
            lead.append(text[block.start : block.end])
    joined = "\n\n".join(lead)
    return joined if len(words(joined)) >= MIN_LEAD_WORDS else ""
