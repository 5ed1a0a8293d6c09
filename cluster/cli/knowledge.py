"""ingest, search, ask: put documents in and get cited answers out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from assistant.errors import InvalidInput
from cluster.cli import exits
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, plain, say, say_json, stderr, stdout

EXCERPT = 320


def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Folders, each a source named after it."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A dataset configuration; without it and PATH, dataset_config.yml."),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="An empty source removes everything that it had.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Bring the knowledge base up to date with folders or with a dataset configuration.

    Unchanged documents cost nothing, changed ones are replaced, vanished ones removed. A broken file is
    reported and skipped. Interrupt it whenever you like: the next run completes it.

    Examples:

        ai-assistant ingest ../handbook ../runbooks

        ai-assistant ingest --config dataset_config.yml
    """
    import asyncio

    from cluster.ingestion import run_ingestion

    if paths and config:
        raise InvalidInput("Give folders or --config, not both.", field="--config")
    for path in paths or []:
        if not path.is_dir():
            what = "is not a folder" if path.exists() else "does not exist"
            raise InvalidInput(
                f"{path} {what}.", hint="Give the folder that holds the documents.", field="PATH"
            )
    installation = Installation.load()
    installation.state()
    report = asyncio.run(
        run_ingestion(
            installation.settings,
            installation.layout,
            installation.plan(),
            config=None if paths else config or installation.dataset_config,
            folders=paths or (),
            console=None if json_output else stderr(),
            allow_empty=allow_empty,
        )
    )
    if json_output:
        say_json(report.as_json())
    else:
        report.print(stdout())
    if report.exit_code:
        raise typer.Exit(exits.ERROR)


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Most results.")] = 5,
    mode: Annotated[
        Literal["hybrid", "dense", "sparse"], typer.Option(help="By meaning, by words, or both.")
    ] = "hybrid",
    where: Annotated[
        list[str] | None, typer.Option("--where", help="FIELD=VALUE, repeatable: only documents like this.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Find passages by meaning and by words.

    Examples:

        ai-assistant search "rotate credentials"

        ai-assistant search "disk full" --limit 3 --where category=runbooks --json
    """
    body = {"query": query, "limit": limit, "mode": mode, "filters": _filters(where or [])}
    found = Installation.load().api().post("/api/v1/search", body)
    if json_output:
        say_json(found)
        return
    for number, hit in enumerate(found["hits"], 1):
        say(f"{number}. {location(hit)}   {hit['score']:.3f}")
        say(f"   {excerpt(hit['text'])}")
        say(f"   passage {hit['chunk_id']}\n")
    say(f"{len(found['hits'])} passages in {found['took_ms']:.0f} ms")
    note(f"Rate it: ai-assistant feedback search {found['query_id']} --thumb up")


def ask(
    question: Annotated[str, typer.Argument(help="In your own words.")],
    model: Annotated[
        str, typer.Option(help="`assistant` answers from your documents; others chat without them.")
    ] = "assistant",
    json_output: Json = False,
) -> None:
    """Answer a question from the knowledge base, with its sources.

    Every [n] in the answer is a passage of a stored document, listed below it. When nothing fits, the
    answer says so.

    Examples:

        ai-assistant ask "What should I do when KubePersistentVolumeFillingUp fires?"

        ai-assistant ask "What is a vector index?" --model auto
    """
    from cluster.cli.api import problem

    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    texts: list[str] = []
    answer: Mapping[str, Any] = {}
    finished = False
    for event in Installation.load().api().stream("POST", "/v1/chat/completions", body):
        data = event.data
        if not isinstance(data, dict):
            continue
        if event.name == "error" or "error" in data:
            if texts and not json_output:
                say()
            raise problem(data, 502)
        answer = data.get("assistant") or answer
        for choice in data.get("choices") or []:
            text = (choice.get("delta") or {}).get("content") or ""
            texts.append(text)
            finished = finished or bool(choice.get("finish_reason"))
            if not json_output:
                say(text, end="")
    if not finished:
        raise problem({"detail": "The answer broke off.", "hint": "Ask again."}, 502)
    if json_output:
        say_json({"question": question, "answer": "".join(texts), **answer})
        return
    say()
    _print_sources(answer)


def _print_sources(answer: Mapping[str, Any]) -> None:
    citations = answer.get("citations") or []
    if citations:
        say("\nSources")
    for citation in citations:
        say(f"  [{citation['marker']}] {location(citation)}")
        if citation.get("quote"):
            say(f"      “{excerpt(citation['quote'], 160)}”")
    if answer and not answer.get("grounded", True):
        note("No stored passage supports this.")
    if answer.get("id"):
        note(f"Rate it: ai-assistant feedback answer {answer['id']} --thumb up")


def location(item: Mapping[str, Any]) -> str:
    """`Title › Heading › Heading (characters 120-480) url`, of a hit or a citation."""
    path = " › ".join([item["title"], *(h for h in item.get("headings") or [] if h != item["title"])])
    where = item.get("url") or item.get("external_id") or ""
    return plain(f"{path} (characters {item['start']}-{item['end']}) {where}".rstrip())


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """On one line, cut at a word."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= limit else flat[:limit].rsplit(" ", 1)[0] + " …"


def _filters(pairs: list[str]) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--where {pair!r} is not FIELD=VALUE.", field="--where")
        known = filters.get(name)
        filters[name] = value if known is None else [*(known if isinstance(known, list) else [known]), value]
    return filters
