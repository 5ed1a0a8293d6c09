"""How likely a model finds given answers: the mean negative log-likelihood per token of each row."""

from collections.abc import Sequence
from pathlib import Path

import torch

from assistant.errors import InvalidInput
from training.count import Count, uncounted
from training.encoding import collate, encode, load_tokenizer, micro_batches, pad_id
from training.lora_model import (
    Precision,
    answer_nll,
    choose_device,
    choose_dtype,
    evaluating,
    load_base,
    read_adapter,
)
from training.rows import Row


def fitting(base: Path, rows: Sequence[Row], max_tokens: int) -> list[Row]:
    """The rows whose prompt leaves room for an answer within `max_tokens`, in their order."""
    tokenizer = load_tokenizer(base)
    return [row for number, row in enumerate(rows) if encode(tokenizer, row, number, max_tokens) is not None]


def nll(
    base: Path,
    adapter: Path | None,
    rows: Sequence[Row],
    *,
    max_tokens: int = 512,
    batch_tokens: int = 1024,
    threads: int = 1,
    device: str = "auto",
    precision: Precision = "auto",
    counted: Count = uncounted,
) -> list[float]:
    """Nats per token of the assistant's turn, one figure per row and in their order.

    `base` is a transformers folder, `adapter` a PEFT folder or None for the base alone. InvalidInput names
    a row whose prompt leaves no room within `max_tokens`.
    """
    torch.set_num_threads(threads)
    tokenizer, where = load_tokenizer(base), choose_device(device)
    encoded = [encode(tokenizer, row, number, max_tokens) for number, row in enumerate(rows)]
    if None in encoded:
        number = encoded.index(None)
        raise InvalidInput(
            f"Row {number} ({rows[number].source}) has a prompt of {max_tokens} tokens or more.",
            hint="Raise training.max_tokens or leave the row out.",
        )
    model = load_base(base, where, choose_dtype(where, precision))
    if adapter is not None:
        model = read_adapter(model, adapter)
    scores, done = [0.0] * len(rows), 0
    with evaluating(model):
        for group in micro_batches([e for e in encoded if e is not None], batch_tokens):
            batch = collate(group, pad_id(tokenizer), where)
            means = (answer_nll(model, batch) / batch.counts).tolist()
            for row, mean in zip(batch.rows, means, strict=True):
                scores[row] = mean
            done += len(batch.rows)
            counted(done, len(rows))
    return scores
