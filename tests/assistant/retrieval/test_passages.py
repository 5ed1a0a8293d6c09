"""A passage taken apart into what an answer may quote."""

from uuid import UUID

import pytest

from assistant.retrieval.passages import items_of, render
from assistant.types import Hit


def shown(text: str) -> list[str]:
    hit = Hit(UUID(int=1), UUID(int=2), 1.0, text, "T", ("H",), 100, 100 + len(text), "s", "t", "a.md", "h")
    return [render(item) for item in items_of(hit, 7)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two\nlines.", ["One. [7]", "Two lines. [7]"]),
        ("* a\n* b", ["* a [7]", "* b [7]"]),
        ("1. first\n2. second\n   line", ["1. first [7]", "2. second line [7]"]),
        ("1. run\n\n   ```sh\n   ls\n   ```", ["1. run [7]\n\n   ```sh\n   ls\n   ```"]),
        ("- outer\n  - inner", ["- outer [7]\n  - inner"]),
        ("TODO", []),
        ("**TBD.**", []),
        (
            "See [the page](../other.md) and ![pixel](http://x/y.png) or [docs](https://x/y).",
            ["See the page and pixel or [docs](https://x/y). [7]"],
        ),
        ("As shown in [3].", ["As shown in (3). [7]"]),
        ("```sh\nls", ["```sh\nls\n```"]),
        ("| a |\n|---|\n| b |", ["| a |\n|---|\n| b |"]),
    ],
)
def test_items(text: str, expected: list[str]) -> None:
    assert shown(text) == expected


def test_headings_inside_a_passage_become_the_path() -> None:
    text = "## Impact\n\nReads only.\n\n## Diagnosis\n\nLook."
    hit = Hit(UUID(int=1), UUID(int=2), 1.0, text, "T", ("T",), 50, 90, "s", "t", "a.md", "h")
    items = list(items_of(hit, 1))
    assert [(item.path, item.text) for item in items] == [
        (("T", "Impact"), "Reads only."),
        (("T", "Diagnosis"), "Look."),
    ]
    assert [text[item.start - 50 :].startswith(item.text) for item in items] == [True, True]
