"""learn: fine-tune the local model on what people said of its answers, and move what serves."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assistant.errors import AssistantError, Conflict, InvalidInput
from cluster.cli.exits import NotRunning
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import duration, note, say, say_json, table
from cluster.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from cluster.cli.api import Api

RECONNECT_S = 120.0
SETTABLE = ("training", "evals", "learning")
Model = Annotated[str | None, typer.Option("--model", help="Its name in models.yaml, if there are several.")]

app = typer.Typer(
    help="The learning loop: feedback → examples → LoRA fine-tune → evaluation gate → hot swap.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def run(
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", help="A folder of design documents to learn from, repeatable."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting for this run: training.epochs=1, repeatable."),
    ] = None,
    model: Model = None,
    follow: Annotated[bool, typer.Option(help="Watch the steps until the run has ended.")] = True,
    json_output: Json = False,
) -> None:
    """Start a learning run and follow its steps: collect, build, train, evaluate, gate, deploy.

    A run also starts by itself after 10 new usable ratings, or once a day when there is one. It goes on when
    you interrupt this command, and after crashes. A candidate that is not proven better is refused, and
    nothing changes for anybody.

    Examples:

        ai-assistant learn run

        ai-assistant learn run --documents docs/proposals --set training.epochs=1
    """
    installation = Installation.load()
    payload: dict[str, Any] = {"reason": "asked for on the command line"}
    if documents:
        payload["documents"] = [str(_folder(folder)) for folder in documents]
    if setting:
        payload["settings"] = _settings(setting)
    if model:
        payload["model"] = model
    run_id = _start(installation, payload)
    api = installation.api()
    if follow:
        with TerminalProgress(quiet=json_output) as bar:
            bar.note(f"learning run {run_id}")
            _follow(api, run_id, bar)
    if json_output:
        say_json(api.get(f"/api/v1/learning/runs/{run_id}"))
    elif follow:
        _show_deployments(api)
    else:
        say(run_id)


@app.command()
def status(json_output: Json = False) -> None:
    """What feedback there is, what the last runs did, and which adapters serve.

    Examples:

        ai-assistant learn status
    """
    api = Installation.load().api()
    stats = api.get("/api/v1/learning/stats")
    deployments = api.get("/api/v1/learning/deployments")
    if json_output:
        say_json({"stats": stats, "deployments": deployments})
        return
    coming = stats["next_run"]
    missing = f"{coming['missing']} more start a run" if coming["missing"] else "a run is due"
    if not coming["automatic"]:
        missing = "runs do not start by themselves (learning.automatic)"
    note(f"{coming['new_examples']} new usable examples of {coming['needed']}; {missing}")
    for item in stats["runs"]:
        note(
            f"  {item['id']}  {item['created_at'][:16]}  {item['status']}  {item.get('error') or ''}".rstrip()
        )
        for step in item["steps"]:
            seconds = duration(step["seconds"] or 0)
            note(f"    {step['name']:<9} {step['status']:<8} {seconds:>7}  {step['detail'] or ''}")
    _show_deployments(api)


@app.command()
def promote(
    adapter: Annotated[
        str | None, typer.Argument(help="An adapter that was offered before; the challenger if not given.")
    ] = None,
    model: Model = None,
    json_output: Json = False,
) -> None:
    """Make the challenger, or another adapter, the champion. Replicas follow within seconds.

    Examples:

        ai-assistant learn promote answerer-3
    """
    api = Installation.load().api()
    name = _model(api, model)
    done = api.post(f"/api/v1/learning/deployments/{name}/promote", {"adapter": adapter})
    _moved(done, json_output)


@app.command()
def rollback(model: Model = None, json_output: Json = False) -> None:
    """Bring the previous adapter back, or the base model when there is none. Takes seconds.

    Examples:

        ai-assistant learn rollback
    """
    api = Installation.load().api()
    name = _model(api, model)
    done = api.post(f"/api/v1/learning/deployments/{name}/rollback", {})
    _moved(done, json_output)


@app.command()
def share(
    share: Annotated[float, typer.Argument(min=0, max=1, help="0 to 1, as in 0.1 for a tenth.")],
    model: Model = None,
    json_output: Json = False,
) -> None:
    """Give the challenger another share of the requests.

    Examples:

        ai-assistant learn share 0.25
    """
    api = Installation.load().api()
    done = api.post(f"/api/v1/learning/deployments/{_model(api, model)}/share", {"share": share})
    if json_output:
        say_json(done)
    else:
        say(f"{done['adapter']} gets {done['share']:.0%} of the requests.")


def _start(installation: Installation, payload: Mapping[str, Any]) -> str:
    """Queue the run in the database, as only someone on this machine can: settings and paths come with it."""
    import asyncio

    from assistant.stores.learning_runs import LearningRunRepository
    from assistant.stores.postgres import Database
    from cluster.ingestion import with_stores

    installation.state()
    settings = with_stores(installation.settings, installation.plan().env).postgres

    async def work() -> str:
        database = Database(settings)
        await database.open()
        try:
            job, new = await LearningRunRepository(database).start(payload)
        finally:
            await database.close()
        if not new:
            raise Conflict(
                f"The learning run {job.id} is {job.status} already.",
                hint="`ai-assistant learn status` shows how far it is.",
            )
        return str(job.id)

    return asyncio.run(work())


def _follow(api: "Api", run_id: str, bar: TerminalProgress) -> None:
    """Show the steps until the run has ended, over lost connections. Raises the run's own error."""
    from cluster.cli.api import problem

    last, lost = "", 0.0
    while True:
        try:
            for event in api.stream("GET", f"/api/v1/learning/runs/{run_id}/events", last_event_id=last):
                lost, last = 0.0, event.id or last
                data = event.data if isinstance(event.data, dict) else {}
                if event.name == "error":
                    raise problem(data, 500)
                if event.name == "done":
                    return
                if event.name == "step" and data.get("status") == "done":
                    bar.done(data["name"], data["seconds"], data["detail"])
                elif event.name == "step":
                    bar.working(data["name"], data["detail"] or data["status"])
            lost = lost or time.monotonic()
        except NotRunning:
            lost = lost or time.monotonic()
        if time.monotonic() - lost > RECONNECT_S:
            raise AssistantError(
                "The connection was lost while the run was at work.",
                hint="It goes on by itself: `ai-assistant learn status` shows how far it is.",
            )
        time.sleep(0.5)


