"""Reading proposals: what is text of the author, what the sections hold, what the title is."""

from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from evals.documents import clean, clean_title, parse, read_folder

PROPOSAL = """---
authors: nobody
---
# KEP-3104: Introduce *kuberc*

<!-- Explain in one paragraph
why. -->

## Table of Contents

- [Summary](#summary)

## Summary

Users keep their own preferences, such as aliases and default flags, in a file apart from the cluster's
configuration, so that both can be shared without the other.

## 1. Motivation

### Goals

- keep preferences <!-- one per line --> apart

### Non-goals

None.

## Design

```html
<!-- this comment is code -->
```
"""


def test_sections_count_with_their_subsections_and_without_comments() -> None:
    document = parse("keps/3104-kuberc/README.md", PROPOSAL)
    assert document.title == "Introduce kuberc"
    assert document.summary.startswith("Users keep their own")
    titles = [s.title for s in document.sections]
    assert titles == [
        "KEP-3104: Introduce kuberc",
        "Summary",
        "1. Motivation",
        "Goals",
        "Non-goals",
        "Design",
    ]
    motivation = document.sections[2].text
    assert motivation == "### Goals\n\n- keep preferences  apart\n\n### Non-goals\n\nNone."
    assert "this comment is code" in document.sections[-1].text
    assert "Explain" not in document.text
    assert "nobody" not in document.text


def test_an_unfinished_comment_takes_the_rest_with_it() -> None:
    assert clean("before <!-- never closed\nmore") == "before "


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ("KEP-127: Support User Namespaces", "Support User Namespaces"),
        ("A114: WRR Support", "WRR Support"),
        ("RFC 2119 - Key words", "Key words"),
        ("1326-third-party content", "third-party content"),
        ("Proposal for k8s events", "Proposal for k8s events"),
        ("v2 of the API", "v2 of the API"),
        ("KEP-12", "KEP-12"),
    ],
)
def test_titles_lose_their_ids(given: str, title: str) -> None:
    assert clean_title(given) == title


@pytest.mark.parametrize(
    ("path", "text", "title"),
    [
        ("text/0001-private-fields.md", "## Summary\n\nx", "Private fields"),
        ("keps/1326-third-party-content/README.md", "# Table of Contents\n", "Third party content"),
        ("L30-cpp-threads.md", "L30: Control threads\n----\n", "Control threads"),
    ],
)
def test_a_file_name_is_the_title_where_no_heading_is(path: str, text: str, title: str) -> None:
    assert parse(path, text).title == title


def test_without_a_summary_the_lead_is_taken_when_it_is_long_enough() -> None:
    lead = " ".join(["word"] * 25)
    assert parse("a.md", f"# Title\n\n{lead}\n\n## Design\n\nx").summary == lead
    assert parse("a.md", f"# Title\n\n{lead[:-5]}\n\n## Design\n\nx").summary == ""


def test_copies_of_a_text_are_read_once(tmp_path: Path) -> None:
    for name in ("a.md", "copy.md"):
        (tmp_path / name).write_text(PROPOSAL if name == "a.md" else PROPOSAL.replace("\n", "\r\n"))
    assert [d.path for d in read_folder(tmp_path)] == ["a.md"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="holds no Markdown"):
        read_folder(tmp_path)
    (tmp_path / "broken.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"broken.md cannot be read as UTF-8"):
        read_folder(tmp_path)
