"""What `benchmarks.graph` runs on: Ray, Postgres, the graph with one model, and the measuring deployments."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import ray
from ray import serve

from assistant.llm.catalog import Catalog, ModelSpec
from assistant.settings import load_settings
from assistant.stores.migrations import migrate
from benchmarks._graph_parts import Drain, Source
from cluster.ports import pick
from cluster.postgres import LocalPostgres
from serve_app.app import graph

READY_S = 600.0


class GraphStack:
    def __init__(self, folder: Path, spec: ModelSpec, home: Path) -> None:
        self._folder = folder
        self._spec = spec
        self._home = home
        self._postgres = LocalPostgres(folder / "pg")
        self._bare: subprocess.Popen[bytes] | None = None
        self._port, self._bare_port = pick(), pick()
        self.url = f"http://127.0.0.1:{self._port}"
        self.bare_url = f"http://127.0.0.1:{self._bare_port}"
        self.drain: Any = None
        self._before = set(psutil.Process().children(recursive=True))

    def start(self) -> None:
        self._postgres.start()
        self._postgres.ensure_database("ai_assistant")
        url = self._postgres.url("ai_assistant")
        asyncio.run(migrate(url))
        # The Retriever is started, as in the real graph, but nobody searches: Qdrant is not needed.
        self.settings = load_settings(
            overrides={
                "home": str(self._home),
                "postgres": {"url": url},
                "qdrant": {"url": "http://127.0.0.1:9"},
                "telemetry": {"log_level": "warning"},
            }
        )
        self._bare = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.graph", "--bare-port", str(self._bare_port)]
        )
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200_000_000,
            _temp_dir=str(self._folder / "ray"),
        )
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": self._port})
        serve.run(graph(self.settings, Catalog((self._spec,))), name="graph", route_prefix="/")
        options = {"ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": 1000}
        source = serve.deployment(Source).options(**options).bind()
        parts = serve.deployment(Drain).options(**options).bind(source)
        self.drain = serve.run(parts, name="parts", route_prefix=None)

    async def wait_ready(self) -> None:
        """Until the model is loaded and the plain server answers."""
        deadline = time.monotonic() + READY_S
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            while time.monotonic() < deadline:
                try:
                    (await client.get(f"{self.bare_url}/health/live")).raise_for_status()
                    models = (await client.get(f"{self.url}/health")).json()["models"]
                    if models[0]["state"] == "ready":
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.5)
        raise TimeoutError(f"the model did not load within {READY_S:.0f} s")

    def stop(self) -> None:
        if ray.is_initialized():
            serve.shutdown()
        ours = set(psutil.Process().children(recursive=True)) - self._before
        ray.shutdown()
        if self._bare is not None:
            self._bare.terminate()
            self._bare.wait()
        self._postgres.stop()
        _, alive = psutil.wait_procs(list(ours), timeout=15)
        for process in alive:
            process.kill()
