"""README's annotated tree is the map a newcomer uses: it must name what is there, and only that."""

import re
import subprocess
from pathlib import Path

import pytest

LINE = re.compile(r"^(?P<indent> *)(?P<name>[\w.\-]+/?)(?:\s{2,}|$)")


def tree_of(readme: str) -> set[str]:
    """The paths of the first code block that starts with `assistant/`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    block = next(b for b in blocks if b.startswith("assistant/"))
    paths: set[str] = set()
    parents: list[str] = []
    for line in block.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"]) // 2
        parents = [*parents[:depth], found["name"].rstrip("/")]
        paths.add("/".join(parents))
    return paths


@pytest.fixture(scope="module")
def tracked(repo_root: Path) -> list[str]:
    return subprocess.run(
        ["git", "ls-files"], cwd=repo_root, capture_output=True, text=True, check=True
    ).stdout.split()


def test_tree_names_only_what_exists(repo_root: Path) -> None:
    missing = [p for p in tree_of((repo_root / "README.md").read_text()) if not (repo_root / p).exists()]
    assert missing == []


def test_tree_names_every_folder_of_the_top_and_of_the_core(repo_root: Path, tracked: list[str]) -> None:
    named = tree_of((repo_root / "README.md").read_text())
    top = {f.split("/")[0] for f in tracked if "/" in f and not f.startswith(".")}
    core = {"/".join(f.split("/")[:2]) for f in tracked if f.startswith("assistant/") and f.count("/") > 1}
    assert (top | core) - named == set()


def test_links_of_the_documents_resolve(repo_root: Path) -> None:
    broken = []
    for page in [repo_root / "README.md", *sorted((repo_root / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
