"""Shared fixtures: one Ray cluster for the whole test session, with Serve's proxy on a port of its own."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

NEEDED_GIB = 3.0


@dataclass(frozen=True)
class RayCluster:
    """`url` is where Serve answers, `address` what a driver joins."""

    url: str
    address: str


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
    folder = tempfile.mkdtemp(prefix="aia-", dir="/tmp" if os.path.isdir("/tmp") else None)
    os.environ["RAY_TMPDIR"] = folder
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "200"
    before = _children()
    import ray
    from ray import serve

    port = free_port()
    context: Any = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=200_000_000,
        _temp_dir=folder,
    )
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port},
            logging_config={"encoding": "JSON", "enable_access_log": False},
        )
        yield RayCluster(f"http://127.0.0.1:{port}", context.address_info["gcs_address"])
    finally:
        started = _children() - before
        serve.shutdown()
        ray.shutdown()
        _end(started)
        shutil.rmtree(folder, ignore_errors=True)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    """Ray ends its processes itself; what is still there after some seconds is killed by id."""
    _, alive = psutil.wait_procs(list(processes), timeout=15)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
