"""Champion against candidate on the rows that nobody trained on: loss on all, written text on some."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput
from assistant.llm.adapters import base_fingerprint, read_adapter
from assistant.settings import TrainingSettings
from evals.gate import GateDecision, decide
from evals.report import render
from evals.results import CaseResult, SuiteResult, compare, summarise
from evals.runs import RunStore
from evals.text_metrics import text_scores
from evals.tracking import Tracker
from training.apart import apart
from training.count import Count, CountFile, uncounted
from training.loop_work import Tell, Work
from training.rows import Row, read_rows
from training.scoring import fitting, nll
from training.texts import write_texts

CANDIDATE = "candidate"
CHAMPION = "champion"


async def evaluate(work: Work, tell: Tell) -> dict[str, Any]:
    """Champion and candidate on the same frozen and guard rows: loss on all, written text on some."""
    champion, training = await champion_of(work), work.settings.training
    frozen, guard = [
        fitting(work.hf, read_rows(work.folder.path / "dataset" / f"{side}.jsonl"), training.max_tokens)
        for side in ("frozen", "guard")
    ]
    if not frozen:
        raise InvalidInput(
            f"No frozen row fits into {training.max_tokens} tokens, so nothing can be decided.",
            hint="Rate answers over more documents, name folders in training.documents, or raise "
            "training.max_tokens.",
            field="frozen",
        )
    tell(f"loss of champion and candidate on {len(frozen) + len(guard)} rows")
    systems = {CHAMPION: champion, CANDIDATE: work.folder.path / CANDIDATE}
    counted = CountFile(work.folder.path / "counted")
    with counted.followed(lambda done, of: tell(f"loss of champion and candidate: {done} of {of}")):
        losses = await asyncio.to_thread(
            apart, training, losses_of, work.hf, systems, [*frozen, *guard], training, counted
        )
    written = frozen[: work.settings.evals.written_rows]
    texts = await _written(work, champion, written, tell) if written else {}
    frozen_cases = [
        _case(number, row, losses, number, {s: t[number] for s, t in texts.items() if number < len(t)})
        for number, row in enumerate(frozen)
    ]
    guard_cases = [_case(number, row, losses, len(frozen) + number, {}) for number, row in enumerate(guard)]
    meta = {
        "model": work.spec.name,
        "champion": "base" if champion is None else champion.name,
        "learning_run": work.run_id,
        "written": len(written),
    }
    stored = {
        name: _store(work, name, cases, meta | {"data_hash": _hash(rows)})
        for name, cases, rows in (
            ("learning-frozen", frozen_cases, frozen),
            ("learning-guard", guard_cases, guard),
        )
        if cases
    }
    return {"champion": meta["champion"], "runs": stored, "metrics": _metrics(work, stored)}


def losses_of(
    base: Path,
    systems: Mapping[str, Path | None],
    rows: Sequence[Row],
    training: TrainingSettings,
    counted: Count = uncounted,
) -> dict[str, list[float]]:
    """System → nats per token of each row's answer; a system is the base with an adapter, or without."""
    found: dict[str, list[float]] = {}

    def of_all(done: int, of: int) -> None:
        counted(len(found) * of + done, len(systems) * of)

    for system, adapter in systems.items():
        found[system] = nll(
            base,
            adapter,
            rows,
            max_tokens=training.max_tokens,
            threads=training.torch_threads,
            device=training.device,
            precision=training.precision,
            counted=of_all,
        )
    return found


async def champion_of(work: Work) -> Path | None:
    """The folder of the adapter that serves now; None for the base."""
    for deployment in await work.deployments.active(work.spec.name):
        if deployment.alias == "champion" and deployment.adapter is not None:
            return work.settings.adapters_dir / deployment.adapter
    return None


async def _written(
    work: Work, champion: Path | None, rows: Sequence[Row], tell: Tell
) -> dict[str, list[str]]:
    """What both write."""
    fingerprint, model = base_fingerprint(work.hf), work.spec.name
    systems = {
        CHAMPION: None if champion is None else read_adapter(champion, model, fingerprint),
        CANDIDATE: read_adapter(work.folder.path / CANDIDATE, model, fingerprint),
    }
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        tell(f"texts of champion and candidate: {done} of {len(systems) * len(rows)}")

    return await write_texts(work.spec, work.settings.models_dir, systems, rows, count)


def _case(
    number: int, row: Row, losses: Mapping[str, Sequence[float]], index: int, texts: Mapping[str, str]
) -> CaseResult:
    values: dict[str, float] = {}
    for system, all_losses in losses.items():
        # Negated, because everywhere else more is better.
        values[f"{system}/log_likelihood"] = -all_losses[index]
    for system, text in texts.items():
        values[f"{system}/rouge_l"] = text_scores(text, row.answer, None)["rouge_l"]
    return CaseResult(
        id=f"{number}",
        group=row.document or f"row-{number}",
        values=values,
        detail={
            "source": row.source,
            "question": row.prompt[-1].content,
            "reference": row.answer,
            "texts": dict(texts),
        },
    )


def _store(work: Work, name: str, cases: Sequence[CaseResult], meta: Mapping[str, Any]) -> str:
    result = summarise(
        name,
        f"{CANDIDATE}/log_likelihood",
        cases,
        [(CANDIDATE, CHAMPION)],
        meta,
        work.settings.evals.draws,
    )
    stored = RunStore(work.settings.home).save(result, render(result))
    Tracker(work.settings.home, work.settings.mlflow).submit(stored)
    return stored.id


def _loaded(work: Work, stored: Mapping[str, str], name: str) -> SuiteResult | None:
    return RunStore(work.settings.home).load(stored[name]).result if name in stored else None


def _metrics(work: Work, stored: Mapping[str, str]) -> dict[str, Any]:
    """Means with intervals, and the paired differences with their verdicts, for records and the page."""
    found: dict[str, Any] = {}
    for name in stored:
        result = _loaded(work, stored, name)
        assert result is not None
        short = name.removeprefix("learning-")
        found |= {f"{short}/{metric}": value.as_json() for metric, value in result.metrics.items()}
        found |= {f"{short}/{c.metric} difference": c.result.as_json() for c in result.comparisons}
    return found


def judge(work: Work, stored: Mapping[str, str]) -> GateDecision:
    """By the paired lower bounds of the log-likelihood: frozen better, guard not worse than the margin."""
    metric, other = f"{CANDIDATE}/log_likelihood", f"{CHAMPION}/log_likelihood"
    draws = work.settings.evals.draws

    def compared(name: str) -> Any:
        result = _loaded(work, stored, name)
        return None if result is None else compare(result.per_case, result.per_case, metric, other, draws)

    return decide(
        compared("learning-frozen"),
        compared("learning-guard"),
        min_gain=work.settings.evals.min_gain,
        harm_margin=work.settings.evals.harm_margin,
    )


def _hash(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row.as_json()).encode())
    return digest.hexdigest()
