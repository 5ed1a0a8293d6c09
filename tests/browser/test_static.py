"""What holds of the files themselves, without a browser."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.browser.stub import WEB

FILES = sorted(p for p in WEB.rglob("*") if p.is_file())
TEXT = [p for p in FILES if p.suffix in {".html", ".js", ".css", ".svg"}]


def named(path: Path) -> str:
    return str(path.relative_to(WEB))


def test_the_page_is_there() -> None:
    assert {"index.html", "app.js", "style.css", "favicon.svg"} <= {named(p) for p in FILES}


def test_the_markup_has_nothing_inline() -> None:
    soup = BeautifulSoup((WEB / "index.html").read_text(), "html.parser")
    assert [s for s in soup.find_all("script") if not s.get("src")] == []
    assert soup.find_all("style") == []
    inline = [e for e in soup.find_all(True) for a in e.attrs if a == "style" or a.startswith("on")]
    assert inline == []


def test_every_file_that_the_page_names_exists() -> None:
    soup = BeautifulSoup((WEB / "index.html").read_text(), "html.parser")
    named_files = [str(e.get("src") or e.get("href")) for e in soup.select("script, link, img")]
    assert named_files
    for name in named_files:
        assert name.startswith("static/")
        assert (WEB / name.removeprefix("static/")).is_file(), name


@pytest.mark.parametrize("path", [p for p in TEXT if p.suffix == ".js"], ids=named)
def test_every_import_exists_and_none_leaves(path: Path) -> None:
    for target in re.findall(r'(?:from|import\()\s*"([^"]+\.js)"', path.read_text()):
        assert target.startswith(".")
        assert (path.parent / target).is_file(), target


@pytest.mark.parametrize("path", TEXT, ids=named)
def test_no_file_refers_to_another_host(path: Path) -> None:
    addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text())
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", [p for p in TEXT if p.suffix == ".js"], ids=named)
def test_no_script_builds_html_or_code_from_strings(path: Path) -> None:
    banned = r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function|srcdoc)\b"
    assert re.findall(banned, path.read_text()) == []
