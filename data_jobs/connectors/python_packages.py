"""The documentation that every machine has: long descriptions of the installed Python distributions."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import (
    Distribution,
    PackageMetadata,
    PackageNotFoundError,
    distribution,
    distributions,
)

from data_jobs.config import PythonPackagesSource
from data_jobs.connectors.item import Item, Skipped, too_large
from data_jobs.processors.parsed import Unreadable

_TYPES = {"text/markdown": "text/markdown", "text/plain": "text/plain"}
_URLS = ("documentation", "docs", "homepage", "home", "repository", "source", "source code")


class PythonPackagesConnector:
    def __init__(self, source: PythonPackagesSource) -> None:
        self._patterns = tuple(canonical(p) for p in source.packages)
        self._limit = source.limit

    def items(self, max_bytes: int) -> Iterator[Item | Skipped]:
        found: dict[str, tuple[int, Distribution]] = {}
        for dist in distributions():
            name = dist.metadata["Name"]
            if name and (rank := self._rank(canonical(name))) is not None:
                found.setdefault(canonical(name), (rank, dist))
        taken = 0
        for name, (_, dist) in sorted(found.items(), key=lambda entry: (entry[1][0], entry[0])):
            size = len(_content(dist))
            if not size:
                continue
            if taken == self._limit:
                return
            taken += 1
            yield Skipped(name, too_large(size, max_bytes)) if size > max_bytes else _item(name, dist)

    def read(self, item: Item, max_bytes: int) -> bytes:
        try:
            data = _content(distribution(item.locator))
        except PackageNotFoundError:
            raise Unreadable(f"The distribution {item.locator} is not installed here.") from None
        if len(data) > max_bytes:
            raise Unreadable(too_large(len(data), max_bytes))
        return data

    def _rank(self, name: str) -> int | None:
        return next((i for i, p in enumerate(self._patterns) if fnmatchcase(name, p)), None)


def canonical(name: str) -> str:
    """The normalised name of PEP 503; globs stay globs."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _content(dist: Distribution) -> bytes:
    """The summary, then the long description; empty without the latter."""
    metadata = dist.metadata
    body = _field(metadata, "Description").strip()
    if not body or body == "UNKNOWN":
        return b""
    summary = " ".join(_field(metadata, "Summary").split())
    text = f"{summary}\n\n{body}" if summary and summary != "UNKNOWN" else body
    return text.encode("utf-8", "replace")


def _field(metadata: PackageMetadata, name: str) -> str:
    return metadata[name] or "" if name in metadata else ""


def _item(name: str, dist: Distribution) -> Item:
    metadata = dist.metadata
    kind = _field(metadata, "Description-Content-Type").split(";")[0].strip().lower()
    return Item(
        external_id=name,
        locator=dist.metadata["Name"],
        content_type=_TYPES.get(kind, "text/x-rst"),
        title=dist.metadata["Name"],
        url=_url(metadata),
        version=dist.version,
        title_is_final=True,
    )


def _url(metadata: PackageMetadata) -> str | None:
    pairs = (entry.partition(",") for entry in metadata.get_all("Project-URL") or [])
    urls = {label.strip().lower(): url.strip() for label, _, url in pairs}
    found = next((urls[label] for label in _URLS if label in urls), None) or _field(metadata, "Home-page")
    return found if found and found.startswith(("https://", "http://")) else None
