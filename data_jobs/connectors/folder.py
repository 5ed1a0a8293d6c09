"""Documents in a folder: recursive, by patterns, never outside of it."""

import os
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from assistant.errors import InvalidInput
from data_jobs.config import FolderSource
from data_jobs.connectors.item import Item, Skipped, too_large
from data_jobs.processors.parsed import Unreadable

_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdx": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
}
_SKIPPED_FOLDERS = {"node_modules", "__pycache__"}


class FolderConnector:
    def __init__(self, source: FolderSource) -> None:
        self._root = source.path
        self._include = source.include
        self._exclude = source.exclude

    def items(self, max_bytes: int) -> Iterator[Item | Skipped]:
        if not self._root.is_dir():
            raise InvalidInput(
                f"The folder {self._root} does not exist.",
                hint="Fix `path` of this source; what was ingested from it stays.",
                field="path",
            )
        include = GitIgnoreSpec.from_lines(self._include)
        exclude = GitIgnoreSpec.from_lines(self._exclude)
        failed: list[Skipped] = []

        def unreadable(error: OSError) -> None:
            failed.append(
                Skipped(self._id(Path(error.filename)), f"The folder cannot be read: {error.strerror}.")
            )

        for folder, folders, files in os.walk(self._root, onerror=unreadable):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED_FOLDERS)
            for name in sorted(files):
                path = Path(folder, name)
                external_id = self._id(path)
                if include.match_file(external_id) and not exclude.match_file(external_id):
                    yield self._item(path, external_id, max_bytes)
        yield from failed

    def read(self, item: Item, max_bytes: int) -> bytes:
        try:
            with open(item.locator, "rb") as file:
                data = file.read(max_bytes + 1)
        except OSError as error:
            raise Unreadable(f"It cannot be read: {error.strerror}.") from None
        if len(data) > max_bytes:
            raise Unreadable(too_large(os.path.getsize(item.locator), max_bytes))
        return data

    def _item(self, path: Path, external_id: str, max_bytes: int) -> Item | Skipped:
        try:
            if path.is_symlink() and not path.resolve(strict=True).is_relative_to(self._root.resolve()):
                return Skipped(external_id, "It is a link to a file outside of the folder.")
            if not path.is_file():
                return Skipped(external_id, "It is not a regular file.")
            size = path.stat().st_size
        except OSError as error:
            return Skipped(external_id, f"It cannot be read: {error.strerror}.")
        if size > max_bytes:
            return Skipped(external_id, too_large(size, max_bytes))
        content_type = _TYPES.get(path.suffix.lower(), "text/plain")
        return Item(external_id, str(path), content_type, title=path.stem)

    def _id(self, path: Path) -> str:
        """The path below the folder. Bytes that are no UTF-8 are written as escapes, as Postgres needs it."""
        relative = path.relative_to(self._root).as_posix()
        return relative.encode("utf-8", "backslashreplace").decode("utf-8")
