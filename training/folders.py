"""Folders that appear whole or not at all, and errors of a full disk that name the path."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assistant.errors import ConfigurationError


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `target` at the end of the block, and vanishes on an error.

    Raises ConfigurationError naming `target` when the disk refuses.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        with writing(target):
            yield scratch
            shutil.rmtree(target, ignore_errors=True)
            os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a ConfigurationError that names `path`."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{path} could not be written: {error.strerror or error}.",
            hint="Make room or fix the permissions and start the run again: it goes on from the last checkpoint.",
            path=str(path),
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write and sync, so that a folder renamed afterwards holds it even after a power cut."""
    with path.open("wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())


def write_json(path: Path, value: Any) -> None:
    """Replace a small JSON file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        write_bytes(partial, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
        os.replace(partial, path)
