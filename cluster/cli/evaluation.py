"""eval: measure retrieval and writing, compare runs, and decide what may be promoted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from assistant.errors import InvalidInput
from cluster.cli import exits
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, say, say_json, stderr, table

if TYPE_CHECKING:
    from cluster.evaluation import Evaluation, Step
    from evals.results import Comparison, SuiteResult
    from evals.runs import StoredRun
    from evals.statistics import Paired

MODES = ("dense", "sparse", "hybrid")

app = typer.Typer(
    help="Measure search and writing: figures with intervals, paired comparisons, a gate.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def run(
    suite: Annotated[
        Literal["scifact", "sections", "structure"],
        typer.Argument(
            help="scifact: search judged by people. sections: sections of design documents, written by a "
            "model. structure: what documents are made of."
        ),
    ],
    modes: Annotated[str, typer.Option(help="scifact: which searches, with commas between them.")] = ",".join(
        MODES
    ),
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="First queries, or sections (100 when not said), only."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder: BEIR's form for scifact, Markdown or a .jsonl file for sections."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="sections: who writes, a name from `models`, or NAME:challenger. Without: floors only."
        ),
    ] = None,
    split: Annotated[
        Literal["test", "dev", "train", "all"], typer.Option(help="Report on test; tune on the others.")
    ] = "test",
    evidence: Annotated[
        bool, typer.Option("--evidence", help="sections: give the model passages of the other documents.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Run a suite, store the result with an HTML report, and log it to MLflow.

    `scifact` goes through the product's own search, over a temporary collection. The first run embeds 5,183
    abstracts (some ten minutes); vectors are kept, and an interrupted run goes on where it stopped.
    `sections` asks a model for sections that the authors of real proposals wrote, and compares; beside it
    stand floors that need no model. `structure` asks nobody: are all sections there, in order, filled?
    Nothing here touches your own collections.

    When MLflow is down the run waits on disk, and the next one sends it.

    Examples:

        ai-assistant eval run scifact

        ai-assistant eval run scifact --modes dense,hybrid --limit 50

        ai-assistant eval run sections --model smollm2-135m-instruct --limit 40

        ai-assistant eval run sections --data ../our-proposals --split all

        ai-assistant eval run structure --data ../our-proposals --split all
    """
    import asyncio

    from cluster.evaluation import SECTIONS_LIMIT, Evaluation, NoData

    chosen = _modes(modes)
    if suite != "sections" and (model is not None or evidence):
        raise InvalidInput("--model and --evidence belong to sections.", field="--model")
    with _progress(quiet=json_output) as step:
        evaluation = Evaluation(Installation.load(), step, note)
        try:
            folder = evaluation.data(suite, data)
        except NoData as missing:
            _skipped(suite, missing, json_output)
            return
        if suite == "scifact":
            if split == "all":
                raise InvalidInput("A judged collection has no split 'all'.", field="--split")
            result = asyncio.run(evaluation.judged(folder, chosen, split, limit))
        elif suite == "sections":
            most = limit or SECTIONS_LIMIT
            result = asyncio.run(evaluation.sections(folder, model, _side(split), most, evidence))
        else:
            result = evaluation.structure(folder, _side(split), limit)
    _deliver(evaluation, result, json_output)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="An id from `eval list`, or ID:SYSTEM.")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="The same.")],
    metric: Annotated[
        str | None, typer.Option(help="Only this one, as ndcg@10 or rouge_l; all without.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Compare two runs case by case: RUN_A minus RUN_B, with intervals and a verdict.

    "cannot tell" is a verdict: the cases do not decide it. Cases of one document are not independent, so
    whole documents are drawn. The last column is the difference that this many cases would find.

    Examples:

        ai-assistant eval compare scifact-20260101-120000-ab12 scifact-20260108-120000-cd34

        ai-assistant eval compare scifact-2026:hybrid scifact-2026:dense --metric ndcg@10
    """
    from dataclasses import asdict

    home = Installation.load().settings.home
    (a, system_a), (b, system_b) = _named(home, first), _named(home, second)
    rows = _compared(a, system_a, b, system_b, metric)
    _warn_of_other_data(a, b)
    if json_output:
        say_json({"first": a.id, "second": b.id, "comparisons": [asdict(row) for row in rows]})
        return
    _comparisons(rows)


@app.command()
def gate(
    candidate: Annotated[
        str, typer.Argument(metavar="RUN_CANDIDATE", help="An id from `eval list`, or ID:SYSTEM.")
    ],
    champion: Annotated[str, typer.Argument(metavar="RUN_CHAMPION", help="The same, of what serves now.")],
    guard: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="CANDIDATE CHAMPION", help="Two runs on what must not get worse."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What decides; the headline of the suite without.")
    ] = None,
    min_gain: Annotated[float, typer.Option(min=0, help="The least gain worth a change.")] = 0.0,
    harm_margin: Annotated[
        float | None,
        typer.Option(min=0, help="How much worse the guard set may get; from the settings without."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Decide whether a candidate may replace the champion. Exit code 1 when it is refused.

    It passes when the lower bound of the paired difference is above --min-gain, and on the guard set above
    minus --harm-margin. Noise therefore never promotes, and a handful of cases decides nothing.

    Examples:

        ai-assistant eval gate CANDIDATE CHAMPION

        ai-assistant eval gate CANDIDATE CHAMPION --guard GUARD_CANDIDATE GUARD_CHAMPION --json
    """
    from evals.gate import decide

    settings = Installation.load().settings
    frozen = _deciding(settings.home, candidate, champion, metric)
    guarded = _deciding(settings.home, *guard, metric) if guard else None
    margin = settings.evals.harm_margin if harm_margin is None else harm_margin
    decision = decide(frozen, guarded, min_gain=min_gain, harm_margin=margin)
    if json_output:
        say_json({"candidate": candidate, "champion": champion, **decision.as_json()})
    else:
        say("promote" if decision.promote else "refused")
        for reason in decision.reasons:
            say(f"  {reason}")
    if not decision.promote:
        raise typer.Exit(exits.ERROR)


@app.command("list")
def list_(json_output: Json = False) -> None:
    """List stored runs, newest first, with their headline figure.

    Examples:

        ai-assistant eval list
    """
    from evals.runs import RunStore

    runs = RunStore(Installation.load().settings.home).list()
    if json_output:
        say_json([_summary(stored) for stored in runs])
        return
    table(
        ("id", "cases", "model", "headline", "value"),
        [
            (
                stored.id,
                len(stored.result.per_case),
                stored.result.meta.get("model", ""),
                stored.result.headline,
                _shown(stored.result, stored.result.headline),
            )
            for stored in runs
        ],
    )


def _deliver(evaluation: "Evaluation", result: "SuiteResult", as_json: bool) -> None:
    stored, mlflow_id = evaluation.keep(result)
    if as_json:
        say_json(_summary(stored) | {"mlflow_run_id": mlflow_id, "seconds": result.meta.get("seconds")})
        return
    from evals.results import measure_of, system_of

    measures = list(dict.fromkeys(map(measure_of, result.metrics)))
    systems = list(dict.fromkeys(map(system_of, result.metrics)))
    table(
        ("system", *measures),
        [(s, *(_shown(result, f"{s}/{m}") for m in measures)) for s in systems],
    )
    if result.comparisons:
        say()
        _comparisons(result.comparisons)
    note(f"Stored as {stored.id}; report: {stored.report}")
    note(f"In MLflow as {mlflow_id}" if mlflow_id else "MLflow does not answer: the next run sends this one.")


def _comparisons(rows: "Sequence[Comparison]") -> None:
    table(
        ("metric", "first", "second", "difference", "95 %", "p", "verdict", "cases", "detectable"),
        [
            (
                row.metric,
                row.first,
                row.second,
                f"{row.result.difference:+.4f}",
                f"[{row.result.low:+.4f}, {row.result.high:+.4f}]",
                f"{row.result.p_value:.4f}",
                row.result.verdict,
                row.result.n,
                f"{row.result.detectable:.4f}",
            )
            for row in rows
        ],
    )


def _shown(result: "SuiteResult", metric: str) -> str:
    from evals.report import number
    from evals.results import measure_of

    interval = result.metrics.get(metric)
    if interval is None:
        return "–"
    mean, low, high = (number(v, measure_of(metric)) for v in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def _summary(stored: "StoredRun") -> dict[str, Any]:
    from dataclasses import asdict

    result = stored.result
    return {
        "id": stored.id,
        "created_at": stored.created_at.isoformat(),
        "suite": result.name,
        "cases": len(result.per_case),
        "headline": result.headline,
        "metrics": {name: interval.as_json() for name, interval in result.metrics.items()},
        "comparisons": [asdict(row) for row in result.comparisons],
        "meta": dict(result.meta),
        "report": str(stored.report),
    }


def _named(home: Path, name: str) -> "tuple[StoredRun, str]":
    """The run and the system that `ID` or `ID:SYSTEM` names; no system is an empty one."""
    from evals.results import system_of
    from evals.runs import RunStore

    id_, _, system = name.partition(":")
    stored = RunStore(home).load(id_)
    known = list(dict.fromkeys(map(system_of, stored.result.metrics)))
    if system and system not in known:
        raise InvalidInput(
            f"The run {stored.id} has no system {system!r}.", hint=f"It has {', '.join(known)}.", field="RUN"
        )
    return stored, system


def _compared(
    a: "StoredRun", system_a: str, b: "StoredRun", system_b: str, metric: str | None
) -> "list[Comparison]":
    from evals.results import NEUTRAL, Comparison, compare, measure_of, system_of

    rows = []
    for name in a.result.metrics:
        measure, system = measure_of(name), system_of(name)
        other = f"{system_b or system}/{measure}"
        skipped = (system_a and system != system_a) or measure in NEUTRAL
        if skipped or (metric and metric not in {measure, name}):
            continue
        found = compare(a.result.per_case, b.result.per_case, name, other)
        if found is not None:
            rows.append(Comparison(measure, system, system_of(other), found))
    if not rows:
        raise InvalidInput(
            f"{a.id} and {b.id} have no case with {metric or 'the same metric'} in common.",
            hint="Runs of one suite on the same data can be compared.",
            field="--metric",
        )
    return rows


def _deciding(home: Path, first: str, second: str, metric: str | None) -> "Paired":
    """The one comparison that a gate reads."""
    from evals.results import measure_of, system_of

    (a, system_a), (b, system_b) = _named(home, first), _named(home, second)
    headline = a.result.headline
    system = system_a or system_of(headline)
    measure = measure_of(metric or headline)
    (row,) = _compared(a, system, b, system_b or system, f"{system}/{measure}")
    _warn_of_other_data(a, b)
    return row.result


def _warn_of_other_data(a: "StoredRun", b: "StoredRun") -> None:
    if a.result.meta.get("data_hash") != b.result.meta.get("data_hash"):
        note("The runs were made on different data; only cases that both have are compared.")


def _modes(text: str) -> "list[Any]":
    names = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if name not in MODES]
    if wrong or not names:
        raise InvalidInput(
            f"Unknown mode {(wrong or [text])[0]!r}.", hint=f"Use {', '.join(MODES)}.", field="--modes"
        )
    return list(dict.fromkeys(names))


def _side(split: str) -> Any:
    return None if split == "all" else split


def _skipped(suite: str, missing: Any, as_json: bool) -> None:
    if as_json:
        say_json({"suite": suite, "skipped": missing.detail, "hint": missing.hint})
    note(f"SKIPPED: {missing.detail}")
    note(f"  {missing.hint}")


@contextmanager
def _progress(quiet: bool) -> "Iterator[Step]":
    """Bars on stderr, one per step, with the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr(),
        disable=quiet,
    )
    tasks: dict[str, Any] = {}

    def step(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done, total=total)

    with bars:
        yield step
