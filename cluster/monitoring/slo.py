"""Rules out of `slo.yaml`: `python -m cluster.monitoring.slo` writes them, `--check` only compares.

Each objective becomes the share of bad events over several windows, and two alerts on how fast its error budget
burns: a fast one that wakes somebody, a slow one for the working day. Each burn is seen over a long window, so that
it matters, and over a short one, so that the alert ends soon after its cause.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assistant.errors import ConfigurationError
from assistant.telemetry import METRICS
from cluster.layout import ROOT
from cluster.monitoring.names import PREFIX

SOURCE = Path(__file__).with_name("slo.yaml")
RULES = ROOT / "kuberay" / "chart" / "files" / "rules" / "slo.yaml"
HEADER = "# Made from cluster/monitoring/slo.yaml by `python -m cluster.monitoring.slo`: change that file.\n"
RUNBOOKS = "docs/operations/runbooks.md"

# Burn rates of Google's SRE workbook for a window of 30 days: 14.4 spends 2 % of the budget in an hour, 6 spends 5 %
# in six hours, 3 spends 10 % in a day, 1 spends 10 % in three days.
FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
SLOW = (("1d", "2h", 3.0), ("3d", "6h", 1.0))
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


class Ratio(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    total: str
    bad: Mapping[str, str] = Field(min_length=1)


class Latency(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    below_s: float = Field(gt=0)

    @property
    def bucket(self) -> str:
        """A matcher of `le`: exporters write whole numbers with and without a fraction."""
        number = f"{self.below_s:g}"
        return f'le="{number}"' if "." in number else f'le=~"{number}(\\\\.0)?"'


class Slo(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$")
    title: str
    objective: float = Field(gt=0, lt=1)
    routes: str | None = None
    ratio: Ratio | None = None
    latency: Latency | None = None

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if (self.ratio is None) == (self.latency is None):
            raise ValueError("give either ratio or latency")
        name = self.ratio.total if self.ratio else self.latency.metric if self.latency else ""
        spec = METRICS.get(name)
        wanted = "counter" if self.ratio else "histogram"
        if spec is None or spec.kind != wanted:
            raise ValueError(f"{name} is no {wanted} of assistant/telemetry.py")
        labels = {*(self.ratio.bad if self.ratio else ()), *(("route",) if self.routes else ())}
        if strange := labels - set(spec.labels):
            raise ValueError(f"{name} has no label {', '.join(sorted(strange))}; it has {spec.labels}")
        if self.latency and self.latency.below_s not in spec.buckets:
            raise ValueError(
                f"below_s {self.latency.below_s:g} is no bucket of {name}: use one of {spec.buckets}"
            )
        return self

    @property
    def camel(self) -> str:
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def budget(self) -> float:
        return round(1 - self.objective, 9)

    def bad(self, function: str, window: str) -> str:
        """The bad events: `function` is rate or increase."""
        if self.ratio:
            matchers = [f"{label}=~{json.dumps(value)}" for label, value in self.ratio.bad.items()]
            # No series of errors exists before the first one.
            return f"(sum({function}({self._series(self.ratio.total, *matchers)}[{window}])) or vector(0))"
        assert self.latency is not None
        good = self._series(f"{self.latency.metric}_bucket", self.latency.bucket)
        return f"({self.total(function, window)} - sum({function}({good}[{window}])))"

    def total(self, function: str, window: str) -> str:
        name = self.ratio.total if self.ratio else f"{self.latency.metric}_count" if self.latency else ""
        return f"sum({function}({self._series(name)}[{window}]))"

    def _series(self, name: str, *matchers: str) -> str:
        routes = [f"route=~{json.dumps(self.routes)}"] if self.routes else []
        inside = ",".join([*routes, *matchers])
        return f"{PREFIX}{name}{{{inside}}}" if inside else f"{PREFIX}{name}"


class Objectives(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    window: str = Field(pattern=r"^[0-9]+d$")
    min_bad_events: int = Field(ge=1)
    """Bad events in the long window below which nobody is told: one slow request at night is no trend."""
    slos: tuple[Slo, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [slo.name for slo in self.slos]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"used twice: {', '.join(sorted(twice))}")
        return self


def load(path: Path = SOURCE) -> Objectives:
    """Raises ConfigurationError naming the file, the key and what is allowed."""
    try:
        return Objectives.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        lines = (
            [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            if isinstance(error, ValidationError)
            else [str(error)]
        )
        raise ConfigurationError(f"{path} is wrong: {'; '.join(lines)}.") from None


def rules(objectives: Objectives) -> dict[str, Any]:
    """The Prometheus rule file, as data."""
    return {
        "groups": [
            {
                "name": f"slo-{slo.name}",
                "rules": [*_records(slo), *_alerts(slo, objectives)],
            }
            for slo in objectives.slos
        ]
        + [
            {
                "name": "slo-budgets",
                # A month of samples is much to read, and changes slowly.
                "interval": "2m",
                "rules": [
                    rule
                    for slo in objectives.slos
                    for rule in (_ratio(slo, objectives.window), _objective(slo))
                ],
            }
        ]
    }


def _records(slo: Slo) -> Iterator[dict[str, Any]]:
    for window in WINDOWS:
        yield _ratio(slo, window)
    for long, _, _ in (*FAST, *SLOW):
        yield {
            "record": f"slo:bad_events:increase{long}",
            "labels": {"slo": slo.name},
            "expr": slo.bad("increase", long),
        }


def _ratio(slo: Slo, window: str) -> dict[str, Any]:
    return {
        "record": f"slo:bad_ratio:rate{window}",
        "labels": {"slo": slo.name},
        "expr": f"{slo.bad('rate', window)} / {slo.total('rate', window)}",
    }


def _objective(slo: Slo) -> dict[str, Any]:
    return {
        "record": "slo:objective",
        "labels": {"slo": slo.name},
        "expr": f"vector({slo.objective:g})",
    }


def _alerts(slo: Slo, objectives: Objectives) -> Iterator[dict[str, Any]]:
    for speed, burns, severity in (("fast", FAST, "page"), ("slowly", SLOW, "ticket")):
        name = f"{slo.camel}Burn{'Fast' if speed == 'fast' else 'Slow'}"
        yield {
            "alert": name,
            "expr": "\nor\n".join(_burn(slo, objectives.min_bad_events, *burn) for burn in burns),
            "labels": {"severity": severity, "slo": slo.name},
            "annotations": {
                "summary": f"{slo.title}: the error budget of {slo.name} burns {speed}.",
                "description": f"{{{{ $value | humanizePercentage }}}} of events were bad; the objective over"
                f" {objectives.window} is {slo.objective:.4g}.",
                "runbook": f"{RUNBOOKS}#{name.lower()}",
            },
        }


def _burn(slo: Slo, least: int, long: str, short: str, factor: float) -> str:
    where = f'{{slo="{slo.name}"}}'
    limit = f"{factor * slo.budget:.6g}"
    return (
        f"(slo:bad_ratio:rate{long}{where} > {limit}"
        f" and slo:bad_ratio:rate{short}{where} > {limit}"
        f" and slo:bad_events:increase{long}{where} >= {least})"
    )


def render(objectives: Objectives) -> str:
    return HEADER + yaml.safe_dump(rules(objectives), sort_keys=False, width=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 when the rules are stale"
    )
    arguments = parser.parse_args()
    text = render(load())
    if arguments.check:
        if RULES.read_text() != text:
            raise SystemExit(f"{RULES.relative_to(ROOT)} is stale: run `python -m cluster.monitoring.slo`.")
        return
    RULES.write_text(text)
    sys.stdout.write(f"wrote {RULES.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
