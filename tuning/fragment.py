"""The winning setting as a piece of `config.yaml`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from assistant.settings import load_settings
from training.folders import writing


def write_fragment(path: Path, sections: Mapping[str, Mapping[str, Any]], notes: Sequence[str]) -> None:
    """Write the sections below a comment per note, and check that they are settings.

    ConfigurationError when the disk refuses or a value is not allowed.
    """
    text = "".join(f"# {note}\n" for note in notes) + yaml.safe_dump(
        {name: dict(values) for name, values in sections.items()}, sort_keys=True
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    load_settings(environ={}, config_file=path)
