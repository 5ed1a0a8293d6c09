"""What `up` decides before and while services start: plan, ports, refusals, failures that name their cause."""

import asyncio
import json
import os
import shutil
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assistant.errors import AssistantError, ConfigurationError, StoreUnavailable, Unavailable
from assistant.llm.catalog import Catalog, ModelSpec, load_catalog
from assistant.settings import Settings, load_settings
from cluster import starter
from cluster.layout import ROOT, Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.ports import pick
from cluster.processes import identify
from cluster.ray_node import deploy_failure, last_line, serve_config, wait_for_stores
from cluster.ray_report import RayReport
from cluster.services import SERVE_CONFIG, PlanBuilder, models_file
from cluster.shutdown import stop_stack
from cluster.state import ServiceRecord, State
from cluster.up import Up

OUTSIDE = {
    "DATABASE_URL": "postgresql://u:secret@db.example:5433/x",
    "QDRANT_URL": "http://qdrant.example:6333",
    "QDRANT_API_KEY": "qdrant-secret",
    "MLFLOW_TRACKING_URI": "http://mlflow.example:5000",
}


class Kept:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.details: dict[str, str] = {}
        self.notes: list[str] = []

    def working(self, step: str, detail: str) -> None:
        self.details[step] = detail

    def done(self, step: str, seconds: float, detail: str) -> None:
        self.finished.append(step)
        self.details[step] = detail

    def note(self, text: str) -> None:
        self.notes.append(text)


def settings_of(home: Path, environ: Mapping[str, str] = {}) -> Settings:
    return load_settings({"AI_ASSISTANT_HOME": str(home), **environ})


def builder(home: Path, environ: Mapping[str, str] = {}, **options: Any) -> PlanBuilder:
    settings = settings_of(home, environ)
    catalog = options.pop("catalog", Catalog(()))
    return PlanBuilder(
        settings, catalog, Layout(home), {"AI_ASSISTANT_HOME": str(home), **environ}, **options
    )


def test_named_servers_are_used_and_never_started(tmp_path: Path) -> None:
    plan = builder(tmp_path, OUTSIDE).build()
    assert {s.name for s in plan.services if s.external} == {"postgres", "qdrant", "mlflow"}
    assert dict(plan.env) == OUTSIDE
    assert OUTSIDE.items() <= dict(plan.service("ray").env).items()
    assert "secret" not in json.dumps([dict(plan.urls), *(s.url for s in plan.services)])
    assert not (tmp_path / "postgres").exists()


def test_rays_environment_is_its_own(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="big",
        engine="openai_compatible",
        base_url="https://x/v1",
        remote_model="m",
        api_key_env="BIG_KEY",
    )
    environ = {
        **OUTSIDE,
        "BIG_KEY": "k",
        "NO_PROXY": "a.example",
        "AI_ASSISTANT_API_KEY": "mine",
        "AI_ASSISTANT_LLM__DEFAULT_MODEL": "big",
    }
    ray = builder(tmp_path, environ, catalog=Catalog((spec,))).build().service("ray")
    assert ray.env["RAY_AUTH_MODE"] == "token"
    assert len(Path(ray.env["RAY_AUTH_TOKEN_PATH"]).read_text()) >= 32
    assert ray.env["BIG_KEY"] == "k"
    assert ray.env["NO_PROXY"] == ray.env["no_proxy"] == "a.example,127.0.0.1,localhost"
    assert ray.env["AI_ASSISTANT_LLM__DEFAULT_MODEL"] == "big"
    assert "AI_ASSISTANT_API_KEY" not in ray.env
    assert {"RAY_", "AI_ASSISTANT_"} <= set(ray.env_drop)
    assert not any("secret" in argument for argument in ray.command)


def test_a_pinned_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=rf"Port {port} .* in use"):
            builder(tmp_path, {**OUTSIDE, "AI_ASSISTANT_SERVE__PORT": port}).build()


def test_a_default_port_in_use_is_replaced_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        default = taken.getsockname()[1]
        section = Settings().serve.model_copy(update={"port": default})
        section.model_fields_set.discard("port")

        def made() -> PlanBuilder:
            found = builder(tmp_path, OUTSIDE)
            found.settings = found.settings.model_copy(update={"serve": section})
            return found

        first = made()
        url = first.build().service("ray").url
        assert url != f"http://127.0.0.1:{default}"
        assert str(default) in first.notes[0]
        assert made().build().service("ray").url == url


def test_a_running_store_keeps_its_address(tmp_path: Path) -> None:
    environ = {name: value for name, value in OUTSIDE.items() if not name.startswith("QDRANT")}
    first = builder(tmp_path, environ).build()
    state = State(str(tmp_path), services={"qdrant": ServiceRecord("qdrant", process=identify(os.getpid()))})
    with socket.create_server(("127.0.0.1", int(first.service("qdrant").url.rpartition(":")[2]))):
        again = builder(tmp_path, environ, state=state, old=first).build()
        assert again.service("qdrant") == first.service("qdrant")
        assert again.env == first.env


