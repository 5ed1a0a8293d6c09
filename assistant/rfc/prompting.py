"""Prompts are files; the hash of the file is stored with whatever was made with it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    text: str
    hash: str

    def fill(self, **values: object) -> str:
        """The prompt with its `$fields` replaced. KeyError for a field without a value."""
        return Template(self.text).substitute({k: str(v) for k, v in values.items()})


@cache
def prompt(name: str) -> Prompt:
    """The prompt in `prompts/<name>.md`."""
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return Prompt(name, text, hashlib.sha256(text.encode()).hexdigest()[:16])
