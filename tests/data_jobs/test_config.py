"""dataset_config.yml: every mistake is told with its line."""

from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from data_jobs.config import FolderSource, folder_source, load_config


def write(folder: Path, text: str) -> Path:
    path = folder / "dataset_config.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "sources:\n - {name: a, kind: folder, path: docs}\n"))
    (source,) = config.sources
    assert isinstance(source, FolderSource)
    assert source.path == tmp_path / "docs"
    assert source.acl == ("public",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sources:\n - name: a\n   kind: folder\n   path: x\n   colour: red\n",
            r"line 5: sources\.0\.colour",
        ),
        ("sources:\n - name: a\n   kind: folder\n", r"line 2: sources\.0\.path: Field required"),
        ("sources:\n - name: a\n   kind: gopher\n   path: x\n", r"line 2: sources\.0.*gopher"),
        (
            "sources:\n - name: a\n   kind: folder\n   path: x\n   acl: [everyone]\n",
            r"line 5: .*not an ACL term",
        ),
        ("sources:\n - name: a\n   kind: python_packages\n   limit: many\n", r"line 4: sources\.0\.limit"),
        (
            "sources:\n - name: a\n   name: b\n   kind: folder\n   path: x\n",
            r"line 3: the key 'name' is given twice",
        ),
        ("sources: []\n", r"line 1: sources"),
        ("sourcs: []\n", r"line 1: sourcs"),
        ("version: 2\nsources: [{name: a, kind: folder, path: x}]\n", r"line 1: version"),
        ("", r"line 1: sources: Field required"),
        ("sources: [\n", r"not valid YAML"),
        (
            "sources:\n - {name: a, kind: folder, path: x}\n - {name: a, kind: folder, path: y}\n",
            r"line 1: sources: .*used twice: a",
        ),
    ],
)
def test_mistakes_name_the_line_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yml does not exist"):
        load_config(tmp_path / "nothing.yml")


def test_the_starter_configuration_is_valid(repo_root: Path) -> None:
    kinds = {source.kind for source in load_config(repo_root / "dataset_config.yml").sources}
    assert kinds == {"folder", "python_packages"}


def test_two_folders_of_one_name_are_two_sources(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "docs", tmp_path / "b" / "docs"
    assert folder_source(first).name == "docs"
    assert folder_source(first, {"docs": str(first)}).name == "docs"
    assert folder_source(second, {"docs": str(first)}).name.startswith("docs-")
