"""Markdown: front matter becomes the title, comments go, raw HTML becomes its text."""

from typing import Any

import yaml
from markdown_it.tree import SyntaxTreeNode

from assistant.retrieval.structure import block_tree, heading_text, inline_tokens
from data_jobs.processors.html import html_to_markdown
from data_jobs.processors.parsed import Parsed

_FENCES = {"---": ("---", "..."), "+++": ("+++",)}
_SILENT = {"image", "softbreak", "hardbreak", "html_inline"}


def parse_markdown(text: str) -> Parsed:
    """Title from the front matter or the first heading; everything but markup noise is kept as written."""
    front, body = split_front_matter(text)
    tree = block_tree(body)
    lines = body.split("\n")
    title = _title(front)
    for node in reversed(list(tree.children)):
        if node.map is None:
            continue
        first, last = node.map
        if node.type == "html_block":
            lines[first:last] = [*html_to_markdown("\n".join(lines[first:last])).split("\n"), ""]
        elif node.type == "paragraph" and _silent(node):
            lines[first:last] = [""]
    if not title:
        heading = next((n for n in tree.children if n.type == "heading" and n.tag in {"h1", "h2"}), None)
        title = heading_text(heading.children[0].content) if heading and heading.children else ""
    return Parsed(title, "\n".join(lines).strip("\n") + "\n" if any(map(str.strip, lines)) else "")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The YAML (or TOML, unread) between fences at the very beginning, and what follows it."""
    lines = text.split("\n")
    ends = _FENCES.get(lines[0].rstrip())
    if ends is None:
        return {}, text
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() in ends), None)
    if end is None:
        return {}, text
    try:
        loaded = yaml.safe_load("\n".join(lines[1:end])) if ends[0] == "---" else {}
    except (yaml.YAMLError, ValueError):
        loaded = {}
    if not isinstance(loaded, dict) and lines[0].rstrip() == "---":
        return {}, text  # A thematic break, not front matter.
    return loaded if isinstance(loaded, dict) else {}, "\n".join(lines[end + 1 :])


def _title(front: dict[str, Any]) -> str:
    title = front.get("title")
    return " ".join(title.split()) if isinstance(title, str) else ""


def _silent(node: SyntaxTreeNode) -> bool:
    """A paragraph of nothing but images, badges and comments says nothing to a reader of text."""
    source = node.children[0].content if node.children else ""
    if not any(mark in source for mark in ("![", "<")):
        return False
    tokens = inline_tokens(source)
    visible = [t for t in tokens if t.type not in _SILENT and not t.type.startswith("link_")]
    return bool(tokens) and not any(t.content.strip() for t in visible)
