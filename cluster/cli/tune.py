"""tune: search for better settings on data that results are not reported on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assistant.errors import InvalidInput, NotFound
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from tuning.corpus import Corpus
    from tuning.lora_search import LoraSearchResult
    from tuning.retrieval_search import RetrievalResult

app = typer.Typer(
    help="Search for better settings; the winner is written as a piece of config.yaml.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of this search; the same one goes on with it. Below the state folder if not said."
    ),
]


@app.command()
def retrieval(
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", help="A folder of Markdown, asked by its headings, repeatable."),
    ] = None,
    judged: Annotated[
        Path | None, typer.Option(help="Instead: a folder with questions judged by people, in BEIR's form.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the judged questions; test is refused.")] = "train",
    trials: Annotated[int, typer.Option(min=1)] = 30,
    chunk_tokens: Annotated[
        list[int] | None,
        typer.Option("--chunk-tokens", help="A chunk size to try too, repeatable. Each is embedded once."),
    ] = None,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Tune fusion, its weight or k, and the number of candidates through the product's own search.

    The setting of now is tried first, and the winner is compared with it on the same questions. A Qdrant of its own
    is started for the search and removed afterwards; your collections are not touched, and nothing else must run.
    Interrupted, it goes on with the same command.

    Examples:

        ai-assistant tune retrieval --documents ../runbooks --documents ../handbook

        ai-assistant tune retrieval --judged ../shared/data/scifact --split train --trials 12
    """
    import asyncio

    from tuning.corpus import from_documents
    from tuning.corpus import judged as judged_corpus

    if (judged is None) == (not documents):
        raise InvalidInput("Name either --documents or --judged.", field="--documents")
    corpus = judged_corpus(judged, split) if judged else from_documents(documents or [])
    installation = Installation.load()
    folder = out or installation.layout.home / "tuning" / f"retrieval-{corpus.data_hash[:12]}"
    note(f"{len(corpus.queries)} questions over {len(corpus.texts)} texts; the search is kept in {folder}")
    try:
        result = asyncio.run(_retrieval(installation, corpus, folder, trials, tuple(chunk_tokens or ())))
    except KeyboardInterrupt:
        note("The same command goes on with this search.")
        raise
    if json_output:
        say_json(
            {
                "best": dict(result.best),
                "ndcg@10": result.score,
                "now": result.now,
                "gain": result.gain.as_json() if result.gain else None,
                "trials": result.trials,
                "fragment": str(result.fragment),
            }
        )
        return
    _tell(result.fragment)


async def _retrieval(
    installation: Installation, corpus: "Corpus", folder: Path, trials: int, chunk_tokens: tuple[int, ...]
) -> "RetrievalResult":
    from assistant.retrieval.embedders import SentenceTransformerEmbedder
    from assistant.stores.vectors import VectorStore
    from cluster.temporary_qdrant import temporary_qdrant
    from tuning.retrieval_search import RetrievalSearch, tune_retrieval
    from tuning.search_space import RetrievalSpace

    settings = installation.settings
    embedder = SentenceTransformerEmbedder(settings.embedder, settings.embedder_path)
    search = RetrievalSearch(folder, trials, RetrievalSpace(chunk_tokens=chunk_tokens))
    with temporary_qdrant(installation.layout.home / "tuning", "tuning") as qdrant:
        store = VectorStore(qdrant)
        own = settings.model_copy(update={"qdrant": qdrant})
        try:
            return await tune_retrieval(search, corpus, store, own, embedder, note)
        finally:
            await store.close()


@app.command()
def lora(
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Folder with train.jsonl and validation.jsonl; that of the newest learning run if not said."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to fine-tune, a name of models.yaml.")] = None,
    trials: Annotated[int, typer.Option(min=1)] = 8,
    concurrent: Annotated[int, typer.Option(min=1, help="Trials at once.")] = 1,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Tune LoRA's rank, alpha and learning rate by the validation loss: Optuna draws, ASHA stops what falls behind.

    The setting of now is the first trial. Each trial is a Ray Train run with a nested run in MLflow. Interrupted, it
    goes on with the same command. Nothing is deployed.

    Examples:

        ai-assistant tune lora

        ai-assistant tune lora --dataset .local/learning/runs/ID/dataset --trials 12
    """
    from cluster.evaluation import stack_mlflow
    from tuning.lora_search import LoraSearch, search_lora

    installation = Installation.load()
    settings = installation.settings
    data = dataset.absolute() if dataset else _newest_dataset(installation.layout.home)
    name, base = _base(installation, model)
    folder = out or installation.layout.home / "tuning" / f"lora-{_short(data, base)}"
    note(f"rows of {data}; the search is kept in {folder}")
    search = LoraSearch(
        name=folder.name,
        base=base,
        base_model=name,
        dataset=data,
        folder=folder,
        settings=settings.training,
        trials=trials,
        concurrent=concurrent,
        tracking_uri=stack_mlflow(installation).tracking_uri,
        experiment=settings.mlflow.experiment,
    )
    try:
        result = search_lora(search, note)
    except KeyboardInterrupt:
        note("The same command goes on with this search.")
        raise
    if json_output:
        say_json(
            {
                "best_nll": result.best_nll,
                "trials": [vars(trial) for trial in result.trials],
                "fragment": str(result.fragment),
                "mlflow_run_id": result.mlflow_run_id,
            }
        )
        return
    _trials(result)
    _tell(result.fragment)


def _newest_dataset(home: Path) -> Path:
    found = sorted(home.glob("learning/runs/*/dataset/train.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise NotFound(
            "There is no dataset of a learning run.",
            hint="Name one with --dataset, or let `ai-assistant learn run` build one.",
        )
    return found[-1].parent


def _base(installation: Installation, model: str | None) -> tuple[str, Path]:
    """Name and transformers folder of the model that learns. Raises ConfigurationError."""
    from assistant.llm.catalog import load_catalog
    from cluster.services import models_file
    from cluster.weights import GGUF, ensure_hf
    from training.loop_work import learning_spec, transformers_folder

    settings = installation.settings
    spec = learning_spec(load_catalog(models_file(settings), settings.home), model)
    if spec.path == settings.models_dir / GGUF.folder:
        ensure_hf(settings.models_dir, note)
    return spec.name, transformers_folder(spec, settings.models_dir)


def _short(*paths: Path) -> str:
    return hashlib.sha256(" ".join(map(str, paths)).encode()).hexdigest()[:12]


def _trials(result: "LoraSearchResult") -> None:
    rows = [
        (
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.draw.values()),
            "" if trial.best_nll is None else f"{trial.best_nll:.4f}",
            str(trial.steps),
            trial.error or ("stopped" if trial.stopped else ""),
        )
        for trial in sorted(result.trials, key=lambda t: (t.best_nll is None, t.best_nll or 0.0))
    ]
    table((*result.trials[0].draw, "validation loss", "steps", ""), rows)


def _tell(fragment: Path) -> None:
    say(fragment.read_text(encoding="utf-8").rstrip())
    note(f"Written to {fragment}; put it into config.yaml to use it.")
