"""An RFC as a file of its own: the document and, below it, every citation in full."""

from collections.abc import Sequence

from assistant.rfc.render import escape, trail
from assistant.types import Citation


def export_markdown(content: str, citations: Sequence[Citation]) -> str:
    """The Markdown with an appendix that names, for each marker, the stored passage it points at.

    Offsets are characters of the document in the version whose content hash is given.
    """
    if not citations:
        return content
    parts = [content.rstrip(), "## Appendix: citations"]
    for citation in citations:
        lines = [
            f"### [{citation.marker}] {escape(citation.title)}",
            "",
            f"- Section: {escape(trail(citation))}",
            f"- Version: {escape(citation.version or 'not versioned')}, content `{citation.content_hash}`",
            f"- Offsets: {citation.start} to {citation.end}",
            f"- Document `{citation.document_id}`, passage `{citation.chunk_id}`",
        ]
        if citation.url:
            lines.append(f"- Address: {escape(citation.url)}")
        quote = "\n".join(f"> {line}".rstrip() for line in escape_block(citation.quote).splitlines())
        parts.append("\n".join([*lines, "", quote]))
    return "\n\n".join(parts) + "\n"


def escape_block(text: str) -> str:
    """A quotation as indented code: shown exactly as it is stored, whatever Markdown it holds."""
    return "\n".join(f"    {line}" for line in text.splitlines())
