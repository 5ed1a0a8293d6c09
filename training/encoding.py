"""Rows as token ids, and padded batches of them; only the assistant's turn carries labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assistant.errors import ConfigurationError, InvalidInput
from training.rows import Row, chat

IGNORED = -100
"""The label that torch's cross entropy skips."""
STRIDE = 64
"""Lengths are padded to a multiple of it. oneDNN compiles and keeps a kernel for each shape that it meets: rows of
their own lengths cost 200 MB more with every step, and a third of the time."""
MIN_ANSWER_TOKENS = 8
"""A row whose prompt leaves less room than this is not learned from."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` of prompt and answer; the answer begins at `start`. `row` is the row's number."""

    row: int
    ids: tuple[int, ...]
    start: int
    weight: float

    @property
    def answer_tokens(self) -> int:
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` (rows, length), padded on the right, which needs no mask: a causal model sees it after everything else.

    `keep` are the positions whose logits some row needs, `targets` (rows, len(keep)) the next token there
    or IGNORED: the head is not computed over prompts and padding.
    """

    rows: tuple[int, ...]
    ids: torch.Tensor
    keep: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    counts: torch.Tensor


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a transformers folder. ConfigurationError when it has no chat template."""
    from transformers import AutoTokenizer

    if not (base / "config.json").is_file():
        raise ConfigurationError(
            f"{base} holds no transformers model (config.json is missing).",
            hint="Convert the base first: `python -m cluster.weights --models-dir DIR --hf`.",
        )
    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    if not tokenizer.chat_template:
        raise ConfigurationError(
            f"The model in {base} has no chat template.", hint="Fine-tune an instruct model."
        )
    return tokenizer


def encode(tokenizer: Any, row: Row, number: int, max_tokens: int) -> Encoded | None:
    """None when the prompt leaves no room for an answer. A long answer is cut at `max_tokens`."""
    asked, said = _text(tokenizer, row, whole=False), _text(tokenizer, row, whole=True)
    if not said.startswith(asked):
        raise ConfigurationError(
            "The chat template writes the prompt differently once it is answered.",
            hint="Use a model whose template only appends.",
        )
    prompt, whole = _ids(tokenizer, asked), _ids(tokenizer, said)
    if whole[: len(prompt)] != prompt:
        # An answer that begins with a newline, say, would melt into the prompt's last token, which stands
        # before the first one is generated.
        whole = prompt + _ids(tokenizer, said[len(asked) :])
    end = len(whole)
    if tokenizer.eos_token_id in whole[len(prompt) :]:
        # What a template writes after the end of the turn is never generated.
        end = end - whole[::-1].index(tokenizer.eos_token_id)
    ids = tuple(whole[: min(end, max_tokens)])
    if len(ids) - len(prompt) < min(MIN_ANSWER_TOKENS, end - len(prompt)):
        return None
    return Encoded(number, ids, len(prompt), row.weight)


def encode_all(tokenizer: Any, rows: Sequence[Row], max_tokens: int, name: str) -> list[Encoded]:
    """Rows without weight or room for an answer are left out. InvalidInput when none is left."""
    found = [encode(tokenizer, row, number, max_tokens) for number, row in enumerate(rows)]
    usable = [e for e in found if e is not None and e.weight > 0]
    if not usable:
        raise InvalidInput(
            f"None of the {len(rows)} {name} rows can be learned from within {max_tokens} tokens.",
            hint="Add examples, or raise training.max_tokens.",
            field=name,
        )
    return usable


def micro_batches(rows: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Rows of similar length together, at most `budget` tokens with padding, at least one row each."""
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda r: (-len(r.ids), r.row)):
        if groups and (len(groups[-1]) + 1) * _rounded(len(groups[-1][0].ids)) <= budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def collate(rows: Sequence[Encoded], pad: int, device: torch.device) -> Batch:
    length = _rounded(max(len(r.ids) for r in rows))
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.long)
    for i, row in enumerate(rows):
        end = len(row.ids)
        ids[i, :end] = torch.tensor(row.ids)
        labels[i, row.start : end] = ids[i, row.start : end]
    following = labels[:, 1:]
    keep = _padded((following != IGNORED).any(dim=0).nonzero().squeeze(1), length - 1)
    return Batch(
        rows=tuple(r.row for r in rows),
        ids=ids.to(device),
        keep=keep.to(device),
        targets=following[:, keep].to(device),
        weights=torch.tensor([r.weight for r in rows], dtype=torch.float32, device=device),
        counts=torch.tensor([r.answer_tokens for r in rows], dtype=torch.float32, device=device),
    )


def _rounded(length: int) -> int:
    return -(-length // STRIDE) * STRIDE


def _padded(kept: torch.Tensor, of: int) -> torch.Tensor:
    """With as many other positions as make it a round number; nothing is learned there."""
    lacking = min(_rounded(len(kept)), of) - len(kept)
    others = torch.ones(of, dtype=torch.bool)
    others[kept] = False
    return torch.cat([kept, others.nonzero().squeeze(1)[-lacking:] if lacking else kept[:0]]).sort().values


def pad_id(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if found is None else found)


def _text(tokenizer: Any, row: Row, *, whole: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            chat(row.messages if whole else row.prompt), tokenize=False, add_generation_prompt=not whole
        )
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
