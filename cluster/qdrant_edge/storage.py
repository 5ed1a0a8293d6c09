"""Files of the server: one owner per folder, and small documents that are whole or absent after a crash."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from assistant.errors import ConfigurationError

LOCK_FILE = ".lock"


class FolderLock:
    """Held for the life of the process; the kernel drops it when the process dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LOCK_FILE).open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise ConfigurationError(
                f"Another process (pid {owner}) already serves the Qdrant Edge folder {folder}.",
                hint="Stop it first, or use another folder.",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def write_json(path: Path, value: Any) -> None:
    """Replace `path` atomically and durably."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def read_json(path: Path, default: Any = None) -> Any:
    """The value in `path`, or `default` when there is no such file; ConfigurationError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is damaged: {error}.", hint="Restore it from a backup, or remove its folder."
        ) from None


def sync_folder(folder: Path) -> None:
    """Make a rename or removal inside `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_collection_folder(folder: Path, meta: str) -> None:
    """Remove the meta file first, so that a crash in between leaves what the next boot cleans up."""
    (folder / meta).unlink(missing_ok=True)
    sync_folder(folder)
    shutil.rmtree(folder)
