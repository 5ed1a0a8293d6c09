"""Prometheus for the local stack: the configuration that it gets, and what happens without a stack."""

import sys
from pathlib import Path

import pytest
import yaml

from cluster.monitoring import local, programs
from cluster.monitoring.local import TEMPLATE, command, configuration
from tests.deploy.monitoring.conftest import Promtool, promtool

__all__ = ["promtool"]


def configured(tmp_path: Path) -> Path:
    made = configuration(yaml.safe_load(TEMPLATE.read_text()), tmp_path / "discovery.json", 9191)
    (tmp_path / "discovery.json").write_text('[{"labels": {"job": "x"}, "targets": ["10.0.0.1:44217"]}]')
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(made))
    return path


def test_prometheus_accepts_both_configurations(promtool: Promtool, tmp_path: Path) -> None:
    done = promtool("check", "config", configured(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files" in done.stdout
    syntax = promtool("check", "config", "--syntax-only", TEMPLATE)
    assert syntax.returncode == 0, syntax.stdout + syntax.stderr


def test_the_targets_are_those_of_ray_and_itself(tmp_path: Path) -> None:
    ray, own = yaml.safe_load(configured(tmp_path).read_text())["scrape_configs"]
    assert ray["file_sd_configs"] == [{"files": [str(tmp_path / "discovery.json")]}]
    assert "static_configs" not in ray
    assert {"target_label": "job", "replacement": "ray"} in ray["relabel_configs"]
    assert own["static_configs"] == [{"targets": ["127.0.0.1:9191"]}]


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    said = command(Path("/usr/bin/prometheus"), tmp_path / "c.yml", tmp_path / "data", 9191)
    assert "--web.listen-address=127.0.0.1:9191" in said


def run(monkeypatch: pytest.MonkeyPatch, home: Path) -> str:
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["local"])
    with pytest.raises(SystemExit) as ended:
        local.main()
    return str(ended.value)


def test_without_a_stack_it_says_what_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "find", lambda name: Path("/bin/true"))
    said = run(monkeypatch, tmp_path)
    assert "does not run" in said
    assert "make local-up" in said


def test_without_prometheus_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None)
    assert "brew install prometheus" in run(monkeypatch, tmp_path)
