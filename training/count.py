"""How much of some work is done, told from the process that does it to the one that waits."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Count = Callable[[int, int], None]
"""Takes what is done and what there is to do."""
LOOK_S = 1.0


def uncounted(done: int, whole: int) -> None:
    """For work that nobody waits for."""


class CountFile:
    """A Count whose figures lie in a file: it may be sent to another process that sees the same folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, done: int, whole: int) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(f"{done} {whole}", encoding="ascii")
        os.replace(partial, self._path)

    @contextmanager
    def followed(self, tell: Count) -> Iterator[None]:
        """Within it, `tell` hears of each new figure, from another thread; at the end the file is gone."""
        self._path.unlink(missing_ok=True)
        over = threading.Event()
        follower = threading.Thread(target=self._follow, args=(tell, over), daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
            self._path.unlink(missing_ok=True)

    def _follow(self, tell: Count, over: threading.Event) -> None:
        told: tuple[int, int] | None = None
        ending = False
        while not ending:
            ending = over.wait(LOOK_S)
            found = self._read()
            if found is not None and found != told:
                told = found
                tell(*found)

    def _read(self) -> tuple[int, int] | None:
        try:
            done, whole = self._path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        return int(done), int(whole)
