"""Names of metrics: those of the contract as a scrape shows them, and those that were seen."""

from pathlib import Path

import httpx
import pytest

from cluster.monitoring import names
from cluster.monitoring.names import main, own, scraped, seen

SCRAPE = """# HELP ray_ai_assistant_requests_total HTTP requests
# TYPE ray_ai_assistant_requests_total counter
ray_ai_assistant_requests_total{route="/x"} 3.0
# TYPE ray_ai_assistant_request_seconds histogram
ray_ai_assistant_request_seconds_bucket{le="0.5"} 1.0
# TYPE ray_tasks gauge
ray_tasks 1.0
"""


def test_the_contract_as_it_is_scraped() -> None:
    assert {"ray_ai_assistant_requests_total", "ray_ai_assistant_request_seconds_bucket"} <= own()
    assert "ray_ai_assistant_request_seconds" not in own()
    assert all(name.startswith(names.OWN) for name in own())


def test_the_list_is_sorted_and_holds_none_of_ours() -> None:
    listed = [line for line in names.SEEN.read_text().splitlines() if not line.startswith("#")]
    assert listed == sorted(set(listed))
    assert not any(name.startswith(names.OWN) for name in listed)
    assert {"up", "ray_serve_deployment_status", "ray_node_mem_used"} <= seen()


def test_a_scrape_is_read() -> None:
    assert scraped(SCRAPE) == {
        "ray_ai_assistant_requests_total",
        "ray_ai_assistant_request_seconds_bucket",
        "ray_ai_assistant_request_seconds_count",
        "ray_ai_assistant_request_seconds_sum",
        "ray_tasks",
    }


def test_renewing_keeps_what_was_seen_and_names_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seen.txt"
    path.write_text("# old\nup\n")
    monkeypatch.setattr(names, "SEEN", path)
    text = SCRAPE + "# TYPE ray_ai_assistant_strange gauge\n"

    def get(url: str, timeout: float) -> httpx.Response:
        return httpx.Response(200, text=text, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    with pytest.raises(SystemExit, match=r"Not in METRICS.*ray_ai_assistant_strange"):
        main(["http://x/metrics"])
    assert seen() == {"ray_tasks", "up"}
