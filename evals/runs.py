"""Stored runs: one folder each below `<home>/evals/runs`, with `run.json` and `report.html`.

A run appears whole or not at all. Its id is the suite, the time in UTC and four characters; any beginning that
only one run has will do to name it.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from assistant.clock import now
from assistant.errors import ConfigurationError, InvalidInput, NotFound
from evals.results import CaseResult, Comparison, SuiteResult
from evals.statistics import Interval, Paired

FORMAT = 1
RUN, REPORT = "run.json", "report.html"
CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class StoredRun:
    """`folder` holds the files; `id` is its name."""

    id: str
    created_at: datetime
    code_version: str
    result: SuiteResult
    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / REPORT


class RunStore:
    def __init__(self, home: Path) -> None:
        self.folder = home / "evals" / "runs"

    def save(self, result: SuiteResult, report: str) -> StoredRun:
        """Store a result with its HTML report. Raises ConfigurationError when the disk refuses."""
        at = now()
        stem = "".join(c if c.isalnum() else "-" for c in result.name.lower())
        id_ = f"{stem}-{at:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        record = {
            "format": FORMAT,
            "id": id_,
            "created_at": at.isoformat(),
            "code_version": code_version(),
            "result": asdict(result),
        }
        text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
        write_whole(self.folder / id_, {RUN: text, REPORT: report})
        return self.load(id_)

    def load(self, name: str) -> StoredRun:
        """The run with this id or beginning of one.

        Raises NotFound, InvalidInput when several begin so, ConfigurationError for a damaged file.
        """
        found = [id_ for id_ in self.ids() if id_ == name] or [
            id_ for id_ in self.ids() if id_.startswith(name)
        ]
        if not name or not found:
            raise NotFound(f"There is no stored run {name!r}.", hint="`ai-assistant eval list` prints them.")
        if len(found) > 1:
            raise InvalidInput(f"{len(found)} runs begin with {name!r}: {', '.join(found[:5])}.", field="RUN")
        file = self.folder / found[0] / RUN
        try:
            return _read(json.loads(file.read_text(encoding="utf-8")), file.parent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{file} is no stored run: {error!r}.", hint="Remove its folder."
            ) from None

    def ids(self) -> list[str]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        found = [p.name for p in self.folder.iterdir() if not p.name.startswith(".") and (p / RUN).is_file()]
        return sorted(found, key=lambda id_: (id_.rsplit("-", 3)[1:], id_))

    def list(self) -> "list[StoredRun]":
        """Newest first. A damaged run raises ConfigurationError naming it."""
        return [self.load(id_) for id_ in reversed(self.ids())]


def write_whole(folder: Path, files: Mapping[str, str]) -> None:
    """Make a folder with these files in one step. Raises ConfigurationError when the disk refuses."""
    scratch = ""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder.parent, prefix=".new-")
        for name, text in files.items():
            with Path(scratch, name).open("w", encoding="utf-8") as sink:
                sink.write(text)
                sink.flush()
                os.fsync(sink.fileno())
        os.rename(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}.") from None


def code_version() -> str:
    """The revision of this checkout, with `+` when files differ from it; `unknown` without git."""
    if not (CHECKOUT / ".git").exists():
        return "unknown"
    try:
        revision = _git("rev-parse", "HEAD")
        return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def _read(record: Mapping[str, Any], folder: Path) -> StoredRun:
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}")
    raw = record["result"]
    result = SuiteResult(
        name=raw["name"],
        headline=raw["headline"],
        per_case=[CaseResult(**case) for case in raw["per_case"]],
        metrics={name: Interval(**interval) for name, interval in raw["metrics"].items()},
        comparisons=_comparisons(raw["comparisons"]),
        meta=raw["meta"],
    )
    created_at = datetime.fromisoformat(record["created_at"])
    return StoredRun(record["id"], created_at, record["code_version"], result, folder)


def _comparisons(raw: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    return [Comparison(c["metric"], c["first"], c["second"], Paired(**c["result"])) for c in raw]
