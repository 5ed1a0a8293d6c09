"""What the Ray node says of itself, for `up`, `status` and `ingest`: one small file it alone writes."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.files import write_private
from cluster.processes import Identity, identify, is_alive


@dataclass(slots=True)
class RayReport:
    """`stage` in words; `failure` once it has given up, in one sentence. `address` is what drivers join.

    `final`: the configuration is wrong, so another try would fail the same way.
    """

    process: Identity | None = None
    stage: str = ""
    address: str = ""
    dashboard: str = ""
    session: str = ""
    failure: str = ""
    final: bool = False

    @classmethod
    def begin(cls) -> "RayReport":
        return cls(process=identify(os.getpid()))

    def write(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "RayReport | None":
        try:
            raw = json.loads(path.read_text())
            process = Identity(**raw["process"]) if raw["process"] else None
            return cls(**{**raw, "process": process})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def is_alive(self) -> bool:
        return is_alive(self.process)
