from html import escape as escape_html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from assistant.rfc.render import escape
from assistant.rfc.sentences import clean, sentences


def texts(source: str) -> list[str]:
    return [s.text for s in sentences(source)]


def test_headings_tables_code_and_images_are_no_sentences() -> None:
    source = """# A heading
First one. Second one
goes on.

| a | b |
|---|---|
| cell. | Other. |

```sh
run this. Now.
```

![a picture](x.png)

<!-- hidden. Text. -->

    indented code. Here.

- [ ] An item. With two.
1. Numbered item
"""
    assert texts(source) == ["First one.", "Second one goes on.", "An item.", "With two.", "Numbered item"]


def test_offsets_point_at_the_source() -> None:
    source = (
        "# T\r\n\r\nA **bold** [link](http://x.y) and `co. De`. Next, e.g. This.\r\n\r\n- Item *two*.\r\n"
    )
    found = sentences(source)
    assert [source[s.start : s.end] for s in found] == [
        "A **bold** [link](http://x.y) and `co. De`.",
        "Next, e.g. This.",
        "Item *two*.",
    ]
    assert [s.text for s in found] == ["A bold link and `co. De`.", "Next, e.g. This.", "Item two."]
    assert [s.item for s in found] == [False, False, True]
    assert {s.heading for s in found} == {"T"}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("As shown [3], it works[^1].", "As shown, it works."),
        ("Use ``pip`` and :class:`~a.B`.", "Use `pip` and `a.B`."),
        ("See `the docs <https://x.y>`_ now.", "See the docs now."),
        ("A [ref][target] and [shortcut].", "A ref and shortcut."),
        ("Line\nbreaks   go.", "Line breaks go."),
        ("<b>Bold</b> words.", "Bold words."),
    ],
)
def test_markup_is_cleaned(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(st.text(alphabet=st.sampled_from("aB. \n`*_[]()#|-!<>&1\r\t"), max_size=200))
def test_any_text_gives_ordered_spans_inside_it(source: str) -> None:
    last = 0
    for sentence in sentences(source):
        assert last <= sentence.start < sentence.end <= len(source)
        assert sentence.text == clean(source[sentence.start : sentence.end])
        last = sentence.end


@given(st.text(alphabet=st.sampled_from("ab. *_[]()#|-+=:!<>&;1~\\"), min_size=1, max_size=60))
def test_escaped_text_is_shown_as_it_was(text: str) -> None:
    text = " ".join(text.split())
    html = MarkdownIt("commonmark").enable(["strikethrough", "table"]).render(escape(text))
    assert html == (f"<p>{escape_html(text, quote=False)}</p>\n" if text else "")
