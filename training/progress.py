"""How far a training run is, for a terminal and for whoever follows a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.journal import Point

RECENT = 10
"""Steps whose mean gives the speed: enough to be calm, few enough to follow the machine."""


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """`nll` is the last step's loss, `validation_nll` the last validation's. `eta_s` counts training alone."""

    step: int
    steps: int
    nll: float
    validation_nll: float | None
    tokens_per_s: float
    eta_s: float


def progress_of(points: Sequence[Point]) -> TrainProgress:
    """Of all points so far; there must be one at least."""
    last, recent = points[-1], points[-RECENT:]
    seconds = sum(p.seconds for p in recent)
    judged = [p.metrics["validation_nll"] for p in points if "validation_nll" in p.metrics]
    return TrainProgress(
        step=last.step,
        steps=last.steps,
        nll=last.metrics["train_nll"],
        validation_nll=judged[-1] if judged else None,
        tokens_per_s=sum(p.tokens for p in recent) / max(seconds, 1e-9),
        eta_s=(last.steps - last.step) * seconds / len(recent),
    )


class TrainingBar:
    """A line with steps, losses, speed and time left; call it with every TrainProgress."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("training", total=None, figures="starting")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, now: TrainProgress) -> None:
        held = "" if now.validation_nll is None else f", validation {now.validation_nll:.3f}"
        left = f"{int(now.eta_s) // 60}:{int(now.eta_s) % 60:02} left"
        self._bar.update(
            self._task,
            total=now.steps,
            completed=now.step,
            figures=f"loss {now.nll:.3f}{held}, {now.tokens_per_s:.0f} tokens/s, {left}",
        )
