"""Every object of every render fits the schema of its kind, and planted mistakes do not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import VARIANTS, Objects
from tests.deploy.kinds import (
    CRDS,
    OTHER_KINDS,
    RAY_KINDS,
    SCHEMAS,
    crd_file,
    of_kind,
    own_schema,
    schema_problems,
)
from tests.deploy.strict_schema import crd_schema, fields, lookup, problems

needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(),
    reason="the CRDs of KubeRay are not in ../shared/kuberay-crds; our own schema was checked",
)


def test_every_object_fits(rendered: Objects) -> None:
    assert [problem for item in rendered for problem in schema_problems(item)] == []


def test_the_renders_make_every_kind_there_is_a_schema_for(renders: dict[str, Objects]) -> None:
    made = {item["kind"] for items in renders.values() for item in items}
    known = {kind for kinds in OTHER_KINDS.values() for kind in kinds} | set(RAY_KINDS)
    # Rules arrive with the files of files/rules.
    assert known - made <= {"PrometheusRule"}


def test_names_are_unique_in_a_render(rendered: Objects) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in rendered]
    assert sorted(names) == sorted(set(names))


@pytest.fixture(scope="module")
def crds() -> dict[str, dict[str, Any]]:
    return {kind: crd_schema(crd_file(kind), "v1") for kind in RAY_KINDS}


@needs_crds
@pytest.mark.parametrize("name", [*VARIANTS])
def test_ray_objects_fit_the_real_crds(
    renders: dict[str, Objects], crds: dict[str, dict[str, Any]], name: str
) -> None:
    checked = [item for item in renders[name] if item["kind"] in RAY_KINDS]
    assert checked
    assert [problem for item in checked for problem in problems(item, crds[item["kind"]])] == []


@needs_crds
@pytest.mark.parametrize("kind", RAY_KINDS)
def test_our_schema_is_a_part_of_the_real_crd(crds: dict[str, dict[str, Any]], kind: str) -> None:
    own = own_schema("ray", kind)
    compared = 0
    for path, type_ in fields(own["$defs"][kind]["properties"]["spec"], own, "spec"):
        real = lookup(crds[kind], path)
        assert real is not None, f"{kind}: the CRD has no {path}"
        # An open object of ours, such as a pod template, is checked elsewhere.
        assert type_ in ("any", real.get("type", type_)), (
            f"{kind}.{path}: {type_}, the CRD says {real.get('type')}"
        )
        compared += 1
    assert compared > 10


Plant = Callable[[dict[str, Any]], None]
SERVICE_MISTAKES: dict[str, Plant] = {
    "rayVersion": lambda s: s["rayClusterConfig"].update(rayVersion=2.60),
    "num-cpus": lambda s: s["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    "enableInTreeAutoscalling": lambda s: s["rayClusterConfig"].update(enableInTreeAutoscalling=True),
    "livenessProb": lambda s: s["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][
        0
    ].update(livenessProb={}),
    "version": lambda s: s["rayClusterConfig"]["autoscalerOptions"].update(version="v3"),
    "upgradeStrategy": lambda s: s.update(upgradeStrategy={"type": "Incremental"}),
    "maxReplica": lambda s: s["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplica=3),
}


@pytest.mark.parametrize("field", SERVICE_MISTAKES)
def test_a_mistake_in_the_ray_service_is_named(production: Objects, field: str) -> None:
    (service,) = of_kind(production, "RayService")
    SERVICE_MISTAKES[field](service["spec"])
    assert any(field in problem for problem in schema_problems(service)), schema_problems(service)


@needs_crds
# The upgrade type is a plain string there: the operator looks at it itself.
@pytest.mark.parametrize("field", sorted({*SERVICE_MISTAKES} - {"upgradeStrategy"}))
def test_the_real_crd_sees_the_same_mistakes(
    production: Objects, crds: dict[str, dict[str, Any]], field: str
) -> None:
    (service,) = of_kind(production, "RayService")
    SERVICE_MISTAKES[field](service["spec"])
    assert any(field in problem for problem in problems(service, crds["RayService"]))


def test_a_mistake_in_a_core_object_is_named(production: Objects) -> None:
    deployment = of_kind(production, "Deployment")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    (problem,) = schema_problems(deployment)
    assert problem.startswith("Deployment ai-assistant-mlflow:")


def test_a_kind_that_nobody_listed_is_refused(production: Objects) -> None:
    item = copy.deepcopy(production[0])
    item["kind"] = "Deploymint"
    assert "does not know this kind" in schema_problems(item)[0]


@pytest.mark.parametrize("file", ["ray.json", "others.json"])
def test_our_schemas_refuse_unknown_fields_everywhere(file: str) -> None:
    loaded = json.loads((SCHEMAS / file).read_text())

    def open_objects(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [found for n, item in enumerate(node) for found in open_objects(item, f"{path}[{n}]")]
        if not isinstance(node, dict):
            return []
        own = [path] if node.get("type") == "object" and "additionalProperties" not in node else []
        return own + [found for key, item in node.items() for found in open_objects(item, f"{path}.{key}")]

    assert open_objects(loaded, "") == [".$defs.template"] * (file == "ray.json")


def test_the_dashboards_and_rules_of_the_chart_become_objects(build: Any, repo_root: Path) -> None:
    files = repo_root / "kuberay" / "chart" / "files"
    made = build("production")
    dashboards = [i for i in of_kind(made, "ConfigMap") if "-dashboard-" in i["metadata"]["name"]]
    assert sorted(key for item in dashboards for key in item["data"]) == sorted(
        path.name for path in (files / "dashboards").glob("*.json")
    )
    for item in dashboards:
        for name, text in item["data"].items():
            assert text == (files / "dashboards" / name).read_text()
    assert len(of_kind(made, "PrometheusRule")) == len(list((files / "rules").glob("*.yaml")))
