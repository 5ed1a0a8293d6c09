"""Prometheus would load the rules, each alert fires when it should and only then, and leads to a runbook."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.layout import ROOT
from cluster.monitoring.dashboards import Expression
from tests.deploy.monitoring.conftest import Promtool
from tests.deploy.monitoring.promql import (
    RULES,
    all_rules,
    metrics_in,
    rule_expressions,
    unknown,
)

CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())
ALERTS = {rule["alert"]: rule for rule in all_rules() if "alert" in rule}
SEVERITIES = {"page", "ticket"}
RULES_OF_CASE = "rules.yaml"


def problems(cases: Mapping[str, Any], alerts: Mapping[str, Any]) -> list[str]:
    """What the cases lack: a sentence each."""
    found = [
        f"{name}: tests/deploy/monitoring/alerts.yaml has no cases" for name in alerts if name not in cases
    ]
    found += [f"{name}: there is no such alert any more" for name in cases if name not in alerts]
    for name, case in cases.items():
        found += [f"{name}: it has no case `{kind}`" for kind in ("fires", "silent") if not case.get(kind)]
    return found


def unit_test(alert: Mapping[str, Any], kind: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """The file for `promtool test rules` that looks at one case of one alert."""
    expected = []
    if kind == "fires":
        labels = {
            "__name__": "ALERTS",
            "alertname": alert["alert"],
            "alertstate": "firing",
            **alert["labels"],
            **case.get("labels", {}),
        }
        name = labels.pop("__name__")
        inside = ", ".join(f"{label}={json.dumps(str(value))}" for label, value in labels.items())
        expected = [{"labels": f"{name}{{{inside}}}", "value": 1}]
    return {
        "rule_files": [RULES_OF_CASE],
        "evaluation_interval": case.get("every", "1m"),
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in case["series"].items()],
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{alert["alert"]}", alertstate="firing"}}',
                        "eval_time": case["at"],
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }


def outcome(promtool: Promtool, folder: Path, name: str, kind: str, case: Mapping[str, Any]) -> str | None:
    """What promtool has against the case, or None. Only the alert's own group is evaluated: all take minutes."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    (own,) = [group for group in groups if any(rule.get("alert") == name for rule in group["rules"])]
    (folder / RULES_OF_CASE).write_text(yaml.safe_dump({"groups": [own]}))
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump(unit_test(ALERTS[name], kind, case)))
    done = promtool("test", "rules", file)
    return None if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert problems(CASES, ALERTS) == []


def test_a_missing_case_is_named() -> None:
    some = {"A": {"fires": {"at": "1m"}}, "Gone": {"fires": {"at": "1m"}, "silent": {"at": "1m"}}}
    assert problems(some, {"A": {}, "B": {}}) == [
        "B: tests/deploy/monitoring/alerts.yaml has no cases",
        "Gone: there is no such alert any more",
        "A: it has no case `silent`",
    ]


@pytest.mark.parametrize("kind", ["fires", "silent"])
@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert(promtool: Promtool, tmp_path: Path, name: str, kind: str) -> None:
    assert outcome(promtool, tmp_path, name, kind, CASES[name][kind]) is None


@pytest.mark.parametrize(("kind", "other"), [("fires", "silent"), ("silent", "fires")])
def test_a_case_can_fail(promtool: Promtool, tmp_path: Path, kind: str, other: str) -> None:
    said = outcome(promtool, tmp_path, "StoreDown", kind, CASES["StoreDown"][other])
    assert said is not None
    assert "ALERTS" in said


def test_prometheus_accepts_the_rules(promtool: Promtool, tmp_path: Path) -> None:
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RULES[0].read_text().replace("expr: ", "expr: sum(", 1))
    assert promtool("check", "rules", wrong).returncode != 0


@pytest.mark.parametrize("expression", list(rule_expressions()), ids=lambda e: e.where)
def test_rules_read_metrics_that_exist(expression: Expression) -> None:
    assert unknown(expression) == []


def test_a_rule_on_a_metric_that_does_not_exist_is_named() -> None:
    planted = Expression("alerts.yaml: Planted", "rate(ray_ai_assistant_reqests_total[5m]) > 0")
    (said,) = unknown(planted)
    assert said.startswith("alerts.yaml: Planted: ray_ai_assistant_reqests_total is neither in METRICS")
    assert unknown(Expression("x", "ray_ai_assistant_request_seconds > 1")) != []
    assert unknown(Expression("x", "ray_ai_assistant_request_seconds_count > 1")) == []
    assert metrics_in("a + sum(rate(b[5m])) / max_over_time(c[2h:5m]) unless topk(3, d)") == set("abcd")


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alerts_say_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings, f"{page} has no section {name}"


def test_every_runbook_belongs_to_an_alert() -> None:
    text = (ROOT / "docs" / "operations" / "runbooks.md").read_text()
    assert set(re.findall(r"^## (.+)$", text, re.MULTILINE)) == set(ALERTS)


def test_names_are_given_once() -> None:
    names = [rule["alert"] for rule in all_rules() if "alert" in rule]
    assert len(names) == len(set(names))
    groups = [group["name"] for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    assert len(groups) == len(set(groups))