def test_changed_files_and_settings_change_the_fingerprint(tmp_path: Path) -> None:
    one = builder(tmp_path, OUTSIDE).build().service("ray")
    other = builder(tmp_path, {**OUTSIDE, "AI_ASSISTANT_RETRIEVAL__LIMIT": "7"}).build().service("ray")
    assert one.fingerprint != other.fingerprint
    config = tmp_path / "c.yaml"
    config.write_text("retrieval: {limit: 5}\n")
    before = builder(tmp_path, {**OUTSIDE, "AI_ASSISTANT_CONFIG": str(config)}).build().service("ray")
    config.write_text("retrieval: {limit: 6}\n")
    after = builder(tmp_path, {**OUTSIDE, "AI_ASSISTANT_CONFIG": str(config)}).build().service("ray")
    assert before.fingerprint != after.fingerprint


def test_the_shipped_serve_config_takes_our_address() -> None:
    config = serve_config(SERVE_CONFIG, "127.0.0.1", 8123)
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["http_options"]["port"] == 8123
    assert [a["import_path"] for a in config["applications"]] == ["serve_app.app:app"]


@pytest.mark.parametrize("text", ["", "applications: []", "a: [", "- 1"])
def test_a_wrong_serve_config_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"serve\.yaml"):
        serve_config(path, "127.0.0.1", 1)


def test_the_cause_of_a_failed_deployment_is_its_last_telling_line() -> None:
    trace = "Traceback (most recent call last):\n  File x, line 1\nassistant.errors.ConfigurationError: No weights.\n"
    failed = SimpleNamespace(status=SimpleNamespace(value="DEPLOY_FAILED"), message=trace)
    healthy = SimpleNamespace(status=SimpleNamespace(value="HEALTHY"), message="")
    status = SimpleNamespace(deployments={"Router": healthy, "LocalLLM": failed}, message="Failed.")
    assert deploy_failure(status).endswith("LocalLLM: assistant.errors.ConfigurationError: No weights.")
    assert "Failed." in deploy_failure(SimpleNamespace(deployments={}, message="Failed."))
    assert last_line("") == "no reason given"


def test_the_node_says_which_store_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([StoreUnavailable("no"), ["0001"], []])

    async def pending(url: str) -> list[str]:
        found = next(answers, [])
        if isinstance(found, AssistantError):
            raise found
        return found

    monkeypatch.setattr("assistant.stores.migrations.pending", pending)
    said: list[str] = []
    qdrant = iter([False, True])
    monkeypatch.setattr("cluster.ray_node._qdrant_answers", lambda environ: next(qdrant))
    wait_for_stores({"DATABASE_URL": "x"}, said.append)
    assert said == ["waiting for Postgres", "waiting for 1 migrations of Postgres", "waiting for Qdrant"]


def up(home: Path, environ: Mapping[str, str] = OUTSIDE) -> tuple[Up, Kept]:
    progress = Kept()
    return Up(
        settings_of(home, environ), Layout(home), {"AI_ASSISTANT_HOME": str(home), **environ}, progress
    ), progress


def test_too_little_room_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1_000_000))
    with pytest.raises(ConfigurationError, match="1 MB are free"):
        up(tmp_path / "home")[0].run()
    assert not (tmp_path / "home" / "state.json").exists()


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        up(tmp_path / "file" / "home")[0].run()


def test_missing_weights_name_the_model_and_the_file(tmp_path: Path, models_dir: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir)
    models = tmp_path / "models.yaml"
    models.write_text("models:\n  - {name: big, engine: llama_cpp, path: /srv/absent.gguf}\n")
    with pytest.raises(ConfigurationError, match=r"model big are missing: /srv/absent\.gguf") as refused:
        up(home, {**OUTSIDE, "AI_ASSISTANT_LLM__MODELS_FILE": str(models)})[0].run()
    assert str(models) in str(refused.value)


def test_the_shipped_models_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path)
    assert models_file(settings) == ROOT / "models.yaml"
    assert load_catalog(models_file(settings), settings.home).local()


class SmallUp(Up):
    """`up` over services that start in an instant."""

    specs: tuple[ServiceSpec, ...] = ()

    def _plan(self, pool: Any) -> Plan:
        return Plan(self.specs, {"page": "u"}, dict(OUTSIDE), "1")


