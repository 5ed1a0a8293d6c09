"""The prompts of answers: files beside this one, each with a hash that goes with every result."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    text: str
    hash: str

    def fill(self, **values: str) -> str:
        """The text with `{{name}}` replaced. Values are not searched again, so they may hold braces."""
        parts = self.text.split("{{")
        filled = [parts[0]]
        for part in parts[1:]:
            name, _, rest = part.partition("}}")
            filled.append(values[name.strip()] + rest)
        return "".join(filled)


@cache
def load_prompt(name: str) -> Prompt:
    text = files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return Prompt(name, text, hashlib.sha256(text.encode()).hexdigest()[:16])
