"""A finished RFC taken apart into the sections that somebody could have written."""

import re

NOT_WRITTEN = {"references", "open questions"}
"""Sections that are lists made by the machine. Appendices are left out by their name."""

_HEADING = re.compile(r"^## +(.+?)\s*#*$")
_FENCE = re.compile(r"^(```+|~~~+)")
_MARKER = re.compile(r" ?\[((?:[ab]?\d{1,4})(?:\s*,\s*[ab]?\d{1,4})*)\](?!\()")
_LABEL = re.compile(r"^(- )?\*\*[^*\n]+:\*\* ", re.MULTILINE)


def sections_of(markdown: str) -> dict[str, str]:
    """Title → text of every second-level section, in order; the first of two with one title counts."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    fence = ""
    for line in markdown.splitlines():
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.startswith(fence):
            fence = ""
        heading = None if fence else _HEADING.match(line)
        if heading:
            current = found.setdefault(heading[1], []) if heading[1] not in found else []
        elif current is not None:
            current.append(line)
    return {title: "\n".join(lines).strip() for title, lines in found.items()}


def written_sections(markdown: str) -> dict[str, str]:
    """Without lists that the machine made, appendices and empty sections."""
    return {
        title: text
        for title, text in sections_of(markdown).items()
        if text
        and title.casefold() not in NOT_WRITTEN
        and not title.casefold().startswith(("appendix", "references"))
    }


def markers(text: str) -> list[str]:
    """Every citation marker, in order: `3` for a source, `b2` and `a1` for what the author said."""
    return [part.strip() for match in _MARKER.finditer(text) for part in match[1].split(",")]


def without_markers(text: str) -> str:
    """The text as a person would have written it: without markers and without names of quoted passages."""
    return re.sub(r"[ \t]+$", "", _LABEL.sub(r"\1", _MARKER.sub("", text)), flags=re.MULTILINE).strip()
