"""Structural schemas of CRDs as JSON Schema that refuses what the API server would drop in silence."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator


def strict(node: Any) -> Any:
    """A CRD's `openAPIV3Schema` that also refuses unknown fields.

    Fields with a default are not required: the API server fills defaults in before it checks.
    """
    if not isinstance(node, Mapping):
        return node
    made = dict(node)
    made.pop("format", None)
    is_open = made.pop("x-kubernetes-preserve-unknown-fields", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    if properties := made.get("properties"):
        made["required"] = [n for n in made.get("required", []) if "default" not in properties.get(n, {})]
        made["properties"] = {name: strict(schema) for name, schema in properties.items()}
        if not is_open:
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in made:
            made[key] = strict(made[key])
    return made


def without_nulls(value: Any) -> Any:
    """The value as the API server validates it: nulls are dropped first."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def crd_schema(path: Path, version: str) -> dict[str, Any]:
    """The strict schema of one version in a CRD file. Raises KeyError when the file has no such version."""
    loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    schemas = {v["name"]: v["schema"]["openAPIV3Schema"] for v in loaded["spec"]["versions"]}
    made: dict[str, Any] = strict(schemas[version])
    made["properties"]["metadata"] = True
    return made


def problems(instance: Any, schema: Mapping[str, Any]) -> list[str]:
    """What the schema refuses, each with its path."""
    found = Draft202012Validator(schema).iter_errors(without_nulls(instance))
    return [f"{'.'.join(map(str, error.absolute_path)) or '(root)'}: {error.message}" for error in found]


def fields(schema: Any, root: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every field that one of our schemas knows: its path (`[]` for items) and its type, `$ref`s followed."""
    while isinstance(schema, Mapping) and "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if not isinstance(schema, Mapping):
        return
    if path:
        yield path, str(schema.get("type", "any"))
    for name, inner in schema.get("properties", {}).items():
        yield from fields(inner, root, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from fields(schema["items"], root, f"{path}[]")


def lookup(schema: Any, path: str) -> Any:
    """The part of a CRD's schema at a path of `fields`; None when the CRD has no such field."""
    for step in path.replace("[]", ".[]").split("."):
        if not isinstance(schema, Mapping):
            return None
        schema = schema.get("items") if step == "[]" else schema.get("properties", {}).get(step)
    return schema