SERVE = (
    "import http.server,sys; http.server.HTTPServer(('127.0.0.1',int(sys.argv[1])),"
    "http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def small(layout: Layout, name: str, *command: str) -> ServiceSpec:
    port = pick()
    given = command or (sys.executable, "-c", SERVE, str(port))
    return ServiceSpec(
        name,
        given,
        Probe("http", f"http://127.0.0.1:{port}/", timeout_s=1),
        log=str(layout.log(name)),
        cwd="/",
    )


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "home")
    yield layout
    stop_stack(layout)


def small_up(layout: Layout, *specs: ServiceSpec) -> tuple[SmallUp, Kept]:
    progress = Kept()
    made = SmallUp(settings_of(layout.home), layout, {}, progress)
    made.specs = specs
    return made, progress


def test_a_second_up_finds_everything_running(layout: Layout) -> None:
    specs = (small(layout, "one"), small(layout, "two"))
    small_up(layout, *specs)[0].run(60)
    again, progress = small_up(layout, *specs)
    again.run(60)
    assert set(progress.finished) == {"one", "two"}
    assert all("already running" in progress.details[name] for name in ("one", "two"))


def test_a_service_that_fails_is_named_with_its_log(layout: Layout) -> None:
    broken = small(layout, "broken", sys.executable, "-c", "raise SystemExit('no luck')")
    with pytest.raises(Unavailable, match="broken does not start: ended with exit status 1") as refused:
        small_up(layout, small(layout, "one"), broken)[0].run(60)
    assert str(layout.log("broken")) in str(refused.value)
    assert "no luck" in layout.log("broken").read_text()


def test_a_cause_that_is_gone_is_forgotten_at_the_next_up(layout: Layout) -> None:
    flag = layout.home / "cured"
    port = pick()
    script = f"import os,sys; os.path.exists({str(flag)!r}) or sys.exit(1); {SERVE}"
    spec = ServiceSpec(
        "sick", (sys.executable, "-c", script, str(port)), Probe("http", f"http://127.0.0.1:{port}/"),
        log=str(layout.log("sick")), cwd="/",
    )  # fmt: skip
    with pytest.raises(Unavailable):
        small_up(layout, spec)[0].run(60)
    flag.touch()
    assert small_up(layout, spec)[0].run(60).steps[0].name == "sick"


def test_a_final_failure_of_ray_is_told_at_once(layout: Layout) -> None:
    script = (
        "import sys; from pathlib import Path; from cluster.layout import Layout\n"
        "from cluster.ray_report import RayReport\n"
        "report = RayReport.begin(); report.failure = 'models.yaml is wrong.'; report.final = True\n"
        "report.write(Layout(Path(sys.argv[1])).ray_report); sys.exit(1)"
    )
    spec = ServiceSpec(
        "ray", (sys.executable, "-c", script, str(layout.home)), Probe("tcp", "127.0.0.1:1"),
        log=str(layout.log("ray")), cwd=str(ROOT),
    )  # fmt: skip
    with pytest.raises(Unavailable, match=r"ray does not start: models\.yaml is wrong\."):
        small_up(layout, spec)[0].run(60)


def test_ray_is_up_only_when_it_says_so_itself(layout: Layout) -> None:
    spec = small(layout, "ray")
    made, _ = small_up(layout, spec)
    record = ServiceRecord("ray", "ready", process=identify(os.getpid()))
    assert not made._is_up(spec, record)
    report = RayReport.begin()
    report.stage = "deploying"
    report.write(layout.ray_report)
    assert not made._is_up(spec, record)
    report.stage = "ready"
    report.write(layout.ray_report)
    assert made._is_up(spec, record)
    record.process = None
    assert not made._is_up(spec, record)


def report_of(error: str | None = None) -> Any:
    source = SimpleNamespace(source="docs", error=error, documents=3, chunks=9, failed=1)
    return SimpleNamespace(sources=(source,))


def starter_run(layout: Layout, monkeypatch: pytest.MonkeyPatch, config: Path, outcome: Any) -> bool:
    async def run_ingestion(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(starter, "run_ingestion", run_ingestion)
    return starter.ingest_starter(settings_of(layout.home), layout, Plan(()), config, lambda *args: None)


def test_the_starter_knowledge_is_ingested_once_per_configuration(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "dataset_config.yml"
    config.write_text("version: 1\n")
    for failure in (StoreUnavailable("Qdrant is away."), report_of("docs: folder is gone")):
        with pytest.raises(Unavailable, match="starter knowledge"):
            starter_run(layout, monkeypatch, config, failure)
    assert starter_run(layout, monkeypatch, config, report_of())
    assert not starter_run(layout, monkeypatch, config, report_of())
    config.write_text("version: 1 # changed\n")
    assert starter_run(layout, monkeypatch, config, report_of())
    assert not starter_run(layout, monkeypatch, tmp_path / "absent.yml", report_of())
