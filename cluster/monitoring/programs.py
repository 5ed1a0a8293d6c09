"""Finds `prometheus` and `promtool`, or fetches them: `python -m cluster.monitoring.programs`.

First those on PATH (on a Mac: `brew install prometheus`), then Debian's package, downloaded and unpacked below
`.local`: nothing is installed and no service starts. The set-up calls this before anything else is there, so it
uses the standard library alone.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".local" / "programs" / "prometheus"
PACKAGE = "prometheus"
NAMES = ("prometheus", "promtool")
TIMEOUT_S = 300
HINT = "On Debian run `python -m cluster.monitoring.programs`; on a Mac `brew install prometheus`."


class NotAvailable(Exception):
    """The programs are not here and cannot be fetched; the message says why."""


def find(name: str, folder: Path = FOLDER) -> Path | None:
    """The program of this name, or None."""
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    unpacked = folder / "usr" / "bin" / name
    return unpacked if os.access(unpacked, os.X_OK) else None


def need(name: str) -> Path:
    """The program of this name. Raises NotAvailable with what to do."""
    found = find(name)
    if found is None:
        raise NotAvailable(f"{name} was not found. {HINT}")
    return found


def install(folder: Path = FOLDER) -> None:
    """Download and unpack Debian's package into `folder`. Raises NotAvailable."""
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise NotAvailable(f"{tool} is not on this machine. {HINT}")
    wanted = _checksum()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        # Root would hand the download to the user `_apt`, who may not write here.
        user = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
        _run(["apt-get", *user, "download", PACKAGE], work)
        packages = list(work.glob("*.deb"))
        if len(packages) != 1:
            raise NotAvailable(f"apt-get downloaded {len(packages)} packages instead of one.")
        found = hashlib.sha256(packages[0].read_bytes()).hexdigest()
        if found != wanted:
            raise NotAvailable(f"The package has the checksum {found}, the archive announces {wanted}.")
        _run(["dpkg", "-x", packages[0].name, "unpacked"], work)
        if missing := [n for n in NAMES if not (work / "unpacked" / "usr" / "bin" / n).is_file()]:
            raise NotAvailable(f"Debian's package lacks {', '.join(missing)}.")
        shutil.rmtree(folder, ignore_errors=True)
        (work / "unpacked").rename(folder)


def _checksum() -> str:
    """What the archive's signed index says of the package that `download` takes."""
    shown = _show()
    if not shown and os.geteuid() == 0:
        _run(["apt-get", "update"], ROOT)
        shown = _show()
    match = re.search(r"^SHA256: ([0-9a-f]{64})$", shown, re.MULTILINE)
    if match is None:
        raise NotAvailable(f"The package lists hold no {PACKAGE}: run `apt-get update` as root. {HINT}")
    return match.group(1)


def _show() -> str:
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", PACKAGE], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def _run(command: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"`{' '.join(command)}` took longer than {TIMEOUT_S} s.") from None
    if done.returncode != 0:
        raise NotAvailable(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")


def main() -> None:
    if all(find(name) for name in NAMES):
        return
    try:
        install()
    except NotAvailable as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
