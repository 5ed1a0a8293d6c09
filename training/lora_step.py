"""LoRA fine-tuning as a plain PyTorch loop: no Ray, no files but checkpoints and the adapter.

One optimizer step is a fixed list of rows, chosen by seed and position alone. How many of them are computed
at once is a matter of memory and changes nothing but rounding: when memory runs out, the step is repeated
with half the tokens at a time.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from assistant.errors import ConfigurationError, InvalidInput
from assistant.settings import TrainingSettings
from training.checkpoint import Position, Snapshot, chance, put_chance, read_checkpoint, write_checkpoint
from training.encoding import Encoded, collate, encode_all, load_tokenizer, micro_batches, pad_id
from training.folders import whole_folder
from training.lora_model import (
    State,
    adapter_state,
    add_lora,
    answer_nll,
    choose_device,
    choose_dtype,
    evaluating,
    load_base,
    out_of_memory,
    put_adapter_state,
    write_adapter,
)
from training.rows import Row
from training.schedule import epoch_steps, learning_rate, steps_in_epoch
from training.world import Alone, World

T = TypeVar("T")
CPU_BATCH_TOKENS, BATCH_TOKENS = 512, 4096


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step did. Losses are nats per answer token; `tokens` and `seconds` are this step's.

    `validation_nll` is there when the step ended with a validation, `due` when a checkpoint should be kept.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    batches: int
    validation_nll: float | None = None
    due: bool = False


class LoraTrainer:
    """`setup`, `train` (an iterator of steps), `save`, `write_best`; `resume` goes on from a checkpoint."""

    def __init__(
        self,
        base: Path,
        base_name: str,
        train: Sequence[Row],
        validation: Sequence[Row],
        settings: TrainingSettings,
        world: World | None = None,
    ) -> None:
        if not train:
            raise InvalidInput("The training set is empty.", hint="Collect examples first.", field="train")
        if not validation:
            raise InvalidInput(
                "The validation set is empty, so nothing could tell when to stop.",
                hint="Add documents: rows are split by document.",
                field="validation",
            )
        self.settings = settings
        self.world = world or Alone()
        self.position = Position()
        self._base, self._base_name = base, base_name
        self._rows, self._held = train, validation
        self._best: State = {}

    def setup(self) -> None:
        """Load and encode everything. ConfigurationError and InvalidInput name what is wrong."""
        settings = self.settings
        torch.set_num_threads(settings.torch_threads)
        self.device = choose_device(settings.device)
        self.position.batch_tokens = settings.batch_tokens or (
            CPU_BATCH_TOKENS if self.device.type == "cpu" else BATCH_TOKENS
        )
        tokenizer = load_tokenizer(self._base)
        self._pad = pad_id(tokenizer)
        self.train_rows = encode_all(tokenizer, self._rows, settings.max_tokens, "training")
        self.validation_rows = encode_all(tokenizer, self._held, settings.max_tokens, "validation")
        base = load_base(self._base, self.device, choose_dtype(self.device, settings.precision))
        self.model: Any = add_lora(base, self._base_name, settings)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        # Each worker drops out other activations.
        torch.manual_seed(settings.seed + 1 + self.world.rank)
        self.epoch_steps = steps_in_epoch(len(self.train_rows), settings.rows_per_step)
        epochs = max(settings.epochs, math.ceil(settings.min_steps / self.epoch_steps))
        self.steps = self.epoch_steps * epochs
        self._validate_at = {
            math.ceil(self.epoch_steps * (i + 1) / settings.validations_per_epoch) + self.epoch_steps * epoch
            for i in range(settings.validations_per_epoch)
            for epoch in range(epochs)
        }

    @property
    def finished(self) -> bool:
        return self.position.stopped_early or self.position.step >= self.steps

    def resume(self, folder: Path) -> None:
        """Take up a checkpoint of the same data and settings, after `setup`."""
        found = read_checkpoint(folder)
        self.position, self._best = found.position, found.best
        put_adapter_state(self.model, found.adapter)
        self._optimizer.load_state_dict(found.optimizer)
        if self.world.size == 1:
            put_chance(found.chance)
        else:
            # A checkpoint holds one worker's generators: the others draw anew from the position.
            torch.manual_seed(hash((self.settings.seed, self.world.rank, self.position.step)) % 2**31)

    def train(self) -> Iterator[Step]:
        """Every step that is left. Raises ConfigurationError when the loss is no number any more or when
        not even one row fits into memory: nothing is written then."""
        if self.position.base_nll is None:
            self.position.base_nll = self.validate()
        while not self.finished:
            epoch, within = divmod(self.position.step, self.epoch_steps)
            plan = epoch_steps(self.train_rows, self.settings.rows_per_step, self.settings.seed, epoch)
            for rows in plan[within:]:
                yield self._advance(rows)
                if self.finished:
                    return

    def validate(self) -> float:
        """Mean negative log-likelihood per answer token over the validation rows, in nats."""
        mine = self.validation_rows[self.world.rank :: self.world.size]

        def score(groups: list[list[Encoded]]) -> torch.Tensor:
            sums = torch.zeros(2, dtype=torch.float64)
            for group in groups:
                batch = collate(group, self._pad, self.device)
                sums += torch.stack((answer_nll(self.model, batch).sum(), batch.counts.sum())).double().cpu()
            return sums

        with evaluating(self.model):
            sums, _ = self._within_memory(mine, score)
        total = self.world.sum(sums)
        return float(total[0] / total[1])

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.position, adapter_state(self.model), self._best, self._optimizer.state_dict(), chance()
        )

    def save(self, folder: Path) -> None:
        """A checkpoint to resume from. ConfigurationError naming the folder when the disk is full."""
        write_checkpoint(folder, self.snapshot())

    def write_best(self, folder: Path) -> None:
        """The adapter with the lowest validation loss, in PEFT's form. ConfigurationError as in `save`."""
        with whole_folder(folder) as made:
            write_adapter(self.model, self._best, made)

    def _advance(self, rows: list[Encoded]) -> Step:
        began = time.perf_counter()
        position, settings = self.position, self.settings
        rate = learning_rate(position.step, self.steps, settings.warmup_share, settings.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        loss, batches = self._gradient(rows)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ConfigurationError(
                f"Training diverged at step {position.step + 1}: the loss is {loss}, the gradient's norm {norm}.",
                hint=f"Lower training.learning_rate ({settings.learning_rate}) or look for broken rows.",
                step=position.step + 1,
            )
        self._optimizer.step()
        tokens = sum(len(r.ids) for r in rows)
        position.step += 1
        position.tokens += tokens
        seconds = time.perf_counter() - began
        nll = self._judge() if position.step in self._validate_at else None
        return Step(
            step=position.step,
            steps=self.steps,
            epoch=position.step / self.epoch_steps,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=tokens,
            seconds=seconds,
            batches=batches,
            validation_nll=nll,
            due=self.finished or position.step % settings.checkpoint_steps == 0,
        )

    def _gradient(self, rows: list[Encoded]) -> tuple[float, int]:
        """Fill the parameters' gradients with those of the whole step; (weighted loss, batches used)."""
        mine = rows[self.world.rank :: self.world.size]
        scale = sum(r.weight * r.answer_tokens for r in rows)

        def backward(groups: list[list[Encoded]]) -> float:
            self._optimizer.zero_grad(set_to_none=True)
            return sum(self._backward(group, scale) for group in groups)

        loss, batches = self._within_memory(mine, backward)
        if self.world.size == 1:
            return loss, batches
        return self._reduce(loss), batches

    def _within_memory(self, rows: list[Encoded], work: Callable[[list[list[Encoded]]], T]) -> tuple[T, int]:
        """What `work` gives for the rows in batches that fit into memory, and how many batches these were."""
        while True:
            groups = micro_batches(rows, self.position.batch_tokens)
            try:
                return work(groups), len(groups)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(groups, error)

    def _backward(self, group: list[Encoded], scale: float) -> float:
        batch = collate(group, self._pad, self.device)
        part = (answer_nll(self.model, batch) * batch.weights).sum() / scale
        part.backward()
        return float(part.detach())

    def _halve(self, groups: list[list[Encoded]], error: BaseException) -> None:
        if all(len(rows) == 1 for rows in groups):
            raise ConfigurationError(
                f"Not even one training row fits into memory on {self.device}: {str(error)[:200]}.",
                hint="Lower training.max_tokens or training.rank, or free memory.",
            ) from None
        self.position.batch_tokens = max(1, self.position.batch_tokens // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _reduce(self, loss: float) -> float:
        """Sum gradients and loss over the workers, in one message."""
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in self._parameters]
            + [torch.tensor([loss], device=self.device)]
        )
        self.world.sum(flat)
        at = 0
        for parameter in self._parameters:
            part = flat[at : at + parameter.numel()].view_as(parameter)
            parameter.grad = part.to(parameter.dtype).clone()
            at += parameter.numel()
        return float(flat[-1])

    def _judge(self) -> float:
        """Validate, keep the adapter when it is the best so far, and notice when it is time to stop."""
        nll, position = self.validate(), self.position
        if not math.isfinite(nll):
            raise ConfigurationError(
                f"Training diverged: the validation loss at step {position.step} is {nll}.",
                hint=f"Lower training.learning_rate ({self.settings.learning_rate}).",
            )
        if position.best_nll is None or nll < position.best_nll:
            position.best_nll, position.best_step, position.rounds_without_gain = nll, position.step, 0
            self._best = adapter_state(self.model)
        else:
            position.rounds_without_gain += 1
            position.stopped_early = position.rounds_without_gain >= self.settings.patience
        return nll
