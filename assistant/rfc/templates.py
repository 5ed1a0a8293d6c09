"""RFC templates: Markdown files whose front matter says what each section needs and where it comes from.

The body under each `## Title` is the guidance for people and models; its task list becomes the checklist.
"""

import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from assistant.errors import ConfigurationError, NotFound

FOLDER = Path(__file__).parent / "templates"

SectionKind = Literal["brief", "evidence", "checklist", "questions", "references"]
SentenceKind = Literal[
    "context",
    "problem",
    "goal",
    "non_goal",
    "proposal",
    "design",
    "constraint",
    "alternative",
    "risk",
    "test",
    "rollout",
    "observability",
]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Need(Strict):
    """Something a reader will ask. It counts as answered when a sign or a sentence kind is in the brief."""

    id: str
    section: str
    question: str
    signs: tuple[str, ...] = ()
    kinds: tuple[SentenceKind, ...] = ()

    @field_validator("signs")
    @classmethod
    def _compiles(cls, signs: tuple[str, ...]) -> tuple[str, ...]:
        for sign in signs:
            try:
                re.compile(sign)
            except re.error as error:
                raise ValueError(f"{sign!r} is not a regular expression: {error}") from None
        return signs


class TemplateSection(Strict):
    """One section: `takes` names the sentences of the brief that belong here, `queries` its evidence.

    A section that is not `required` is left out when neither brief nor evidence has anything for it.
    `repeats` allows sentences that stand elsewhere too; `limit` bounds sentences taken from the brief.
    """

    key: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    kind: SectionKind
    takes: tuple[SentenceKind, ...] = ()
    queries: tuple[str, ...] = ()
    required: bool = True
    repeats: bool = False
    limit: int | None = Field(None, ge=1)
    guidance: str = ""
    checklist: tuple[str, ...] = ()

    @field_validator("queries")
    @classmethod
    def _known_fields(cls, queries: tuple[str, ...]) -> tuple[str, ...]:
        for query in queries:
            try:
                query.format(title="", topic="")
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"{query!r} may use {{title}} and {{topic}} only") from None
        return queries


class Template(Strict):
    name: str
    title: str
    description: str
    sections: tuple[TemplateSection, ...] = Field(min_length=1)
    needs: tuple[Need, ...] = ()

    def section(self, key: str) -> TemplateSection:
        """The section called `key`; KeyError when there is none."""
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(key)


def templates() -> list[Template]:
    """All templates that ship with the product, by name. Raises ConfigurationError for a broken file."""
    return list(_shipped())


@cache
def _shipped() -> tuple[Template, ...]:
    return tuple(load(path) for path in sorted(FOLDER.glob("*.md")))


def template(name: str) -> Template:
    """The template called `name`. Raises NotFound naming the known ones."""
    for known in templates():
        if known.name == name:
            return known
    names = ", ".join(t.name for t in templates())
    raise NotFound(f"There is no RFC template {name!r}.", hint=f"Use one of: {names}.", field="template")


def load(path: Path) -> Template:
    """Read one template file. Raises ConfigurationError naming the file and what is wrong in it."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", path.read_text(encoding="utf-8"), re.DOTALL)
    if not match:
        raise ConfigurationError(f"{path}: the template needs YAML front matter between two lines of ---.")
    try:
        head = yaml.safe_load(match[1])
        parsed = Template.model_validate(head)
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(f"{path}: the front matter is wrong: {error}") from None
    bodies = _bodies(match[2])
    titles = [s.title for s in parsed.sections]
    if list(bodies) != titles:
        raise ConfigurationError(
            f"{path}: the body has the headings {list(bodies)}, the front matter the sections {titles}.",
            hint="Write one `## Title` with guidance per section, in the same order.",
        )
    keys = [s.key for s in parsed.sections]
    unknown = {need.section for need in parsed.needs} - set(keys)
    if unknown or len(set(keys)) != len(keys):
        raise ConfigurationError(
            f"{path}: needs name unknown sections {sorted(unknown)} or keys repeat: {keys}."
        )
    return parsed.model_copy(
        update={"sections": tuple(_with_body(s, bodies[s.title]) for s in parsed.sections)}
    )


def _bodies(body: str) -> dict[str, str]:
    parts = re.split(r"^## +(.+?)\s*$", body, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def _with_body(section: TemplateSection, body: str) -> TemplateSection:
    items = re.findall(r"^- \[ \] +(.+)$", body, re.MULTILINE)
    guidance = re.sub(r"^- \[ \] +.+$", "", body, flags=re.MULTILINE)
    return section.model_copy(update={"guidance": " ".join(guidance.split()), "checklist": tuple(items)})
