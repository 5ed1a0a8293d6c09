"""Which adapter each local model serves with, and every adapter that was ever offered, with its lineage.

A model has at most one live champion, challenger and previous. Replicas read `active` and follow; nothing
else tells them. Every change is one transaction under a lock of that model, and repeating one that has
happened already changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.errors import InvalidInput, NotFound
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import from_row, identifier, jsonb, page_size

Alias = Literal["champion", "challenger", "previous"]
Decision = Literal["candidate", "promoted", "rejected", "rolled_back", "withdrawn"]

NAMED = ("registry_version", "data_hash", "code_version", "metrics")
"""Members of a lineage that have columns of their own; the others go into `lineage`."""

INSTALLATION = "installation"
"""Who decided on the base model."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One adapter's record. `adapter` None is the base model; `retired_at` None means that it is live.

    `share` is the share of the requests that a challenger gets, 0 to 1. `alias` of a retired record is the
    last one that it held.
    """

    id: UUID
    model: str
    adapter: str | None
    alias: Alias
    decision: Decision
    created_at: datetime
    registry_version: str | None = None
    data_hash: str | None = None
    code_version: str | None = None
    share: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    decided_by: str | None = None
    updated_at: datetime | None = None
    retired_at: datetime | None = None


class DeploymentRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, model: str | None = None) -> list[Deployment]:
        """What is live now, of one model or of all: champion, challenger, previous."""

        async def work(connection: Connection) -> list[Deployment]:
            found = await rows(
                connection,
                "select * from ai_assistant.model_deployments where retired_at is null"
                " and (%s::text is null or model = %s) order by model, alias",
                (model, model),
            )
            return [_deployment(row) for row in found]

        return await self._database.repeatable(work)

    async def history(self, model: str, limit: int = 50) -> list[Deployment]:
        """Every record of a model, the last offered first."""
        page_size(limit)

        async def work(connection: Connection) -> list[Deployment]:
            found = await rows(
                connection,
                "select * from ai_assistant.model_deployments where model = %s order by id desc limit %s",
                (model, limit),
            )
            return [_deployment(row) for row in found]

        return await self._database.repeatable(work)

    async def challenge(self, model: str, adapter: str, share: float, **lineage: Any) -> Deployment:
        """Serve `adapter` beside the champion, for this share of the requests; 0: only when asked for by name.

        Another challenger is withdrawn. An adapter that is champion already stays it: look at `alias`.
        """
        _checked(model, adapter)
        _check_share(share)
        offered = new_id()

        async def work(connection: Connection) -> Deployment:
            live = await _live(connection, model)
            champion, challenger = live.get("champion"), live.get("challenger")
            if champion is not None and champion.adapter == adapter:
                return champion
            if challenger is not None and challenger.adapter == adapter:
                return await _update(connection, challenger.id, lineage, share=share)
            if challenger is not None:
                await _update(connection, challenger.id, retire=True, decision="withdrawn")
            return await _insert(
                connection, offered, model, adapter, "challenger", "candidate", lineage, share=share
            )

        return await self._database.repeatable(work)

    async def promote(self, model: str, adapter: str, by: str, **lineage: Any) -> Deployment:
        """Make `adapter` the champion, whether it was challenger or not; the champion becomes previous."""
        _checked(model, adapter)
        offered, base = new_id(), new_id()

        async def work(connection: Connection) -> Deployment:
            live = await _live(connection, model)
            champion, challenger, previous = (live.get(a) for a in ("champion", "challenger", "previous"))
            if champion is not None and champion.adapter == adapter:
                return champion
            if previous is not None:
                await _update(connection, previous.id, retire=True)
            if champion is not None:
                await _update(connection, champion.id, alias="previous")
            else:
                await _insert(connection, base, model, None, "previous", "promoted", {}, by=INSTALLATION)
            if challenger is not None and challenger.adapter == adapter:
                return await _update(
                    connection, challenger.id, lineage, alias="champion", decision="promoted", by=by, share=0
                )
            await _insert(connection, offered, model, adapter, "champion", "promoted", {}, by=by)
            return await _update(connection, offered, await _told(connection, model, adapter) | lineage)

        return await self._database.repeatable(work)

    async def rollback(self, model: str, by: str, adapter: str | None = None) -> Deployment:
        """Take the champion back: the previous one is champion again, or the base model (`adapter` None).

        With `adapter` only that champion is taken back; when another one serves, nothing changes. Returns the
        champion of now.
        """
        identifier(model, "model")
        restored = new_id()
        target = adapter or _adapter_of(await self.active(model))

        async def work(connection: Connection) -> Deployment:
            live = await _live(connection, model)
            champion, previous = live.get("champion"), live.get("previous")
            if champion is None:
                return await _insert(
                    connection, restored, model, None, "champion", "promoted", {}, by=INSTALLATION
                )
            if champion.adapter is None or champion.adapter != target:
                return champion
            await _update(connection, champion.id, retire=True, decision="rolled_back", by=by)
            if previous is not None:
                return await _update(connection, previous.id, alias="champion")
            return await _insert(connection, restored, model, None, "champion", "promoted", {}, by=by)

        return await self._database.repeatable(work)

    async def reject(
        self, model: str, adapter: str, by: str, metrics: Mapping[str, Any], reason: str
    ) -> Deployment:
        """Record that `adapter` was not good enough; a challenger of this name leaves."""
        _checked(model, adapter)
        offered = new_id()
        facts = {"metrics": metrics, "reason": reason}

        async def work(connection: Connection) -> Deployment:
            challenger = (await _live(connection, model)).get("challenger")
            if challenger is not None and challenger.adapter == adapter:
                return await _update(
                    connection, challenger.id, facts, retire=True, decision="rejected", by=by
                )
            known = await one(
                connection,
                "select * from ai_assistant.model_deployments"
                " where model = %s and adapter = %s and decision = 'rejected' order by id desc limit 1",
                (model, adapter),
            )
            if known is not None:
                return _deployment(known)
            await _insert(
                connection, offered, model, adapter, "challenger", "rejected", facts, by=by, live=False
            )
            return await _update(connection, offered)

        return await self._database.repeatable(work)

    async def withdraw(self, model: str) -> Deployment | None:
        """The challenger leaves. None: there was none."""

        async def work(connection: Connection) -> Deployment | None:
            challenger = (await _live(connection, model)).get("challenger")
            if challenger is None:
                return None
            return await _update(connection, challenger.id, retire=True, decision="withdrawn")

        return await self._database.repeatable(work)

    async def set_share(self, model: str, share: float) -> Deployment:
        """Give the challenger this share of the requests. NotFound when there is no challenger."""
        _check_share(share)

        async def work(connection: Connection) -> Deployment:
            challenger = (await _live(connection, model)).get("challenger")
            if challenger is None:
                raise NotFound(f"{model} has no challenger.", hint="Offer an adapter first.")
            return await _update(connection, challenger.id, share=share)

        return await self._database.repeatable(work)


async def _live(connection: Connection, model: str) -> dict[str, Deployment]:
    """The live records by alias; other changes of this model wait until the transaction ends."""
    await connection.execute(b"select pg_advisory_xact_lock(hashtextextended(%s, 7))", (f"deploy:{model}",))
    found = await rows(
        connection,
        "select * from ai_assistant.model_deployments where model = %s and retired_at is null",
        (model,),
    )
    return {row["alias"]: _deployment(row) for row in found}


async def _told(connection: Connection, model: str, adapter: str) -> dict[str, Any]:
    """What an earlier record of this adapter says of its origin."""
    row = await one(
        connection,
        "select registry_version, data_hash, code_version, metrics, lineage from ai_assistant.model_deployments"
        " where model = %s and adapter = %s and metrics <> '{}' order by id desc limit 1",
        (model, adapter),
    )
    if row is None:
        return {}
    lineage = {name: value for name, value in row.pop("lineage").items() if name != "reason"}
    return {**lineage, **row}


async def _insert(
    connection: Connection,
    id: UUID,  # noqa: A002
    model: str,
    adapter: str | None,
    alias: Alias,
    decision: Decision,
    lineage: Mapping[str, Any],
    *,
    share: float = 0.0,
    by: str | None = None,
    live: bool = True,
) -> Deployment:
    row = await one(
        connection,
        "insert into ai_assistant.model_deployments (id, model, adapter, alias, decision, decided_by, share,"
        " retired_at) values (%s, %s, %s, %s, %s, %s, %s, case when %s then null else now() end) returning id",
        (id, model, adapter, alias, decision, by, share, live),
    )
    assert row is not None
    return await _update(connection, id, lineage)


async def _update(
    connection: Connection,
    id: UUID,  # noqa: A002
    lineage: Mapping[str, Any] | None = None,
    *,
    alias: Alias | None = None,
    decision: Decision | None = None,
    by: str | None = None,
    share: float | None = None,
    retire: bool = False,
) -> Deployment:
    """What is not given stays; metrics and lineage are merged into what is there."""
    given = dict(lineage or {})
    registry, data, code, metrics = (given.pop(name, None) for name in NAMED)
    row = await one(
        connection,
        """
        update ai_assistant.model_deployments set
            alias = coalesce(%s, alias), decision = coalesce(%s, decision),
            decided_by = coalesce(%s, decided_by), share = coalesce(%s, share),
            registry_version = coalesce(%s, registry_version), data_hash = coalesce(%s, data_hash),
            code_version = coalesce(%s, code_version), metrics = metrics || %s, lineage = lineage || %s,
            retired_at = case when %s then now() else retired_at end, updated_at = now()
        where id = %s returning *
        """,
        (
            *(alias, decision, by, share, None if registry is None else str(registry), data, code),
            *(jsonb(metrics or {}), jsonb(given), retire, id),
        ),
    )
    assert row is not None
    return _deployment(row)


def _adapter_of(active: Sequence[Deployment]) -> str | None:
    return next((d.adapter for d in active if d.alias == "champion"), None)


def _checked(model: str, adapter: str) -> None:
    identifier(model, "model")
    identifier(adapter, "adapter", 100)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidInput(f"share is {share}, it must be between 0 and 1.", field="share")


def _deployment(row: DictRow) -> Deployment:
    return from_row(Deployment, row)
