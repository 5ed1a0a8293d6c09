"""How collections come to be: names, settings kept with them, payload indexes, aliases.

Behind an alias there is one live collection. When the alias moves, a second alias, `alias__previous`, is left
on the collection that was live before, in the same atomic step: that is what a rollback returns to.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from assistant.errors import Conflict
from assistant.stores.vector_filters import INDEXED
from assistant.stores.vector_wire import QdrantWire, translated

PREVIOUS = "__previous"
"""What the alias of the collection that was live before ends with."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection `alias__embedder__n`: which embedder made its vectors, and what else shaped them."""

    name: str
    embedder: str
    dimension: int
    parameters: Mapping[str, Any]
    points: int
    live: bool
    previous: bool


class VectorCollections:
    """Makes collections and moves aliases; see VectorStore for what its methods promise."""

    def __init__(self, wire: QdrantWire) -> None:
        self._client = wire.client
        self._in_memory = wire.in_memory

    async def ensure(self, alias: str, embedder: str, dimension: int, parameters: Mapping[str, Any]) -> str:
        wanted = _metadata(embedder, dimension, parameters)
        name = await self.target(alias)
        while name is None:
            # Whoever loses the race adopts the winner's collection: two of them would split the writes.
            # So the number to take comes from the same listing in which there was nothing to adopt.
            taken = await self._numbered(alias, embedder)
            name = await self._adoptable(taken, wanted)
            if name is None:
                name = await self._make(_next_name(alias, embedder, taken), wanted)
            if name is not None:
                await self.move_alias(alias, name)
        async with translated(name):
            info = await self._client.get_collection(name)
        found = info.config.metadata or {}
        if found != wanted:
            different = sorted(key for key in wanted if found.get(key) != wanted[key])
            raise Conflict(
                f"The collection behind {alias!r} was built with other settings: "
                + "; ".join(f"{key} {found.get(key)!r}, now {wanted[key]!r}" for key in different)
                + ".",
                hint="Use the former settings, or build a collection with another embedder beside it: "
                "`ai-assistant collections build --embedder NAME`, then `promote`.",
                collection=name,
            )
        await self._ensure_indexes(name, info)
        return name

    async def create(self, alias: str, embedder: str, dimension: int, parameters: Mapping[str, Any]) -> str:
        metadata = _metadata(embedder, dimension, parameters)
        name = None
        while name is None:
            taken = await self._numbered(alias, embedder)
            name = await self._make(_next_name(alias, embedder, taken), metadata)
        return name

    async def move_alias(self, alias: str, collection: str) -> None:
        before = await self.target(alias)
        actions = _pointing(alias, collection)
        if before is not None and before != collection:
            actions += _pointing(alias + PREVIOUS, before)
        async with translated(collection):
            await self._client.update_collection_aliases(actions)

    async def target(self, alias: str) -> str | None:
        return (await self._aliases()).get(alias)

    async def is_live(self, collection: str) -> bool:
        aliases = await self._aliases()
        return any(target == collection and not a.endswith(PREVIOUS) for a, target in aliases.items())

    async def all(self, alias: str) -> list[CollectionInfo]:
        aliases = await self._aliases()
        async with translated(alias):
            names = [c.name for c in (await self._client.get_collections()).collections]
        family = re.compile(re.escape(alias) + r"__[A-Za-z0-9-]+__(\d+)")
        numbered = sorted((int(m[1]), name) for name in names if (m := family.fullmatch(name)))
        return [await self._describe(name, alias, aliases) for _, name in numbered]

    async def live(self, alias: str) -> CollectionInfo | None:
        aliases = await self._aliases()
        name = aliases.get(alias)
        return None if name is None else await self._describe(name, alias, aliases)

    async def drop(self, collection: str) -> None:
        # Deleting what is not there is no error to the server.
        async with translated(collection):
            await self._client.get_collection(collection)
            await self._client.delete_collection(collection)

    async def _describe(self, name: str, alias: str, aliases: Mapping[str, str]) -> CollectionInfo:
        async with translated(name):
            found = (await self._client.get_collection(name)).config.metadata or {}
            points = (await self._client.count(name, exact=True)).count
        return CollectionInfo(
            name,
            str(found.get("embedder", "")),
            int(found.get("dimension", 0)),
            found.get("parameters") or {},
            points,
            live=aliases.get(alias) == name,
            previous=aliases.get(alias + PREVIOUS) == name,
        )

    async def _aliases(self) -> dict[str, str]:
        async with translated("aliases"):
            found = (await self._client.get_aliases()).aliases
        return {a.alias_name: a.collection_name for a in found}

    async def _numbered(self, alias: str, embedder: str) -> dict[int, str]:
        """The collections `alias__embedder__n` by their n."""
        async with translated(alias):
            names = [c.name for c in (await self._client.get_collections()).collections]
        prefix = _prefix(alias, embedder)
        return {n: name for name in names if (n := _number(name, prefix)) is not None}

    async def _adoptable(self, taken: Mapping[int, str], metadata: Mapping[str, Any]) -> str | None:
        """A collection that a crash left between its creation and its alias, or another process just made."""
        for _, name in sorted(taken.items(), reverse=True):
            async with translated(name):
                if (await self._client.get_collection(name)).config.metadata == metadata:
                    return name
        return None

    async def _make(self, name: str, metadata: Mapping[str, Any]) -> str | None:
        """`name`, or None when another process was faster."""
        dense = models.VectorParams(size=metadata["dimension"], distance=models.Distance.COSINE)
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        try:
            async with translated(name):
                await self._client.create_collection(
                    name,
                    vectors_config={"dense": dense},
                    sparse_vectors_config={"sparse": sparse},
                    metadata=dict(metadata),
                )
        except Conflict:
            return None
        async with translated(name):
            await self._ensure_indexes(name, await self._client.get_collection(name))
        return name

    async def _ensure_indexes(self, name: str, info: models.CollectionInfo) -> None:
        if self._in_memory:
            return  # It has no indexes and warns about each.
        for field, kind in INDEXED.items():
            if field not in info.payload_schema:
                async with translated(name):
                    await self._client.create_payload_index(
                        name, field, models.PayloadSchemaType(kind), wait=True
                    )


def _pointing(alias: str, collection: str) -> list[models.AliasOperations]:
    return [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        ),
    ]


def _metadata(embedder: str, dimension: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    # As it comes back from Qdrant, so that a tuple equals its list.
    plain = json.loads(json.dumps(dict(parameters)))
    return {"embedder": embedder, "dimension": dimension, "parameters": plain}


def _prefix(alias: str, embedder: str) -> str:
    return f"{alias}__{re.sub('[^A-Za-z0-9-]+', '-', embedder)}__"


def _next_name(alias: str, embedder: str, taken: Mapping[int, str]) -> str:
    return f"{_prefix(alias, embedder)}{max(taken, default=0) + 1}"


def _number(name: str, prefix: str) -> int | None:
    number = name.removeprefix(prefix)
    return int(number) if number != name and number.isdecimal() else None
