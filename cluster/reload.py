"""Redeploy the application when its code changes: `python -m cluster.reload --dashboard URL --config FILE FOLDER…`.

For development under compose, beside the Ray node. Serve replaces an application's replicas when the application's
runtime environment changes, so the digest of the code goes in there: new processes import the new code while the
old ones still answer.
"""

import argparse
import copy
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from assistant.errors import AssistantError
from cluster.ray_node import last_line, serve_config

VARIABLE = "CODE_DIGEST"
SUFFIXES = frozenset({".py", ".md", ".yaml", ".html", ".css", ".js", ".sql", ".j2"})
RETRY_S = 2.0
TRIES = 150

Deploy = Callable[[dict[str, Any]], None]


def digest(folders: Sequence[Path]) -> str:
    """Of the names and contents of all source files below `folders`."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
            found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def stamped(config: dict[str, Any], code: str) -> dict[str, Any]:
    """`config` with the digest in the environment of every application; the rest as it was."""
    made = copy.deepcopy(config)
    for application in made["applications"]:
        application.setdefault("runtime_env", {}).setdefault("env_vars", {})[VARIABLE] = code
    return made


class Reloader:
    """Deploys once for every state of the code. `say` is told what happens."""

    def __init__(
        self, config: dict[str, Any], folders: Sequence[Path], deploy: Deploy, say: Callable[[str], None]
    ) -> None:
        self._config = config
        self._folders = folders
        self._deploy = deploy
        self._say = say
        self._deployed = digest(folders)

    def changed(self) -> bool:
        """Deploy if the code differs from what was deployed last; whether it did."""
        code = digest(self._folders)
        if code == self._deployed:
            return False
        try:
            self._deploy(stamped(self._config, code))
        except (RuntimeError, OSError) as error:
            # The next change may mend it, and what runs goes on.
            self._say(f"not deployed: {last_line(str(error))}")
            return False
        self._deployed = code
        self._say(f"deployed {code}")
        return True


def deployer(dashboard: str, sleep: Callable[[float], None] = time.sleep) -> Deploy:
    """Through Ray's dashboard, once it answers. Raises ConnectionError after some minutes without it."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    for attempt in range(TRIES):
        try:
            client = ServeSubmissionClient(dashboard)
        except ConnectionError:
            if attempt + 1 == TRIES:
                raise
            sleep(RETRY_S)
        else:
            break

    def deploy(config: dict[str, Any]) -> None:
        client.deploy_applications(config)

    return deploy


def main() -> None:
    from watchfiles import watch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dashboard", default="http://127.0.0.1:8265")
    parser.add_argument("--config", type=Path, required=True, help="the Serve config file that runs")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    try:
        config = serve_config(given.config, given.host, given.port)
        reloader = Reloader(config, given.folders, deployer(given.dashboard), _say)
    except (AssistantError, ConnectionError) as error:
        sys.exit(f"reload: {error}")
    _say(f"watching {', '.join(map(str, given.folders))}")
    for _ in watch(*given.folders):
        reloader.changed()


def _say(text: str) -> None:
    sys.stdout.write(f"reload: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
