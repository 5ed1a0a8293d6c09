"""keys: API keys for people and programs, straight in the database."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from uuid import UUID

import typer

from assistant.errors import InvalidInput, NotFound
from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import note, say, say_json, table

if TYPE_CHECKING:
    from assistant.stores.api_keys import ApiKeyRecord, ApiKeyRepository

T = TypeVar("T")

app = typer.Typer(
    help="API keys. They are asked for when `security.auth` is `api_key`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    principal: Annotated[str, typer.Option("--for", help="Who uses it: a user or service id.")],
    group: Annotated[
        list[str] | None, typer.Option("--group", help="A group whose documents it may see, repeatable.")
    ] = None,
    kind: Annotated[Literal["user", "service"], typer.Option(help="What the principal is.")] = "user",
    json_output: Json = False,
) -> None:
    """Make a key. Its secret is printed once and kept nowhere.

    Examples:

        ai-assistant keys create "Ada's laptop" --for ada --group platform

        AI_ASSISTANT_API_KEY=$(ai-assistant keys create ci --for ci --kind service --json | jq -r .secret)
    """
    secret, record = _run(lambda keys: keys.create(name, principal, group or (), kind))
    if json_output:
        say_json({"secret": secret, **_json(record)})
        return
    say(secret)
    note("Shown once. Send it as `Authorization: Bearer …`, or set AI_ASSISTANT_API_KEY for this command.")


@app.command("list")
def list_(json_output: Json = False) -> None:
    """List all keys, newest first. Secrets are not kept, so none is shown.

    Examples:

        ai-assistant keys list
    """
    records = _run(lambda keys: keys.list())
    if json_output:
        say_json([_json(record) for record in records])
        return
    table(
        ("id", "key", "name", "principal", "groups", "last used", "state"),
        [
            (
                record.id,
                f"{record.prefix}…",
                record.name,
                record.principal_id,
                ", ".join(record.groups),
                record.last_used_at.strftime("%Y-%m-%d %H:%M") if record.last_used_at else "never",
                "revoked" if record.revoked_at else "active",
            )
            for record in records
        ],
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="From `keys list`.")], json_output: Json = False
) -> None:
    """End a key. It stops working within 15 seconds.

    Examples:

        ai-assistant keys revoke 0190f5a0-…
    """
    try:
        identifier = UUID(key_id)
    except ValueError:
        raise InvalidInput(
            f"{key_id!r} is no id.", hint="`ai-assistant keys list` prints them.", field="ID"
        ) from None
    if not _run(lambda keys: keys.revoke(identifier)):
        raise NotFound(f"There is no active key {key_id}.", hint="`ai-assistant keys list` shows all.")
    if json_output:
        say_json({"id": key_id, "revoked": True})
    else:
        say(f"Revoked {key_id}.")


def _run(work: "Callable[[ApiKeyRepository], Awaitable[T]]") -> T:
    import asyncio

    from assistant.stores.api_keys import ApiKeyRepository
    from assistant.stores.postgres import Database
    from cluster.ingestion import with_stores

    installation = Installation.load()
    if installation.settings.postgres.url is None:
        installation.state()
        settings = with_stores(installation.settings, installation.plan().env).postgres
    else:
        settings = installation.settings.postgres

    async def run() -> T:
        database = Database(settings)
        await database.open()
        try:
            return await work(ApiKeyRepository(database))
        finally:
            await database.close()

    return asyncio.run(run())


def _json(record: "ApiKeyRecord") -> dict[str, object]:
    return {
        "id": str(record.id),
        "name": record.name,
        "principal_id": record.principal_id,
        "groups": list(record.groups),
        "prefix": record.prefix,
        "created_at": record.created_at.isoformat(),
        "last_used_at": record.last_used_at.isoformat() if record.last_used_at else None,
        "expires_at": record.expires_at.isoformat() if record.expires_at else None,
        "revoked_at": record.revoked_at.isoformat() if record.revoked_at else None,
    }
