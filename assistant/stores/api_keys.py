"""API keys: the secret is shown once, only its SHA-256 is kept.

A plain hash is enough here: the secret has 256 random bits, so there is nothing to guess.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import DictRow

from assistant.clock import new_id
from assistant.stores.postgres import Connection, Database, one, rows
from assistant.stores.values import from_row, identifier
from assistant.types import Principal

PREFIX = "aia_"
SHOWN = len(PREFIX) + 6


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A key without its secret; `prefix` is how its owner recognises it."""

    id: UUID
    name: str
    principal_id: str
    groups: tuple[str, ...]
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class ApiKeyRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        principal_id: str,
        groups: Sequence[str],
        kind: Literal["user", "service"] = "user",
        expires_at: datetime | None = None,
    ) -> tuple[str, ApiKeyRecord]:
        """A new key for the principal, who is made when unknown: (the secret, the record)."""
        secret = PREFIX + secrets.token_urlsafe(32)
        parameters = (
            new_id(),
            identifier(name, "name", 200),
            identifier(principal_id, "principal_id", 255),
            [identifier(group, "groups", 255) for group in groups],
            secret[:SHOWN],
            _digest(secret),
            expires_at,
        )

        async def work(connection: Connection) -> ApiKeyRecord:
            await connection.execute(
                "insert into ai_assistant.users (id, kind) values (%s, %s) on conflict (id) do nothing",
                (principal_id, kind),
            )
            row = await one(
                connection,
                "insert into ai_assistant.api_keys"
                " (id, name, principal_id, groups, prefix, secret_sha256, expires_at)"
                " values (%s, %s, %s, %s, %s, %s, %s)"
                # An update that changes nothing, because only then the row of a repeated call is returned.
                " on conflict (id) do update set name = excluded.name returning *",
                parameters,
            )
            assert row is not None
            return _key(row)

        return secret, await self._database.repeatable(work)

    async def resolve(self, secret: str) -> Principal | None:
        """Whose key this is; None when it is unknown, revoked, expired, or its owner disabled.

        `last_used_at` is kept to the minute, so that a busy key does not cost a write per request.
        """

        async def work(connection: Connection) -> Principal | None:
            row = await one(
                connection,
                """
                select k.id, k.principal_id, k.groups, u.kind, u.groups as own_groups,
                    k.last_used_at is null or k.last_used_at < now() - interval '1 minute' as note
                from ai_assistant.api_keys k join ai_assistant.users u on u.id = k.principal_id
                where k.secret_sha256 = %s and k.revoked_at is null and u.disabled_at is null
                    and (k.expires_at is null or k.expires_at > now())
                """,
                (_digest(secret),),
            )
            if row is None:
                return None
            if row["note"]:
                await connection.execute(
                    "update ai_assistant.api_keys set last_used_at = now() where id = %s", (row["id"],)
                )
            groups = tuple(dict.fromkeys([*row["own_groups"], *row["groups"]]))
            return Principal(row["principal_id"], row["kind"], groups)

        return await self._database.repeatable(work)

    async def revoke(self, key_id: UUID) -> bool:
        """End a key. False: there is no such key that still works."""

        async def work(connection: Connection) -> bool:
            row = await one(
                connection,
                "update ai_assistant.api_keys set revoked_at = now()"
                " where id = %s and revoked_at is null returning id",
                (key_id,),
            )
            return row is not None

        return await self._database.repeatable(work)

    async def list(self) -> list[ApiKeyRecord]:
        """All keys, newest first, revoked ones too."""

        async def work(connection: Connection) -> list[ApiKeyRecord]:
            found = await rows(connection, "select * from ai_assistant.api_keys order by id desc")
            return [_key(row) for row in found]

        return await self._database.repeatable(work)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _key(row: DictRow) -> ApiKeyRecord:
    return from_row(ApiKeyRecord, row)
