"""Speed and memory, measured: each module prints a table and writes JSON to `benchmarks/results/`."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save(name: str, result: Any) -> None:
    """Write what was measured to `results/<name>.json`; the folder is not in the repository."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
