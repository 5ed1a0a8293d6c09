"""Keeps the model registry in step with what serves, in a process of its own: replicas do not import MLflow."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from assistant.settings import Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.telemetry import get_logger
from serve_app.launching import job_environment, write_settings

MODULE = "training.follow"
PATIENCE_S = 180.0
RETRY_S = 60.0
"""Pause after a failure: each try costs seconds of a core for imports alone."""

Follow = Callable[[], Awaitable[str | None]]
"""Brings the aliases after the table; the reason when it could not."""

log = get_logger("aliases")


class AliasKeeper:
    """Calls `follow` once for each change of champions. What served when nobody had learned needs none."""

    def __init__(
        self,
        deployments: DeploymentRepository,
        follow: Follow,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployments = deployments
        self._follow = follow
        self._retry_s = retry_s
        self._clock = clock
        self._followed: Mapping[str, str | None] = {}
        self._not_before = 0.0

    async def tick(self) -> None:
        live = await self._deployments.active()
        champions = {record.model: record.adapter for record in live if record.alias == "champion"}
        if champions == self._followed or self._clock() < self._not_before:
            return
        failure = await self._follow()
        if failure is None:
            self._followed = champions
            log.info("aliases_follow", champions=champions)
        else:
            self._not_before = self._clock() + self._retry_s
            log.warning("aliases_behind", reason=failure, again_in_s=self._retry_s)


def follower(settings: Settings) -> Follow:
    """None to do when no MLflow is configured."""

    async def follow() -> str | None:
        if settings.mlflow.tracking_uri is None:
            return None
        return await said_by([sys.executable, "-m", MODULE], job_environment(write_settings(settings)))

    return follow


async def said_by(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The last words of a command that failed or took too long; None when it succeeded."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, error = await process.communicate()
    except TimeoutError:
        return f"It did not end within {PATIENCE_S:g} s."
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = error.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {process.returncode}"
