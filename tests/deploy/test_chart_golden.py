"""Two renders word for word, so that a review sees what a change of a template does.

Renew them after a look at the difference:

    RENEW_GOLDEN=1 .venv/bin/python -m pytest tests/deploy/test_chart_golden.py
"""

import os
from pathlib import Path

import pytest

from cluster.chart import manifest, render, values_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("environment", ["local", "production"])
def test_the_manifest_is_the_one_that_was_reviewed(environment: str) -> None:
    made = {path: text for path, text in render(values_of(environment)).items() if not _is_data(text)}
    # Blank lines of scripts are indented in a manifest, which editors and git dislike.
    lines = [line.rstrip() for line in manifest(made).splitlines()]
    file = GOLDEN / f"{environment}.yaml"
    if os.environ.get("RENEW_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    assert lines == file.read_text().splitlines()


def _is_data(text: str) -> bool:
    """Rules and dashboards have tests of their own; a copy of them here would only double every change."""
    return "kind: PrometheusRule" in text or "-dashboard-" in text
