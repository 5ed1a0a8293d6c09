"""Fine-tune an embedder on pairs that belong together, and measure what it gained.

    python -m training.embedder --base FOLDER --name NAME --models DIR (--documents FOLDER … | --pairs FILE)

The result is a folder `DIR/NAME` that `ai-assistant` finds by its name; building a collection with it and
moving the alias there is another step. Recall on held-out documents is measured before and after.
"""

import argparse
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assistant.errors import AssistantError, ConfigurationError, InvalidInput
from assistant.loading import LOADING
from evals.statistics import paired
from training.folders import whole_folder, write_json
from training.pairs import Pair, pairs_from_documents, parted, read_pairs

CARD = "training.json"
RANKS = 10


@dataclass(frozen=True)
class EmbedderJob:
    """`base` is a sentence-transformers folder; `models_dir / name` is made."""

    base: Path
    name: str
    models_dir: Path
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 2e-5
    warmup_share: float = 0.1
    max_tokens: int = 256
    seed: int = 0
    threads: int = 1
    bar: bool = False
    """Show a progress bar on stderr."""


@dataclass(frozen=True)
class EmbedderResult:
    """Recall@10 and MRR@10 of held-out questions among all held-out passages, before and after.

    `verdict` is that of the paired test on the reciprocal ranks: better, worse or cannot tell.
    """

    folder: Path
    pairs: int
    held_out: int
    recall_before: float
    recall_after: float
    mrr_before: float
    mrr_after: float
    verdict: str


def train_embedder(job: EmbedderJob, pairs: Sequence[Pair]) -> EmbedderResult:
    """Fine-tune with in-batch negatives (MultipleNegativesRankingLoss) and write the model whole.

    Raises InvalidInput for pairs of too few documents, ConfigurationError when the base cannot be loaded or
    the folder not be written.
    """
    target = job.models_dir / job.name
    if target.exists() and not (target / CARD).is_file():
        raise InvalidInput(
            f"{target} is there already and was not made by this recipe.",
            hint="Choose another name.",
            field="name",
        )
    learned, held = parted(pairs)
    if len(learned) < 2:
        raise InvalidInput("One pair has no negatives: give two at least.", field="pairs")
    model = _load(job)
    before = _reciprocal_ranks(model, held)
    _fit(model, learned, job)
    after = _reciprocal_ranks(model, held)
    result = EmbedderResult(
        folder=target,
        pairs=len(learned),
        held_out=len(held),
        recall_before=float(np.mean(before > 0)),
        recall_after=float(np.mean(after > 0)),
        mrr_before=float(np.mean(before)),
        mrr_after=float(np.mean(after)),
        verdict=paired(after.tolist(), before.tolist(), groups=[pair.document for pair in held]).verdict,
    )
    with whole_folder(result.folder) as made:
        model.save(str(made), create_model_card=False)
        _name_window(made, job.max_tokens)
        write_json(
            made / CARD,
            {
                **{k: v for k, v in asdict(result).items() if k != "folder"},
                "name": job.name,
                "base": job.base.name,
                "data_hash": hashlib.sha256(
                    json.dumps([asdict(pair) for pair in pairs], sort_keys=True).encode()
                ).hexdigest(),
                "settings": {k: v for k, v in asdict(job).items() if k not in {"base", "models_dir", "bar"}},
            },
        )
    return result


def _load(job: EmbedderJob) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    if not (job.base / "modules.json").is_file():
        raise ConfigurationError(
            f"{job.base} holds no sentence-transformers model (modules.json is missing).",
            hint="Name the folder of an installed embedder.",
        )
    with LOADING:
        model: Any = SentenceTransformer(str(job.base), device="cpu")
    model.max_seq_length = job.max_tokens
    return model


def _fit(model: Any, pairs: Sequence[Pair], job: EmbedderJob) -> None:
    with warnings.catch_warnings():
        # The libraries behind warn of one another's interfaces.
        warnings.simplefilter("ignore")
        from datasets import Dataset  # type: ignore[import-untyped]
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardCallback
        from sentence_transformers.training_args import BatchSamplers
        from transformers.trainer_callback import PrinterCallback

        with tempfile.TemporaryDirectory() as scratch:
            trainer = SentenceTransformerTrainer(
                model=model,
                args=SentenceTransformerTrainingArguments(
                    output_dir=scratch,
                    num_train_epochs=job.epochs,
                    per_device_train_batch_size=job.batch_size,
                    learning_rate=job.learning_rate,
                    warmup_steps=job.warmup_share,
                    # Two questions about one passage would be each other's negatives.
                    batch_sampler=BatchSamplers.NO_DUPLICATES,
                    seed=job.seed,
                    use_cpu=True,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=not job.bar,
                    logging_strategy="no",
                ),
                train_dataset=Dataset.from_list([{"anchor": p.query, "positive": p.passage} for p in pairs]),
                loss=MultipleNegativesRankingLoss(model),
            )
            for callback in (PrinterCallback, SentenceTransformerModelCardCallback):
                trainer.remove_callback(callback)
            trainer.train()
    model.eval()


def _name_window(folder: Path, max_tokens: int) -> None:
    """Write how much the model reads where readers of a folder look for it: newer versions leave it out."""
    file = folder / "sentence_bert_config.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    write_json(file, {**known, "max_seq_length": max_tokens})


def _reciprocal_ranks(model: Any, held: Sequence[Pair]) -> np.ndarray:
    """1 / rank of each question's passage among all, 0 beyond the tenth."""
    passages = list(dict.fromkeys(pair.passage for pair in held))
    place = {text: i for i, text in enumerate(passages)}
    kwargs = {"normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False}
    scores = model.encode([p.query for p in held], **kwargs) @ model.encode(passages, **kwargs).T
    own = scores[np.arange(len(held)), [place[p.passage] for p in held]]
    ranks = (scores > own[:, None]).sum(axis=1) + 1
    return np.where(ranks <= RANKS, 1.0 / ranks, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="sentence-transformers folder to start from")
    parser.add_argument("--name", required=True, help="name of the new embedder")
    parser.add_argument("--models", type=Path, required=True, help="folder of models, <home>/models")
    given_pairs = parser.add_mutually_exclusive_group(required=True)
    given_pairs.add_argument("--documents", type=Path, nargs="+", help="folders of Markdown")
    given_pairs.add_argument("--pairs", type=Path, help="JSON lines of query, passage, document")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int, help="use the first pairs only")
    given = parser.parse_args()
    try:
        pairs = read_pairs(given.pairs) if given.pairs else pairs_from_documents(given.documents)
        job = EmbedderJob(given.base, given.name, given.models, epochs=given.epochs, bar=True)
        result = train_embedder(job, pairs[: given.limit])
    except AssistantError as error:
        raise SystemExit(str(error)) from None
    from rich.console import Console

    Console().print_json(data=asdict(result) | {"folder": str(result.folder)})


if __name__ == "__main__":
    main()
