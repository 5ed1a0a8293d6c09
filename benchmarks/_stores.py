"""A private Postgres and Qdrant Edge for one benchmark, gone when it ends."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from assistant.settings import Settings, load_settings
from assistant.stores.migrations import migrate
from cluster.postgres import LocalPostgres

READY_S = 90


@contextmanager
def private_stores() -> Iterator[Settings]:
    """The installation's settings with both stores replaced by empty ones."""
    with tempfile.TemporaryDirectory(prefix="ai-assistant-bench-") as folder:
        postgres = LocalPostgres(Path(folder, "postgres"))
        postgres.start()
        try:
            postgres.ensure_database("ai_assistant")
            url = postgres.url("ai_assistant")
            asyncio.run(migrate(url))
            with _qdrant(Path(folder, "qdrant")) as qdrant:
                yield load_settings(overrides={"postgres": {"url": url}, "qdrant": qdrant})
        finally:
            postgres.stop()


@contextmanager
def _qdrant(folder: Path) -> Iterator[dict[str, str]]:
    key = secrets.token_urlsafe(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.qdrant_edge", "--folder", str(folder), "--port", str(port)],
        env=os.environ | {"QDRANT_API_KEY": key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{url}/readyz", process)
        yield {"url": url, "api_key": key}
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("Qdrant Edge did not start.")
