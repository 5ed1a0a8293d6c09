"""The steps of `up` in a terminal: one line per step when it is done, and what goes on below them."""

import sys
import threading
from types import TracebackType

from cluster.cli.output import note, plain


class TerminalProgress:
    """Steps may report from several threads. `quiet` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._working: dict[str, str] = {}
        self._live = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            self._live = Status("starting", console=Console(stderr=True, highlight=False))

    def __enter__(self) -> "TerminalProgress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def working(self, step: str, detail: str) -> None:
        with self._lock:
            if self._working.get(step) == detail:
                return
            self._working[step] = detail
            self._show()

    def done(self, step: str, seconds: float, detail: str) -> None:
        with self._lock:
            self._working.pop(step, None)
            self._print(f"  {step:<12} {seconds:7.1f} s   {detail}")
            self._show()

    def note(self, text: str) -> None:
        with self._lock:
            self._print(f"  {text}")

    def _print(self, line: str) -> None:
        if self._quiet:
            return
        if self._live:
            self._live.console.print(plain(line), markup=False, soft_wrap=True)
        else:
            note(line)

    def _show(self) -> None:
        if self._live:
            from rich.markup import escape

            text = "; ".join(f"{name}: {detail}" for name, detail in self._working.items())
            self._live.update(escape(plain(text)))
