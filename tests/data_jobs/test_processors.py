"""Bytes to title and text: what is kept, what goes, what is refused."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_jobs.processors import Unreadable, parse
from data_jobs.processors.encoding import decode

RUSSIAN = "Диск заполняется, потому что никто ничего не удаляет. Удалите старые данные. " * 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1251", "koi8-r"])
def test_the_encoding_is_found(encoding: str) -> None:
    assert decode(RUSSIAN.encode(encoding)) == RUSSIAN


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\x02\x01\x01\x00\x00", "binary"),
        (bytes(range(1, 32)) * 20, "binary"),
        (b"\xff\xfeabc", "utf-16"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data)


def test_line_ends_and_control_characters_are_made_regular() -> None:
    assert decode(b"a\r\nb\rc\x0c\x01d\n") == "a\nb\ncd\n"


@settings(deadline=None)
@given(
    data=st.binary(max_size=300),
    kind=st.sampled_from(["text/markdown", "text/html", "text/plain", "text/x-rst"]),
)
def test_any_bytes_give_text_that_can_be_stored_or_are_refused(data: bytes, kind: str) -> None:
    with suppress(Unreadable):
        text = parse(kind, data).text
        assert text.encode("utf-8") is not None
        assert "\x00" not in text


def test_markdown_loses_front_matter_comments_and_badges_only() -> None:
    text = (
        "---\ntitle: My  title\nweight: 3\n---\n<!-- instructions\nto authors -->\n\n"
        "[![build](b.svg)](http://ci) ![cov](c.svg)\n\n# Heading\n\nText with ![an image](x.png) in it.\n\n"
        "<details>\n<summary>More</summary>\nHidden\n</details>\n\n```html\n<!-- kept -->\n---\n```\n"
    )
    parsed = parse("text/markdown", text.encode())
    assert parsed.title == "My title"
    assert parsed.text.startswith("# Heading") or parsed.text.strip().startswith("# Heading")
    assert "instructions" not in parsed.text
    assert "build" not in parsed.text
    assert "Text with ![an image](x.png) in it." in parsed.text
    assert "Hidden" in parsed.text
    assert "<details>" not in parsed.text
    assert "<!-- kept -->\n---" in parsed.text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A `code` *title*\n\ntext", "A code title"),
        ("---\nbroken: [yaml\n---\n# H\n", "H"),
        ("---\n\nA thematic break, no front matter.\n", ""),
        ("+++\ntitle = 'toml'\n+++\n# H\n", "H"),
        ("just text", ""),
    ],
)
def test_titles_of_markdown(text: str, title: str) -> None:
    assert parse("text/markdown", text.encode()).title == title


def test_html_keeps_structure_and_drops_furniture() -> None:
    text = """<html><head><title> The  page </title><style>p{}</style></head><body><nav>menu</nav><main>
    <h1>Top <b>one</b></h1><p>Hello <code>ls -l</code> <a href="x">link</a></p><ol><li>first<ul><li>sub</li></ul></li>
    <li>second</li></ol><pre><code class="language-sh">cd /\n  ls</code></pre>
    <table><tr><th>a<th>b<tr><td>1<td>2</table><script>alert(1)</script><!-- no --></main></body></html>"""
    parsed = parse("text/html", text.encode())
    assert parsed.title == "The page"
    assert parsed.text == (
        "# Top one\n\nHello `ls -l` link\n\n1. first\n   - sub\n2. second\n\n"
        "```sh\ncd /\n  ls\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )


def test_html_text_cannot_pass_for_structure() -> None:
    assert parse("text/html", b"<p># not a heading</p>").text == "\\# not a heading"


def test_deeply_nested_html_is_read() -> None:
    assert parse("text/html", b"<div>" * 3000 + b"deep" + b"</div>" * 3000).text == "deep"


def test_rest_keeps_structure_and_reads_no_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret words")
    text = f"""
Title
=====

Intro with ``code`` and :func:`a.b`.

Section
-------

- one
- two

.. code-block:: python

   x = 1

.. include:: {secret}

.. raw:: html
   :file: {secret}

term
  its definition
"""
    parsed = parse("text/x-rst", text.encode())
    assert parsed.title == "Title"
    assert "secret words" not in parsed.text
    for expected in (
        "# Title",
        "## Section",
        "- one\n- two",
        "```python\nx = 1\n```",
        "Intro with `code`",
        "- term: its definition",
    ):
        assert expected in parsed.text


@pytest.mark.parametrize(
    ("text", "title"), [("A title\n=====\n\ntext", "A title"), ("Prose that\ngoes on.", ""), ("", "")]
)
def test_titles_of_plain_text(text: str, title: str) -> None:
    assert parse("text/plain", text.encode()).title == title
