"""The chart's Grafana dashboards as data, and whether a running Prometheus fills them.

    python -m cluster.monitoring.dashboards http://127.0.0.1:9090

prints a line per panel: how many series it shows now. Status 1 when one shows none. A metric that never had an event
has no series yet: such a panel is alive when its expression says what to show instead, and the line names the metric.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.layout import ROOT
from cluster.monitoring import names

FILES = ROOT / "kuberay" / "chart" / "files" / "dashboards"
INTERVAL = re.compile(r"\$\{?__(?:rate_interval|interval|range)\}?")
VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")
LABEL_VALUES = re.compile(r"label_values\((.+), *\w+\)")
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
RATE_WINDOW = "5m"


@dataclass(frozen=True, slots=True)
class Expression:
    """PromQL of a panel, a variable or a rule. `where` names the file and the place in it."""

    where: str
    text: str

    @property
    def plain(self) -> str:
        """With values for Grafana's variables: they stand in regular expressions, where this means all."""
        return VARIABLE.sub(".*", INTERVAL.sub(RATE_WINDOW, self.text))


@dataclass(frozen=True, slots=True)
class Panel:
    """What Prometheus answered: `missing` are metrics that have no series at all."""

    where: str
    series: int
    missing: tuple[str, ...]


def files() -> list[Path]:
    return sorted(FILES.glob("*.json"))


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels, those inside rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions(path: Path) -> Iterator[Expression]:
    """Every expression of a dashboard, also those behind its variables. ValueError for a variable of another form."""
    dashboard = json.loads(path.read_text())
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield Expression(f"{path.name}: {panel['title']}", target["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        where = f"{path.name}: variable {variable['name']}"
        inside = LABEL_VALUES.fullmatch(variable["query"]["query"])
        if inside is None:
            raise ValueError(f"{where} is not of the form label_values(series, label)")
        yield Expression(where, inside[1])


def look(client: httpx.Client) -> Iterator[Panel]:
    """Ask Prometheus for every expression. Raises httpx.HTTPError."""
    known = names.own() | names.seen()
    present = set(_get(client, "/api/v1/label/__name__/values", {}))
    for path in files():
        for expression in expressions(path):
            found = _get(client, "/api/v1/query", {"query": expression.plain})["result"]
            live = [one for one in found if not math.isnan(float(one["value"][1]))]
            used = known & set(WORD.findall(expression.plain))
            yield Panel(expression.where, len(live), tuple(sorted(used - present)))


def _get(client: httpx.Client, path: str, parameters: Mapping[str, str]) -> Any:
    response = client.get(path, params=dict(parameters))
    response.raise_for_status()
    return response.json()["data"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prometheus", help="its address")
    arguments = parser.parse_args()
    dead = 0
    try:
        with httpx.Client(base_url=arguments.prometheus, timeout=30, trust_env=False) as client:
            for panel in look(client):
                state = "alive" if panel.series else "DEAD"
                note = f"  no series yet: {', '.join(panel.missing)}" if panel.missing else ""
                sys.stdout.write(f"{state:<6} {panel.series:>4}  {panel.where}{note}\n")
                dead += not panel.series
    except httpx.HTTPError as error:
        raise SystemExit(f"{arguments.prometheus} cannot be asked: {error}") from None
    raise SystemExit(f"{dead} panels are dead" if dead else 0)


if __name__ == "__main__":
    main()
