"""Which schema checks which object: core ones Kubernetes' own, the others the repository's strict ones."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
from kubernetes_validate.utils import SchemaNotFoundError, ValidationError

from cluster.layout import ROOT
from tests.deploy.strict_schema import problems

KUBERNETES = "1.37"
SCHEMAS = ROOT / "kuberay" / "schema"
CRDS = ROOT.parent / "shared" / "kuberay-crds"
RAY_KINDS = ("RayService", "RayJob", "RayCronJob")
OTHER_KINDS = {
    "barmancloud.cnpg.io/v1": ("ObjectStore",),
    "external-secrets.io/v1": ("ExternalSecret",),
    "gateway.networking.k8s.io/v1": ("HTTPRoute",),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule"),
    "postgresql.cnpg.io/v1": ("Cluster", "Database", "ScheduledBackup"),
    "security.istio.io/v1": ("PeerAuthentication",),
}
"""The kinds that Kubernetes does not know and that are meant all the same; any other is a mistake."""

Object = Mapping[str, Any]


def own_schema(file: str, kind: str) -> dict[str, Any]:
    """The repository's schema of one kind."""
    loaded = json.loads((SCHEMAS / f"{file}.json").read_text(encoding="utf-8"))
    return {"$defs": loaded["$defs"], "$ref": f"#/$defs/{kind}"}


def schema_problems(item: Object) -> list[str]:
    """What is wrong with an object by the schema of its kind, its pod templates included."""
    api, kind = str(item["apiVersion"]), str(item["kind"])
    if api == "ray.io/v1" and kind in RAY_KINDS:
        found = problems(item, own_schema("ray", kind))
    elif kind in OTHER_KINDS.get(api, ()):
        found = problems(item, own_schema("others", kind))
    else:
        found = core_problems(item)
    for path, template in pod_templates(item) if api == "ray.io/v1" else ():
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template.get("metadata", {}),
            "spec": template["spec"],
        }
        found += [f"{path}: {text}" for text in core_problems(pod)]
    return [f"{kind} {item['metadata']['name']}: {text}" for text in found]


def core_problems(item: Object) -> list[str]:
    try:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    except SchemaNotFoundError:
        return [f"Kubernetes {KUBERNETES} does not know this kind"]
    except ValidationError as error:
        return [str(error).splitlines()[0] if str(error) else error.message]
    return []


def pod_templates(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every pod template inside an object, with its path."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            here = f"{path}.{name}".lstrip(".")
            if (
                name in {"template", "submitterPodTemplate"}
                and isinstance(inner, Mapping)
                and "containers" in inner.get("spec", {})
            ):
                yield here, inner
            else:
                yield from pod_templates(inner, here)
    elif isinstance(node, list):
        for position, inner in enumerate(node):
            yield from pod_templates(inner, f"{path}[{position}]")


def containers(item: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every container of an object, those that run before included, with the path of its pod."""
    for path, template in pod_templates(item):
        for kind in ("initContainers", "containers"):
            for container in template["spec"].get(kind, ()):
                yield f"{path}.{container['name']}", container


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of this kind and name. Raises StopIteration when there is none."""
    return next(item for item in of_kind(objects, kind) if item["metadata"]["name"] == name)


def crd_file(kind: str) -> Path:
    return CRDS / f"ray.io_{kind.lower()}s.yaml"
