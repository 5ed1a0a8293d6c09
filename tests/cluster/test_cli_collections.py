"""`ai-assistant collections` over real stores; the embedders are drawn, which is not what is asked here."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.settings import EmbedderSettings, QdrantSettings, Settings
from assistant.stores.vector_wire import connect
from cluster.cli import exits
from cluster.cli.app import main
from cluster.layout import Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.processes import identify
from cluster.state import State
from data_jobs.ingest import Ingestion
from tests.data_jobs.conftest import TEXT
from tests.data_jobs.embedding import DrawnEmbedder, install
from tests.fixtures_postgres import truncate
from tests.fixtures_qdrant import drop_everything

LIVE = "search_sources__all-MiniLM-L6-v2__1"
NEXT = "search_sources__other-v2__1"

Run = Callable[..., tuple[int, str, str]]


def drawn(embedder: EmbedderSettings, path: Path) -> DrawnEmbedder:
    return DrawnEmbedder(Settings(embedder=embedder.model_copy(update={"path": path})))


async def _empty(settings: QdrantSettings) -> None:
    client = connect(settings)
    await drop_everything(client)
    await client.close()


@pytest.fixture
def home(
    tmp_path: Path,
    database_url: str,
    qdrant_server: QdrantSettings,
    models_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Layout:
    """A state folder whose stack is this test's stores, empty, with two embedders installed."""
    truncate(database_url)
    asyncio.run(_empty(qdrant_server))
    layout = Layout(tmp_path / "home")
    assert qdrant_server.api_key is not None
    environment = {
        "DATABASE_URL": database_url,
        "QDRANT_URL": str(qdrant_server.url),
        "QDRANT_API_KEY": qdrant_server.api_key.get_secret_value(),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    }
    for name in environment:
        # The command exports them for Ray; this makes the test take them away again.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    State(str(layout.home), "0.1.0", leader=identify(os.getpid())).write(layout.state)
    Plan((ServiceSpec("ray", ("x",), Probe("tcp", "127.0.0.1:1")),), env=environment).write(layout.plan)
    for name, dimension in (("all-MiniLM-L6-v2", 384), ("other-v2", 96)):
        install(layout.home, models_dir / "all-MiniLM-L6-v2", name, dimension)
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(layout.home))
    monkeypatch.setattr(
        Ingestion, "_load_embedder", lambda self: drawn(self._settings.embedder, self._settings.embedder_path)
    )
    monkeypatch.setattr("data_jobs.reembed.SentenceTransformerEmbedder", drawn)
    return layout


@pytest.fixture
def run(home: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        for name in ("DATABASE_URL", "QDRANT_URL", "QDRANT_API_KEY", "MLFLOW_TRACKING_URI"):
            os.environ.pop(name, None)
        monkeypatch.setattr(sys, "argv", ["ai-assistant", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def test_an_embedder_is_changed_and_changed_back(run: Run, tmp_path: Path) -> None:
    code, _, err = run("collections", "build", "--embedder", "other-v2")
    assert (code, "ai-assistant ingest" in err) == (exits.NOT_FOUND, True)
    assert "first" in run("collections", "list")[2]
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "alpha.md").write_text(TEXT.format(name="alpha"))
    assert run("ingest", str(folder))[0] == exits.OK

    code, out, err = run("collections", "build", "--embedder", "other-v2")
    assert (code, out.split(",")[0]) == (exits.OK, f"{NEXT}: 2 passages")
    assert f"promote {NEXT}" in err
    code, out, err = run("collections", "promote", "other-v2")
    assert (code, out) == (exits.OK, f"{NEXT} is live: 2 passages by other-v2.\n")
    assert LIVE in err
    assert run("collections", "promote", "other-v2")[1] == f"{NEXT} is live already.\n"
    _, out, _ = run("collections", "list")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert rows == [
        [LIVE, "all-MiniLM-L6-v2", "384", "2", "before"],
        [NEXT, "other-v2", "96", "2", "live"],
    ]
    code, out, _ = run("collections", "rollback", "--json")
    assert (code, json.loads(out)["live"], json.loads(out)["previous"]) == (exits.OK, LIVE, NEXT)

    code, _, err = run("collections", "drop", LIVE, "--yes")
    assert (code, "is live" in err) == (exits.ERROR, True)
    code, out, _ = run("collections", "drop", NEXT, "--json")
    assert (code, json.loads(out)["error"]["field"]) == (exits.USAGE, "--yes")
    code, _, err = run("collections", "drop", NEXT, "--yes")
    assert (code, "rollback" in err) == (exits.OK, True)
    found = json.loads(run("collections", "list", "--json")[1])
    assert [(c["name"], c["points"], c["live"]) for c in found] == [(LIVE, 2, True)]
    assert run("collections", "rollback")[0] == exits.NOT_FOUND


def test_wrong_names_are_told(run: Run) -> None:
    code, _, err = run("collections", "build", "--embedder", "../elsewhere")
    assert (code, "no name" in err) == (exits.USAGE, True)
    code, _, err = run("collections", "build", "--embedder", "absent-v1")
    assert (code, "modules.json" in err) == (exits.ERROR, True)
    code, _, err = run("collections", "promote", "absent-v1")
    assert (code, "There are: none" in err) == (exits.NOT_FOUND, True)
