"""reStructuredText to Markdown text by docutils, with everything that reads files or runs raw markup off."""

from collections.abc import Sequence
from typing import Any, ClassVar

from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils import Reporter

from data_jobs.processors.blocks import MarkdownWriter, squeeze
from data_jobs.processors.parsed import Parsed, Unreadable

_SKIPPED = (
    nodes.comment,
    nodes.image,
    nodes.raw,
    nodes.substitution_definition,
    nodes.system_message,
    nodes.target,
    nodes.footnote_reference,
    nodes.docinfo,
)


class _Settings:
    overrides: ClassVar[dict[str, Any]] = {
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "report_level": Reporter.SEVERE_LEVEL + 1,
        "halt_level": Reporter.SEVERE_LEVEL + 1,
        "_disable_config": True,
        "doctitle_xform": True,
        "syntax_highlight": "none",
        "smart_quotes": False,
    }


def parse_rest(text: str) -> Parsed:
    """Unknown roles become their text, unknown directives are left out."""
    try:
        tree = publish_doctree(text, settings_overrides=_Settings.overrides)
    except (RecursionError, ValueError, IndexError, AttributeError, AssertionError) as error:
        raise Unreadable(f"docutils cannot read it: {type(error).__name__}: {error}") from None
    writer = MarkdownWriter()
    title = tree.get("title", "")
    if title:
        writer.heading(1, title)
    _write(writer, [n for n in tree.children if not isinstance(n, nodes.title)], 2 if title else 1)
    first = next(iter(tree.findall(nodes.title)), None)
    return Parsed(title or (squeeze(first.astext()) if first else ""), writer.text())


def _write(writer: MarkdownWriter, children: Sequence[nodes.Node], level: int) -> None:
    for node in children:
        if isinstance(node, _SKIPPED):
            continue
        if isinstance(node, nodes.section):
            _write(writer, node.children, level + 1)
        elif isinstance(node, nodes.title | nodes.subtitle | nodes.rubric):
            writer.heading(level - 1, node.astext())
        elif isinstance(node, nodes.literal_block | nodes.doctest_block):
            classes: list[str] = node.get("classes", [])
            writer.code(node.astext(), next((c for c in classes if c != "code"), ""))
        elif isinstance(node, nodes.bullet_list | nodes.enumerated_list):
            writer.items([_inner(item) for item in node.children], isinstance(node, nodes.enumerated_list))
        elif isinstance(node, nodes.definition_list):
            writer.items([_definition(item) for item in node.children])
        elif isinstance(node, nodes.field_list | nodes.option_list):
            writer.items([": ".join(squeeze(p.astext()) for p in item.children) for item in node.children])
        elif isinstance(node, nodes.table):
            rows = node.findall(nodes.row)
            writer.table([[entry.astext() for entry in row.children] for row in rows])
        elif isinstance(node, nodes.block_quote):
            writer.quote(_inner(node))
        elif isinstance(node, nodes.TextElement):
            writer.paragraph(_inline(node))
        elif isinstance(node, nodes.Element):
            _write(writer, node.children, level)


def _inner(node: nodes.Node) -> str:
    writer = MarkdownWriter()
    _write(writer, node.children, 6)
    return writer.text()


def _definition(item: nodes.Node) -> str:
    term = squeeze(" ".join(n.astext() for n in item.children if not isinstance(n, nodes.definition)))
    body = "\n".join(_inner(n) for n in item.children if isinstance(n, nodes.definition))
    return f"{term}: {body}" if body else term


def _inline(node: nodes.Element) -> str:
    parts = []
    for child in node.children:
        if isinstance(child, nodes.literal) and "`" not in child.astext():
            parts.append(f"`{child.astext()}`")
        elif not isinstance(child, _SKIPPED):
            parts.append(child.astext())
    return "".join(parts)
