"""feedback: say what an answer, a search result or an RFC was worth; the product learns from it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from assistant.errors import InvalidInput
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, say_json

app = typer.Typer(
    help="Rate, comment or correct what you got: the product learns from it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Thumb = Annotated[Literal["up", "down"] | None, typer.Option("--thumb", help="Good or bad.")]
Stars = Annotated[int | None, typer.Option("--stars", min=1, max=5, help="1 to 5.")]
Comment = Annotated[str | None, typer.Option("--comment", help="What was right or wrong, in your words.")]
Edit = Annotated[
    Path | None,
    typer.Option("--edit", help="A file with the text as it should have been; - reads standard input."),
]


@app.command()
def answer(
    answer_id: Annotated[str, typer.Argument(metavar="ID", help="Printed by `ask`.")],
    thumb: Thumb = None,
    stars: Stars = None,
    comment: Comment = None,
    edit: Edit = None,
    json_output: Json = False,
) -> None:
    """Say what an answer was worth, or how it should have been.

    Saying it again replaces what you said before.

    Examples:

        ai-assistant feedback answer 0190f5a0-… --thumb up

        ai-assistant feedback answer 0190f5a0-… --stars 2 --comment "outdated" --edit better.md
    """
    body = _body(thumb, stars, comment, edit)
    _give(f"/api/v1/answers/{_identifier(answer_id)}/feedback", body, json_output)


@app.command()
def search(
    query_id: Annotated[str, typer.Argument(metavar="ID", help="Printed by `search`.")],
    chunk: Annotated[
        str | None, typer.Option("--chunk", help="The passage that is meant; without it, the whole list.")
    ] = None,
    thumb: Thumb = None,
    stars: Stars = None,
    comment: Comment = None,
    json_output: Json = False,
) -> None:
    """Say what a search, or one passage that it found, was worth.

    Examples:

        ai-assistant feedback search 0190f5a0-… --stars 4

        ai-assistant feedback search 0190f5a0-… --chunk 5c1e… --thumb down --comment "other product"
    """
    body = _body(thumb, stars, comment, None)
    if chunk is not None:
        body["chunk_id"] = _identifier(chunk)
    _give(f"/api/v1/search/{_identifier(query_id)}/feedback", body, json_output)


@app.command()
def rfc(
    rfc_id: Annotated[str, typer.Argument(metavar="ID", help="From `rfc list`.")],
    section: Annotated[
        str | None, typer.Option("--section", help="Title of the section that is meant.")
    ] = None,
    thumb: Thumb = None,
    stars: Stars = None,
    comment: Comment = None,
    edit: Edit = None,
    json_output: Json = False,
) -> None:
    """Say what an RFC or one of its sections was worth, or how the section should read.

    Examples:

        ai-assistant feedback rfc 0190f5a0-… --stars 4

        ai-assistant feedback rfc 0190f5a0-… --section Goals --edit goals.md
    """
    if edit is not None and section is None:
        raise InvalidInput("--edit needs --section: the part that it replaces.", field="--section")
    body = _body(thumb, stars, comment, edit)
    if section is not None:
        body["section"] = section
    _give(f"/api/v1/rfc/{_identifier(rfc_id)}/feedback", body, json_output)


def _body(thumb: str | None, stars: int | None, comment: str | None, edit: Path | None) -> dict[str, Any]:
    if thumb is None and stars is None and comment is None and edit is None:
        raise InvalidInput("Nothing to say.", hint="Give --thumb, --stars, --comment or --edit.")
    values = {
        "thumb": None if thumb is None else 1 if thumb == "up" else -1,
        "stars": stars,
        "comment": comment,
        "edited_text": None if edit is None else _text(edit),
    }
    return {name: value for name, value in values.items() if value is not None}


def _text(file: Path) -> str:
    try:
        return typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as UTF-8 text: {error}.", field="--edit") from None


def _identifier(text: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no id.", hint="`ask`, `search` and `rfc list` print them.", field="ID"
        ) from None


def _give(path: str, body: dict[str, Any], as_json: bool) -> None:
    given = Installation.load().api().post(path, body)
    if as_json:
        say_json(given)
        return
    note("Thank you. It counts at once." if given["verified"] else "Thank you. It counts in a moment.")
