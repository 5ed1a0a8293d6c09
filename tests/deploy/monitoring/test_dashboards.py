"""Dashboards as data: Grafana can load them, every expression parses and reads metrics that exist."""

import json
from itertools import combinations
from typing import Any

import pytest

from cluster.monitoring.dashboards import VARIABLE, Expression, files, panels
from tests.deploy.monitoring.promql import dashboard_expressions, metrics_in, unknown

LOADED: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in files()}
EXPRESSIONS = list(dashboard_expressions())
WIDTH = 24
BUILT_IN = {"__rate_interval", "__interval", "__range"}


def variables(text: str) -> set[str]:
    return {found.strip("${}").partition(":")[0] for found in VARIABLE.findall(text)}


def overlapping(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    def area(panel: dict[str, Any]) -> tuple[int, int, int, int]:
        grid = panel["gridPos"]
        return grid["x"], grid["y"], grid["x"] + grid["w"], grid["y"] + grid["h"]

    def meet(a: dict[str, Any], b: dict[str, Any]) -> bool:
        (ax, ay, ar, ab), (bx, by, br, bb) = area(a), area(b)
        return ax < br and bx < ar and ay < bb and by < ab

    return [(a["title"], b["title"]) for a, b in combinations(dashboard["panels"], 2) if meet(a, b)]


def test_the_five_that_are_promised() -> None:
    assert set(LOADED) == {"service", "models", "retrieval", "ingestion", "learning"}


def test_uids_and_titles_are_unique() -> None:
    for key in ("uid", "title"):
        values = [dashboard[key] for dashboard in LOADED.values()]
        assert len(values) == len(set(values))
    assert all(len(dashboard["uid"]) <= 40 for dashboard in LOADED.values())


@pytest.mark.parametrize("name", sorted(LOADED))
def test_structure(name: str) -> None:
    dashboard = LOADED[name]
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    assert overlapping(dashboard) == []
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert "datasource" in defined
    used = variables(json.dumps(dashboard["panels"]))
    assert used - defined - BUILT_IN == set()
    assert defined - used == set(), "a variable that no panel uses"
    for panel in panels(dashboard):
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= WIDTH
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"], panel["title"]
        unit = panel["fieldConfig"]["defaults"].get("unit") or panel["options"].get("yAxis", {}).get("unit")
        assert unit, f"{panel['title']} has no unit"


def test_panels_that_lie_on_each_other_are_found() -> None:
    def panel(title: str, x: int, y: int) -> dict[str, Any]:
        return {"title": title, "gridPos": {"x": x, "y": y, "w": 12, "h": 8}}

    assert overlapping({"panels": [panel("a", 0, 0), panel("b", 12, 0), panel("c", 0, 8)]}) == []
    assert overlapping({"panels": [panel("a", 0, 0), panel("b", 6, 7)]}) == [("a", "b")]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda e: f"{e.where}-{EXPRESSIONS.index(e)}")
def test_panels_read_metrics_that_exist(expression: Expression) -> None:
    assert metrics_in(expression.text)
    assert unknown(expression) == []


def test_a_panel_on_a_metric_that_does_not_exist_is_named() -> None:
    (said,) = unknown(
        Expression("service.json: Planted", 'sum by (a) (rate(ray_srve_x{a=~"$route"}[$__rate_interval]))')
    )
    assert said.startswith("service.json: Planted: ray_srve_x is neither")
    with pytest.raises(ValueError, match=r"\S"):
        metrics_in("sum(rate(a[5m])")
