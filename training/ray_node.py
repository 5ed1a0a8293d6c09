"""The Ray cluster that training runs on: the one named by RAY_ADDRESS, or a small one of our own."""

import logging
import os
import warnings
from typing import Any

from assistant.errors import Unavailable
from assistant.settings import TrainingSettings

START_ATTEMPTS = 3
PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Ray Train's own switch."""


def connect(workers: int = 1) -> None:
    """Join the cluster, or start one that ends with this process. Raises Unavailable naming the address."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with warnings.catch_warnings():
        # Ray's own modules warn of what they themselves import.
        warnings.simplefilter("ignore")
        import ray
        import ray.train.torch

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    where: dict[str, Any] = (
        {"address": address}
        if address
        else {"address": "local", "num_cpus": max(2, workers), "include_dashboard": False}
    )
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            return
        except Exception as error:
            # Ray gives its own node 30 s, which a busy machine does not make, and raises bare exceptions.
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                name = f"the cluster at RAY_ADDRESS={address}" if address else "a local cluster"
                raise Unavailable(
                    f"Ray: {name} does not answer: {error}",
                    hint="Look at `ai-assistant status`, then run it again.",
                ) from error


def spare_watchers() -> None:
    """Leave out Ray Train's watcher for nodes that are about to go, where there is only this one: it is a process
    of 200 MB. After `connect`, before a trainer is made."""
    import ray

    if len([node for node in ray.nodes() if node["Alive"]]) == 1:
        os.environ.setdefault(PREEMPTION_WATCHER, "0")


def takes_gpu(settings: TrainingSettings) -> bool:
    """Whether each worker is to have a GPU; after `connect`."""
    import ray

    if settings.device == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= settings.workers)
    return settings.device == "cuda"
