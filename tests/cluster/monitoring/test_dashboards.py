"""The check of dashboards against a Prometheus tells dead panels from living ones."""

from collections.abc import Callable

import httpx
import pytest

from cluster.monitoring import dashboards, names
from cluster.monitoring.dashboards import Expression, look


def prometheus(answer: Callable[[str], list[dict[str, object]]], present: set[str]) -> httpx.Client:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/values"):
            return httpx.Response(200, json={"data": sorted(present)})
        return httpx.Response(200, json={"data": {"result": answer(request.url.params["query"])}})

    return httpx.Client(base_url="http://prometheus", transport=httpx.MockTransport(handle))


def one(value: str) -> list[dict[str, object]]:
    return [{"metric": {}, "value": [0, value]}]


def test_variables_stand_for_everything() -> None:
    text = 'sum(rate(x{route=~"$route",m=~"${model:regex}"}[$__rate_interval]))'
    assert Expression("", text).plain == 'sum(rate(x{route=~".*",m=~".*"}[5m]))'


def test_a_panel_with_series_is_alive_and_says_what_is_not_there_yet() -> None:
    everything = names.own() | names.seen()
    with prometheus(lambda query: one("0"), everything - {"ray_ai_assistant_cost_usd_total"}) as client:
        found = list(look(client))
    assert all(panel.series == 1 for panel in found)
    assert {m for panel in found for m in panel.missing} == {"ray_ai_assistant_cost_usd_total"}


def test_no_series_and_no_number_are_dead() -> None:
    with prometheus(lambda query: one("NaN") if "rate" in query else [], set()) as client:
        assert {panel.series for panel in look(client)} == {0}


def test_dead_panels_end_with_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    panels = [dashboards.Panel("a.json: One", 2, ()), dashboards.Panel("a.json: Two", 0, ("ray_tasks",))]
    monkeypatch.setattr(dashboards, "look", lambda client: iter(panels))
    monkeypatch.setattr("sys.argv", ["dashboards", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit, match="1 panels are dead"):
        dashboards.main()
    assert capsys.readouterr().out.splitlines() == [
        "alive     2  a.json: One",
        "DEAD      0  a.json: Two  no series yet: ray_tasks",
    ]


def test_a_prometheus_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dashboards", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit, match=r"http://127\.0\.0\.1:1 cannot be asked"):
        dashboards.main()
