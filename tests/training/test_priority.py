"""The priority falls once, and never rises; in a process of its own, as ours could not be raised again."""

import subprocess
import sys
from pathlib import Path

SHOW = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"


def test_learning_yields_to_serving(repo_root: Path) -> None:
    code = f"from training.priority import yield_to_serving\nyield_to_serving()\nyield_to_serving()\n{SHOW}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 10


def test_a_lower_priority_is_kept(repo_root: Path) -> None:
    code = (
        f"import os\nos.nice(15)\nfrom training.priority import yield_to_serving\nyield_to_serving()\n{SHOW}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 15
