"""Ends an engine's processes when the process that started them was killed.

vLLM's engine core and worker survive a `kill -9` of their parent, with gigabytes of memory. So a small
watcher holds the other end of a pipe: when that closes without a goodbye, it kills every process whose
environment carries the owner's token. The token, unlike a pid, also finds children that were still
starting, and never a stranger. Linux only, as vLLM is.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TOKEN = "ENGINE_OWNER_TOKEN"  # noqa: S105  the name of an environment variable
KEEP_ENVIRON = "SPT_NOENV"
"""vLLM renames its processes; without this the renaming wipes what /proc shows of their environment."""

GOODBYE = b"done\n"


class OrphanGuard:
    """Guards the processes started inside `with guard.marking():`, until `release`."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)
        # Isolated and by path: the watcher needs the standard library alone and starts in 30 ms.
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._token],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        """Children started meanwhile carry the token, and theirs as well."""
        os.environ.update({TOKEN: self._token, KEEP_ENVIRON: "1"})
        try:
            yield
        finally:
            for name in (TOKEN, KEEP_ENVIRON):
                os.environ.pop(name, None)

    def release(self, *, kill: bool = False) -> None:
        """End the watcher; with `kill` it first kills what is left."""
        with contextlib.suppress(BrokenPipeError):
            self._watcher.communicate(b"" if kill else GOODBYE)


def marked(token: str, proc: Path = Path("/proc")) -> list[int]:
    """The processes that were started with this token."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # A process may end meanwhile or belong to somebody else.
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def watch(token: str) -> None:
    """Wait for the owner's goodbye or death; after death kill until nothing is left."""
    # A Ctrl-C in the terminal is for the owner; the pipe tells us when it is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.stdin.buffer.readline() == GOODBYE:
        return
    while pids := marked(token):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    watch(sys.argv[1])
