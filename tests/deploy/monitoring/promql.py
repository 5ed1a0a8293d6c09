"""What rules and dashboards say: their expressions and the metrics in them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from cluster.layout import ROOT
from cluster.monitoring import names

FILES = ROOT / "kuberay" / "chart" / "files"
RULES = sorted((FILES / "rules").glob("*.yaml"))
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")
INTERVAL = re.compile(r"\$\{?__(?:rate_interval|interval|range)\}?")


@dataclass(frozen=True)
class Expression:
    """`where` names the file and the rule or panel."""

    where: str
    text: str


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def all_rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for rule in rules(path)]


def rule_expressions() -> Iterator[Expression]:
    for path in RULES:
        for rule in rules(path):
            yield Expression(f"{path.name}: {rule.get('alert') or rule['record']}", rule["expr"])


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def dashboard_expressions() -> Iterator[Expression]:
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                yield Expression(f"{path.name}: {panel['title']}", target["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]
                text = query if isinstance(query, str) else query["query"]
                inside = re.fullmatch(r"label_values\((.+), *\w+\)", text)
                assert inside, f"{path.name}: variable {variable['name']} is no label_values(series, label)"
                yield Expression(f"{path.name}: variable {variable['name']}", inside[1])


def plain(expression: str) -> str:
    """The expression with values for Grafana's variables."""
    return VARIABLE.sub("x", INTERVAL.sub("5m", expression))


def metrics_in(expression: str) -> set[str]:
    """The names of all series that an expression reads. ValueError when it is no PromQL."""
    found: set[str] = set()
    _walk(promql_parser.parse(plain(expression)), found)
    return found


def _walk(node: Any, found: set[str]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        found.add(node.name or "")
        return
    for attribute in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
        if (child := getattr(node, attribute, None)) is not None:
            _walk(child, found)
    for child in getattr(node, "args", None) or ():
        _walk(child, found)


def known_metrics() -> set[str]:
    recorded = {rule["record"] for rule in all_rules() if "record" in rule}
    return names.own() | names.seen() | recorded


def unknown(expression: Expression) -> list[str]:
    """A sentence for each metric that no scrape would hold."""
    return [
        f"{expression.where}: {name} is neither in METRICS of assistant/telemetry.py, as `ray_<name>` and with the"
        " suffixes of its kind, nor in cluster/monitoring/seen.txt"
        for name in sorted(metrics_in(expression.text) - known_metrics())
    ]
