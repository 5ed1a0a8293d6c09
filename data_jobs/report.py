"""What an ingestion did, for people (a table) and for programs (JSON)."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Engine = Literal["none", "in process", "ray"]
_SHOWN_ERRORS = 10


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document that was skipped, the stage that refused it, and why."""

    external_id: str
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source. `error` is set when the source as a whole failed; what it had stored before stays."""

    source: str
    kind: str
    documents: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    chunks: int = 0
    seconds: float = 0.0
    engine: Engine = "none"
    dead_letters: tuple[DeadLetter, ...] = ()
    error: str | None = None

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class IngestReport:
    sources: tuple[SourceReport, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0, or 1 when a source failed as a whole. Skipped documents are reported, they fail nothing."""
        return int(any(source.error for source in self.sources))

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "sources": [
                asdict(s) | {"seconds": round(s.seconds, 3), "chunks_per_s": round(s.chunks_per_s, 2)}
                for s in self.sources
            ],
        }

    def print(self, console: Console) -> None:
        console.print(self._renderable())

    def _renderable(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("source", overflow="fold", min_width=12)
        for name in ("docs", "new", "changed", "same", "gone", "skipped", "chunks", "per s", "s"):
            table.add_column(name, justify="right", no_wrap=True)
        for s in self.sources:
            counts = (s.documents, s.added, s.changed, s.unchanged, s.removed, s.failed, s.chunks)
            table.add_row(s.source, *map(str, counts), f"{s.chunks_per_s:.1f}", f"{s.seconds:.1f}")
        lines = [Text(f"{s.source}: {s.error}", style="red") for s in self.sources if s.error]
        for s in self.sources:
            for letter in s.dead_letters[:_SHOWN_ERRORS]:
                lines.append(
                    Text(f"skipped {letter.external_id} ({letter.stage}): {letter.message}", style="yellow")
                )
            if len(s.dead_letters) > _SHOWN_ERRORS:
                lines.append(Text(f"… and {len(s.dead_letters) - _SHOWN_ERRORS} more in ingestion_errors"))
        return Group(table, *lines)
