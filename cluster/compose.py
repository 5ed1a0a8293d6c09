"""The containers of cluster/compose.yaml: `python3 -m cluster.compose up|down`, behind `make compose-up|compose-down`.

Needs Docker with its compose plugin and nothing else: the standard library alone, as the machine may have no
environment of ours. `up` writes cluster/compose.env with random secrets when it is absent, mode 0600.
"""

import argparse
import re
import secrets
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cluster.files import write_private

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "cluster"
ENV = FOLDER / "compose.env"
EXAMPLE = FOLDER / "compose.env.example"
PROFILES = ("monitoring", "ollama", "redis")
SECRET = re.compile(r"_(PASSWORD|TOKEN)$|^QDRANT_API_KEY$")
VERSION = "AI_ASSISTANT_VERSION"
PROGRAM_LIMIT_S = 60
ASK_S = 2.0


class ComposeError(SystemExit):
    """Ends the program with one sentence that says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(f"compose: {message}")


def up(profiles: Sequence[str], dev: bool, timeout_s: float) -> None:
    """Start everything and wait until the page answers."""
    docker = find_docker()
    values = ensure_env(ENV, EXAMPLE, version())
    command = base_command(docker, profiles, dev)
    if subprocess.run([*command, "up", "--detach"], cwd=ROOT, check=False).returncode:
        raise ComposeError("the containers do not start: the lines above say why.")
    url = f"http://127.0.0.1:{values.get('APP_PORT') or '8000'}"
    if not wait_for(f"{url}/health/live", timeout_s):
        subprocess.run([*command, "ps", "--all"], cwd=ROOT, check=False)
        raise ComposeError(
            f"{url} does not answer after {timeout_s:.0f} s. Look into `{' '.join(command[1:])} logs app`."
        )
    say(f"Ready: {url}. Secrets are in {ENV.relative_to(ROOT)}. The first key:")
    say(f"  docker compose --env-file {ENV.relative_to(ROOT)} -f cluster/compose.yaml exec app \\")
    say('    ai-assistant keys create "me" --for me')


def down() -> None:
    """Stop and remove the containers of every profile; volumes stay."""
    command = base_command(find_docker(), ["*"], dev=True)
    if not ENV.is_file():
        raise ComposeError(f"{ENV.relative_to(ROOT)} is absent, so nothing was started from this checkout.")
    sys.exit(subprocess.run([*command, "down", "--remove-orphans"], cwd=ROOT, check=False).returncode)


def base_command(docker: str, profiles: Sequence[str], dev: bool) -> list[str]:
    files = ["compose.yaml", *(["compose.dev.yaml"] if dev else [])]
    return [
        *(docker, "compose", "--env-file", str(ENV)),
        *(part for name in files for part in ("-f", str(FOLDER / name))),
        *(part for profile in profiles for part in ("--profile", profile)),
    ]


def find_docker() -> str:
    """The docker program, with a compose plugin and an engine that runs."""
    docker = shutil.which("docker")
    if docker is None:
        raise ComposeError(
            "docker is not on PATH. Install Docker Desktop, colima or Docker Engine; "
            "`make local-up` needs none of them."
        )
    for arguments, problem in (
        (["compose", "version"], "it has no compose plugin: install docker-compose-plugin"),
        (["info", "--format", "{{.ServerVersion}}"], "its engine does not answer: start it"),
    ):
        try:
            done = subprocess.run(
                [docker, *arguments], capture_output=True, text=True, timeout=PROGRAM_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ComposeError(f"{docker} does not work: {error}.") from None
        if done.returncode:
            raise ComposeError(f"docker is here, but {problem}.")
    return docker


def ensure_env(path: Path, example: Path, tag: str) -> dict[str, str]:
    """The values of the environment file, made or completed from the example; what stands there stays.

    Empty secrets get random values, and the image's tag follows the checkout.
    """
    known = read_env(path) if path.is_file() else {}
    lines, values = [], {}
    for line in example.read_text(encoding="utf-8").splitlines():
        name, separator, default = line.partition("=")
        if line.startswith("#") or not separator:
            lines.append(line)
            continue
        value = known.pop(name, "") or default
        if SECRET.search(name) and not value:
            value = secrets.token_hex(24)
        values[name] = tag if name == VERSION else value
        lines.append(f"{name}={values[name]}")
    if known:
        lines += ["", "# Yours.", *(f"{name}={value}" for name, value in known.items())]
    text = "\n".join(lines) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text or path.stat().st_mode & 0o077:
        write_private(path, text)
    return values | known


def read_env(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name.strip(): value for name, separator, value in pairs if separator and not name.startswith("#")}


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def wait_for(url: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(min(ASK_S, max(0.0, deadline - time.monotonic())))
    return False


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python3 -m cluster.compose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start everything and wait until the page answers")
    starting.add_argument("--profile", action="append", choices=PROFILES, default=[], help="repeatable")
    starting.add_argument(
        "--dev", action="store_true", help="the checkout's code, redeployed when it changes"
    )
    starting.add_argument("--timeout", type=float, default=1200.0, help="seconds to wait for the page")
    commands.add_parser("down", help="stop and remove the containers; data stay")
    given = parser.parse_args()
    if given.command == "up":
        up(given.profile, given.dev, given.timeout)
    else:
        down()


if __name__ == "__main__":
    main()
