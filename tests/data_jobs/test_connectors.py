"""What a source lists, and what it leaves out with a reason."""

import os
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from data_jobs.config import FolderSource, PythonPackagesSource
from data_jobs.connectors import connector_for
from data_jobs.connectors.item import Item, Skipped
from data_jobs.processors import Unreadable

LIMIT = 1000


def listed(
    source: FolderSource | PythonPackagesSource, limit: int = LIMIT
) -> tuple[list[Item], dict[str, str]]:
    found = list(connector_for(source).items(limit))
    items = [i for i in found if isinstance(i, Item)]
    return items, {s.external_id: s.reason for s in found if isinstance(s, Skipped)}


def test_a_folder_is_listed_by_its_patterns(tmp_path: Path) -> None:
    for name in ("b.md", "a/c.RST", "a/d.html", "e.py", ".git/f.md", "node_modules/g.md", "a/draft/h.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    source = FolderSource(
        kind="folder",
        name="s",
        path=tmp_path,
        include=("*.md", "*.[Rr][Ss][Tt]", "*.html"),
        exclude=("draft/",),
    )
    items, skipped = listed(source)
    assert [(i.external_id, i.content_type) for i in items] == [
        ("b.md", "text/markdown"),
        ("a/c.RST", "text/x-rst"),
        ("a/d.html", "text/html"),
    ]
    assert skipped == {}


def test_what_cannot_be_taken_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.md").write_text("secret")
    (root / "link.md").symlink_to(tmp_path / "outside.md")
    (root / "dangling.md").symlink_to(root / "nowhere.md")
    (root / "huge.md").write_bytes(b"x" * (LIMIT + 1))
    (root / "fine.md").write_text("fine")
    os.mkfifo(root / "pipe.md")
    items, skipped = listed(FolderSource(kind="folder", name="s", path=root))
    assert [i.external_id for i in items] == ["fine.md"]
    assert set(skipped) == {"link.md", "dangling.md", "huge.md", "pipe.md"}
    assert "outside of the folder" in skipped["link.md"]
    assert "max_document_bytes" in skipped["huge.md"]


def test_a_name_that_is_no_utf8_gets_an_id_that_is(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.md")
    with open(path, "wb") as file:
        file.write(b"text")
    (item,), _ = listed(FolderSource(kind="folder", name="s", path=tmp_path))
    assert item.external_id == "caf\\udce9.md"
    source = FolderSource(kind="folder", name="s", path=tmp_path)
    assert connector_for(source).read(item, LIMIT) == b"text"


def test_a_file_that_grew_or_went_since_the_listing_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    source = FolderSource(kind="folder", name="s", path=tmp_path)
    (item,), _ = listed(source)
    (tmp_path / "a.md").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(Unreadable, match="max_document_bytes"):
        connector_for(source).read(item, LIMIT)
    (tmp_path / "a.md").unlink()
    with pytest.raises(Unreadable, match="cannot be read"):
        connector_for(source).read(item, LIMIT)


def test_a_missing_folder_fails_the_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        listed(FolderSource(kind="folder", name="s", path=tmp_path / "no"))


def test_installed_packages_come_in_the_order_of_preference() -> None:
    source = PythonPackagesSource(
        kind="python_packages", name="p", packages=("pydantic", "PyYAML", "rich*"), limit=3
    )
    items, _ = listed(source, 10_000_000)
    assert [i.external_id for i in items][:2] == ["pydantic", "pyyaml"]
    assert items[2].external_id.startswith("rich")
    assert items[0].version
    assert items[0].title_is_final
    assert b"validation" in connector_for(source).read(items[0], 10_000_000)
