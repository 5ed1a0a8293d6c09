"""What of the state folder cannot be made again: adapters, learning runs, trained embedders, MLflow's files.

Weights are left out, `ai-assistant up` fetches them; so are logs, ports, and the data of the servers, which are
asked themselves.
"""

import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from assistant.errors import InvalidInput

ALWAYS = ("adapters", "learning", "evals/runs", "mlflow/artifacts")
"""Folders of the state folder, as far as they exist."""
LEFT_OUT = frozenset({"cache"})
TRAINING_CARD = "training.json"
"""In the folder of an embedder that was trained here."""
DATABASES = ("mlflow/mlflow.db",)


def wanted(home: Path) -> list[str]:
    """The folders to keep, relative to the state folder."""
    trained = [path.parent for path in sorted(home.glob(f"models/*/{TRAINING_CARD}"))]
    names = [*ALWAYS, *(str(path.relative_to(home)) for path in trained)]
    return [name for name in names if (home / name).is_dir()]


def databases(home: Path) -> list[str]:
    return [name for name in DATABASES if (home / name).is_file()]


def pack(folder: Path, target: Path) -> int:
    """Into a tar file; how many files. What vanishes meanwhile is left out, as its owner has replaced it."""
    count = 0
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in _files(folder):
            try:
                archive.add(path, str(path.relative_to(folder)), recursive=False)
            except FileNotFoundError:
                continue
            count += 1
    return count


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and not path.is_symlink() and not LEFT_OUT & set(inside[:-1]):
            yield path


def unpack(source: Path, target: Path, scratch: Path) -> None:
    """Replace the folder by a tar file's content. A kill leaves the old folder, the new one, or none, and a
    repetition mends that. Raises InvalidInput for a file that is no tar or reaches out of the folder."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    try:
        with tarfile.open(source) as archive:
            archive.extractall(scratch, filter="data")
    except tarfile.TarError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise InvalidInput(f"{source.name} cannot be unpacked: {error}.", field="PATH") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file as of one moment, into a new file or over one in use: readers see the old or the new."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target, timeout=60)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise InvalidInput(f"{source.name} cannot be copied to {target}: {error}.") from None
