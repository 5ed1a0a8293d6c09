"""The process that owns Ray and Serve of the local stack: `python -m cluster.ray_node --home … --port …`.

It starts a Ray cluster of its own, waits for the stores, deploys `serve_app` by a Serve config file and
then watches: when the node is broken it ends with status 1, and the supervisor starts a new one.
Ray reads its environment at import, so the launcher sets every RAY_ variable before this starts.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from assistant.errors import AssistantError, ConfigurationError, Unavailable
from cluster.layout import Layout
from cluster.probes import http_get
from cluster.processes import is_alive
from cluster.ray_report import RayReport

OBJECT_STORE_BYTES = 400_000_000
STORES_WAIT_S = 600.0
DEPLOY_WAIT_S = 600.0
WATCH_S = 0.5
KEPT_SESSIONS = 2


class Stopping(Exception):
    """SIGTERM came."""


class RayNode:
    """One life of the node. `say` tells how far it is."""

    def __init__(
        self, layout: Layout, config: dict[str, Any], dashboard_port: int, metrics_port: int | None = None
    ) -> None:
        self.layout = layout
        self.config = config
        self.dashboard_port = dashboard_port
        self.metrics_port = metrics_port
        self.report = RayReport.begin()

    def say(self, stage: str) -> None:
        if stage == self.report.stage:
            return
        self.report.stage = stage
        with contextlib.suppress(OSError):
            self.report.write(self.layout.ray_report)
        _log(stage)

    def start(self) -> None:
        """Ray, then Serve's controller and proxy; the application comes later."""
        import ray
        from ray import serve

        self.say("starting Ray")
        temp = self.layout.make_ray_temp()
        _remove_old_sessions(temp)
        with _any_agent_port():
            context = ray.init(
                address="local",
                num_cpus=max(4, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=self.dashboard_port,
                log_to_driver=True,
                _temp_dir=str(temp),
                _metrics_export_port=self.metrics_port,
            )
        _raise_on_term()
        self.report.address = context.address_info["gcs_address"]
        self.report.session = context.address_info["session_dir"]
        self.report.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        self.say("starting Serve")
        serve.start(proxy_location=self.config["proxy_location"], http_options=self.config["http_options"])

    def deploy(self) -> None:
        """Hand the application to Serve and wait until it runs.

        Raises ConfigurationError with the cause when it cannot be deployed.
        """
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        self.say("deploying")
        try:
            ServeSubmissionClient(self.report.dashboard).deploy_applications(self.config)
        except RuntimeError as error:
            raise ConfigurationError(f"Serve refused the configuration: {last_line(str(error))}") from None
        deadline = time.monotonic() + DEPLOY_WAIT_S
        while time.monotonic() < deadline:
            if self._is_deployed():
                return
            self._check_processes()
            time.sleep(WATCH_S)
        raise Unavailable(f"The application did not start within {DEPLOY_WAIT_S:.0f} s: {self.report.stage}.")

    def _is_deployed(self) -> bool:
        from ray import serve

        applications = serve.status().applications
        wanted = {application["name"] for application in self.config["applications"]}
        states: dict[str, str] = {}
        for name in wanted & set(applications):
            status = applications[name]
            if status.status.value == "DEPLOY_FAILED":
                _log(status.message)
                for deployment, detail in status.deployments.items():
                    _log(f"{deployment}: {detail.status.value} {detail.message}")
                raise ConfigurationError(deploy_failure(status))
            states[name] = status.status.value
            pending = [d for d, detail in status.deployments.items() if detail.status.value != "HEALTHY"]
            ready = len(status.deployments) - len(pending)
            if status.deployments and pending:
                self.say(f"deploying: {ready} of {len(status.deployments)} ready, waiting for {pending[0]}")
        return set(states) == wanted and all(state == "RUNNING" for state in states.values())

    def watch(self) -> None:
        """Until something essential is gone. Raises Unavailable then."""
        while True:
            self._check_processes()
            time.sleep(WATCH_S)

    def _check_processes(self) -> None:
        """Start again what Ray can work without; raises Unavailable for what it cannot (gcs_server, raylet)."""
        from ray._private.worker import _global_node as node

        again: dict[str, Callable[[], object]] = {
            "dashboard": lambda: node.start_api_server(include_dashboard=True, raise_on_failure=False),
            "log_monitor": node.start_log_monitor,
            "monitor": node.start_monitor,
        }
        for kind, _ in node.dead_processes():
            if kind not in again:
                raise Unavailable(f"Ray's {kind} has died.")
            _log(f"{kind} has died: starting it again")
            del node.all_processes[kind]
            again[kind]()

    def stop(self) -> None:
        import ray
        from ray import serve

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.say("stopping")
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()


def wait_for_stores(environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Until Postgres has every migration and Qdrant answers. Raises Unavailable after ten minutes."""
    from assistant.stores.migrations import pending

    deadline = time.monotonic() + STORES_WAIT_S
    while time.monotonic() < deadline:
        try:
            if left := asyncio.run(pending(environ["DATABASE_URL"])):
                say(f"waiting for {len(left)} migrations of Postgres")
            elif _qdrant_answers(environ):
                return
            else:
                say("waiting for Qdrant")
        except AssistantError:
            say("waiting for Postgres")
        time.sleep(0.25)
    raise Unavailable(f"Postgres and Qdrant did not come up within {STORES_WAIT_S:.0f} s.")


def _qdrant_answers(environ: Mapping[str, str]) -> bool:
    headers = {"api-key": environ["QDRANT_API_KEY"]} if environ.get("QDRANT_API_KEY") else {}
    try:
        return http_get(f"{environ['QDRANT_URL'].rstrip('/')}/readyz", headers, 2.0)[0] < 400
    except (OSError, ValueError):
        return False


def serve_config(path: Path, host: str, port: int) -> dict[str, Any]:
    """The Serve config file with our address. Raises ConfigurationError naming the file."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The Serve config {path} cannot be read: {error}.") from None
    if not isinstance(loaded, dict) or not loaded.get("applications"):
        raise ConfigurationError(f"The Serve config {path} lists no applications.")
    options = {**(loaded.get("http_options") or {}), "host": host, "port": port}
    return {**loaded, "http_options": options, "proxy_location": loaded.get("proxy_location", "HeadOnly")}


def deploy_failure(status: Any) -> str:
    """The cause of a failed deployment, out of the traceback that Serve reports."""
    messages = [
        f"{name}: {last_line(detail.message)}"
        for name, detail in status.deployments.items()
        if detail.status.value in {"DEPLOY_FAILED", "UNHEALTHY"} and detail.message
    ]
    return f"The application could not be deployed. {messages[0] if messages else last_line(status.message)}"


def last_line(message: str) -> str:
    """The last line of a traceback that says what went wrong."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "Exception" in line or ": " in line]
    return (telling or lines or ["no reason given"])[-1][:600]


def _remove_old_sessions(temp: Path) -> None:
    sessions = sorted(p for p in temp.glob("session_*") if p.is_dir() and not p.is_symlink())
    for old in sessions[: -KEPT_SESSIONS + 1] if len(sessions) >= KEPT_SESSIONS else []:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _any_agent_port() -> Iterator[None]:
    """Ray's agent takes a free port within it. Its default is the same for every Ray on the machine, the second one
    goes on without an agent, and then no job ever starts; `ray.init` has no argument for it."""
    from ray._private import parameter

    own = parameter.RayParams
    parameter.RayParams = functools.partial(own, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = own


def _raise_on_term() -> None:
    def stop(number: int, frame: object) -> None:
        raise Stopping

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _log(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} ray_node {message}\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True, help="a Serve config file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dashboard-port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, help="for Prometheus; any free one by default")
    arguments = parser.parse_args()
    layout = Layout(arguments.home.absolute())
    before = RayReport.read(layout.ray_report)
    if before and is_alive(before.process):
        raise SystemExit(f"Another Ray node of {layout.home} runs already.")
    _raise_on_term()
    config = serve_config(arguments.config, arguments.host, arguments.port)
    node = RayNode(layout, config, arguments.dashboard_port, arguments.metrics_port)
    try:
        node.start()
        wait_for_stores(os.environ, node.say)
        node.deploy()
        node.say("ready")
        node.watch()
    except Stopping:
        node.stop()
    except BaseException as error:
        known = isinstance(error, AssistantError)
        node.report.failure = str(error) if known else last_line(f"{type(error).__name__}: {error}")
        node.report.final = isinstance(error, ConfigurationError)
        node.say("failed")
        _log(node.report.failure if known else traceback.format_exc())
        # Ray's own exit handlers may wait for processes that are dead; the supervisor sweeps what is left.
        os._exit(1)


if __name__ == "__main__":
    main()
