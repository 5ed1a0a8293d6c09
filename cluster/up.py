"""`ai-assistant up`: everything from weights to a page that answers, each step timed. Idempotent."""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from assistant.errors import AssistantError, ConfigurationError, Unavailable
from assistant.llm.catalog import Catalog, load_catalog
from assistant.settings import Settings
from cluster.files import FileLock, private_folder
from cluster.launch import apply, read_state
from cluster.layout import Layout
from cluster.plan import Plan, ServiceSpec
from cluster.processes import is_alive
from cluster.ray_report import RayReport
from cluster.services import PlanBuilder, models_file
from cluster.state import ServiceRecord, State

FREE_BYTES_NEEDED = 500_000_000
FAILURES = {"postgres": 8, "ray": 3}
"""Starts that may fail before `up` gives up; a killed Postgres needs some until its old backends have left."""
FAILURES_ELSE = 4
LOOK_S = 0.1


class Progress(Protocol):
    """Told what happens; a terminal shows it, a test keeps it."""

    def working(self, step: str, detail: str) -> None: ...

    def done(self, step: str, seconds: float, detail: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    seconds: float
    detail: str


@dataclass(slots=True)
class UpResult:
    urls: Mapping[str, str]
    seconds: float
    steps: list[Step] = field(default_factory=list)


class Up:
    """One run. Services start side by side; a step's time is its own, not its place in the queue."""

    def __init__(
        self, settings: Settings, layout: Layout, environ: Mapping[str, str], progress: Progress
    ) -> None:
        self.settings = settings
        self.layout = layout
        self.environ = environ
        self.progress = progress
        self.steps: list[Step] = []
        self.plan = Plan(())
        self.began = time.monotonic()

    def run(self, timeout_s: float = 1200.0) -> UpResult:
        """Raises ConfigurationError or Unavailable naming the step, its log and what to do."""
        self._check_home()
        lock = FileLock(self.layout.launch_lock)
        if not lock.acquire(timeout_s=0.0):
            self.progress.note("another `ai-assistant up` or `down` is at work: waiting for it")
            lock.acquire()
        try:
            with ThreadPoolExecutor(thread_name_prefix="up") as pool:
                plan = self.plan = self._plan(pool)
                state = apply(self.layout, plan)
                self._wait(plan, state, pool, time.monotonic() + timeout_s)
            return UpResult(plan.urls, self.seconds, self.steps)
        except OSError as error:
            raise ConfigurationError(
                f"{self.layout.home} cannot be written: {error.strerror or error}.",
                hint="Free some disk space or set AI_ASSISTANT_HOME to another folder, then run `up` again.",
            ) from error
        finally:
            lock.release()

    @property
    def seconds(self) -> float:
        """Since this run began."""
        return time.monotonic() - self.began

    def _check_home(self) -> None:
        try:
            private_folder(self.layout.home)
            private_folder(self.layout.run)
            private_folder(self.layout.logs)
            free = shutil.disk_usage(self.layout.home).free
        except OSError as error:
            raise ConfigurationError(
                f"The state folder {self.layout.home} cannot be made: {error.strerror}.",
                hint="Set AI_ASSISTANT_HOME to a folder that you may write to.",
            ) from None
        if free < FREE_BYTES_NEEDED:
            raise ConfigurationError(
                f"Only {free // 1_000_000} MB are free in {self.layout.home}; "
                f"{FREE_BYTES_NEEDED // 1_000_000} MB are needed.",
                hint="Free some disk space, or set AI_ASSISTANT_HOME to a folder on another disk.",
            )

    def _plan(self, pool: ThreadPoolExecutor) -> Plan:
        catalog = load_catalog(models_file(self.settings), self.layout.home)
        weights = pool.submit(self._weights, catalog)
        cluster = pool.submit(self._initialise_postgres)
        weights.result()
        cluster.result()
        try:
            old = Plan.read(self.layout.plan)
        except (FileNotFoundError, ConfigurationError):
            old = None
        builder = PlanBuilder(self.settings, catalog, self.layout, self.environ, read_state(self.layout), old)
        plan = builder.build()
        for note in builder.notes:
            self.progress.note(note)
        return plan

    def _weights(self, catalog: Catalog) -> None:
        from cluster.weights import GGUF, ensure_embedder, ensure_gguf, ensure_hf

        started = time.monotonic()
        self.progress.working("weights", "checking the models on disk")

        def say(text: str) -> None:
            self.progress.working("weights", text)

        if self.settings.embedder.path is None and self.settings.embedder.name == "all-MiniLM-L6-v2":
            ensure_embedder(self.settings.models_dir, say)
        built_in = self.settings.models_dir / GGUF.folder
        for spec in catalog.local():
            if spec.path == built_in:
                (ensure_hf if spec.engine == "vllm" else ensure_gguf)(self.settings.models_dir, say)
            elif spec.path is not None and not spec.path.exists():
                raise ConfigurationError(
                    f"The weights of model {spec.name} are missing: {spec.path} does not exist.",
                    hint=f"Put them there, or correct `path` in {models_file(self.settings)}.",
                )
        if not self.settings.embedder_path.is_dir():
            raise ConfigurationError(
                f"The embedder's folder {self.settings.embedder_path} does not exist.",
                hint="Put a sentence-transformers folder there, or correct embedder.path in the settings.",
            )
        names = [self.settings.embedder.name, *(spec.name for spec in catalog.local())]
        self.done("weights", time.monotonic() - started, ", ".join(names))

    def _initialise_postgres(self) -> None:
        if self.settings.postgres.url is not None:
            return
        from cluster.postgres import LocalPostgres

        started = time.monotonic()
        server = LocalPostgres(self.layout.home / "postgres")
        fresh = not (server.data / "PG_VERSION").is_file()
        server.ensure_initialised()
        if fresh:
            self.done("database", time.monotonic() - started, "new Postgres cluster made")

    def _wait(self, plan: Plan, state: State, pool: ThreadPoolExecutor, deadline: float) -> None:
        waiting = {spec.name: spec for spec in plan.services}
        already = {n for n, r in state.services.items() if r.phase == "ready" and is_alive(r.process)}
        follow: dict[str, Callable[[], None]] = {
            "postgres": lambda: self._migrate(plan),
            "mlflow": lambda: self._experiment(plan),
        }
        following: list[Future[None]] = []
        while waiting or following:
            state = read_state(self.layout) or state
            for name, spec in list(waiting.items()):
                record = state.services[name]
                if self._is_up(spec, record):
                    del waiting[name]
                    self._report(record, name in already)
                    if name in follow:
                        following.append(pool.submit(follow[name]))
                else:
                    self._refuse_failure(spec, record)
                    self.progress.working(name, self._detail(spec, record))
            for future in [f for f in following if f.done()]:
                following.remove(future)
                future.result()
            if time.monotonic() > deadline:
                names = ", ".join(waiting)
                raise Unavailable(
                    f"Still not ready: {names}.",
                    hint=f"Look into {self.layout.logs}; `ai-assistant status` tells how far they are.",
                )
            time.sleep(LOOK_S)

    def _is_up(self, spec: ServiceSpec, record: ServiceRecord) -> bool:
        if record.phase != "ready":
            return False
        if spec.name != "ray":
            return True
        report = RayReport.read(self.layout.ray_report)
        return report is not None and report.process == record.process and report.stage == "ready"

    def _report(self, record: ServiceRecord, already: bool) -> None:
        if record.external:
            self.done(record.name, 0.0, f"used as given: {record.url}")
        elif already:
            since = time.time() - (record.started_at or time.time())
            self.done(record.name, 0.0, f"already running for {_duration(since)}: {record.url}")
        else:
            self.done(record.name, time.time() - (record.started_at or time.time()), record.url)

    def _refuse_failure(self, spec: ServiceSpec, record: ServiceRecord) -> None:
        if record.external:
            if time.monotonic() - self.began > 30 and record.detail:
                raise Unavailable(
                    f"{spec.name} at {spec.url}, which the environment names, does not answer: {record.detail}.",
                    hint="Start it, correct its address, or unset the variable to run the local one.",
                )
            return
        reason, limit = record.failure, FAILURES.get(spec.name, FAILURES_ELSE)
        report = RayReport.read(self.layout.ray_report) if spec.name == "ray" else None
        if report and report.failure:
            reason, limit = report.failure, 1 if report.final else limit
        if record.failures < limit:
            return
        raise Unavailable(
            f"{spec.name} does not start: {reason}".rstrip(".") + ".",
            hint=f"Its log is {spec.log} (`ai-assistant logs {spec.name}`). "
            "Remove the cause and run `ai-assistant up` again.",
        )

    def _detail(self, spec: ServiceSpec, record: ServiceRecord) -> str:
        if spec.name == "ray" and record.process is not None:
            report = RayReport.read(self.layout.ray_report)
            if report and report.process == record.process:
                return report.stage
        if record.phase == "restarting":
            return f"{record.failure}; trying again"
        return "starting"

    def _migrate(self, plan: Plan) -> None:
        from assistant.stores.migrations import migrate

        started = time.monotonic()
        self.progress.working("migrations", "bringing the database to its schema")
        if not plan.service("postgres").external:
            from cluster.postgres import LocalPostgres

            LocalPostgres(self.layout.home / "postgres").ensure_database()
        applied = asyncio.run(migrate(plan.env["DATABASE_URL"]))
        detail = f"{len(applied)} applied" if applied else "up to date"
        self.done("migrations", time.monotonic() - started, detail)

    def _experiment(self, plan: Plan) -> None:
        from cluster.mlflow_experiment import ensure_experiment

        if not plan.env["MLFLOW_TRACKING_URI"].startswith("http"):
            return
        started = time.monotonic()
        name = self.settings.mlflow.experiment
        try:
            made = ensure_experiment(plan.env["MLFLOW_TRACKING_URI"], name)
        except AssistantError as error:
            # Nothing that people use today needs it; evaluations make it themselves when it is absent.
            self.progress.note(str(error))
            return
        self.done("experiment", time.monotonic() - started, f"{name} {'made' if made else 'exists'}")

    def done(self, step: str, seconds: float, detail: str) -> None:
        self.steps.append(Step(step, round(seconds, 2), detail))
        self.progress.done(step, seconds, detail)


def _duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`, `4 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
