"""Wait until the application could start here: `python -m cluster.ready`, before Ray in a pod of Kubernetes.

The operator hands the application to Serve once, right after Ray is up; an application that found no database
then would stay failed. So Ray waits: for Postgres with every migration, for Qdrant, and for the weights.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from assistant.errors import AssistantError, Unavailable
from assistant.llm.catalog import Catalog, load_catalog
from assistant.settings import Settings, load_settings
from cluster.ray_node import wait_for_stores
from cluster.services import models_file

WEIGHTS_WAIT_S = 1800.0
LOOK_S = 2.0


def needed_weights(settings: Settings, catalog: Catalog) -> list[Path]:
    """The files and folders that replicas will load."""
    return [settings.embedder_path, *(spec.path for spec in catalog.local() if spec.path is not None)]


def wait_for_weights(
    paths: Sequence[Path],
    say: Callable[[str], None],
    limit_s: float = WEIGHTS_WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Until all `paths` exist. Raises Unavailable naming the first that does not."""
    deadline = time.monotonic() + limit_s
    while missing := [path for path in paths if not path.exists()]:
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"{missing[0]} is not there after {limit_s:.0f} s.",
                hint="Run the weights job (`weights.fetch`), or copy the models to that folder.",
            )
        say(f"waiting for {missing[0]}")
        sleep(LOOK_S)


class Said:
    """Tells each thing once, however often it is still so."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        self._last = text


def main() -> None:
    settings = load_settings()
    say = Said()
    wait_for_weights(needed_weights(settings, load_catalog(models_file(settings), settings.home)), say)
    wait_for_stores(os.environ, say)
    say("ready")


if __name__ == "__main__":
    try:
        main()
    except AssistantError as error:
        sys.exit(str(error))
