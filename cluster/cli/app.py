"""`ai-assistant`: one Typer application. Commands import what they need when they run, so help is instant."""

import sys
from typing import Annotated

import typer

from assistant.errors import AssistantError
from cluster.cli import (
    backup,
    collections,
    evaluation,
    exits,
    feedback,
    keys,
    knowledge,
    learn,
    models,
    rfc,
    stack,
    tune,
)
from cluster.cli.output import note, report_error, say

app = typer.Typer(
    name="ai-assistant",
    help="AI Assistant on this machine: cited answers, search and RFC drafts over your own documents.",
    epilog='Start: `ai-assistant up`, then `ai-assistant ask "What does a readiness probe do?"`. '
    + exits.MANUAL,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="The stack")(stack.up)
app.command(rich_help_panel="The stack")(stack.down)
app.command(rich_help_panel="The stack")(stack.status)
app.command(rich_help_panel="The stack")(stack.logs)
app.command(rich_help_panel="Knowledge")(knowledge.ingest)
app.command(rich_help_panel="Knowledge")(knowledge.search)
app.command(rich_help_panel="Knowledge")(knowledge.ask)
app.add_typer(collections.app, name="collections", rich_help_panel="Knowledge")
app.add_typer(feedback.app, name="feedback", rich_help_panel="Knowledge")
app.add_typer(rfc.app, name="rfc", rich_help_panel="Documents")
app.add_typer(evaluation.app, name="eval", rich_help_panel="Quality")
app.add_typer(learn.app, name="learn", rich_help_panel="Quality")
app.add_typer(tune.app, name="tune", rich_help_panel="Quality")
app.command(rich_help_panel="Administration")(models.models)
app.add_typer(keys.app, name="keys", rich_help_panel="Administration")
app.command(rich_help_panel="Administration")(backup.backup)
app.command(rich_help_panel="Administration")(backup.restore)
app.command(rich_help_panel="Administration")(backup.verify)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    if version:
        from cluster.services import version as installed

        say(installed())
        raise typer.Exit


def main() -> None:
    """Run the command; an error of ours becomes one sentence and an exit code that means something."""
    try:
        app()
    except AssistantError as error:
        report_error(error, as_json="--json" in sys.argv)
        sys.exit(exits.exit_code(error))
    except KeyboardInterrupt:
        note("Interrupted. Services that were started go on; `ai-assistant status` shows them.")
        sys.exit(exits.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left, as `head` does.
        sys.stderr.close()
        sys.exit(exits.OK)
