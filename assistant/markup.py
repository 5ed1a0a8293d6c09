"""Markdown written by models or taken from documents → HTML that is safe to put into a page.

Two independent guards: markdown-it is told to know no HTML, and nh3 keeps only the tags and attributes
listed here. Nothing is loaded by what is rendered: images become their description. Links leave for http,
https and mail addresses only; anything else keeps its text and loses its target, so that no text can steer
the page it is shown in.
"""

import re
from collections.abc import Mapping, Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from assistant.types import Citation

SCHEMES = frozenset({"http", "https", "mailto"})

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code"),
    *("ul", "ol", "li", "em", "strong", "s", "mark", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href", "title", "target", "data-marker", "data-chunk"}, "ol": {"start"}}
_CLASSES = {"a": {"citation"}, "mark": {"clarify"}}

_MARKER = re.compile(r"\[([1-9]\d{0,3})\](?!\()")
_CLARIFY = re.compile(r"\[(NEEDS CLARIFICATION\b[^\[\]\n]*)\]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def render_html(markdown: str, citations: Sequence[Citation] = ()) -> str:
    """The HTML of `markdown`. `[n]` of a citation in `citations` becomes a link to its passage.

    Such a link carries `data-marker` and `data-chunk` and points to `#passage-<chunk id>`. A marker without a
    citation, in code, or followed by `(` stays what it is in Markdown. `[NEEDS CLARIFICATION: …]` is marked.
    """
    known = {citation.marker: citation for citation in citations}
    return nh3.clean(
        _MARKDOWN.render(markdown, {"citations": known}),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes=_CLASSES,
        clean_content_tags={"script", "style"},
        url_schemes=set(SCHEMES),
    )


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    # A definition such as `[1]: https://…` in a quoted passage would turn our own markers into its link.
    parser.disable("reference")
    parser.inline.ruler.before("link", "marker", _bracket)
    parser.core.ruler.push("targets", _targets)
    parser.add_render_rule("image", _image)
    return parser


def _bracket(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "[":
        return False
    if clarify := _CLARIFY.match(state.src, state.pos, state.posMax):
        if not silent:
            state.push("mark_open", "mark", 1).attrs = {"class": "clarify"}
            state.push("text", "", 0).content = clarify[1]
            state.push("mark_close", "mark", -1)
        state.pos = clarify.end()
        return True
    known: Mapping[int, Citation] = state.env.get("citations", {})
    marker = _MARKER.match(state.src, state.pos)
    if marker is None or (citation := known.get(int(marker[1]))) is None:
        return False
    if not silent:
        state.push("citation_open", "a", 1).attrs = {
            "class": "citation",
            "href": f"#passage-{citation.chunk_id}",
            "title": " › ".join((citation.title, *citation.headings)),
            "data-marker": citation.marker,
            "data-chunk": str(citation.chunk_id),
        }
        state.push("text", "", 0).content = marker[0]
        state.push("citation_close", "a", -1)
    state.pos = marker.end()
    return True


def _targets(state: StateCore) -> None:
    """Open links in a new tab; take the target from those that lead anywhere but outside."""
    for block in state.tokens:
        closing: list[Token] = []
        for token in block.children or ():
            if token.type == "link_open":
                scheme = _SCHEME.match(str(token.attrs.get("href", "")))
                if scheme and scheme[1].lower() in SCHEMES:
                    token.attrs["target"] = "_blank"
                    closing.append(token)
                else:
                    token.attrs = {}
                    closing.append(_hide(token))
            elif token.type == "link_close" and closing.pop().hidden:
                _hide(token)


def _hide(token: Token) -> Token:
    token.hidden = True
    return token


def _image(
    self: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    return nh3.clean_text(tokens[index].content)


_MARKDOWN = _parser()
