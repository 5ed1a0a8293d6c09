"""What the supervisor keeps running: a file that `up` writes and the supervisor only reads.

Everything a start needs is in it (command, environment, probe, patience), so the supervisor stays
small and knows nothing of settings, Ray or databases. It holds secrets: mode 0600.
"""

import hashlib
import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from assistant.errors import ConfigurationError
from cluster.files import write_private

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a service whether it works. `target` is an URL, `host:port`, or `module:function`.

    A function is called with `arguments` and raises when the service does not work.
    """

    kind: Literal["http", "tcp", "call"]
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service. Without a `command` it is somebody else's: probed, never started or stopped.

    `env` is added to the supervisor's environment, less the names that begin with one of `env_drop`.
    `before`: `module:function` called with `before_arguments` ahead of every start; may raise.
    `marker`: a path in the command lines of its descendants, by which leftovers are found.
    `inputs`: a digest of files that it reads at start; when it changes, `up` restarts the service.
    """

    name: str
    command: tuple[str, ...]
    probe: Probe
    log: str = ""
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    env_drop: tuple[str, ...] = ()
    cwd: str = ""
    before: str = ""
    before_arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: str = ""
    after: tuple[str, ...] = ()
    start_patience_s: float = 60.0
    patience_s: float = 15.0
    stop_signal: int = int(signal.SIGTERM)
    stop_timeout_s: float = 10.0
    marker: str = ""
    nice: int = 0

    @property
    def external(self) -> bool:
        return not self.command

    @property
    def fingerprint(self) -> str:
        """Another value means: stop and start again."""
        what = [list(self.command), dict(self.env), list(self.env_drop), self.cwd, self.inputs]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Plan:
    """The services in their order of start; they stop in the reverse order. `env` is for their clients.

    Each `up` has its own `id`: with a new one the supervisor tries at once what it was about to try later.
    """

    services: tuple[ServiceSpec, ...]
    urls: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    id: str = ""

    def service(self, name: str) -> ServiceSpec:
        """Raises KeyError."""
        return {s.name: s for s in self.services}[name]

    def write(self, path: Path) -> None:
        write_private(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Raises FileNotFoundError, and ConfigurationError for a file that is no plan."""
        try:
            raw = json.loads(path.read_text())
            if raw["format"] != FORMAT:
                raise ValueError(f"format {raw['format']}, this version reads {FORMAT}")
            services = tuple(_spec(item) for item in raw["services"])
            return cls(services, raw["urls"], raw["env"], raw["version"], raw["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} cannot be used: {error}.", hint="Run `ai-assistant down`, then `ai-assistant up`."
            ) from None


def _spec(raw: dict[str, Any]) -> ServiceSpec:
    values = {**raw, "probe": Probe(**raw["probe"])}
    for name in ("command", "after", "env_drop"):
        values[name] = tuple(raw[name])
    return ServiceSpec(**values)
