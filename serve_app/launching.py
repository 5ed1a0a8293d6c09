"""Starts the process of a learning run: a Ray job where the cluster has a dashboard, else a detached actor.

The process finds its settings in a file that only this user may read: variables of a Ray job are shown on the
dashboard, and secrets must not be.
"""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import ray
import yaml
from pydantic import SecretStr

from assistant.errors import Unavailable
from assistant.settings import Settings
from assistant.telemetry import get_logger

ROOT = Path(__file__).resolve().parent.parent
MODULE = "training.loop"
NAMESPACE = "learning"

log = get_logger("launching")


class Launcher(Protocol):
    """Starts processes by a reference that the caller has chosen, so that none is started twice."""

    async def launch(self, reference: str, job_id: UUID) -> None:
        """Start the process of a run, or do nothing when this reference was started already.

        Raises Unavailable when it cannot be started now.
        """
        ...

    async def alive(self, reference: str) -> bool:
        """Whether the process is starting or running."""
        ...


class RayLauncher:
    """`module` is run as `python -m MODULE --job ID` in this cluster."""

    def __init__(self, settings: Settings, module: str = MODULE) -> None:
        self._settings = settings
        self._module = module

    async def launch(self, reference: str, job_id: UUID) -> None:
        await asyncio.to_thread(self._launch, reference, job_id)

    async def alive(self, reference: str) -> bool:
        return await asyncio.to_thread(self._alive, reference)

    def _launch(self, reference: str, job_id: UUID) -> None:
        command = [sys.executable, "-m", self._module, "--job", str(job_id)]
        environment = job_environment(write_settings(self._settings))
        client = _jobs_client()
        if client is None:
            self._launch_actor(reference, command, environment)
            return
        if _job_status(client, reference) is not None:
            return
        try:
            client.submit_job(
                entrypoint=f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(command)}",
                submission_id=reference,
                runtime_env={"env_vars": environment},
                metadata={"job": str(job_id), "kind": "learning.run"},
                entrypoint_num_cpus=0,
            )
        except (RuntimeError, OSError) as error:
            # In its first seconds a cluster has no agent yet that takes jobs.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(f"Ray did not take the learning run: {reason}") from None
        log.info("run_submitted", reference=reference, job_id=str(job_id))

    def _launch_actor(self, reference: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        if _actor(reference) is not None:
            return
        folder = self._settings.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        actor = (
            ray.remote(RunProcess)
            .options(
                name=reference,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=0,
                max_restarts=0,
                max_concurrency=1,
            )
            .remote()
        )
        address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        actor.run.remote(list(command), {**environment, **address}, str(folder / f"{reference}.log"))
        log.info("run_started_without_dashboard", reference=reference)

    def _alive(self, reference: str) -> bool:
        if _actor(reference) is not None:
            return True
        client = _jobs_client()
        status = None if client is None else _job_status(client, reference)
        return status is not None and not status.is_terminal()


class RunProcess:
    """Holds one child process and ends with it; Ray ends the child when this dies."""

    def run(self, command: list[str], environment: dict[str, str], log_file: str) -> None:
        with open(log_file, "ab") as out:
            subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        ray.actor.exit_actor()


def write_settings(settings: Settings) -> Path:
    """`<home>/learning/settings.yaml`: these settings, secrets included, readable by this user alone."""
    folder = settings.home / "learning"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "settings.yaml"
    models = settings.llm.models_file
    found = models.absolute() if models.is_file() else models
    values = _plain(
        settings.model_copy(
            update={"llm": settings.llm.model_copy(update={"models_file": found})}
        ).model_dump()
    )
    draft = folder / f".settings-{os.getpid()}.yaml"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(values, file, sort_keys=False)
    draft.replace(path)
    return path


def job_environment(settings_file: Path) -> dict[str, str]:
    """The variables of a run's process, beside those that it inherits from the cluster."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"AI_ASSISTANT_CONFIG": str(settings_file), "PYTHONPATH": path}


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case Path():
            return str(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _jobs_client() -> Any:
    """A client of this cluster's dashboard; None when it has none."""
    from ray._private.worker import get_dashboard_url

    if not get_dashboard_url():
        return None
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(ray.get_runtime_context().gcs_address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        log.warning("no_dashboard", reason=str(error))
        return None


def _job_status(client: Any, reference: str) -> Any:
    """The status of a submitted job; None when it is not known."""
    try:
        return client.get_job_status(reference)
    except RuntimeError:
        return None


def _actor(reference: str) -> Any:
    try:
        return ray.get_actor(reference, namespace=NAMESPACE)
    except ValueError:
        return None
