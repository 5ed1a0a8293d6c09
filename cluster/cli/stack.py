"""up, down, status, logs: the stack of this state folder."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from assistant.errors import InvalidInput
from cluster.cli import exits
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import duration, note, plain, say, say_json, size, stderr, table
from cluster.layout import Layout

LOG_LINES = 50
FOLLOW_S = 0.25


def up(
    no_ingest: Annotated[
        bool, typer.Option("--no-ingest", help="Do not ingest the starter knowledge on the first start.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Longest time to wait for everything, in seconds.")] = 1200.0,
    json_output: Json = False,
) -> None:
    """Start everything and wait until the page answers.

    Postgres, Qdrant, MLflow and Ray start side by side; a step that is done already costs nothing, so run
    it again whenever you like: after a change of settings it restarts what the change touches. Set
    DATABASE_URL, QDRANT_URL or MLFLOW_TRACKING_URI to use a server of yours instead of a local one.

    Examples:

        ai-assistant up

        AI_ASSISTANT_SERVE__PORT=8001 ai-assistant up --no-ingest
    """
    from cluster.cli.progress import TerminalProgress
    from cluster.starter import ingest_starter
    from cluster.up import Up

    installation = Installation.load()
    settings, layout = installation.settings, installation.layout
    with TerminalProgress(quiet=json_output) as progress:
        started = Up(settings, layout, os.environ, progress)
        result = started.run(timeout)
    if not no_ingest:
        config = installation.dataset_config
        ingest_starter(
            settings, layout, started.plan, config, started.done, None if json_output else stderr()
        )
    if json_output:
        steps = [{"name": s.name, "seconds": s.seconds, "detail": s.detail} for s in started.steps]
        say_json({"urls": dict(result.urls), "seconds": round(started.seconds, 2), "steps": steps})
        return
    say(f"Ready after {started.seconds:.0f} s.")
    _print_urls(result.urls, layout)
    say('Next: ai-assistant ask "…", or open the page. `ai-assistant down` stops everything.')


def down(json_output: Json = False) -> None:
    """Stop everything that `up` started, and only that. Data stay.

    Examples:

        ai-assistant down
    """
    from cluster.files import locked
    from cluster.shutdown import stop_stack

    installation = Installation.load()
    layout = installation.layout

    def report(name: str, how: str, seconds: float) -> None:
        if not json_output:
            note(f"  {name:<12} {how:<10} {seconds:6.1f} s")

    if not layout.home.is_dir():
        stopped = []
    else:
        with locked(layout.launch_lock, timeout_s=0.0) as free:
            if free:
                stopped = stop_stack(layout, report)
        if not free:
            note("Another `ai-assistant up` or `down` is at work: waiting for it.")
            with locked(layout.launch_lock):
                stopped = stop_stack(layout, report)
    if json_output:
        say_json(
            {
                "stopped": [
                    {"name": s.name, "by_itself": s.by_itself, "seconds": round(s.took_s, 2)} for s in stopped
                ]
            }
        )
    elif not stopped:
        say("Nothing was running.")


def status(json_output: Json = False) -> None:
    """Say what runs, where, since when, and in which versions.

    Ends with 0 when everything is in good health, 3 when nothing runs, 4 when something is not ready.

    Examples:

        ai-assistant status

        ai-assistant status --json | jq -r .urls.page
    """
    from cluster.cli.inspection import inspect

    installation = Installation.load()
    found = inspect(installation)
    if json_output:
        say_json(found)
    else:
        _print_status(found)
    if not found["running"]:
        raise typer.Exit(exits.NOT_RUNNING)
    if not found["healthy"]:
        raise typer.Exit(exits.UNHEALTHY)


def _print_status(found: dict[str, Any]) -> None:
    if not found["running"]:
        say(f"AI Assistant {found['version']} does not run. Start it with `ai-assistant up`.")
        say(f"State folder: {found['home']}")
        return
    say(f"AI Assistant {found['version']}: {found['health'] or 'no answer'}")
    rows = []
    for item in found["services"]:
        since = duration(item["uptime_s"]) if item["uptime_s"] is not None else "-"
        used = item["pss_bytes"] or item["rss_bytes"]
        memory = size(used) if used else "-"
        rows.append(
            (item["name"], item["phase"], item["pid"] or "-", since, memory, item["restarts"], item["url"])
        )
    table(("service", "state", "pid", "up", "memory", "restarts", "address"), rows)
    for item in found["services"]:
        if item["failure"] or item["detail"]:
            say(
                f"  {item['name']}: {item['detail'] or 'last failure: ' + item['failure']} (log: {item['log']})"
            )
    if found["supervisor"]["leader"] is None:
        say("  No supervisor watches over these services: run `ai-assistant up`.")
    for name, check in (found["checks"] or {}).items():
        if check["state"] != "ready":
            say(f"  {name}: {check['state']} {check.get('detail') or ''}")
    counts = found["counts"] or {}
    if counts:
        say("Knowledge: " + ", ".join(f"{value} {name}" for name, value in counts.items()))
    _print_urls(found["urls"], Layout(Path(found["home"])))
    say("Versions: " + ", ".join(f"{name} {value}" for name, value in found["versions"].items()))
    say(f"State folder: {found['home']}")


def _print_urls(urls: Mapping[str, str], layout: Layout) -> None:
    for name, url in urls.items():
        # Ray's dashboard asks for the token in the browser too.
        token = f"   (token: {layout.ray_token})" if name == "dashboard" else ""
        say(f"  {name:<10} {url}{token}")


def logs(
    service: Annotated[
        str | None, typer.Argument(help="postgres, qdrant, mlflow, ray, serve or supervisor; all by default.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines to begin with.")] = LOG_LINES,
    json_output: Json = False,
) -> None:
    """Print the end of the logs. `serve` are the logs of the deployments, `ray` those of the node.

    Examples:

        ai-assistant logs

        ai-assistant logs serve -f
    """
    installation = Installation.load()
    files = _log_files(installation, service)
    for path in files:
        tail = _tail(path, lines)
        for line in tail:
            _print_line(path, line, len(files) > 1, json_output)
    if follow:
        for path, line in _follow(files):
            _print_line(path, line, len(files) > 1, json_output)


def _log_files(installation: Installation, service: str | None) -> list[Path]:
    layout = installation.layout
    serve = sorted((layout.ray_temp / "session_latest" / "logs" / "serve").glob("*.log"))
    if service == "serve":
        found = serve
    elif service is None:
        found = sorted(layout.logs.glob("*.log"))
    else:
        found = [layout.log(service)]
    if service not in {None, "serve"} and not found[0].is_file():
        known = ", ".join([*(p.stem for p in sorted(layout.logs.glob("*.log"))), "serve"])
        raise InvalidInput(f"There is no log of {service!r}.", hint=f"Known: {known}.")
    return found


def _tail(path: Path, lines: int) -> list[str]:
    """The last lines, without reading a large file whole."""
    if not lines:
        return []
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 400 * lines))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def _follow(files: list[Path]) -> Iterator[tuple[Path, str]]:
    ends = {path: path.stat().st_size for path in files}
    while True:
        for path, end in ends.items():
            now = path.stat().st_size if path.exists() else 0
            if now < end:
                # The log moved aside: the new one begins at its beginning.
                end = 0
            if now > end:
                with path.open("rb") as file:
                    file.seek(end)
                    new = file.read(now - end)
                whole, _, _ = new.rpartition(b"\n")
                ends[path] = end + len(whole) + 1 if whole or new.startswith(b"\n") else end
                for line in whole.decode(errors="replace").splitlines():
                    yield path, line
        time.sleep(FOLLOW_S)


def _print_line(path: Path, line: str, named: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"log": path.stem, "line": line}, ensure_ascii=False))
    else:
        typer.echo(plain(f"{path.stem}: {line}" if named else line))
