"""What a training run says while it goes on: a file of points that outlives worker, driver and MLflow.

The worker appends one line per optimizer step; the driver follows the file for its progress bar and sends it
to MLflow. A restarted worker repeats the steps since its checkpoint with the same values, so readers take
the first line of every step.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from assistant import errors
from assistant.clock import epoch_s
from assistant.errors import AssistantError
from training.folders import write_json, writing
from training.lora_step import Step

POINTS = "points.jsonl"
FAILURE = "failure.json"
POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Point:
    """One line: a step's figures and when they were written (epoch seconds)."""

    step: int
    steps: int
    at_s: float
    seconds: float
    tokens: int
    metrics: dict[str, float]


def append(folder: Path, step: Step) -> None:
    """Add a step. ConfigurationError naming the file when the disk is full."""
    line = json.dumps(
        {
            "step": step.step,
            "steps": step.steps,
            "at_s": round(epoch_s(), 3),
            "seconds": step.seconds,
            "tokens": step.tokens,
            "metrics": metrics(step),
        }
    )
    path = folder / POINTS
    with writing(path), path.open("ab") as sink:
        sink.write(f"{line}\n".encode())


def metrics(step: Step) -> dict[str, float]:
    """The curves of one step, under the names they have in MLflow."""
    found = {
        "train_nll": step.loss,
        "learning_rate": step.learning_rate,
        "grad_norm": step.grad_norm,
        "epoch": step.epoch,
        "tokens_per_s": step.tokens / max(step.seconds, 1e-9),
        "micro_batches": float(step.batches),
    }
    if step.validation_nll is not None:
        found["validation_nll"] = step.validation_nll
    return found


def mend(folder: Path) -> None:
    """Cut a line that a killed worker left unfinished, so that the next one does not continue it."""
    path = folder / POINTS
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def read(folder: Path, after: int = 0) -> list[Point]:
    """The points of steps after `after`, each step once and in order."""
    with contextlib.suppress(FileNotFoundError):
        points: list[Point] = []
        for line in (folder / POINTS).read_bytes().split(b"\n")[:-1]:
            point = Point(**json.loads(line))
            if point.step > max(after, points[-1].step if points else 0):
                points.append(point)
        return points
    return []


def record_failure(folder: Path, error: AssistantError) -> None:
    """Keep an error that repeating would only repeat; the driver raises it."""
    found: dict[str, Any] = {"type": type(error).__name__, "detail": error.detail, "hint": error.hint}
    write_json(folder / FAILURE, found | {"extra": dict(error.extra)})


def recorded_failure(folder: Path) -> AssistantError | None:
    path = folder / FAILURE
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    kind = getattr(errors, found["type"], AssistantError)
    made: AssistantError = kind(found["detail"], hint=found["hint"], **found["extra"])
    return made


class Follower:
    """Hands new points to `tell` from a thread, until the block ends; then once more what came last."""

    def __init__(self, folder: Path, tell: Callable[[list[Point]], None], after: int = 0) -> None:
        self._folder, self._tell, self._seen = folder, tell, after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training-journal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._take()

    def _run(self) -> None:
        size = -1
        while not self._over.wait(POLL_S):
            with contextlib.suppress(FileNotFoundError):
                now = (self._folder / POINTS).stat().st_size
                if now != size:
                    size = now
                    self._take()

    def _take(self) -> None:
        points = read(self._folder, self._seen)
        if points:
            self._seen = points[-1].step
            self._tell(points)
