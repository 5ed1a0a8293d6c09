"""One document as a source lists it, before it is read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Item:
    """`locator` is what the connector reads it by. All of it is JSON, so that it can travel to a worker.

    `title` stands in when the text has none, or for all when `title_is_final`.
    """

    external_id: str
    locator: str
    content_type: str
    title: str
    url: str | None = None
    version: str | None = None
    title_is_final: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that is there but cannot be taken, and why."""

    external_id: str
    reason: str


class Connector(Protocol):
    """Lists and reads the documents of one source. Cheap to pickle: workers get a copy."""

    def items(self, max_bytes: int) -> Iterator[Item | Skipped]:
        """Every document, in a stable order. Raises InvalidInput when the source itself is not there."""
        ...

    def read(self, item: Item, max_bytes: int) -> bytes:
        """The content. Raises Unreadable with the reason."""
        ...


def too_large(size: int, max_bytes: int) -> str:
    """The reason for refusing a document of `size` bytes."""
    return (
        f"It has {size / 1e6:.1f} MB, more than ingest.max_document_bytes allows ({max_bytes / 1e6:.1f} MB)."
        " Split it, or raise the setting."
    )
