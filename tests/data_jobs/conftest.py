"""Settings for ingestion against this session's real stores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from assistant.settings import EmbedderSettings, IngestSettings, PostgresSettings, QdrantSettings, Settings
from assistant.stores.postgres import Database
from assistant.stores.vectors import VectorStore
from data_jobs.config import DatasetConfig, FolderSource
from data_jobs.ingest import Ingestion
from data_jobs.report import SourceReport

TEXT = (
    "# {name}\n\nThis page tells what the service called {name} does and whom it serves every day.\n\n"
    "## Mitigation of {name}\n\nRestart the service {name}, then look at its logs and count the errors.\n"
)


@pytest.fixture
def settings(
    database: Database,
    database_url: str,
    vector_store: VectorStore,
    qdrant_server: QdrantSettings,
    models_dir: Path,
) -> Settings:
    """Everything is ingested in process unless a test says otherwise. The stores start empty."""
    return Settings(
        postgres=PostgresSettings(url=SecretStr(database_url)),
        qdrant=qdrant_server,
        embedder=EmbedderSettings(path=models_dir / "all-MiniLM-L6-v2"),
        ingest=IngestSettings(small_job_documents=10_000),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents with two chunks each."""
    path = tmp_path / "handbook"
    path.mkdir()
    for name in ("alpha", "beta", "gamma"):
        (path / f"{name}.md").write_text(TEXT.format(name=name))
    return path


Ingest = Callable[..., Any]


@pytest.fixture
def ingest(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, embedder: Any) -> Ingest:
    """Ingests `folder` and returns the source's report; keywords change the source."""
    monkeypatch.setattr(Ingestion, "_load_embedder", lambda self: embedder)

    async def run(
        with_settings: Settings | None = None, allow_empty: bool = False, **source: Any
    ) -> SourceReport:
        config = DatasetConfig(
            sources=(FolderSource(kind="folder", **{"name": "handbook", "path": folder} | source),)
        )
        report = await Ingestion(with_settings or settings, config, allow_empty=allow_empty).run()
        return report.sources[0]

    return run
