"""Shared fixtures: one Ray cluster for the whole test session, with Serve's proxy on a port of its own."""

import contextlib
import gc
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

NEEDED_GIB = 3.0
STARTS = 3
PATIENCE_S = 240.0
"""Ray gives its own node 30 seconds to come up, which a machine busy with other tests may not hold."""


@dataclass(frozen=True)
class RayCluster:
    """`url` is where Serve answers, `address` what a driver joins."""

    url: str
    address: str


def import_serve() -> None:
    """Import Ray Serve, whose own modules warn of their use of pydantic: our tests take warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.serve
        import ray.util.metrics  # noqa: F401


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Ray and Serve in a private folder. Two CPUs: replicas of tests must ask for none.

    Applications are the tests' own to delete. What was started is ended by its process ids.
    """
    free_gib = psutil.virtual_memory().available / 2**30
    if free_gib < NEEDED_GIB:
        pytest.skip(f"a Ray cluster needs {NEEDED_GIB:.0f} GiB of memory, {free_gib:.1f} are free")
    # Unix socket paths end near 100 characters: pytest's own folders are too deep.
    folder = tempfile.mkdtemp(prefix="aia-t-", dir="/tmp" if os.path.isdir("/tmp") else None)
    os.environ["RAY_TMPDIR"] = folder
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "200"
    import_serve()
    from ray import serve

    before = _children()
    try:
        address = _start(folder, before)
        port = free_port()
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port},
            logging_config={"encoding": "JSON", "enable_access_log": False},
        )
        yield RayCluster(f"http://127.0.0.1:{port}", address)
        serve.shutdown()
    finally:
        _stop(before)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: str, before: set[psutil.Process]) -> str:
    """The address of a new Ray node."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            with _patience():
                context: Any = ray.init(
                    address="local",
                    num_cpus=2,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    object_store_memory=200_000_000,
                    _temp_dir=folder,
                )
            return str(context.address_info["gcs_address"])
        except Exception:
            _stop(before)
            if attempt == STARTS:
                raise
    raise AssertionError


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Within it a new node has PATIENCE_S to register. Ray's limit is a local constant around this call."""
    from ray._private import services

    asked = services.get_node

    def waiting(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return asked(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    services.get_node = waiting
    try:
        yield
    finally:
        services.get_node = asked


def _stop(before: set[psutil.Process]) -> None:
    """Ray ends its processes itself; what is still there after some seconds is killed by id."""
    import ray

    started = _children() - before
    ray.shutdown()
    _, alive = psutil.wait_procs(list(started), timeout=15)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    pids = {process.pid for process in started}
    for handle in gc.get_objects():
        # Ray drops these without waiting for them, and Python warns when it collects such a one.
        # `type`, because isinstance asks an object's `__class__`, and some of torch's warn when asked.
        if issubclass(type(handle), subprocess.Popen) and handle.pid in pids:
            handle.wait()


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
