"""What is searched: the ranges of LoRA's settings and of retrieval's, and how a draw becomes settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assistant.settings import RetrievalSettings, TrainingSettings


@dataclass(frozen=True)
class LoraSpace:
    """`alpha_per_rank` scales the adapter independently of its rank; the learning rate is drawn on a log scale."""

    ranks: tuple[int, ...] = (4, 8, 16, 32)
    alpha_per_rank: tuple[float, ...] = (1.0, 2.0, 4.0)
    learning_rate: tuple[float, float] = (5e-5, 2e-3)

    def domains(self) -> dict[str, Any]:
        """Ray Tune's search space."""
        from ray import tune

        return {
            "rank": tune.choice(list(self.ranks)),
            "alpha_per_rank": tune.choice(list(self.alpha_per_rank)),
            "learning_rate": tune.loguniform(*self.learning_rate),
        }

    def start(self, settings: TrainingSettings) -> dict[str, Any] | None:
        """The settings of now as a draw, to be tried first; None when they lie outside the space."""
        per_rank = settings.alpha / settings.rank
        low, high = self.learning_rate
        if (
            settings.rank not in self.ranks
            or per_rank not in self.alpha_per_rank
            or not low <= settings.learning_rate <= high
        ):
            return None
        return {"rank": settings.rank, "alpha_per_rank": per_rank, "learning_rate": settings.learning_rate}


def lora_settings(draw: Mapping[str, Any], settings: TrainingSettings) -> TrainingSettings:
    """`settings` with the drawn values."""
    rank = int(draw["rank"])
    return settings.model_copy(
        update={
            "rank": rank,
            "alpha": max(1, round(rank * float(draw["alpha_per_rank"]))),
            "learning_rate": float(draw["learning_rate"]),
        }
    )


@dataclass(frozen=True)
class RetrievalSpace:
    """`chunk_tokens` empty leaves the chunks as they are; each size in it means to index anew once."""

    dense_weight: tuple[float, float] = (0.0, 1.0)
    dense_weight_step: float = 0.05
    rrf_k: tuple[int, int] = (1, 100)
    candidates: tuple[int, ...] = (20, 50, 100, 200)
    chunk_tokens: tuple[int, ...] = ()

    def draw(self, trial: Any) -> dict[str, Any]:
        """One draw of an Optuna trial. A weight exists only for weighted fusion, k only for ranks."""
        fusion = trial.suggest_categorical("fusion", ["weighted", "rrf"])
        found: dict[str, Any] = {
            "fusion": fusion,
            "candidates": trial.suggest_categorical("candidates", list(self.candidates)),
        }
        if fusion == "weighted":
            found["dense_weight"] = round(
                trial.suggest_float("dense_weight", *self.dense_weight, step=self.dense_weight_step), 4
            )
        else:
            found["rrf_k"] = trial.suggest_int("rrf_k", *self.rrf_k, log=True)
        if self.chunk_tokens:
            found["chunk_tokens"] = trial.suggest_categorical("chunk_tokens", list(self.chunk_tokens))
        return found

    def start(self, settings: RetrievalSettings, chunk_tokens: int) -> dict[str, Any] | None:
        """The settings of now as a draw, to be tried first; None when they lie outside the space."""
        found: dict[str, Any] = {"fusion": settings.fusion, "candidates": settings.candidates}
        inside = settings.candidates in self.candidates
        if settings.fusion == "weighted":
            found["dense_weight"] = settings.dense_weight
            steps = (settings.dense_weight - self.dense_weight[0]) / self.dense_weight_step
            inside &= abs(steps - round(steps)) < 1e-9 and settings.dense_weight <= self.dense_weight[1]
        else:
            found["rrf_k"] = settings.rrf_k
            inside &= self.rrf_k[0] <= settings.rrf_k <= self.rrf_k[1]
        if self.chunk_tokens:
            found["chunk_tokens"] = chunk_tokens
            inside &= chunk_tokens in self.chunk_tokens
        return found if inside else None


def retrieval_settings(draw: Mapping[str, Any], settings: RetrievalSettings) -> RetrievalSettings:
    """`settings` with the drawn values."""
    return settings.model_copy(update={k: v for k, v in draw.items() if k != "chunk_tokens"})
