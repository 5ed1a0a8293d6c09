"""From the bytes of a document to its title and text, one processor per content type."""

from collections.abc import Callable, Mapping

from data_jobs.processors.encoding import decode
from data_jobs.processors.html import parse_html
from data_jobs.processors.markdown import parse_markdown
from data_jobs.processors.parsed import Parsed, Unreadable
from data_jobs.processors.rest import parse_rest
from data_jobs.processors.text import parse_text

__all__ = ["VERSION", "Parsed", "Unreadable", "parse"]

VERSION = 1
"""Part of every content hash: raise it when the same bytes would become another text."""

_PROCESSORS: Mapping[str, Callable[[str], Parsed]] = {
    "text/markdown": parse_markdown,
    "text/x-rst": parse_rest,
    "text/html": parse_html,
    "text/plain": parse_text,
}


def parse(content_type: str, data: bytes) -> Parsed:
    """The title and text of a document. Raises Unreadable with the reason."""
    return _PROCESSORS[content_type](decode(data))
