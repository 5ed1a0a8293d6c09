"""promtool, where this machine has it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.monitoring import programs

Promtool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool with the given arguments; skips where there is none."""
    program = programs.find("promtool")
    if program is None:
        pytest.skip(f"promtool was not found. {programs.HINT}")

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(program), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )

    return run
