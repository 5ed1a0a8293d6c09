"""A line per finished trial, for whoever watches a search.

Ray Tune stores its callbacks with the search and brings the stored ones back when it resumes, so this one
holds no listener but only the name under which the process at hand has one.
"""

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

LISTENERS: dict[str, Callable[[str], None]] = {}
"""Search folder → who is told."""


class TrialLines(Callback):
    def __init__(self, key: str, metric: str, time: str) -> None:
        self._key, self._metric, self._time = key, metric, time

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        tell = LISTENERS.get(self._key)
        if tell is None:
            return
        last = trial.last_result or {}
        values = ", ".join(f"{name} {value:.4g}" for name, value in trial.config.items())
        figure = last.get(self._metric)
        shown = "no figure" if figure is None else f"{figure:.4f} after {last.get(self._time)} steps"
        tell(f"trial {trial.trial_id}: {values}: {shown}")
