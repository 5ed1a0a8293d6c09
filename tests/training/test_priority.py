"""The priority falls once, and never rises; in a process of its own, as ours could not be raised again."""

import os
import subprocess
import sys
from pathlib import Path

LOWER = "from training.priority import yield_to_serving; yield_to_serving(); yield_to_serving()"


def niceness_after(code: str, repo_root: Path) -> int:
    show = f"{code}; import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    command = [sys.executable, "-c", show]
    return int(subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True).stdout)


def test_learning_yields_to_serving(repo_root: Path) -> None:
    assert niceness_after(LOWER, repo_root) == max(10, os.getpriority(os.PRIO_PROCESS, 0))


def test_a_lower_priority_is_kept(repo_root: Path) -> None:
    assert niceness_after(f"import os; os.setpriority(os.PRIO_PROCESS, 0, 15); {LOWER}", repo_root) == 15
