"""What a backup holds, with sizes and checksums: the last file written, so its presence means whole."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from assistant.errors import InvalidInput

FILE = "manifest.json"
FORMAT: Final = 1
PREFIX = "ai-assistant-"
"""What folders of backups are called: this and the time in UTC, so that names sort by age."""
HINT = "`ai-assistant backup` makes one; unfinished ones begin with a dot and can be removed."


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(Part):
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PostgresPart(Part):
    """`rows` per table, as they stand in the dump."""

    file: str
    server: str
    migrations: tuple[str, ...]
    rows: dict[str, int]


class CollectionPart(Part):
    """`points` is counted in the snapshot itself; None where only a Qdrant server can read it."""

    file: str
    points: int | None


class QdrantPart(Part):
    kind: Literal["qdrant", "qdrant-edge"]
    version: str
    collections: dict[str, CollectionPart]
    aliases: dict[str, str]


class FolderPart(Part):
    """A folder of the state folder, in a tar file; `files` of them."""

    file: str
    files: int


class Manifest(Part):
    product: Literal["ai-assistant"] = "ai-assistant"
    format: Literal[1] = FORMAT
    id: str
    created_at: str
    seconds: float
    versions: dict[str, str]
    postgres: PostgresPart
    qdrant: QdrantPart
    folders: dict[str, FolderPart]
    databases: dict[str, str]
    """SQLite files of the state folder, and the file that holds each."""
    files: dict[str, StoredFile]

    @model_validator(mode="after")
    def _stay_inside(self) -> Self:
        """A manifest names files of the backup and folders of the state folder, and nothing beyond them."""
        for name in [
            *self.files,
            self.postgres.file,
            *(part.file for part in self.qdrant.collections.values()),
            *(part.file for part in self.folders.values()),
            *self.folders,
            *self.databases,
            *self.databases.values(),
        ]:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
                raise ValueError(f"{name!r} is no path inside")
        return self

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def write(self, folder: Path) -> None:
        path = folder / FILE
        with path.open("w", encoding="utf-8") as sink:
            json.dump(self.model_dump(mode="json"), sink, indent=1)
            sink.flush()
            os.fsync(sink.fileno())


def find(path: Path) -> Path:
    """The backup at `path`, or the newest below it. Raises InvalidInput when there is none."""
    if (path / FILE).is_file():
        return path
    found = sorted(p.parent for p in path.glob(f"{PREFIX}*/{FILE}"))
    if not found:
        raise InvalidInput(f"{path} holds no finished backup: there is no {FILE}.", hint=HINT, field="PATH")
    return found[-1]


def read(folder: Path) -> Manifest:
    """Raises InvalidInput for what is no backup of ours, or one of a format that this version does not read."""
    path = folder / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = raw.get("product") == "ai-assistant"
        if known and raw.get("format") != FORMAT:
            raise InvalidInput(
                f"{path} has format {raw.get('format')}, this version reads {FORMAT}.",
                hint="Restore with the version that made it.",
                field="PATH",
            )
        return Manifest.model_validate(raw)
    except FileNotFoundError:
        raise InvalidInput(f"{folder} holds no {FILE}.", hint=HINT, field="PATH") from None
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InvalidInput(
            f"{path} is no manifest of an AI Assistant backup: {what}.", hint=HINT, field="PATH"
        ) from None


def describe(folder: Path) -> dict[str, StoredFile]:
    """Every file below `folder`, the manifest apart."""
    return {
        str(path.relative_to(folder)): StoredFile(bytes=path.stat().st_size, sha256=sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / FILE
    }


def problems(folder: Path, manifest: Manifest, say: Callable[[str], None]) -> list[str]:
    """What differs from the manifest, each line naming its file."""
    found = []
    for name, wanted in manifest.files.items():
        say(name)
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != wanted.bytes:
            found.append(f"{name} has {path.stat().st_size} bytes, not {wanted.bytes}")
        elif sha256(path) != wanted.sha256:
            found.append(f"{name} is damaged: its sha256 differs")
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    found += [
        f"{name} does not belong to the backup" for name in sorted(present - {FILE} - set(manifest.files))
    ]
    named = [
        manifest.postgres.file,
        *(part.file for part in manifest.qdrant.collections.values()),
        *(part.file for part in manifest.folders.values()),
        *manifest.databases.values(),
    ]
    return found + [f"{name} has no checksum in {FILE}" for name in named if name not in manifest.files]


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
