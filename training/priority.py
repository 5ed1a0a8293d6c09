"""Learning takes what serving leaves: its processes run at a low priority."""

import os

NICENESS = 10


def yield_to_serving() -> None:
    """Lower the priority of this process and of what it starts. It cannot be raised again."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
