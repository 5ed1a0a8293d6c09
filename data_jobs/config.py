"""`dataset_config.yml`: what is ingested. Every mistake is told with the file and the line it stands on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from assistant.clock import stable_id
from assistant.errors import ConfigurationError
from assistant.types import PUBLIC

DOCUMENT_GLOBS = ("*.md", "*.markdown", "*.rst", "*.html", "*.htm", "*.txt")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Attributes(_Section):
    """Fields that searches can filter by, the same for every document of a source."""

    category: str | None = None
    project: str | None = None
    team: str | None = None
    privacy_level: str | None = None


class _Source(_Section):
    name: str = Field(min_length=1, max_length=255)
    """Shown with every hit, and the identity of the source: renaming it starts a new one."""
    source_type: Literal["learning_materials", "search_sources", "user_content"] = "search_sources"
    acl: tuple[str, ...] = Field((PUBLIC,), min_length=1)
    """Who may see its documents: `public`, `group:NAME` or `user:ID`."""
    attributes: Attributes = Attributes()

    @field_validator("acl")
    @classmethod
    def _terms(cls, acl: tuple[str, ...]) -> tuple[str, ...]:
        for term in acl:
            if term != PUBLIC and not (term.startswith(("group:", "user:")) and term.partition(":")[2]):
                raise ValueError(f"{term!r} is not an ACL term: use public, group:NAME or user:ID")
        return tuple(sorted(set(acl)))


class FolderSource(_Source):
    """Documents in a folder and below it. Hidden folders and links that lead outside are left out."""

    kind: Literal["folder"]
    path: Path
    """Relative to the configuration file."""
    include: tuple[str, ...] = DOCUMENT_GLOBS
    """Patterns as in .gitignore: `*.md` anywhere, `/README.md` at the top, `docs/**/*.md`."""
    exclude: tuple[str, ...] = ()


class PythonPackagesSource(_Source):
    """The long descriptions of distributions installed in this environment."""

    kind: Literal["python_packages"]
    packages: tuple[str, ...] = ("*",)
    """Names or globs; the order of this list is the order of preference."""
    limit: int = Field(200, ge=1)
    """Most documents: the first by order of `packages`, then by name."""


SourceConfig = Annotated[FolderSource | PythonPackagesSource, Field(discriminator="kind")]


class DatasetConfig(_Section):
    version: Literal[1] = 1
    sources: tuple[SourceConfig, ...] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _unique(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"source names must be unique; used twice: {', '.join(twice)}")
        return sources


def load_config(path: Path) -> DatasetConfig:
    """Read the file. ConfigurationError names the file, the line, the key and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"The dataset configuration {path} does not exist.",
            hint="Pass --config FILE, or the folders to ingest.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The dataset configuration {path} cannot be read: {error}.") from None
    try:
        tree = yaml.compose(text, yaml.SafeLoader)
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    problems = [f"line {line}: the key {key!r} is given twice" for line, key in _duplicates(tree)]
    config: DatasetConfig | None = None
    try:
        config = DatasetConfig.model_validate(loaded if loaded is not None else {})
    except ValidationError as error:
        problems += [f"line {_line(tree, e['loc'])}: {_where(e['loc'])}{e['msg']}" for e in error.errors()]
    if config is None or problems:
        raise ConfigurationError(
            f"{path} is wrong: {'; '.join(problems)}.", hint="The comments in that file explain every key."
        )
    return config.model_copy(update={"sources": tuple(_anchored(s, path.parent) for s in config.sources)})


def folder_source(path: Path, taken: dict[str, str] | None = None) -> FolderSource:
    """The source of a folder given on the command line, named like the folder.

    `taken` maps the names of known sources to their folders: a second folder of the same name gets a suffix.
    """
    absolute = path.expanduser().resolve()
    name = absolute.name or "root"
    if (taken or {}).get(name, str(absolute)) != str(absolute):
        name = f"{name}-{stable_id(str(absolute)).hex[:6]}"
    return FolderSource(kind="folder", name=name, path=absolute)


def _anchored(source: SourceConfig, folder: Path) -> SourceConfig:
    if isinstance(source, FolderSource):
        return source.model_copy(update={"path": (folder / source.path.expanduser()).resolve()})
    return source


def _where(location: Sequence[int | str]) -> str:
    parts = [str(part) for part in location if part not in {"folder", "python_packages"}]
    return f"{'.'.join(parts)}: " if parts else ""


def _line(tree: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line of the deepest part of `location` that the file has."""
    node, line = tree, 1
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == part), None)
            if pair is None:
                continue  # The tag of the union, which stands in no file.
            line, node = pair[0].start_mark.line + 1, pair[1]
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[int, Any]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicates(value)
