"""Small files of the state folder: written whole or not at all, readable by their owner only."""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Make `path` (and its parents) with mode 0700 where it is absent."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace `path` atomically, mode 0600. Raises OSError; the old content stays then."""
    private_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
            sink.write(text)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class FileLock:
    """An exclusive lock that its holder's death releases, kill -9 included."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Take the lock; wait for ever by default. False when `timeout_s` is over."""
        private_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if timeout_s is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._descriptor = descriptor
            return True
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
            else:
                self._descriptor = descriptor
                return True

    def is_current(self) -> bool:
        """False when the locked file was deleted or replaced: the lock then excludes nobody."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def locked(path: Path, timeout_s: float | None = None) -> Iterator[bool]:
    """Hold the lock for a block; yields False (and holds nothing) when `timeout_s` is over."""
    lock = FileLock(path)
    held = lock.acquire(timeout_s)
    try:
        yield held
    finally:
        lock.release()
