"""Work with a model in a Ray worker of its own, which ends with it: torch never gives its memory back while a
process lives, and a learning run lives long."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from assistant.errors import AssistantError, Unavailable
from assistant.settings import TrainingSettings
from training.priority import yield_to_serving
from training.ray_node import connect, takes_gpu

P = ParamSpec("P")
T = TypeVar("T")
RETRIES = 2
"""Deaths of the worker that one call survives."""


def apart(settings: TrainingSettings, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function(*args, **kwargs)` in a process of its own, at a low priority, with the resources of one
    training worker.

    Raises what `function` raises; Unavailable when its process died again and again, when Ray ended it because
    the machine's memory ran out, or when the cluster went away.
    """
    connect(settings.workers)
    import ray
    from ray.exceptions import RayError, RayTaskError

    task: Any = ray.remote(
        num_cpus=settings.worker_cpus,
        num_gpus=1 if takes_gpu(settings) else 0,
        max_calls=1,
        max_retries=RETRIES,
    )(_yielding)
    try:
        found: T = ray.get(task.remote(function, args, kwargs))
    except RayTaskError as error:
        if isinstance(error.cause, AssistantError):
            raise error.cause from error
        raise
    except RayError as error:
        raise _lost(error) from error
    return found


def _lost(error: Exception) -> Unavailable:
    """What Ray's own error means for the run."""
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    if isinstance(error, OutOfMemoryError):
        what = "was ended, because the machine's memory ran out"
        hint = "Free some and start the same run again."
    elif isinstance(error, WorkerCrashedError):
        what = f"died {RETRIES + 1} times"
        hint = "Most likely memory ran out. Free some and start the same run again."
    else:
        what = "was lost with its cluster, or never started"
        hint = "Look at `ai-assistant status`, then start the same run again."
    return Unavailable(
        f"The process that works with the model {what}: {str(error).strip()[-500:]}", hint=hint
    )


def _yielding(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    yield_to_serving()
    return function(*args, **kwargs)
