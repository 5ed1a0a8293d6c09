"""Shared by all tests: nothing may leave the machine, and every home is a temporary one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

# A slow machine is no fault of the code: nothing here is a timed test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_worker_niceness="0",
    RAY_USAGE_STATS_ENABLED="0",
    # Ray Train takes a worker's report when it next looks, by default every 2 s.
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
)
for name in [n for n in os.environ if n.startswith("AI_ASSISTANT_")] + [
    "DATABASE_URL",
    "QDRANT_URL",
    "RAY_ADDRESS",
]:
    if name not in {"AI_ASSISTANT_HOME"}:
        os.environ.pop(name, None)

pytest_plugins = [
    "tests.fixtures_adapters",
    "tests.fixtures_cluster",
    "tests.fixtures_models",
    "tests.fixtures_postgres",
    "tests.fixtures_qdrant",
]

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


CLUSTER, STACK, ENGINES = "cluster", "stack", "engines"
GROUPS = {
    **dict.fromkeys(
        (
            "tests/data_jobs/test_reembed_ray.py",
            "tests/serve_app/test_graph.py",
            "tests/serve_app/test_scheduler.py",
            "tests/training/test_apart.py",
            "tests/training/test_llm_lora.py",
            "tests/training/test_loop.py",
            "tests/tuning/test_lora_search.py",
        ),
        CLUSTER,
    ),
    "tests/cluster/test_stack.py": STACK,
    "tests/contract/test_backends.py": ENGINES,
}
"""Modules that one worker runs together; the longest groups are taken first."""


def group_of(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return GROUPS.get(path, path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()) and group_of(item.nodeid) != CLUSTER:
            raise pytest.UsageError(f"{item.nodeid} uses the Ray cluster: add its module to GROUPS.")
    order = {name: place for place, name in enumerate((CLUSTER, STACK, ENGINES))}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules stay whole, and those that share the one Ray cluster stay with one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora beside the checkout; tests that use it skip when it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real corpora not found at {DATA}")
    return DATA


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that would leave this machine, naming the address."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            host = str(address[0])
            if not (
                host.startswith("127.") or host in {"::1", "localhost", "0.0.0.0"} or host == _own_address()
            ):
                raise OSError(f"tests may not reach {host}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def _logs_end_with_their_test() -> Iterator[None]:
    """What a test configured writes to that test's own stderr, which is closed afterwards."""
    yield
    structlog.reset_defaults()


def _own_address() -> str:
    return socket.gethostbyname(socket.gethostname())
