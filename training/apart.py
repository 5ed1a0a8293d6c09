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

    Raises what `function` raises; Unavailable when its process died again and again.
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
        raise Unavailable(
            f"The process that works with the model died {RETRIES + 1} times: {str(error).strip()[-500:]}",
            hint="Most likely memory ran out. Free some and start the same run again.",
        ) from error
    return found


def _yielding(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    yield_to_serving()
    return function(*args, **kwargs)
