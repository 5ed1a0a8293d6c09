"""Which metric names a scrape can hold: the product's own, and those that others were seen to export.

`seen.txt` lists the second kind. To renew it from a running stack: `python -m cluster.monitoring.names URL ...`
with the addresses of its endpoints.
"""

import re
import sys
from pathlib import Path

import httpx

from assistant.telemetry import METRICS

PREFIX = "ray_"
"""Ray puts it before the names of all metrics that go through it."""
SEEN = Path(__file__).with_name("seen.txt")
HEADER = "# Metric names of Ray, Serve and Prometheus, as a scrape of a Serve application shows them. See names.py.\n"
OWN = f"{PREFIX}ai_assistant_"
TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
SERIES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("", "_count", "_sum")}


def own() -> set[str]:
    """The series names of the contract, as a scrape shows them."""
    return {
        f"{PREFIX}{name}{suffix}" for name, spec in METRICS.items() for suffix in SERIES.get(spec.kind, ("",))
    }


def seen() -> set[str]:
    return {line for line in SEEN.read_text().splitlines() if line and not line.startswith("#")}


def scraped(text: str) -> set[str]:
    """The series names in the answer of an endpoint."""
    return {f"{name}{suffix}" for name, kind in TYPE.findall(text) for suffix in SERIES.get(kind, ("",))}


def main(urls: list[str]) -> None:
    found = {name for url in urls for name in scraped(httpx.get(url, timeout=30).raise_for_status().text)}
    others = sorted(name for name in found | seen() if not name.startswith(OWN))
    SEEN.write_text(HEADER + "\n".join(others) + "\n")
    sys.stdout.write(f"{len(others)} names in {SEEN.name}\n")
    strange = {name for name in found if name.startswith(OWN)} - own()
    if strange:
        raise SystemExit(f"Not in METRICS of assistant/telemetry.py: {', '.join(sorted(strange))}")


if __name__ == "__main__":
    main(sys.argv[1:])
