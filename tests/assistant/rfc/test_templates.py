from pathlib import Path

import pytest

from assistant.errors import ConfigurationError, NotFound
from assistant.rfc.templates import FOLDER, load, template, templates

EXPECTED = [
    "Summary",
    "Motivation",
    "Goals",
    "Non-goals",
    "Proposal",
    "Design details",
    "Alternatives",
    "Risks and mitigations",
    "Test plan",
    "Rollout and rollback",
    "Observability",
    "Open questions",
    "References",
]
HEAD = """---
name: x
title: X
description: d
sections:
  - {key: one, title: One, kind: brief}
---
"""


def test_new_feature_has_the_sections_reviewers_expect() -> None:
    assert [s.title for s in template("new_feature").sections] == EXPECTED


def test_every_shipped_template_loads_and_guides_each_section() -> None:
    assert [t.name for t in templates()] == sorted(p.stem for p in FOLDER.glob("*.md"))
    for shipped in templates():
        assert all(len(s.guidance) > 20 for s in shipped.sections)
        assert all(s.checklist for s in shipped.sections if s.kind == "checklist")
        assert all(s.queries for s in shipped.sections if s.kind in {"evidence", "checklist"})


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(NotFound, match="new_feature"):
        template("novel")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# No front matter\n", "front matter"),
        (HEAD.replace("kind: brief", "kind: poem") + "\n## One\nText\n", "kind"),
        (HEAD.replace("description: d", "descripton: d") + "\n## One\nText\n", "descripton"),
        (HEAD + "\n## Two\nText\n", "headings"),
        (HEAD.replace("kind: brief", "kind: evidence, queries: ['{tittle}']") + "\n## One\nText\n", "tittle"),
        (
            HEAD.replace("---\n", "", 1)
            .replace("sections:", "---\nneeds: [{id: a, section: two, question: q}]\nsections:")
            .replace("description: d\n---", "description: d")
            .join(["---\n", "\n## One\nText\n"]),
            "two",
        ),
        (
            HEAD.replace("sections:", "needs: [{id: a, section: one, question: q, signs: ['(']}]\nsections:")
            + "\n## One\nText\n",
            "regular expression",
        ),
    ],
)
def test_a_broken_template_says_which_file_and_what(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "broken.md"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert "broken.md" in str(caught.value)
    assert told in str(caught.value)
