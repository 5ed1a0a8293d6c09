"""Which Qdrant the local stack runs, and how: a `qdrant` binary on PATH, else Qdrant Edge behind our server.

Nothing is started here. The launcher starts `command()` with `environment()` added, waits for `ready()`, and
exports `url` and `api_key`.
"""

import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import httpx
from pydantic import SecretStr

from assistant.errors import ConfigurationError

Kind = Literal["qdrant", "qdrant-edge"]

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the ports that systems lend to outgoing connections, so that a restarted server gets its own back."""
STATE_FILE = "qdrant.json"


class LocalQdrant:
    """One Qdrant over `folder`. The kind is chosen once: the two keep their data in different formats."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state_file = folder / STATE_FILE
        self._binary = shutil.which("qdrant")
        folder.mkdir(parents=True, exist_ok=True)
        self._state = self._load()

    @property
    def kind(self) -> Kind:
        return "qdrant" if self._state["kind"] == "qdrant" else "qdrant-edge"

    @property
    def version(self) -> str:
        """The engine's version."""
        if self.kind == "qdrant-edge":
            return version("qdrant-edge-py")
        printed = subprocess.run(
            [self._server(), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
        return printed.stdout.strip().removeprefix("qdrant ") or "unknown"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._state['port']}"

    @property
    def api_key(self) -> SecretStr:
        return SecretStr(self._state["api_key"])

    def command(self) -> list[str]:
        """What to start. Takes another port when the former one is in use, so read `url` afterwards."""
        if not _free(self._state["port"]):
            self._state["port"] = _free_port()
            self._save()
        if self.kind == "qdrant":
            return [self._server()]
        data, port = str(self._folder / "edge"), str(self._state["port"])
        return [sys.executable, "-m", "cluster.qdrant_edge", "--folder", data, "--port", port]

    def environment(self) -> dict[str, str]:
        """Variables the child needs on top of the launcher's."""
        key: str = self._state["api_key"]
        if self.kind == "qdrant-edge":
            return {"QDRANT_API_KEY": key}
        return {
            "QDRANT__SERVICE__HOST": HOST,
            "QDRANT__SERVICE__HTTP_PORT": str(self._state["port"]),
            "QDRANT__SERVICE__GRPC_PORT": str(_free_port()),
            "QDRANT__SERVICE__API_KEY": key,
            "QDRANT__STORAGE__STORAGE_PATH": str(self._folder / "server" / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self._folder / "server" / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }

    def ready(self, timeout_s: float = 2.0) -> bool:
        """Whether it serves requests with our key: somebody else's server on this port does not count."""
        try:
            answer = httpx.get(
                f"{self.url}/collections",
                headers={"api-key": self._state["api_key"]},
                timeout=timeout_s,
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    def _server(self) -> str:
        if self._binary is None:
            raise ConfigurationError(
                f"The data in {self._folder} belong to a qdrant binary, which is no longer on PATH.",
                hint=f"Install it again, or remove {self._folder} and ingest again with Qdrant Edge.",
            )
        return self._binary

    def _load(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            if isinstance(state["port"], int) and isinstance(state["api_key"], str) and state["kind"]:
                return dict(state)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            # Only port and key are lost, and both are ours to choose; the data tell the kind.
            self._state_file.unlink()
        self._state = {"kind": self._choose(), "port": _free_port(), "api_key": secrets.token_urlsafe(32)}
        self._save()
        return self._state

    def _choose(self) -> Kind:
        if (self._folder / "edge").exists():
            return "qdrant-edge"
        if (self._folder / "server").exists() or self._binary:
            return "qdrant"
        return "qdrant-edge"

    def _save(self) -> None:
        temporary = self._state_file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._state, file)
        temporary.replace(self._state_file)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for port in random.sample(PORTS, 100):
        if _free(port):
            return port
    raise ConfigurationError(
        f"No free port for Qdrant between {PORTS.start} and {PORTS.stop} on {HOST}.",
        hint="Stop programs that listen there.",
    )
