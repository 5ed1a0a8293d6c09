"""Fine-tuning speed: `python -m benchmarks.training [--steps 10] [--rounds 2] [--workers 1] [--base FOLDER]`.

Tokens per second of three loops over the same rows, one after the other in processes of their own, one torch
thread each: a plain PEFT loop as in PEFT's documentation, ours without Ray, and ours under Ray Train with its
checkpoints and reports. Steady state: the first steps are not counted. Tokens are those of the rows, padding
left out. CPU seconds are of the training process, and for Ray of all its processes.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.settings import TrainingSettings
from assistant.types import Message
from benchmarks import save
from training import journal
from training.encoding import encode_all, load_tokenizer, pad_id
from training.llm_lora import LoraJob, train_lora
from training.lora_step import LoraTrainer
from training.progress import TrainProgress
from training.rows import Row, read_rows, write_rows
from training.schedule import epoch_steps

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / ".local" / "models" / "smollm2-135m-instruct" / "hf"
WARM_UP = 2
PIECE_CHARS = 800
Loop = Callable[[Path, Path, TrainingSettings], dict[str, float]]


def rows_of_docs(count: int) -> list[Row]:
    """This repository's documentation in pieces, each to be continued from its first line."""
    text = "\n\n".join(
        p.read_text(encoding="utf-8") for p in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    )
    pieces = [text[i : i + PIECE_CHARS] for i in range(0, len(text) - PIECE_CHARS, PIECE_CHARS)]
    return [
        Row(
            (
                Message("user", f"Continue this document:\n{piece[:120]}"),
                Message("assistant", piece[120 : 120 + 300 + 97 * (i % 5)]),
            ),
            "docs",
        )
        for i, piece in enumerate((pieces * (1 + count // len(pieces)))[:count])
    ]


def plain(base: Path, dataset: Path, settings: TrainingSettings) -> dict[str, float]:
    """The loop that anybody would write with transformers and PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(settings.torch_threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(base)
    encoded = encode_all(tokenizer, read_rows(dataset / "train.jsonl"), settings.max_tokens, "training")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32), config)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate
    )
    pad = pad_id(tokenizer)
    model.train()
    clock = _Clock()
    for rows in epoch_steps(encoded, settings.rows_per_step, settings.seed, 0):
        length = max(len(r.ids) for r in rows)
        ids = torch.tensor([list(r.ids) + [pad] * (length - len(r.ids)) for r in rows])
        mask = torch.tensor([[1] * len(r.ids) + [0] * (length - len(r.ids)) for r in rows])
        labels = ids.masked_fill(mask == 0, -100)
        for i, row in enumerate(rows):
            labels[i, : row.start] = -100
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step(sum(len(r.ids) for r in rows))
    return clock.result()


def ours(base: Path, dataset: Path, settings: TrainingSettings) -> dict[str, float]:
    """`training.lora_step` in this process."""
    trainer = LoraTrainer(
        base, "base", read_rows(dataset / "train.jsonl"), read_rows(dataset / "validation.jsonl"), settings
    )
    trainer.setup()
    stream = trainer.train()
    clock = _Clock()
    for step in stream:
        clock.step(step.tokens)
    return clock.result()


def on_ray(base: Path, dataset: Path, settings: TrainingSettings, name: str) -> dict[str, float]:
    """`training.llm_lora`, from the end of the warm-up to the last step but one: the last one also validates."""
    found: dict[str, float] = {}

    def watch(progress: TrainProgress) -> None:
        if progress.step >= WARM_UP and "cpu" not in found:
            found["cpu"] = _cpu_of_all()
            found["from"] = progress.step
        found["end"] = _cpu_of_all()
        found["rss"] = max(found.get("rss", 0.0), _rss_of_all())

    folder = dataset / name
    train_lora(LoraJob(name, base, "base", dataset, folder, settings), watch)
    points = journal.read(folder)
    counted = points[WARM_UP:-1]
    seconds = points[-2].at_s - points[WARM_UP - 1].at_s
    tokens_seen = sum(p.tokens for p in points if p.step > found["from"])
    return {
        "tokens": float(sum(p.tokens for p in counted)),
        "seconds": seconds,
        "tokens_per_s": sum(p.tokens for p in counted) / seconds,
        "tokens_per_cpu_s": tokens_seen / max(found["end"] - found["cpu"], 1e-9),
        "peak_rss_gb": found["rss"] / 1e9,
    }


class _Clock:
    """Counts what comes after the warm-up."""

    def __init__(self) -> None:
        self._steps = 0
        self._tokens = 0
        self._began = self._cpu = 0.0

    def step(self, tokens: int) -> None:
        self._steps += 1
        if self._steps > WARM_UP:
            self._tokens += tokens
        elif self._steps == WARM_UP:
            self._began, self._cpu = time.perf_counter(), time.process_time()

    def result(self) -> dict[str, float]:
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        scale = 1 if sys.platform == "darwin" else 1024
        return {
            "tokens": float(self._tokens),
            "seconds": seconds,
            "tokens_per_s": self._tokens / seconds,
            "tokens_per_cpu_s": self._tokens / cpu,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9,
        }


def _cpu_of_all() -> float:
    return sum(sum(p.cpu_times()[:2]) for p in _processes())


def _rss_of_all() -> float:
    return float(sum(p.memory_info().rss for p in _processes()))


def _processes() -> list[psutil.Process]:
    own = psutil.Process()
    return [p for p in [own, *own.children(recursive=True)] if p.is_running() and p.status() != "zombie"]


def _together(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Rounds alternate, because the speed of a shared machine drifts; their tokens and times add up."""
    tokens = sum(r["tokens"] for r in rounds)
    return {
        "tokens": tokens,
        "seconds": sum(r["seconds"] for r in rounds),
        "tokens_per_s": tokens / sum(r["seconds"] for r in rounds),
        "tokens_per_cpu_s": tokens / sum(r["tokens"] / r["tokens_per_cpu_s"] for r in rounds),
        "peak_rss_gb": max(r["peak_rss_gb"] for r in rounds),
    }


def _apart(loop: Loop, base: Path, dataset: Path, settings: TrainingSettings) -> dict[str, float]:
    """In a process of its own, so that no loop inherits another's memory or threads."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(loop, (base, dataset, settings))


def measure(base: Path, steps: int, workers: int, rounds: int) -> dict[str, Any]:
    settings = TrainingSettings(
        max_tokens=256,
        epochs=1,
        min_steps=0,
        rows_per_step=4,
        batch_tokens=1024,
        validations_per_epoch=1,
        device="cpu",
        threads=1,
        precision="fp32",
    )
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch)
        rows = rows_of_docs(settings.rows_per_step * (steps + WARM_UP + 1) + 1)
        write_rows(dataset / "train.jsonl", rows[:-1])
        write_rows(dataset / "validation.jsonl", rows[-1:])
        # Ray's processes must be this one's children to be counted.
        shared = settings.model_copy(update={"workers": workers})
        for number in range(rounds):
            taken["plain PEFT loop"].append(_apart(plain, base, dataset, settings))
            taken["ours, in process"].append(_apart(ours, base, dataset, settings))
            taken["ours, Ray Train"].append(on_ray(base, dataset, shared, f"run-{number}"))
    results = {name: _together(each) for name, each in taken.items()}
    return {
        "at": now().isoformat(),
        "base": base.parent.name,
        "steps": steps,
        "rounds": rounds,
        "precision": settings.precision,
        "workers": workers,
        "loops": results,
        "ratio": {
            name: results["ours, Ray Train"][name] / results["plain PEFT loop"][name]
            for name in ("tokens_per_s", "tokens_per_cpu_s")
        },
    }


def table(result: dict[str, Any]) -> Table:
    shown = Table(title=f"LoRA on {result['base']}, {result['steps']} steps, {result['workers']} worker(s)")
    for name in ("loop", "tokens/s", "tokens/CPU-s", "peak RSS GB"):
        shown.add_column(name, justify="left" if name == "loop" else "right")
    for name, loop in result["loops"].items():
        shown.add_row(
            name,
            *(f"{loop[k]:.1f}" for k in ("tokens_per_s", "tokens_per_cpu_s")),
            f"{loop['peak_rss_gb']:.2f}",
        )
    ratio = result["ratio"]
    shown.add_row("Ray Train ÷ plain", f"{ratio['tokens_per_s']:.2f}", f"{ratio['tokens_per_cpu_s']:.2f}", "")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=BASE, help="transformers folder")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of four rows")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="each loop runs so often, in turns")
    given = parser.parse_args()
    result = measure(given.base.absolute(), given.steps, given.workers, given.rounds)
    save("training", result)
    Console().print(table(result))


if __name__ == "__main__":
    main()
