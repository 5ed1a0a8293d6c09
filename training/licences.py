"""The licence of a folder of documents, as far as a file near it tells."""

from pathlib import Path

NAMES = ("license", "licence", "copying")
LEVELS = 3
"""A licence is looked for in the folder and so many folders above it."""

MARKS = (
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL", ("gnu lesser general public license",)),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("BSD", ("redistribution and use in source and binary forms",)),
    ("MIT", ("permission is hereby granted, free of charge",)),
)
UNKNOWN = "unknown"


def licence_of(folder: Path) -> str:
    """SPDX-like names joined by `, `; `unknown` when no licence file is near or none is recognised."""
    here = folder.absolute()
    for place in (here, *here.parents[:LEVELS]):
        files = sorted(p for p in place.iterdir() if p.is_file() and p.name.lower().startswith(NAMES))
        if files:
            return ", ".join(dict.fromkeys(_recognise(file) for file in files))
    return UNKNOWN


def _recognise(file: Path) -> str:
    text = " ".join(file.read_text(encoding="utf-8", errors="replace")[:5000].lower().split())
    return next((name for name, marks in MARKS if all(mark in text for mark in marks)), f"see {file.name}")
