"""Two renders word for word, so that a review sees what a change of a template does.

Renew them after a look at the difference:

    RENEW_GOLDEN=1 .venv/bin/python -m pytest tests/deploy/test_chart_golden.py
"""

import os
import re
from pathlib import Path

import pytest

from cluster.chart import manifest, render, values_of

GOLDEN = Path(__file__).parent / "golden"
DATA = re.compile(r"^kind: PrometheusRule$|^  name: \S+-dashboard-", re.MULTILINE)


@pytest.mark.parametrize("environment", ["local", "production"])
def test_the_manifest_is_the_one_that_was_reviewed(environment: str) -> None:
    made = {path: _without_data(text) for path, text in render(values_of(environment)).items()}
    # Blank lines of scripts are indented in a manifest, which editors and git dislike.
    lines = [line.rstrip() for line in manifest(made).splitlines()]
    file = GOLDEN / f"{environment}.yaml"
    if os.environ.get("RENEW_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    assert lines == file.read_text().splitlines()


def _without_data(text: str) -> str:
    """Rules and dashboards have tests of their own; a copy of them here would only double every change."""
    return "\n---\n".join(part for part in text.split("\n---\n") if not DATA.search(part))
