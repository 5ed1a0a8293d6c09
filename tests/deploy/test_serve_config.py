"""The Serve config has one source, and Serve would take every key of what is made of it."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant.llm.catalog import read_catalog
from assistant.settings import Settings, load_settings
from serve_app.app import AppArgs
from serve_app.live_config import read_user_config
from serve_app.options import deployment_options
from tests.deploy.conftest import Build, Objects
from tests.deploy.kinds import of_kind
from tests.deploy.serve_rules import serve_problems

PARTS = ("Router", "Retriever", "Writer", "Scheduler")


def serve_config(objects: Objects) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(of_kind(objects, "RayService")[0]["spec"]["serveConfigV2"])
    return loaded


def settings_of(objects: Objects) -> Settings:
    """As a replica gets them: the arguments beat the environment that the pod template sets."""
    given = serve_config(objects)["applications"][0]["args"]["settings"]
    return load_settings(
        {"DATABASE_URL": "postgresql://u@h/d", "AI_ASSISTANT_HOME": "/data"}, overrides=given
    )


def test_the_chart_reads_the_file_that_serve_run_reads(repo_root: Path) -> None:
    link = repo_root / "kuberay" / "chart" / "files" / "serve.yaml"
    assert link.resolve() == repo_root / "serve_app" / "config.yaml"
    assert link.is_symlink()


def test_the_application_is_the_one_of_the_source(rendered: Objects, repo_root: Path) -> None:
    """Only address, options per deployment and arguments are this release's own."""
    source = yaml.safe_load((repo_root / "serve_app" / "config.yaml").read_text())
    made = serve_config(rendered)
    for key in ("args", "deployments"):
        made["applications"][0].pop(key)
        source["applications"][0].pop(key, None)
    for key in ("host", "port"):
        made["http_options"].pop(key)
        source["http_options"].pop(key)
    assert made.pop("proxy_location") == "EveryNode"
    source.pop("proxy_location")
    assert made == source


def test_serve_knows_every_key(rendered: Objects) -> None:
    assert serve_problems(of_kind(rendered, "RayService")[0]["spec"]["serveConfigV2"]) == []


def test_serve_knows_every_key_of_the_source(repo_root: Path) -> None:
    assert serve_problems((repo_root / "serve_app" / "config.yaml").read_text()) == []


def _router(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(d for d in config["applications"][0]["deployments"] if d["name"] == "Router")
    return found


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (lambda c: c.update(proxy_locaton="EveryNode"), "proxy_locaton: Serve does not know"),
        (lambda c: c["http_options"].update(prot=1), "http_options.prot"),
        (lambda c: c["applications"][0].update(import_pth="x"), "assistant.import_pth"),
        (lambda c: _router(c).update(num_replica=3), "assistant.Router.num_replica: "),
        (lambda c: _router(c)["ray_actor_options"].update(num_cpu=1), "ray_actor_options"),
        (lambda c: _router(c)["autoscaling_config"].update(min_replica=1), "min_replica"),
        (lambda c: _router(c)["autoscaling_config"].update(min_replicas=30), "autoscaling_config"),
        (lambda c: _router(c).update(num_replicas=3), "num_replicas"),
    ],
)
def test_what_serve_would_swallow_is_named(production: Objects, plant: Any, reason: str) -> None:
    config = serve_config(production)
    plant(config)
    found = serve_problems(yaml.safe_dump(config))
    assert any(reason in problem for problem in found), found


def test_the_builder_takes_the_arguments(rendered: Objects) -> None:
    args = AppArgs.model_validate(serve_config(rendered)["applications"][0]["args"])
    settings = settings_of(rendered)
    assert settings.security.auth == "api_key"
    assert settings.serve.host == "0.0.0.0"
    assert args.models is not None
    assert read_catalog(args.models, settings.home, "the values").models


def test_every_option_is_of_a_deployment_that_exists(rendered: Objects) -> None:
    application = serve_config(rendered)["applications"][0]
    settings = settings_of(rendered)
    catalog = read_catalog(application["args"]["models"], settings.home, "the values")
    known = {deployment_options(settings, part)["name"] for part in (*PARTS, *catalog.local())}
    assert {d["name"] for d in application["deployments"]} <= known


def test_user_config_of_the_router_is_one_that_it_takes(build: Build) -> None:
    given = {
        "canary_share": 0.2,
        "priorities": {"smollm2-135m-instruct": 1},
        "model_aliases": {"gpt-4o": "smollm2-135m-instruct"},
        "answer_prompt": "Answer from these:\n\n{{passages}}\n",
    }
    made = build("production", {"serve": {"deployments": {"Router": {"user_config": given}}}})
    config = serve_config(made)
    models = [model["name"] for model in config["applications"][0]["args"]["models"]]
    assert read_user_config(_router(config)["user_config"], models).model_dump(exclude_defaults=True) == given


@pytest.mark.parametrize(
    "change",
    [
        {"serve": {"deployments": {"Router": {"user_config": {"canary_share": 0.5}}}}},
        {"settings": {"retrieval": {"dense_weight": 0.5}}},
        {"ray": {"groups": {"router": {"minReplicas": 4}}}},
    ],
)
def test_changes_that_replace_no_cluster(build: Build, production: Objects, change: dict[str, Any]) -> None:
    """KubeRay compares rayClusterConfig without replicas; everything else is applied in place."""
    before, after = (fixed_part(objects) for objects in (production, build("production", change)))
    assert before == after
    assert production != build("production", change)


def test_a_group_that_is_switched_on_is_appended(build: Build, production: Objects) -> None:
    before = fixed_part(production)["workerGroupSpecs"]
    after = fixed_part(build("production", {"ray": {"groups": {"gpu": {"enabled": True}}}}))[
        "workerGroupSpecs"
    ]
    assert after[: len(before)] == before
    assert [group["groupName"] for group in after[len(before) :]] == ["gpu"]


def test_a_new_version_of_the_chart_alone_replaces_no_cluster(build: Build, production: Objects) -> None:
    text = yaml.safe_dump(fixed_part(production))
    assert "helm.sh/chart" not in text
    assert "checksum" not in text


def fixed_part(objects: Objects) -> dict[str, Any]:
    """What KubeRay hashes to see whether a new cluster is needed."""
    cluster: dict[str, Any] = of_kind(objects, "RayService")[0]["spec"]["rayClusterConfig"]
    groups = [
        {k: v for k, v in group.items() if k not in {"replicas", "minReplicas", "maxReplicas"}}
        for group in cluster["workerGroupSpecs"]
    ]
    return {**cluster, "workerGroupSpecs": groups}


def test_ray_is_the_one_that_is_pinned(rendered: Objects, repo_root: Path) -> None:
    pins = dict(
        line.split("==") for line in (repo_root / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert pins["ray"] == importlib.metadata.version("ray")
    versions = {
        spec["rayVersion"]
        for item in rendered
        for spec in [
            item.get("spec", {}).get("rayClusterConfig"),
            item.get("spec", {}).get("rayClusterSpec"),
            item.get("spec", {}).get("jobTemplate", {}).get("rayClusterSpec"),
        ]
        if spec
    }
    assert versions == {pins["ray"]}
