"""A running Qdrant Edge server, and a store on it that starts each test without collections."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient

from assistant.settings import QdrantSettings
from assistant.stores.vector_wire import connect
from assistant.stores.vectors import VectorStore

READY_S = 60
"""A cold start takes about 2 s, and far longer on a machine that is busy with other tests."""
KEY = "test-key"
ROOT = Path(__file__).resolve().parent.parent


class EdgeServer:
    """The server as a child process over `folder`; it keeps its port over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.settings = QdrantSettings(
            url=f"http://127.0.0.1:{self.port}", api_key=SecretStr(KEY), timeout_s=30
        )
        self.process: subprocess.Popen[str] | None = None

    def spawn(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cluster.qdrant_edge",
                "--folder",
                str(self.folder),
                "--port",
                str(self.port),
            ],
            env=os.environ | {"QDRANT_API_KEY": KEY},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self) -> None:
        self.process = self.spawn()
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if httpx.get(f"{self.settings.url}/readyz", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                assert self.process.stderr is not None
                raise RuntimeError(f"the Qdrant Edge server did not start: {self.process.stderr.read()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self._reap()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait(timeout=30)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process = None


async def drop_everything(client: AsyncQdrantClient) -> None:
    for collection in (await client.get_collections()).collections:
        await client.delete_collection(collection.name)


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantSettings]:
    """The settings of a Qdrant Edge server that runs for the whole session."""
    server = EdgeServer(tmp_path_factory.mktemp("qdrant"))
    server.start()
    yield server.settings
    server.stop()


@pytest.fixture
def edge_server(tmp_path: Path) -> Iterator[EdgeServer]:
    """A server of this test's own, running, for tests that stop or kill it."""
    server = EdgeServer(tmp_path / "qdrant")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def qdrant_client(qdrant_server: QdrantSettings) -> AsyncIterator[AsyncQdrantClient]:
    """A client of the session's server, with whatever earlier tests left there (see `drop_everything`)."""
    client = connect(qdrant_server)
    yield client
    await client.close()


@pytest.fixture
async def vector_store(qdrant_server: QdrantSettings) -> AsyncIterator[VectorStore]:
    """A store on the session's server, which holds no collections."""
    client = connect(qdrant_server)
    await drop_everything(client)
    store = VectorStore(qdrant_server, client)
    yield store
    await store.close()
