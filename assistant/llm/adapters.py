"""A LoRA adapter on disk: what it was made for, and whether it is whole.

A folder holds PEFT's `adapter_config.json` and `adapter_model.safetensors`, `lora.gguf` for llama.cpp, and
`card.json`. The card is written last and atomically and lists every other file with its SHA-256: a folder
without a card was never finished, and one whose files differ from the card is never loaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.clock import now
from assistant.errors import ConfigurationError

CARD = "card.json"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
GGUF = "lora.gguf"

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
"""Adapter names become folder names, so nothing that leads elsewhere is one."""

ARCHITECTURE = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings"),
)
"""Fields of config.json that an adapter depends on; versions of transformers write the others differently."""
NEEDED = ("adapter", "base_model", "base_fingerprint", "rank", "alpha", "files")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A verified adapter. `base_model` is the catalogue name of the model that it belongs to."""

    name: str
    folder: Path
    base_model: str
    rank: int
    card: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """A file of the adapter that the card vouches for. ConfigurationError when there is none."""
        if name not in self.card["files"]:
            raise ConfigurationError(
                f"The adapter {self.name} has no {name}, which this engine needs.",
                hint=f"Make it and write {CARD} again, or serve the adapter with the other engine.",
            )
        return self.folder / name


def find_adapter(adapters_dir: Path, name: str, base_model: str, fingerprint: str | None = None) -> Adapter:
    """The adapter called `name`. Raises ConfigurationError as `read_adapter` does."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no adapter name.", hint="Use letters, digits, dots, underscores and hyphens."
        )
    return read_adapter(adapters_dir / name, base_model, fingerprint)


def read_adapter(folder: Path, base_model: str, fingerprint: str | None = None) -> Adapter:
    """The adapter in `folder`, its files compared with the card.

    `fingerprint` is that of the base at hand (`base_fingerprint`); None skips that check, for a base of which
    only a GGUF is there. Raises ConfigurationError naming the file and the cause: missing, damaged, made for
    another base.
    """
    card = _card(folder)
    if card["adapter"] != folder.name:
        raise ConfigurationError(
            f"{folder / CARD} is the card of {card['adapter']!r}, not of {folder.name!r}.",
            hint="Give the folder the name in its card.",
        )
    if card["base_model"] != base_model:
        raise ConfigurationError(
            f"The adapter {folder.name} was made for the model {card['base_model']!r}, not for {base_model!r}.",
            hint="Deploy it for the model that it was trained on.",
        )
    adapter = Adapter(folder.name, folder, base_model, card["rank"], card)
    check_base(adapter, fingerprint)
    for name, digest in card["files"].items():
        _check_file(folder / name, digest)
    return adapter


def check_base(adapter: Adapter, fingerprint: str | None) -> None:
    """Raises ConfigurationError when the adapter was made for a base with another fingerprint."""
    if fingerprint is not None and adapter.card["base_fingerprint"] != fingerprint:
        raise ConfigurationError(
            f"The adapter {adapter.name} was made for other weights than {adapter.base_model!r} has now: the "
            f"base_fingerprint in {adapter.folder / CARD} differs.",
            hint="Train it again on these weights, or put the old ones back.",
        )


def write_card(folder: Path, **fields: Any) -> Path:
    """Finish an adapter: hash the files in `folder` and write its card, which makes it count.

    `fields` are the card's: base_model, base_fingerprint, rank and alpha must be there; `adapter` is the
    folder's name unless given. Raises ConfigurationError when one is missing or the folder holds no weights.
    """
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != CARD}
    card = {"adapter": folder.name, "created_at": now().isoformat(), **fields, "files": files}
    _check_card(folder, card)
    path = folder / CARD
    partial = folder.parent / f".{folder.name}.{CARD}.{os.getpid()}"
    with partial.open("w", encoding="utf-8") as out:
        json.dump(card, out, ensure_ascii=False, indent=2, default=str)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)
    return path


def base_fingerprint(hf_dir: Path) -> str:
    """SHA-256 of what an adapter must fit: the shapes in `config.json` and the tokenizer.

    Cheap on purpose (no weights are read). Raises ConfigurationError when a file is missing or no JSON.
    """
    try:
        config = json.loads((hf_dir / "config.json").read_text(encoding="utf-8"))
        shapes = json.dumps({name: config.get(name) for name in ARCHITECTURE}, sort_keys=True)
        tokenizer = file_sha256(hf_dir / "tokenizer.json")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{hf_dir} is no transformers model: {error}.",
            hint="For the built-in model run `python -m cluster.weights --hf`.",
        ) from None
    return hashlib.sha256(f"{shapes}\n{tokenizer}".encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(folder: Path) -> Mapping[str, Any]:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = f"{CARD} is missing, so it was never finished" if folder.is_dir() else "it is not there"
        raise ConfigurationError(
            f"The adapter {folder} cannot be used: {what}.",
            hint="Train it again, or copy the whole folder from where it is.",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", hint="Restore the adapter.") from None
    _check_card(folder, card)
    checked: Mapping[str, Any] = card
    return checked


def _check_card(folder: Path, card: Any) -> None:
    path = folder / CARD
    missing = [name for name in NEEDED if not isinstance(card, dict) or card.get(name) in (None, "")]
    if missing:
        raise ConfigurationError(f"{path} lacks {', '.join(missing)}.", hint="Restore the adapter.")
    files = card["files"]
    if not isinstance(files, dict) or not {PEFT_WEIGHTS, GGUF} & files.keys():
        raise ConfigurationError(
            f"{path} lists no weights.", hint=f"An adapter has {PEFT_WEIGHTS} or {GGUF}, or both."
        )
    if any(Path(name).name != name for name in files):
        raise ConfigurationError(f"{path} lists files outside its folder.", hint="Restore the adapter.")
    if not isinstance(card["rank"], int) or card["rank"] < 1:
        raise ConfigurationError(f"{path}: rank is {card['rank']!r}, not a positive number.")


def _check_file(path: Path, digest: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ConfigurationError(
            f"The adapter file {path} cannot be read: {error.strerror}.", hint="Restore the adapter."
        ) from None
    if found != digest:
        raise ConfigurationError(
            f"The adapter file {path} is damaged: its SHA-256 is not the one in {CARD}.",
            hint="Copy it again, or train the adapter again.",
        )
