"""backup, restore, verify: everything that cannot be made again, in one folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assistant.errors import InvalidInput
from cluster.cli import exits
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import say, say_json, size

if TYPE_CHECKING:
    from assistant.settings import Settings
    from cluster.backup.manifest import Manifest

Backup = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="A backup, or a folder of backups, of which the newest counts."),
]


def backup(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Where backups go; `backups` in the state folder."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Save Postgres, Qdrant, adapters, learning runs and MLflow's files while everything goes on.

    The backup is a folder named after its time. It appears when all of it is on disk: one that was interrupted
    never looks whole, and the next run removes it. Weights and logs are left out, `up` makes them anew. Keep the
    folder on another disk; it holds your documents and the hashes of API keys, and only you can read it.

    Examples:

        ai-assistant backup /mnt/backups

        ai-assistant backup --json | jq -r .path
    """
    from cluster.backup.make import BackupMaker
    from cluster.cli.progress import TerminalProgress
    from cluster.services import component_versions

    installation = Installation.load()
    settings = _with_stores(installation)
    root = (folder or installation.layout.home / "backups").absolute()
    with TerminalProgress(quiet=json_output) as progress:
        progress.working("backup", "reading")
        maker = BackupMaker(settings, installation.layout.home, root, component_versions(), progress.done)
        path, manifest = maker.make()
    if json_output:
        say_json({"path": str(path), **_summary(manifest)})
        return
    say(f"{path}: {size(manifest.bytes)} in {manifest.seconds:.1f} s.")
    say(f"Check it: ai-assistant verify {path}")


def restore(
    path: Backup,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there already.")] = False,
    skip_vectors: Annotated[
        bool, typer.Option("--skip-vectors", help="Leave Qdrant as it is; ingest again afterwards.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Put a backup back into the running stack; what was written after it is lost.

    The whole backup is checked first, and a damaged or foreign one is refused by the name of its file. Postgres is
    replaced in one transaction, every collection in one step. Interrupted, it is repeated with the same command.
    Start an empty stack with `ai-assistant up --no-ingest`, restore, then `ai-assistant down` and `up`.

    Examples:

        ai-assistant restore /mnt/backups

        ai-assistant restore /mnt/backups/ai-assistant-20261123T080000000Z --force
    """
    from cluster.backup.manifest import find
    from cluster.backup.restore import Restorer
    from cluster.cli.progress import TerminalProgress

    installation = Installation.load()
    settings = _with_stores(installation)
    began = time.monotonic()
    source = find(path.absolute())
    with TerminalProgress(quiet=json_output) as progress:
        progress.working("restore", "checking the backup")
        restorer = Restorer(settings, installation.layout.home, progress.done)
        manifest = restorer.restore(source, force=force, vectors=not skip_vectors)
    seconds = round(time.monotonic() - began, 2)
    if json_output:
        say_json({"path": str(source), **_summary(manifest), "seconds": seconds})
        return
    say(f"Restored {manifest.id} of {manifest.created_at} in {seconds:.1f} s.")
    say("Start the application anew, so that it forgets what it held: ai-assistant down && ai-assistant up")


def verify(path: Backup, json_output: Json = False) -> None:
    """Check a backup: every file against its checksum, the dump and the snapshots against their counts.

    Needs nothing that runs. Ends with 1 when something is wrong, and names the file.

    Examples:

        ai-assistant verify /mnt/backups

        ai-assistant verify /mnt/backups/ai-assistant-20261123T080000000Z --json
    """
    from cluster.backup.manifest import find
    from cluster.backup.restore import verify as check
    from cluster.cli.progress import TerminalProgress

    source = find(path.absolute())
    with TerminalProgress(quiet=json_output) as progress:
        manifest, problems = check(source, lambda name: progress.working("verify", name))
    if json_output:
        say_json({"path": str(source), "whole": not problems, "problems": problems, **_summary(manifest)})
    else:
        for problem in problems:
            say(f"  {problem}")
        found = "is damaged" if problems else "is whole"
        say(
            f"{source} {found}: {len(manifest.files)} files, {size(manifest.bytes)}, of {manifest.created_at}."
        )
    if problems:
        raise typer.Exit(exits.ERROR)


def _summary(manifest: "Manifest") -> dict[str, object]:
    return {
        "id": manifest.id,
        "created_at": manifest.created_at,
        "seconds": manifest.seconds,
        "bytes": manifest.bytes,
        "rows": sum(manifest.postgres.rows.values()),
        "collections": {name: part.points for name, part in manifest.qdrant.collections.items()},
        "versions": manifest.versions,
    }


def _with_stores(installation: Installation) -> "Settings":
    """The settings with addresses: those given, else those of the running stack. Raises NotRunning."""
    settings = installation.settings
    if not installation.layout.home.is_dir():
        raise InvalidInput(
            f"The state folder {installation.layout.home} does not exist.",
            hint="Start the stack with `ai-assistant up`, or set AI_ASSISTANT_HOME.",
        )
    if settings.postgres.url is not None and settings.qdrant.url is not None:
        return settings
    from cluster.ingestion import with_stores

    installation.state()
    return with_stores(settings, installation.plan().env)
