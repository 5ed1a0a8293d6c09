"""What rules and dashboards say: their expressions and the metrics in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from cluster.layout import ROOT
from cluster.monitoring import dashboards, names
from cluster.monitoring.dashboards import Expression

RULES = sorted((ROOT / "kuberay" / "chart" / "files" / "rules").glob("*.yaml"))


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def all_rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for rule in rules(path)]


def rule_expressions() -> Iterator[Expression]:
    for path in RULES:
        for rule in rules(path):
            yield Expression(f"{path.name}: {rule.get('alert') or rule['record']}", rule["expr"])


def dashboard_expressions() -> Iterator[Expression]:
    for path in dashboards.files():
        yield from dashboards.expressions(path)


def metrics_in(expression: str) -> set[str]:
    """The names of all series that an expression reads. ValueError when it is no PromQL."""
    found: set[str] = set()
    _walk(promql_parser.parse(Expression("", expression).plain), found)
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
