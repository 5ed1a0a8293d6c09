"""Layers point one way, files stay one idea long, and the folder traps stay shut."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.architecture import NO_PYTHON, breach, breaches, imports_of

MAX_LINES = 500


def test_no_import_breaks_the_layers(repo_root: Path) -> None:
    assert breaches(repo_root) == []


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("assistant/types.py", "import assistant.stores.documents", "may not import assistant.stores"),
        ("assistant/stores/x.py", "from assistant.llm import types", "may not import assistant.llm"),
        ("assistant/rfc/x.py", "from assistant.learning import score", "may not import assistant.learning"),
        ("assistant/llm/x.py", "import psycopg", "psycopg may be imported only in"),
        ("assistant/llm/x.py", "import ray", "ray may be imported only in"),
        ("data_jobs/x.py", "from ray import serve", "ray.serve may be imported only in"),
        ("serve_app/x.py", "import ray.data", "ray.data may be imported only in"),
        ("serve_app/x.py", "import mlflow", "mlflow may be imported only in"),
        ("serve_app/x.py", "from data_jobs import ingest", "serve_app may not import data_jobs"),
        ("evals/x.py", "import training.registry", "evals may not import training"),
        ("cluster/cli.py", "import data_jobs.ingest", "only inside a function"),
        ("serve_app/x.py", "from . import app", "relative import"),
        ("assistant/strange.py", "from assistant.errors import NotFound", "has no rank"),
    ],
)
def test_a_planted_breach_is_named(file: str, source: str, reason: str) -> None:
    found = [b for i in imports_of(source, file) if (b := breach(i))]
    assert any(reason in b and b.startswith(f"{file}:1") for b in found), found


def test_allowed_imports_pass() -> None:
    for file, source in [
        ("assistant/retrieval/x.py", "from assistant.stores import vectors"),
        ("cluster/cli.py", "def go():\n    import data_jobs.ingest"),
        ("cluster/cli.py", "if TYPE_CHECKING:\n    from data_jobs.report import IngestReport"),
        ("training/x.py", "import ray.train, evals.gate"),
    ]:
        assert [b for i in imports_of(source, file) if (b := breach(i))] == []


def test_files_are_one_idea_long(repo_root: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.js", "*.css", "*.html"],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    lengths = {f: len((repo_root / f).read_text().splitlines()) for f in tracked if (repo_root / f).is_file()}
    assert {f: n for f, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize("folder", NO_PYTHON)
def test_folders_without_python(repo_root: Path, folder: str) -> None:
    assert list((repo_root / folder).rglob("*.py")) == []


def test_our_mlflow_folder_does_not_shadow_the_package() -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    assert "site-packages" in spec.origin


def test_serve_modules_keep_real_annotations(repo_root: Path) -> None:
    """Ray pickles ingress and builder by value: postponed annotations turn bodies into query parameters."""
    postponed = [
        p.name for p in (repo_root / "serve_app").rglob("*.py") if "from __future__" in p.read_text()
    ]
    assert postponed == []
