"""Scheduler: one replica that turns feedback into examples, sees to it that a due learning run happens,
keeps the model registry in step with what serves, and measures what no request can tell.

The runs themselves are processes of their own (`python -m training.loop`). What must not happen twice is
held by Postgres: one run alive, one scheduler with the lease.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from ray.serve.handle import DeploymentHandle

from assistant.clock import now
from assistant.errors import AssistantError, Unavailable
from assistant.learning.examples import MAKER
from assistant.learning.triggers import Trigger
from assistant.settings import LearningSettings, Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.examples import ExampleRepository
from assistant.stores.learning_runs import LearningRunRepository, RunAlive
from assistant.stores.overview import OverviewRepository
from assistant.stores.postgres import Database
from assistant.stores.vectors import VectorStore
from assistant.telemetry import configure_logging, get_logger
from assistant.tracing import configure_tracing
from serve_app.aliases import AliasKeeper, follower
from serve_app.closing import Closing
from serve_app.handles import HEALTH_TIMEOUT_S, NOTIFY_TIMEOUT_S, call
from serve_app.launching import Launcher, RayLauncher
from serve_app.metrics import RayMeter
from serve_app.observer import PING_LIMIT_S, Observer
from serve_app.pings import store_pings

LEASE_S = 30.0
"""How long a scheduler that died keeps the next one waiting."""

log = get_logger("scheduler")


class RunKeeper:
    """What a scheduler does at every look, without the looking."""

    def __init__(
        self,
        runs: LearningRunRepository,
        examples: ExampleRepository,
        launcher: Launcher,
        settings: LearningSettings,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._runs = runs
        self._examples = examples
        self._launcher = launcher
        self._settings = settings
        self._now = clock

    async def tick(self) -> None:
        """Raises what Postgres or the launcher raise; the next look goes on where this one stopped."""
        await self._examples.refresh(MAKER)
        alive = await self._runs.alive() or await self._start_if_due()
        if alive is not None:
            await self._keep(alive)

    async def _start_if_due(self) -> RunAlive | None:
        history = await self._runs.history()
        quality = self._settings.min_quality
        new = await self._examples.new_since(history.learned_at, quality)
        since = history.last_at or await self._examples.oldest_new(history.learned_at, quality)
        reason = Trigger.due(new, since, self._now(), self._settings, failed_at=history.failed_at)
        if reason is None:
            return None
        await self._examples.renew_access()
        job, started = await self._runs.start({"reason": reason})
        if started:
            log.info("learning_run_due", job_id=str(job.id), reason=reason)
        return await self._runs.alive()

    async def _keep(self, alive: RunAlive) -> None:
        """Start the process of a run that has none, unless that is somebody else's task."""
        if self._settings.launch == "external":
            return
        waiting = alive.job.status == "queued"
        if not waiting and not alive.abandoned:
            return
        if alive.launch is not None:
            if await self._launcher.alive(alive.launch):
                return
            patience = timedelta(seconds=self._settings.relaunch_s)
            if waiting and alive.launched_at is not None and self._now() < alive.launched_at + patience:
                return
        if alive.launches >= self._settings.max_launches:
            error = f"Its process was started {alive.launches} times and died each time. The logs say why."
            if await self._runs.give_up(alive.job.id, error):
                log.error("learning_run_given_up", job_id=str(alive.job.id), launches=alive.launches)
            return
        number = alive.launches + 1
        reference = f"learning-{alive.job.id}-{number}"
        await self._runs.note_launch(alive.job.id, reference, number)
        try:
            await self._launcher.launch(reference, alive.job.id)
        except Unavailable:
            # No process died, so it does not count; the same reference keeps it from being started twice.
            await self._runs.note_launch(alive.job.id, None, alive.launches)
            raise
        log.info("learning_run_launched", job_id=str(alive.job.id), reference=reference, launch=number)


class Scheduler(Closing):
    """Behind the handle: `notify` and `health`."""

    async def __init__(self, settings: Settings, launcher: Launcher | None = None) -> None:  # type: ignore[misc]
        configure_tracing(settings.telemetry, "scheduler")
        configure_logging(settings.telemetry, "scheduler")
        self._pause_s = settings.learning.schedule_s
        self._lease_s = max(LEASE_S, 3 * self._pause_s)
        self._holder = f"scheduler-{uuid4()}"
        self._database = Database(settings.postgres)
        await self._database.open()
        self._vectors = VectorStore(settings.qdrant)
        self._http = httpx.AsyncClient(timeout=PING_LIMIT_S, trust_env=False)
        self._runs = LearningRunRepository(self._database)
        examples = ExampleRepository(self._database, settings.learning.audience)
        self._observe_s = settings.telemetry.observe_s
        self._observer = Observer(
            store_pings(settings, self._database, self._vectors, self._http),
            OverviewRepository(self._database).now,
            lambda: examples.stats(settings.learning.min_quality),
            RayMeter(),
        )
        self._keeper = RunKeeper(
            self._runs,
            examples,
            launcher or RayLauncher(settings),
            settings.learning,
        )
        self._aliases = AliasKeeper(DeploymentRepository(self._database), follower(settings))
        self._leading = False
        self._wake = asyncio.Event()
        # Apart from each other, as the second waits for MLflow and the third for whatever is away.
        self._loops = tuple(
            asyncio.create_task(loop) for loop in (self._look(), self._keep_aliases(), self._observe())
        )
        self._open = True

    async def notify(self) -> None:
        """There may be something to do: do not wait for the next look."""
        self._wake.set()

    async def health(self) -> Mapping[str, Any]:
        return {"leading": self._leading}

    async def check_health(self) -> None:
        """Raises when nobody looks any more."""
        if any(loop.done() for loop in self._loops):
            raise Unavailable("The Scheduler has stopped looking.")

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        with suppress(AssistantError):
            await self._runs.resign(self._holder)
        await self._http.aclose()
        await self._vectors.close()
        await self._database.close()

    async def _look(self) -> None:
        while True:
            self._wake.clear()
            with _surviving("look_failed"):
                self._leading = await self._runs.lead(self._holder, self._lease_s)
                if self._leading:
                    await self._keeper.tick()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._wake.wait()

    async def _keep_aliases(self) -> None:
        while True:
            with _surviving("aliases_failed"):
                if self._leading:
                    await self._aliases.tick()
            await asyncio.sleep(self._pause_s)

    async def _observe(self) -> None:
        while True:
            with _surviving("observation_failed"):
                await self._observer.tick()
            await asyncio.sleep(self._observe_s)


@contextmanager
def _surviving(event: str) -> Iterator[None]:
    """Whatever a single look met, the next ones must come."""
    try:
        yield
    except AssistantError as error:
        log.warning(event, code=error.code, reason=error.detail)
    except Exception:
        log.exception(event)


class SchedulerHandle:
    """The Scheduler. It looks by itself; `notify` only saves the pause before."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._notify = handle.options(method_name="notify")
        self._health = handle.options(method_name="health")
        self._sent: set[asyncio.Task[None]] = set()

    async def notify(self) -> None:
        task = asyncio.create_task(self._tell())
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)

    async def health(self) -> Mapping[str, Any]:
        said: Mapping[str, Any] = await call("The Scheduler", self._health, timeout_s=HEALTH_TIMEOUT_S)
        return said

    async def _tell(self) -> None:
        with suppress(AssistantError):
            await call("The Scheduler", self._notify, timeout_s=NOTIFY_TIMEOUT_S)
