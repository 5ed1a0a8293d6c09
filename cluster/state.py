"""What runs now: `state.json` in the state folder, written by the lock's holder alone, read by everybody."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from assistant.errors import ConfigurationError
from cluster.files import write_private
from cluster.processes import Identity

FORMAT = 1

Phase = Literal["waiting", "starting", "ready", "unresponsive", "restarting", "stopped"]


@dataclass(slots=True)
class ServiceRecord:
    """One service now. Times are seconds since 1970; `failure` is the last one, in one sentence."""

    name: str
    phase: Phase = "waiting"
    external: bool = False
    process: Identity | None = None
    url: str = ""
    log: str = ""
    fingerprint: str = ""
    started_at: float | None = None
    ready_at: float | None = None
    restarts: int = 0
    failures: int = 0
    failure: str = ""
    detail: str = ""


@dataclass(slots=True)
class State:
    """`plan` is the id of the plan that the leader works on."""

    home: str
    version: str = ""
    plan: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)
    leader: Identity | None = None
    standby: Identity | None = None
    services: dict[str, ServiceRecord] = field(default_factory=dict)
    updated_at: float = 0.0

    def write(self, path: Path) -> None:
        self.updated_at = time.time()
        write_private(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """None when there is none. Raises ConfigurationError for a file that is no state."""
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise _unusable(path, error) from None
        try:
            services = {name: _record(item) for name, item in raw["services"].items()}
            return cls(
                home=raw["home"],
                version=raw["version"],
                plan=raw["plan"],
                urls=raw["urls"],
                leader=_identity(raw["leader"]),
                standby=_identity(raw["standby"]),
                services=services,
                updated_at=raw["updated_at"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _unusable(path, error) from None


def _record(raw: dict[str, Any]) -> ServiceRecord:
    return ServiceRecord(**{**raw, "process": _identity(raw["process"])})


def _identity(raw: dict[str, Any] | None) -> Identity | None:
    return None if raw is None else Identity(**raw)


def _unusable(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be read: {error!r}.",
        hint="Remove that file; `ai-assistant up` finds running services without it.",
    )
