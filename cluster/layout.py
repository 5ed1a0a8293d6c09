"""Where things lie in the state folder (`AI_ASSISTANT_HOME`)."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: models.yaml, dataset_config.yml and serve_app/config.yaml lie here."""


@dataclass(frozen=True)
class Layout:
    home: Path

    @property
    def state(self) -> Path:
        return self.home / "state.json"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def plan(self) -> Path:
        return self.run / "plan.json"

    @property
    def ports(self) -> Path:
        return self.run / "ports.json"

    @property
    def launch_lock(self) -> Path:
        """Held by `up` and `down`: one at a time."""
        return self.run / "launch.lock"

    @property
    def owner_lock(self) -> Path:
        """Whoever holds it owns the services: the leading supervisor, or `down`."""
        return self.run / "owner.lock"

    @property
    def stop_request(self) -> Path:
        """While it exists, no supervisor works."""
        return self.run / "stop"

    @property
    def ray_token(self) -> Path:
        return self.run / "ray-token"

    @property
    def ray_report(self) -> Path:
        """Written by the Ray node: address, stage, and why it failed."""
        return self.run / "ray.json"

    @property
    def starter_done(self) -> Path:
        return self.run / "starter.json"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    @property
    def owner(self) -> str:
        """A short name of this state folder, the same in every process."""
        return hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:10]

    @property
    def ray_shelter(self) -> Path:
        """Holds Ray's folder, which Ray itself opens to everybody; this one stays ours alone.

        Unix socket paths end near 100 characters, so it cannot lie in a deep home.
        """
        base = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())  # noqa: S108
        return base / f"aia-{self.owner}"

    @property
    def ray_temp(self) -> Path:
        return self.ray_shelter / "r"

    def make_ray_temp(self) -> Path:
        """The folder above. Raises ConfigurationError when somebody else made its shelter."""
        shelter = self.ray_shelter
        try:
            shelter.mkdir(mode=0o700)
        except FileExistsError:
            info = shelter.lstat()
            if shelter.is_symlink() or info.st_uid != os.getuid() or info.st_mode & 0o077:
                raise ConfigurationError(
                    f"{shelter} belongs to somebody else or is open to others.",
                    hint="Remove it and try again.",
                ) from None
        self.ray_temp.mkdir(exist_ok=True)
        return self.ray_temp
