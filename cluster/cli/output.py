"""What people and scripts see: results on stdout, everything else on stderr, text made safe to show."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from assistant.errors import AssistantError

if TYPE_CHECKING:
    from rich.console import Console

CONTROL = (
    {code: None for code in range(32) if chr(code) not in "\n\t"}
    | {127: None}
    | dict.fromkeys(range(128, 160))
)


def plain(text: str) -> str:
    """Without control characters: a stored document must not be able to steer the terminal."""
    return text.translate(CONTROL)


def say(text: str = "", *, end: str = "\n") -> None:
    """A result, as it is."""
    sys.stdout.write(plain(text) + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """For people only."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def stderr() -> "Console":
    """For progress bars."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout() -> "Console":
    """For tables: as wide as they need where no terminal limits them."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False)
    for column in columns:
        # Identifiers are there to be copied: they may break, but nothing of them may be left out.
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(plain(str(cell))) for cell in row))
    stdout().print(made)


def report_error(error: AssistantError, as_json: bool) -> None:
    """One sentence and what to do; as JSON the problem body, on stdout like every other JSON answer."""
    if as_json:
        say_json({"error": error.problem()})
        return
    note(f"Error: {error.detail}")
    if error.hint:
        note(f"  {error.hint}")
    for cause in error.extra.get("causes") or []:
        note(f"  - {cause.get('backend', '')}: {cause.get('detail', cause)}")
    request = error.extra.get("instance")
    if request:
        note(f"  request {request}")


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`, `4 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
