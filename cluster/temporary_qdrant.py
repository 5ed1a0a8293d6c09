"""A Qdrant for one piece of work: the kind the stack runs, in a folder that goes with it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assistant.errors import StoreUnavailable
from assistant.settings import QdrantSettings
from cluster.layout import ROOT
from cluster.qdrant import LocalQdrant

READY_S = 90.0
STOP_S = 30.0


@contextmanager
def temporary_qdrant(parent: Path, collection: str) -> Iterator[QdrantSettings]:
    """Start it below `parent`, stop it and remove its folder at the end.

    Raises StoreUnavailable with the end of its log when it does not start.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="qdrant-", ignore_cleanup_errors=True) as folder:
        qdrant = LocalQdrant(Path(folder))
        log = Path(folder, "log")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                qdrant.command(),
                env=os.environ | qdrant.environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            deadline = time.monotonic() + READY_S
            while not qdrant.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    end = log.read_text(errors="replace")[-500:]
                    raise StoreUnavailable(f"A temporary Qdrant did not start: {end or 'no output'}")
                time.sleep(0.1)
            yield QdrantSettings(url=qdrant.url, api_key=qdrant.api_key, timeout_s=60, collection=collection)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
