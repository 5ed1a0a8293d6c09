"""Run an ingestion on the Ray cluster of a running stack."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from assistant.settings import Settings
from cluster.layout import Layout
from cluster.plan import Plan
from cluster.ray_report import RayReport

if TYPE_CHECKING:
    from rich.console import Console

    from data_jobs.report import IngestReport


def driver_environment(layout: Layout, plan: Plan) -> dict[str, str]:
    """What a driver needs to join the stack's cluster and stores. Set it before importing Ray."""
    report = RayReport.read(layout.ray_report)
    ray = plan.service("ray").env
    flags = {name: value for name, value in ray.items() if name.startswith("RAY_")}
    address = {"RAY_ADDRESS": report.address} if report and report.is_alive and report.address else {}
    return flags | dict(plan.env) | address


async def run_ingestion(
    settings: Settings,
    layout: Layout,
    plan: Plan,
    *,
    config: Path | None = None,
    folders: Sequence[Path] = (),
    console: "Console | None" = None,
    allow_empty: bool = False,
) -> "IngestReport":
    """Raises InvalidInput and ConfigurationError naming file and line, StoreUnavailable."""
    environment = driver_environment(layout, plan)
    # Ray reads its flags from the environment of the process, at import.
    os.environ.update(environment)
    from data_jobs.ingest import ingest

    return await ingest(
        with_stores(settings, environment),
        config=config,
        folders=folders,
        console=console,
        allow_empty=allow_empty,
    )


def with_stores(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings with the stack's addresses in them."""
    key = environment.get("QDRANT_API_KEY")
    return settings.model_copy(
        update={
            "postgres": settings.postgres.model_copy(update={"url": SecretStr(environment["DATABASE_URL"])}),
            "qdrant": settings.qdrant.model_copy(
                update={"url": environment["QDRANT_URL"], "api_key": SecretStr(key) if key else None}
            ),
            "mlflow": settings.mlflow.model_copy(update={"tracking_uri": environment["MLFLOW_TRACKING_URI"]}),
        }
    )
