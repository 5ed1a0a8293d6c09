"""Fine-tuning the tiny base: it learns, resumes exactly, and fails clearly."""

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import training.lora_step
from assistant.errors import ConfigurationError, InvalidInput
from tests.training.tiny import QUICK, losses, row, rows
from training.encoding import Batch
from training.lora_model import choose_device, choose_dtype
from training.lora_step import LoraTrainer, Step
from training.schedule import epoch_steps, learning_rate, steps_in_epoch
from training.scoring import nll

ODD = row("What?", "zzzz qqqq xxxx.")


def trainer(base: Path, **changes: Any) -> LoraTrainer:
    made = LoraTrainer(base, "tiny", rows(18), rows(5, 40), QUICK.model_copy(update=changes))
    made.setup()
    return made


def test_training_makes_every_held_out_answer_of_its_kind_likelier(tiny_base: Path, tmp_path: Path) -> None:
    run = trainer(tiny_base, epochs=6)
    steps = list(run.train())
    run.write_best(tmp_path / "adapter")
    held = rows(5, 40)
    figures: list[tuple[int, int]] = []
    before = nll(tiny_base, None, held, counted=lambda *some: figures.append(some))
    assert figures == sorted(set(figures)) and figures[-1] == (len(held), len(held))
    after = nll(tiny_base, tmp_path / "adapter", held)
    assert all(now < then - 0.1 for now, then in zip(after, before, strict=True))
    assert run.position.base_nll is not None
    assert run.position.best_nll is not None
    assert run.position.best_nll < run.position.base_nll
    assert steps[-1].step == steps[-1].steps == run.steps == len(steps)


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tiny_base: Path, tmp_path: Path) -> None:
    whole = trainer(tiny_base, dropout=0.2)
    expected = list(whole.train())
    whole.write_best(tmp_path / "whole")
    first = trainer(tiny_base, dropout=0.2)
    stream = first.train()
    done = [next(stream) for _ in range(3)]
    first.save(tmp_path / "checkpoint")
    second = trainer(tiny_base, dropout=0.2)
    second.resume(tmp_path / "checkpoint")
    rest = list(second.train())
    second.write_best(tmp_path / "resumed")
    assert losses(done + rest) == losses(expected)
    assert [s.validation_nll for s in done + rest] == [s.validation_nll for s in expected]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_a_finished_run_resumed_only_writes_its_adapter(tiny_base: Path, tmp_path: Path) -> None:
    run = trainer(tiny_base, epochs=1)
    list(run.train())
    run.save(tmp_path / "checkpoint")
    again = trainer(tiny_base, epochs=1)
    again.resume(tmp_path / "checkpoint")
    assert again.finished
    assert list(again.train()) == []
    again.write_best(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_less_memory_at_a_time_changes_nothing_but_rounding(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = list(trainer(tiny_base, dropout=0.0).train())
    real = training.lora_step.answer_nll

    def scarce(model: Any, batch: Batch) -> torch.Tensor:
        if batch.ids.shape[0] > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return real(model, batch)

    monkeypatch.setattr(training.lora_step, "answer_nll", scarce)
    run = trainer(tiny_base, dropout=0.0)
    tight = list(run.train())
    assert run.position.batch_tokens < QUICK.batch_tokens
    assert max(s.batches for s in tight) > max(s.batches for s in calm)
    torch.testing.assert_close(losses(tight), losses(calm), rtol=1e-4, atol=1e-4)


def test_no_memory_for_one_row_is_a_clear_error(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(model: Any, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    run = trainer(tiny_base)
    run.position.base_nll = 1.0
    monkeypatch.setattr(training.lora_step, "answer_nll", none)
    with pytest.raises(ConfigurationError, match="Not even one training row"):
        list(run.train())


def test_an_error_that_is_not_about_memory_is_not_swallowed(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, batch: Batch) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    run = trainer(tiny_base)
    run.position.base_nll = 1.0
    monkeypatch.setattr(training.lora_step, "answer_nll", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(run.train())


def test_a_loss_that_is_no_number_ends_the_run_with_its_step(tiny_base: Path) -> None:
    run = trainer(tiny_base, learning_rate=1e30, clip_norm=1e30, warmup_share=0.0)
    with pytest.raises(ConfigurationError, match=r"diverged.*Lower training\.learning_rate"):
        list(run.train())


def test_training_stops_when_validation_gets_no_better(tiny_base: Path) -> None:
    settings = QUICK.model_copy(update={"epochs": 30, "patience": 2, "learning_rate": 0.05})
    run = LoraTrainer(tiny_base, "tiny", rows(12), [ODD], settings)
    run.setup()
    steps = list(run.train())
    assert run.position.stopped_early
    assert len(steps) < run.steps
    assert run.position.best_step < run.position.step
    seen = [s.validation_nll for s in steps if s.validation_nll is not None]
    assert run.position.best_nll == min(seen)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_named_and_the_last_checkpoint_stays(
    tiny_base: Path, tmp_path: Path
) -> None:
    run = trainer(tiny_base)
    stream = run.train()
    next(stream)
    target = tmp_path / "checkpoint"
    run.save(target)
    before = {p.name: p.read_bytes() for p in target.iterdir()}
    next(stream)
    with (
        files_no_larger_than(4096),
        pytest.raises(ConfigurationError, match=f"{target} could not be written"),
    ):
        run.save(target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_is_named(tiny_base: Path, tmp_path: Path) -> None:
    run = trainer(tiny_base)
    run.save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match=r"checkpoint cannot be read"):
        run.resume(tmp_path / "checkpoint")


def test_an_adapter_for_another_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    from tests.training.tiny import make_base

    other = make_base(tmp_path / "other", layers=3)
    run = LoraTrainer(other, "other", rows(4), rows(2, 9), QUICK.model_copy(update={"epochs": 1}))
    run.setup()
    list(run.train())
    run.write_best(tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match="does not fit this base"):
        nll(tiny_base, tmp_path / "adapter", rows(1))


@pytest.mark.parametrize(("train", "held", "name"), [(0, 2, "training"), (2, 0, "validation")])
def test_an_empty_or_one_sided_set_is_refused(tiny_base: Path, train: int, held: int, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"The {name} set is empty"):
        LoraTrainer(tiny_base, "tiny", rows(train), rows(held), QUICK)


def test_the_quality_of_a_row_scales_its_gradient(tiny_base: Path) -> None:
    def adapter(weight: float) -> list[Step]:
        train = [row("a?", "one."), row("b?", "two two.", weight=weight)]
        run = LoraTrainer(tiny_base, "tiny", train, rows(1), QUICK.model_copy(update={"epochs": 1}))
        run.setup()
        return list(run.train())

    assert losses(adapter(1.0)) != losses(adapter(0.1))


def test_every_epoch_sees_every_row_once_in_another_order(tiny_base: Path) -> None:
    run = trainer(tiny_base)
    epochs = [epoch_steps(run.train_rows, 4, 0, e) for e in range(2)]
    for steps in epochs:
        assert sorted(r.row for s in steps for r in s) == list(range(18))
        assert len(steps) == steps_in_epoch(18, 4)
    assert epochs[0] != epochs[1]
    assert epochs[0] == epoch_steps(run.train_rows, 4, 0, 0)


@pytest.mark.parametrize("count", [1, 3, 31, 32, 33, 100])
def test_steps_are_counted_as_they_are_made(tiny_base: Path, count: int) -> None:
    encoded = trainer(tiny_base).train_rows[:1] * count
    assert len(epoch_steps(encoded, 4, 0, 0)) == steps_in_epoch(count, 4)


def test_few_rows_are_seen_in_more_epochs(tiny_base: Path) -> None:
    few = trainer(tiny_base, min_steps=20)
    assert few.steps == few.epoch_steps * math.ceil(20 / few.epoch_steps) >= 20 > few.epoch_steps * 2
    assert trainer(tiny_base, min_steps=3).steps == few.epoch_steps * 2


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(s, 100, 0.1, 1.0) for s in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11


@pytest.mark.parametrize(("amx", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bf16_is_taken_where_a_cpu_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, wanted: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    cpu = torch.device("cpu")
    assert choose_dtype(cpu) == wanted
    assert (choose_dtype(cpu, "fp32"), choose_dtype(cpu, "bf16")) == (torch.float32, torch.bfloat16)


def test_in_bf16_the_adapter_stays_fp32_and_learns_nearly_the_same(tiny_base: Path, tmp_path: Path) -> None:
    best = {}
    for precision in ("fp32", "bf16"):
        run = trainer(tiny_base, precision=precision)
        list(run.train())
        run.write_best(tmp_path / precision)
        best[precision] = run.position.best_nll
        trained = [p for p in run.model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
    assert best["bf16"] == pytest.approx(best["fp32"], rel=0.02)
    held = rows(5, 40)
    exact = nll(tiny_base, tmp_path / "bf16", held, precision="fp32")
    assert nll(tiny_base, tmp_path / "bf16", held, precision="bf16") == pytest.approx(exact, rel=0.02)


def test_a_device_that_is_absent_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match=r"training\.device is cuda"):
            choose_device("cuda")
