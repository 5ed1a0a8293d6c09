"""On which side of the split a document stands, from its path alone.

Training, tuning and evaluation all ask here, so nothing that was learned from is tested on. All cases of a
document stay together. The name counts, not the folder the path is told from: `text/0001-x.md` and
`/data/rfcs/text/0001-x.md` are one document. For names that say nothing (README.md) the folder's is added.
"""

import hashlib
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal

Split = Literal["train", "dev", "test"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
DEV_SHARE, TEST_SHARE = 0.1, 0.2
_NAMELESS = {"readme", "index", "rfc", "proposal", "design", "main"}


def split_of(document_path: str) -> Split:
    """train (70 %), dev (10 %) or test (20 %)."""
    position = int.from_bytes(hashlib.sha256(identity(document_path).encode()).digest()[:8]) / 2**64
    if position < TEST_SHARE:
        return "test"
    return "dev" if position < TEST_SHARE + DEV_SHARE else "train"


def identity(document_path: str) -> str:
    """The part of a path that names the document wherever its folder lies."""
    windows = "\\" in document_path
    path = PureWindowsPath(document_path) if windows else PurePosixPath(document_path)
    name = path.name.casefold()
    nameless = path.stem.casefold() in _NAMELESS
    return f"{path.parent.name.casefold()}/{name}" if nameless else name
