"""Which rows each optimizer step sees and at which learning rate: pure functions of seed and position."""

import math
from collections.abc import Sequence

import numpy as np

from training.encoding import Encoded

POOL_STEPS = 8
"""Rows of similar length are gathered within pools of this many steps, so that order stays random."""


def epoch_steps(rows: Sequence[Encoded], rows_per_step: int, seed: int, epoch: int) -> list[list[Encoded]]:
    """The rows of every step of one epoch, in order. The same for the same arguments."""
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(rows))
    size = rows_per_step * POOL_STEPS
    steps: list[list[Encoded]] = []
    for first in range(0, len(order), size):
        pool = sorted((rows[int(i)] for i in order[first : first + size]), key=lambda r: (len(r.ids), r.row))
        steps += [pool[i : i + rows_per_step] for i in range(0, len(pool), rows_per_step)]
    return [steps[int(i)] for i in random.permutation(len(steps))]


def steps_in_epoch(rows: int, rows_per_step: int) -> int:
    whole, rest = divmod(rows, rows_per_step * POOL_STEPS)
    return whole * POOL_STEPS + math.ceil(rest / rows_per_step)


def learning_rate(step: int, steps: int, warmup_share: float, peak: float) -> float:
    """Of step 0 … steps − 1: linear warm-up, then half a cosine down to a tenth of the peak."""
    warmup = round(steps * warmup_share)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
