"""How many, how big, how patient: the options of every deployment, from settings, in one place."""

from typing import Any, Literal

from ray.serve.config import BackpressureConfig

from assistant.llm.catalog import ModelSpec
from assistant.settings import Settings

HEALTH_ROOM = 16
"""Calls that must get through although all work slots are taken: health, notify."""
PAGE_ROOM = 64
"""The same for the Router: health checks and the files of the page."""

LOGGING = {"encoding": "JSON", "enable_access_log": False}
"""The Router writes one line per request; a line of Serve for each hop would cost more than the hop."""

Part = Literal["Router", "Retriever", "Writer", "Scheduler"]


def deployment_options(settings: Settings, part: Part | ModelSpec) -> dict[str, Any]:
    """Arguments of `Deployment.options` for a part of the graph or for the model that a LocalLLM holds.

    Our own admission refuses first, with a problem body; Serve's limits lie above it as a last resort.
    """
    serve = settings.serve
    # Those worked on, those waiting, and those watching drafts.
    admitted = 2 * serve.max_ongoing_requests + serve.max_queued_requests
    own: dict[str, Any]
    if isinstance(part, ModelSpec):
        own = {
            "name": f"LocalLLM-{part.name}",
            "max_ongoing_requests": llm_requests(settings, part) + HEALTH_ROOM,
            "ray_actor_options": {"num_cpus": serve.llm_cpus, "num_gpus": part.gpus},
        }
    elif part == "Router":
        own = {
            "name": "Router",
            "num_replicas": serve.router_replicas,
            "max_ongoing_requests": admitted + PAGE_ROOM,
            # A burst counts as queued while Serve looks for a replica, so this must not be small.
            "max_queued_requests": admitted + PAGE_ROOM,
            "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=1.0),
            "ray_actor_options": {"num_cpus": 0},
        }
    elif part == "Retriever":
        own = {
            "name": "Retriever",
            "num_replicas": serve.retriever_replicas,
            "max_ongoing_requests": serve.max_ongoing_requests + HEALTH_ROOM,
            "max_queued_requests": admitted + HEALTH_ROOM,
            "ray_actor_options": {"num_cpus": serve.retriever_cpus},
        }
    elif part == "Scheduler":
        own = {
            "name": "Scheduler",
            # A second one would only wait for the first one's lease.
            "num_replicas": 1,
            "max_ongoing_requests": HEALTH_ROOM,
            "ray_actor_options": {"num_cpus": 0},
        }
    else:
        own = {
            "name": "Writer",
            "num_replicas": serve.writer_replicas,
            "max_ongoing_requests": HEALTH_ROOM,
            "ray_actor_options": {"num_cpus": 0},
        }
    return {
        **own,
        # A killed replica is noticed within a period; a busy machine may take long to answer one check.
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": serve.drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "logging_config": LOGGING,
        # A wrong setting does not become right by trying: fail soon, with its message.
        "max_constructor_retry_count": 3,
    }


def llm_requests(settings: Settings, spec: ModelSpec) -> int:
    """Requests that one LocalLLM replica takes in: those in its slots and those that wait."""
    return spec.slots + settings.serve.max_queued_requests
