"""HTML to Markdown text: the main part of a page, its headings, lists, tables and code kept."""

from collections.abc import Iterable

from bs4 import BeautifulSoup, Tag
from bs4.element import Comment, NavigableString, PageElement

from data_jobs.processors.blocks import MarkdownWriter, squeeze
from data_jobs.processors.parsed import Parsed

_DROPPED = (
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "nav",
    "aside",
    "form",
    "button",
    "iframe",
    "head",
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = ["td", "th"]
_CONTAINERS = """address article blockquote body center dd details div dl dt fieldset figcaption figure footer
header hr html li main ol p pre section summary table tbody td tfoot th thead tr ul"""
_BLOCKS = {*_CONTAINERS.split(), *_HEADINGS}


def parse_html(text: str) -> Parsed:
    soup = _soup(text)
    title = squeeze(soup.title.get_text()) if soup.title else ""
    main = soup.find("main") or soup.find("article") or soup.body or soup
    heading = main.find("h1")
    if heading is not None and not title:
        title = squeeze(heading.get_text())
    return Parsed(title, _markdown(main))


def html_to_markdown(fragment: str) -> str:
    """The text of an HTML fragment inside another document; comments and images leave nothing."""
    return _markdown(_soup(fragment))


def _soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def _markdown(root: Tag) -> str:
    for tag in root.find_all(_DROPPED):
        tag.decompose()
    writer = MarkdownWriter()
    _write(writer, root.children)
    return writer.text()


def _write(writer: MarkdownWriter, nodes: Iterable[PageElement]) -> None:
    inline: list[str] = []
    # A stack of iterators instead of recursion: pages nest deeper than Python does.
    stack = [iter(list(nodes))]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            writer.paragraph("".join(inline))
            inline.clear()
        elif isinstance(node, Tag) and (node.name in _BLOCKS or node.find(list(_BLOCKS)) is not None):
            writer.paragraph("".join(inline))
            inline.clear()
            if not _leaf(writer, node):
                stack.append(iter(list(node.children)))
        elif isinstance(node, Tag):
            inline.append("\n" if node.name == "br" else _inline(node))
        elif isinstance(node, NavigableString) and not isinstance(node, Comment):
            inline.append(str(node))


def _leaf(writer: MarkdownWriter, node: Tag) -> bool:
    """Write a block that is understood as a whole. False: its children are blocks of their own."""
    if node.name in _HEADINGS:
        writer.heading(_HEADINGS[node.name], node.get_text(" "))
    elif node.name == "pre":
        writer.code(node.get_text(), _language(node))
    elif node.name in {"ul", "ol"}:
        writer.items([_item(li) for li in node.find_all("li", recursive=False)], node.name == "ol")
    elif node.name == "table" and node.find("table") is None:
        rows = [
            [_cell(c) for c in tr.find_all(_CELLS) if c.find_parent("tr") is tr] for tr in node.find_all("tr")
        ]
        writer.table(rows)
    elif node.name == "blockquote":
        inner = MarkdownWriter()
        _write(inner, node.children)
        writer.quote(inner.text())
    else:
        return False
    return True


def _item(node: Tag) -> str:
    inner = MarkdownWriter()
    _write(inner, node.children)
    return inner.text().replace("\n\n- ", "\n- ")


def _cell(cell: Tag) -> str:
    """A cell's own text: where end tags are left out, the following cells are parsed into it."""
    return " ".join(s for s in cell.strings if s.find_parent(_CELLS) is cell)


def _inline(node: Tag) -> str:
    text = node.get_text()
    return (
        f"`{squeeze(text)}`"
        if node.name in {"code", "kbd", "tt"} and text.strip() and "`" not in text
        else text
    )


def _language(node: Tag) -> str:
    tags = [node, *node.find_all("code")]
    classes = [str(c) for tag in tags for c in (tag.get("class") or [])]
    return next((c.split("-", 1)[1] for c in classes if c.startswith(("language-", "highlight-"))), "")
