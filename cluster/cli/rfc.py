"""rfc: draft, list, read and export documents."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assistant.errors import AssistantError, ConfigurationError, InvalidInput
from cluster.cli.exits import NotRunning
from cluster.cli.installation import Installation
from cluster.cli.knowledge import location
from cluster.cli.options import Json
from cluster.cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from cluster.cli.api import Api, Event

RECONNECT_S = 60.0
"""Progress is followed over a restart of the server for this long."""

app = typer.Typer(
    help="Draft RFCs from your documents: every sentence has a source.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def new(
    title: Annotated[str, typer.Option("--title", help="What the RFC is called.")],
    brief: Annotated[
        str | None, typer.Option("--brief", help="What you want and why, in your words.")
    ] = None,
    brief_file: Annotated[
        Path | None, typer.Option("--brief-file", help="The same from a file; - reads standard input.")
    ] = None,
    template: Annotated[str, typer.Option(help="The kind of document.")] = "new_feature",
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", help='"QUESTION=ANSWER" to a template question, repeatable.'),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the Markdown here.")] = None,
    json_output: Json = False,
) -> None:
    """Draft an RFC and follow its stages; then print it as Markdown.

    Every factual sentence cites a stored passage or your brief. What has no source is marked
    [NEEDS CLARIFICATION]. The draft goes on when you interrupt this command: `rfc show` finds it.

    Examples:

        ai-assistant rfc new --title "Rate limits" --brief "Protect the API from bursts." --out rfc.md

        ai-assistant rfc new --title "Search cache" --brief-file brief.txt
    """
    text = _brief(brief, brief_file)
    if out is not None and not out.absolute().parent.is_dir():
        raise InvalidInput(f"The folder of {out} does not exist.", field="--out")
    api = Installation.load().api()
    body = {"title": title, "brief": text, "template": template, "answers": _answers(answer or [])}
    accepted = api.post("/api/v1/rfc", body)
    if not json_output:
        note(f"Drafting {accepted['id']}")
    _follow(api, accepted["id"], quiet=json_output)
    _deliver(api, accepted["id"], out, json_output)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on after a former page.")] = None,
    json_output: Json = False,
) -> None:
    """List your RFCs, newest first.

    Examples:

        ai-assistant rfc list --limit 5
    """
    page = Installation.load().api().get("/api/v1/rfc", limit=limit, cursor=cursor)
    if json_output:
        say_json(page)
        return
    table(
        ("id", "status", "created", "title"),
        [(r["id"], r["status"], r["created_at"][:16], r["title"]) for r in page["items"]],
    )
    if page.get("next_cursor"):
        note(f"More: ai-assistant rfc list --cursor {page['next_cursor']}")


@app.command()
def show(
    rfc_id: Annotated[str, typer.Argument(metavar="ID", help="From `rfc list`.")],
    json_output: Json = False,
) -> None:
    """Print an RFC with its state and sources.

    Examples:

        ai-assistant rfc show 0190f5a0-…
    """
    rfc = Installation.load().api().get(f"/api/v1/rfc/{_identifier(rfc_id)}")
    if json_output:
        say_json(rfc)
        return
    note(f"{rfc['title']}: {rfc['status']}" + (f" ({rfc['error']})" if rfc.get("error") else ""))
    for stage in rfc["stages"]:
        note(f"  {stage['stage']:<12} {stage['status']:<8} {_seconds(stage.get('duration_ms'))}")
    if rfc.get("markdown"):
        say(rfc["markdown"])
        _print_sources(rfc)


@app.command()
def export(
    rfc_id: Annotated[str, typer.Argument(metavar="ID", help="From `rfc list`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write here instead of standard output.")] = None,
    json_output: Json = False,
) -> None:
    """Export an RFC as a Markdown file with its sources.

    Examples:

        ai-assistant rfc export 0190f5a0-… --out rfc.md
    """
    markdown = Installation.load().api().text(f"/api/v1/rfc/{_identifier(rfc_id)}/export", format="md")
    if out is not None:
        _write(out, markdown)
    if json_output:
        say_json({"id": rfc_id, "file": str(out) if out else None, "markdown": markdown})
    elif out is None:
        say(markdown)
    else:
        note(f"Written to {out}")


def _follow(api: "Api", rfc_id: str, quiet: bool) -> None:
    """Until the draft is done. Raises what made it fail."""
    from cluster.cli.api import problem

    last = ""
    lost: float | None = None
    while True:
        try:
            for event in api.stream("GET", f"/api/v1/rfc/{rfc_id}/events", last_event_id=last):
                lost = None
                last = event.id or last
                if event.name == "error":
                    raise problem(event.data, 500)
                if event.name == "done":
                    return
                if not quiet:
                    _show(event)
            lost = lost or time.monotonic()
        except NotRunning:
            lost = lost or time.monotonic()
        if time.monotonic() - lost > RECONNECT_S:
            raise AssistantError(
                "The connection was lost while the draft was in work.",
                hint=f"It goes on by itself: ai-assistant rfc show {rfc_id}",
            )
        time.sleep(0.5)


def _show(event: "Event") -> None:
    data = event.data if isinstance(event.data, dict) else {}
    if event.name == "stage":
        note(f"  {data.get('stage', ''):<12} {data.get('status', ''):<8} {_seconds(data.get('duration_ms'))}")
    elif event.name == "section":
        note(f"    {int(data.get('index', 0)) + 1}. {data.get('title', '')}")
    elif event.name == "retry":
        note(f"  trying again: {data.get('detail') or data.get('reason') or ''}")


def _deliver(api: "Api", rfc_id: str, out: Path | None, as_json: bool) -> None:
    rfc = api.get(f"/api/v1/rfc/{rfc_id}")
    if out is not None:
        _write(out, api.text(f"/api/v1/rfc/{rfc_id}/export", format="md"))
    if as_json:
        say_json(rfc)
        return
    if out is not None:
        note(f"Written to {out} with {len(rfc['citations'])} sources.")
        return
    say(rfc["markdown"])
    _print_sources(rfc)


def _print_sources(rfc: dict[str, Any]) -> None:
    for line in _sources(rfc):
        say(line)


def _sources(rfc: dict[str, Any]) -> Iterator[str]:
    if rfc.get("citations"):
        yield "\nSources"
    for citation in rfc.get("citations") or []:
        yield f"  [{citation['marker']}] {location(citation)}"


def _brief(brief: str | None, file: Path | None) -> str:
    if (brief is None) == (file is None):
        raise InvalidInput("Give either --brief or --brief-file.", field="--brief")
    if brief is not None:
        return brief
    assert file is not None
    try:
        return typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as UTF-8 text: {error}.", field="--brief-file") from None


def _answers(pairs: list[str]) -> dict[str, str]:
    answers = {}
    for pair in pairs:
        question, equals, text = pair.partition("=")
        if not equals:
            raise InvalidInput(f'--answer {pair!r} is not "QUESTION=ANSWER".', field="--answer")
        answers[question.strip()] = text.strip()
    return answers


def _identifier(text: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no id.", hint="`ai-assistant rfc list` prints them.", field="ID"
        ) from None


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}.") from None


def _seconds(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
