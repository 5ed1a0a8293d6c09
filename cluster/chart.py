"""The Helm chart of this repository, without Helm: `python -m cluster.chart COMMAND`.

    render ENV    the manifest of an environment (default, production, local), as `helm template` prints it
    secret ENV    a Secret with fresh random values, where all its keys are this release's own
    schema        write the parts of the values schema that follow from the application's own models

Rendering needs the package `helm-python-sdk`, Helm's engine as a library (`pip install -e '.[dev]'`).
"""

import argparse
import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from assistant.errors import AssistantError, ConfigurationError
from cluster.layout import ROOT

CHART = ROOT / "kuberay" / "chart"
SCHEMA = CHART / "values.schema.json"
RELEASE = "ai-assistant"
RANDOM = ("auth_token", "qdrant-api-key", "postgres-password", "redis-password")
"""Keys whose values only this release has to know."""
OURS = {
    "settings": ("home",),
    "settings.PostgresSettings": ("url",),
    "settings.QdrantSettings": ("url", "api_key"),
    "settings.MlflowSettings": ("tracking_uri",),
    "settings.LlmSettings": ("models_file",),
    "settings.ServeSettings": ("host", "port"),
    "settings.LearningSettings": ("launch",),
}
"""Settings that the chart itself decides; the schema refuses them in values."""


def environments() -> list[str]:
    """The names that `render` takes: one per values file."""
    others = sorted(p.stem.removeprefix("values-") for p in CHART.glob("values-*.yaml"))
    return ["default", *others]


def values_of(environment: str) -> dict[str, Any]:
    """What the values file of an environment changes. Raises ConfigurationError for an unknown one."""
    if environment not in environments():
        raise ConfigurationError(
            f"There is no environment {environment!r}.", hint=f"Known: {', '.join(environments())}."
        )
    if environment == "default":
        return {}
    values: dict[str, Any] = yaml.safe_load((CHART / f"values-{environment}.yaml").read_text())
    return values


def render(
    values: Mapping[str, Any],
    release: str = RELEASE,
    namespace: str = RELEASE,
    *,
    chart: Path = CHART,
    upgrade: bool = False,
) -> dict[str, str]:
    """Template path → text, `NOTES.txt` included.

    Raises ConfigurationError with Helm's own words: a value that the schema refuses, or a template's `fail`.
    """
    try:
        from helm_python import Chart, HelmError
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Rendering needs the package helm-python-sdk.", hint="Run: pip install -e '.[dev]'"
        ) from None
    try:
        return Chart.load(str(chart)).render(
            dict(values), name=release, namespace=namespace, is_install=not upgrade, is_upgrade=upgrade
        )
    except HelmError as error:
        raise ConfigurationError(f"The chart does not render: {error}") from None


def manifest(rendered: Mapping[str, str]) -> str:
    """All objects as one document stream, in the order of their files."""
    parts = []
    for path, text in sorted(rendered.items()):
        if path.endswith((".yaml", ".yml")) and text.strip():
            parts.append(f"---\n# Source: {path}\n{text.strip()}\n")
    return "".join(parts)


def objects(rendered: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every object of a render."""
    return [o for o in yaml.safe_load_all(manifest(rendered)) if o]


def secret_keys(environment: str) -> list[str]:
    """The keys that the Secret of an environment must hold: those that its pods and operators refer to."""
    found = objects(render(values_of(environment)))
    name = values_of(environment).get("secrets", {}).get("existingSecret")
    if not name:
        raise ConfigurationError(
            f"The environment {environment} names no secrets.existingSecret.",
            hint="Set it in its values file.",
        )
    keys = set(_references(found, name))
    return sorted(keys | {"auth_token"})


def secret(environment: str) -> dict[str, Any]:
    """A Secret object with a random value for each key. Raises ConfigurationError when a key is not ours to make."""
    keys = secret_keys(environment)
    if foreign := [key for key in keys if key not in RANDOM]:
        raise ConfigurationError(
            f"{', '.join(foreign)} cannot be made up: they are credentials of other services.",
            hint=f"Make the Secret yourself; the environment {environment} needs: {', '.join(keys)}.",
        )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": values_of(environment)["secrets"]["existingSecret"]},
        "type": "Opaque",
        "stringData": {key: secrets.token_urlsafe(32) for key in keys},
    }


def _references(node: Any, name: str) -> list[str]:
    if isinstance(node, list):
        return [key for item in node for key in _references(item, name)]
    if not isinstance(node, dict):
        return []
    here = [str(node["key"])] if node.get("name") == name and "key" in node else []
    return here + [key for value in node.values() for key in _references(value, name)]


def application_schemas() -> dict[str, Any]:
    """The `$defs` of the values schema that are the application's own: settings, models, datasets."""
    from assistant.llm.catalog import ModelSpec
    from assistant.settings import Settings
    from data_jobs.config import DatasetConfig

    made: dict[str, Any] = {}
    for name, model in (("settings", Settings), ("model", ModelSpec), ("datasets", DatasetConfig)):
        schema = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        for part, definition in schema.pop("$defs", {}).items():
            made[f"{name}.{part}"] = definition
        made[name] = schema
    for name, fields in OURS.items():
        for field in fields:
            del made[name]["properties"][field]
    return {name: _plain(schema) for name, schema in sorted(made.items())}


def _plain(node: Any, *, names: bool = False) -> Any:
    """Without titles and defaults, which say nothing about what is allowed. `names`: keys are field names."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _plain(value, names=key == "properties" and not names)
        for key, value in node.items()
        if names or key not in {"title", "default"}
    }


def schema_text(current: str) -> str:
    """The values schema with its application parts as they are now."""
    schema = json.loads(current)
    made = application_schemas()
    own = {
        k: v for k, v in schema["$defs"].items() if k.split(".")[0] not in {"settings", "model", "datasets"}
    }
    return json.dumps({**schema, "$defs": {**own, **made}}, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("render", "secret"):
        commands.add_parser(name).add_argument("environment", help=f"one of: {', '.join(environments())}")
    commands.add_parser("schema")
    given = parser.parse_args()
    match given.command:
        case "render":
            sys.stdout.write(manifest(render(values_of(given.environment))))
        case "secret":
            yaml.safe_dump(secret(given.environment), sys.stdout, sort_keys=False)
        case _:
            SCHEMA.write_text(schema_text(SCHEMA.read_text()))


if __name__ == "__main__":
    try:
        main()
    except AssistantError as error:
        sys.exit(str(error))
