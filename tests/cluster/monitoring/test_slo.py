"""Objectives become rules, and mistakes in them are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from assistant.errors import ConfigurationError
from cluster.monitoring import slo
from cluster.monitoring.slo import RULES, load, render, rules

GOOD: dict[str, Any] = {
    "window": "30d",
    "min_bad_events": 5,
    "slos": [
        {
            "name": "search-latency",
            "title": "Search is slow",
            "objective": 0.95,
            "routes": "/api/v1/search",
            "latency": {"metric": "ai_assistant_request_seconds", "below_s": 1},
        }
    ],
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "slo.yaml"
    one = {k: v for k, v in {**GOOD["slos"][0], **changes}.items() if v is not None}
    path.write_text(yaml.safe_dump({**GOOD, "slos": [one]}))
    return path


def test_the_checked_in_rules_are_those_of_the_objectives() -> None:
    assert RULES.read_text() == render(load()), "run `python -m cluster.monitoring.slo`"


def test_stale_rules_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slo.ROOT / "kuberay" / "chart" / "files" / "rules" / "slo.yaml"
    monkeypatch.setattr(slo, "SOURCE", write(tmp_path))
    monkeypatch.setattr(slo, "load", lambda: load(slo.SOURCE))
    monkeypatch.setattr("sys.argv", ["slo", "--check"])
    before = path.read_text()
    with pytest.raises(SystemExit, match=r"slo\.yaml is stale: run"):
        slo.main()
    assert path.read_text() == before


def test_an_objective_becomes_ratios_and_two_alerts(tmp_path: Path) -> None:
    groups = rules(load(write(tmp_path)))["groups"]
    made = {rule.get("alert") or rule["record"]: rule for rule in groups[0]["rules"]}
    assert {"SearchLatencyBurnFast", "SearchLatencyBurnSlow", "slo:bad_ratio:rate5m"} <= made.keys()
    fast = made["SearchLatencyBurnFast"]
    # 14.4 x 5 %
    assert 'slo:bad_ratio:rate1h{slo="search-latency"} > 0.72' in fast["expr"]
    assert 'slo:bad_ratio:rate5m{slo="search-latency"} > 0.72' in fast["expr"]
    assert fast["labels"] == {"severity": "page", "slo": "search-latency"}
    assert 'le=~"1(\\\\.0)?"' in made["slo:bad_ratio:rate5m"]["expr"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency": {"metric": "ai_assistant_request_seconds", "below_s": 1.5}}, "no bucket of"),
        ({"latency": {"metric": "ai_assistant_reqest_seconds", "below_s": 1}}, "no histogram of"),
        ({"latency": {"metric": "ai_assistant_first_token_seconds", "below_s": 1}}, "no label route"),
        ({"latency": None}, "either ratio or latency"),
        (
            {"latency": None, "ratio": {"total": "ai_assistant_requests_total", "bad": {"stat": "5.."}}},
            "stat",
        ),
        ({"objective": 95}, "objective"),
        ({"objectve": 0.9}, "objectve"),
        ({"name": "Search"}, "name"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        load(write(tmp_path, **changes))
    assert "slo.yaml is wrong" in raised.value.detail


def test_two_objectives_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "slos": GOOD["slos"] * 2}))
    with pytest.raises(ConfigurationError, match="used twice: search-latency"):
        load(path)
