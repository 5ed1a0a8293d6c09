"""What a training run needs to go on exactly where it was: adapter, optimizer, chance and position."""

import io
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from assistant.errors import ConfigurationError
from training.folders import whole_folder, write_bytes
from training.lora_model import State

ADAPTER = "adapter.safetensors"
BEST = "best.safetensors"
REST = "state.pt"
WRONG = (KeyError, TypeError, ValueError)


@dataclass
class Position:
    """`step` optimizer steps are done. `batch_tokens` is what fitted into memory so far."""

    step: int = 0
    tokens: int = 0
    batch_tokens: int = 0
    best_nll: float | None = None
    best_step: int = 0
    rounds_without_gain: int = 0
    base_nll: float | None = None
    stopped_early: bool = False


@dataclass
class Snapshot:
    position: Position
    adapter: State
    best: State
    optimizer: dict[str, Any]
    chance: dict[str, torch.Tensor]


def chance() -> dict[str, torch.Tensor]:
    """The state of the generators that dropout draws from."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def put_chance(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def write_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Whole or not at all. ConfigurationError naming `folder` when the disk is full."""
    rest = io.BytesIO()
    torch.save(
        {
            "position": asdict(snapshot.position),
            "optimizer": snapshot.optimizer,
            "chance": snapshot.chance,
        },
        rest,
    )
    with whole_folder(folder) as made:
        write_bytes(made / ADAPTER, save(snapshot.adapter))
        if snapshot.best:
            write_bytes(made / BEST, save(snapshot.best))
        write_bytes(made / REST, rest.getvalue())


def read_checkpoint(folder: Path) -> Snapshot:
    """ConfigurationError naming the folder when a file is missing or damaged."""
    try:
        adapter = load((folder / ADAPTER).read_bytes())
        best = load((folder / BEST).read_bytes()) if (folder / BEST).is_file() else {}
        rest = torch.load(io.BytesIO((folder / REST).read_bytes()), weights_only=True, map_location="cpu")
        return Snapshot(Position(**rest["position"]), adapter, best, rest["optimizer"], rest["chance"])
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, *WRONG) as error:
        raise ConfigurationError(
            f"The checkpoint {folder} cannot be read: {str(error)[:200]}.",
            hint="Delete the folder of this training run and start it again.",
        ) from None