def _moved(done: Mapping[str, Any], json_output: bool) -> None:
    if json_output:
        say_json(done)
    else:
        say(f"{done['adapter'] or 'The base model'} is champion of {done['model']}.")


def _show_deployments(api: "Api") -> None:
    found = api.get("/api/v1/learning/deployments")["items"]
    rows = [
        (
            item["model"],
            alias,
            (item[alias] or {}).get("adapter") or ("base" if alias == "champion" or item[alias] else "-"),
            f"{item[alias]['share']:.0%}" if alias == "challenger" and item[alias] else "",
            (item[alias] or {}).get("created_at", "")[:16],
        )
        for item in found
        for alias in ("champion", "challenger", "previous")
    ]
    table(("model", "alias", "adapter", "share", "since"), rows)


def _model(api: "Api", name: str | None) -> str:
    known = [item["model"] for item in api.get("/api/v1/learning/deployments")["items"]]
    if name is None and len(known) == 1:
        return str(known[0])
    if name is None or name not in known:
        raise InvalidInput(
            f"There is no local model {name!r}." if name else "Which model?",
            hint=f"--model is one of: {', '.join(known)}",
            field="--model",
        )
    return name


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder.", hint="Name a folder of documents.", field="--documents")
    return folder.absolute()


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`training.epochs=1` as a nested mapping, checked against the settings' own rules."""
    import yaml

    from assistant.settings import load_settings

    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot or section not in SETTABLE:
            raise InvalidInput(
                f"--set {pair!r} is not SECTION.KEY=VALUE.",
                hint=f"Sections: {', '.join(SETTABLE)}. For example training.epochs=1",
                field="--set",
            )
        tree.setdefault(section, {})[name.strip()] = yaml.safe_load(value)
    load_settings(overrides=tree)
    return tree
