"""collections: change the embedder without a pause, and change it back."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from assistant.errors import InvalidInput
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, say, say_json, stderr, table

if TYPE_CHECKING:
    from assistant.settings import Settings
    from assistant.stores.vectors import CollectionInfo
    from data_jobs.progress import ProgressListener
    from data_jobs.reembed import MoveReport

T = TypeVar("T")

app = typer.Typer(
    help="Collections of stored passages: change the embedder without a pause, and back.\n\n"
    "Searches use one collection, the live one, whose vectors were all made by one embedder. To change the "
    "embedder, copy the new one's folder to `<home>/models/NAME`, `build` its collection beside the live one, "
    "and `promote` it. Searches change over within seconds and none fails. `rollback` returns.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("list")
def list_(json_output: Json = False) -> None:
    """List the collections: their embedder, how many passages they hold, which is live, which was before.

    Examples:

        ai-assistant collections list
    """
    from data_jobs.reembed import collections

    found = _run(lambda settings, alias, _: collections(settings, alias), show=False)
    if json_output:
        say_json([_json(info) for info in found])
        return
    table(
        ("collection", "embedder", "dimension", "passages", "state"),
        [(c.name, c.embedder, c.dimension, c.points, _state(c)) for c in found],
    )
    if not found:
        note("Nothing was ingested yet: `ai-assistant ingest` makes the first one.")


@app.command()
def build(
    embedder: Annotated[
        str, typer.Option("--embedder", help="Its folder's name below `<home>/models`.", metavar="NAME")
    ],
    json_output: Json = False,
) -> None:
    """Build a collection with another embedder beside the live one, from the passages as they are stored.

    Searches and ingestion go on. Interrupt it whenever you like: the same command continues. Nothing
    changes for anybody until `promote`.

    Examples:

        ai-assistant collections build --embedder bge-small-en
    """
    from assistant.retrieval.embedders import installed_embedder
    from data_jobs.reembed import reembed

    report = _run(
        lambda settings, alias, progress: reembed(
            settings, alias, installed_embedder(settings, embedder), progress
        ),
        show=not json_output,
    )
    if json_output:
        say_json(report.as_json())
    else:
        say(
            f"{report.collection}: {report.points} passages, {report.written} embedded in {report.seconds:.1f} s."
        )
        if report.cut:
            note(f"{report.cut} passages are longer than {embedder} reads: it knows only their beginning.")
        for reason in report.reasons:
            note(f"  no vector: {reason}")
    if report.failed:
        note(f"{report.failed} passages have no vector. They must be fixed or removed before `promote`.")
        raise typer.Exit(1)
    if not json_output:
        note(f"Make it live: `ai-assistant collections promote {report.collection}`")


@app.command()
def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A collection, or the name of its embedder.")],
    json_output: Json = False,
) -> None:
    """Make a built collection the live one.

    What was ingested since the build is taken over first, and an ingestion that runs is waited for. The
    collection that was live stays, for `rollback`. Later ingestions use the new embedder by themselves.

    Examples:

        ai-assistant collections promote bge-small-en
    """
    from data_jobs.reembed import promote as move

    _moved(
        _run(lambda settings, alias, bar: move(settings, alias, name, bar), show=not json_output), json_output
    )


@app.command()
def rollback(json_output: Json = False) -> None:
    """Return to the collection that was live before.

    What was ingested, changed or removed since is taken over first, so nothing is lost and nothing that
    was removed comes back. A second rollback undoes the first.

    Examples:

        ai-assistant collections rollback
    """
    from data_jobs.reembed import rollback as back

    _moved(_run(lambda settings, alias, bar: back(settings, alias, bar), show=not json_output), json_output)


@app.command()
def drop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A collection, from `collections list`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_output: Json = False,
) -> None:
    """Remove a collection that is not live, with all its vectors. Documents and the live one stay.

    Examples:

        ai-assistant collections drop search_sources__bge-small-en__1 --yes
    """
    from data_jobs.reembed import drop as remove

    if not yes and (json_output or not typer.confirm(f"Remove {name}?", err=True)):
        raise InvalidInput(f"{name} was not removed.", hint="Say so with --yes.", field="--yes")
    gone = _run(lambda settings, alias, _: remove(settings, alias, name), show=False)
    if json_output:
        say_json({"removed": _json(gone)})
        return
    say(f"Removed {name} with {gone.points} passages.")
    if gone.previous:
        note("It was the one that a rollback returns to: there is none now.")


def _moved(report: "MoveReport", json_output: bool) -> None:
    if json_output:
        say_json(report.as_json())
    elif not report.moved:
        say(f"{report.live} is live already.")
    else:
        say(f"{report.live} is live: {report.points} passages by {report.embedder}.")
        note(
            f"Before: {report.previous}. Searches follow within seconds; "
            "`ai-assistant collections rollback` returns."
        )


def _run(work: "Callable[[Settings, str, ProgressListener], Awaitable[T]]", *, show: bool) -> T:
    """On the stores and the cluster of the running stack, with a progress bar if `show`."""
    import asyncio
    import os

    from cluster.ingestion import driver_environment, with_stores

    installation = Installation.load()
    installation.state()
    environment = driver_environment(installation.layout, installation.plan())
    # Ray reads its flags from the environment of the process, at import.
    os.environ.update(environment)
    from data_jobs.progress import ProgressBar, Silent

    settings = with_stores(installation.settings, environment)
    alias = settings.qdrant.collection

    async def run() -> T:
        if not show:
            return await work(settings, alias, Silent())
        with ProgressBar(stderr()) as bar:
            return await work(settings, alias, bar)

    return asyncio.run(run())


def _state(info: "CollectionInfo") -> str:
    return "live" if info.live else "before" if info.previous else "-"


def _json(info: "CollectionInfo") -> dict[str, Any]:
    return {
        "name": info.name,
        "embedder": info.embedder,
        "dimension": info.dimension,
        "parameters": dict(info.parameters),
        "points": info.points,
        "live": info.live,
        "previous": info.previous,
    }
