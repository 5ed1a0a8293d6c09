"""Ingestion on Ray Data as the command runs it: its own process and cluster, and a kill in the middle."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assistant.settings import Settings
from assistant.stores.documents import DocumentRepository
from assistant.stores.postgres import Database
from assistant.stores.sources import SourceRepository
from assistant.stores.vectors import SearchFilter, VectorStore
from tests.data_jobs.conftest import TEXT

pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

DOCUMENTS = 80


@pytest.fixture
def many(folder: Path) -> Path:
    for i in range(DOCUMENTS - 3):
        (folder / f"page{i:03}.md").write_text(TEXT.format(name=f"page{i}"))
    (folder / "broken.md").write_bytes(b"\x00")
    return folder


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """Short, because it begins the paths of Unix sockets, which end at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def command(
    settings: Settings, many: Path, repo_root: Path, ray_folder: str
) -> Callable[[], "subprocess.Popen[str]"]:
    """Starts the command as a process group of its own, with everything on Ray."""
    assert settings.postgres.url is not None
    assert settings.qdrant.api_key is not None
    env = {
        "DATABASE_URL": settings.postgres.url.get_secret_value(),
        "QDRANT_URL": str(settings.qdrant.url),
        "QDRANT_API_KEY": settings.qdrant.api_key.get_secret_value(),
        "AI_ASSISTANT_EMBEDDER__PATH": str(settings.embedder.path),
        "AI_ASSISTANT_INGEST__SMALL_JOB_DOCUMENTS": "0",
        "RAY_TMPDIR": ray_folder,
    }

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "data_jobs.ingest", str(many), "--json"],
            cwd=repo_root,
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


async def contents(store: VectorStore, settings: Settings, database: Database) -> Counter[tuple[str, int]]:
    """How often each chunk of each document is stored."""
    found: Counter[tuple[str, int]] = Counter()
    (source,) = await SourceRepository(database).list()
    for name, entry in (await DocumentRepository(database).manifest(source.id)).items():
        chunks = await store.document_chunks(
            settings.qdrant.collection, entry.document_id, SearchFilter(("public",)), 0, 1000
        )
        found.update((name, payload["chunk_index"]) for _, payload in chunks)
    return found


def expected(folder: Path) -> Counter[tuple[str, int]]:
    names = [path.name for path in folder.iterdir() if path.name != "broken.md"]
    return Counter((name, index) for name in names for index in (0, 1))


async def test_a_killed_run_is_completed_by_the_next_one(
    command: Callable[[], "subprocess.Popen[str]"],
    ingest: Callable[..., Any],
    many: Path,
    settings: Settings,
    vector_store: VectorStore,
    database: Database,
) -> None:
    process = command()
    documents = DocumentRepository(database)
    while process.poll() is None and not (await documents.counts())["documents"]:
        await asyncio.sleep(0.1)
    assert process.poll() is None, process.communicate()
    await asyncio.sleep(random.uniform(0, 1))  # Anywhere between two writes, or inside one.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    report = await ingest()
    assert report.failed == 1
    assert report.documents == DOCUMENTS + 1
    assert await contents(vector_store, settings, database) == expected(many)
    assert await vector_store.count(settings.qdrant.collection) == 2 * DOCUMENTS
    assert (await documents.counts())["documents"] == DOCUMENTS


async def test_ray_gives_what_the_process_gives(
    command: Callable[[], "subprocess.Popen[str]"],
    many: Path,
    settings: Settings,
    vector_store: VectorStore,
    database: Database,
) -> None:
    process = command()
    out, err = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, err
    (report,) = json.loads(out)["sources"]
    assert (report["engine"], report["added"], report["chunks"]) == ("ray", DOCUMENTS + 1, 2 * DOCUMENTS)
    assert [(x["external_id"], x["stage"]) for x in report["dead_letters"]] == [("broken.md", "parse")]
    assert await contents(vector_store, settings, database) == expected(many)
