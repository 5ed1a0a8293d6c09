"""The live collection and its embedder, as one: where the alias leads now, followed without a pause."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from assistant.errors import AssistantError, NotFound, Unavailable
from assistant.retrieval.embedders import Embedder, SentenceTransformerEmbedder, installed_embedder
from assistant.retrieval.search import SearchService
from assistant.settings import EmbedderSettings, Settings
from assistant.stores.vectors import CollectionInfo, VectorStore
from assistant.telemetry import get_logger

log = get_logger("retriever")

T = TypeVar("T")
EmbedQuery = Callable[[Embedder, str], Awaitable[np.ndarray]]


@dataclass(frozen=True, eq=False, slots=True)
class Index:
    """A collection by its own name, and the embedder that made its vectors: never one without the other.

    `collection` is None before the first ingestion.
    """

    collection: str | None
    embedder: Embedder
    service: SearchService


class LiveIndex:
    """Asks every `learning.poll_s` where the alias leads.

    Until a new embedder is loaded the old index serves, whose collection is still there. Calls that have
    begun end on the index they began with.
    """

    def __init__(self, settings: Settings, store: VectorStore, embed: EmbedQuery) -> None:
        self._settings = settings
        self._store = store
        self._embed = embed
        self._alias = settings.qdrant.collection
        self._current: Index | None = None
        self._configured: Embedder | None = None
        self._problem: str | None = None
        self._told: str | None = None
        self._switching = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load what is live, else the configured embedder; then follow. ConfigurationError without weights."""
        await self._try()
        if self._current is None:
            embedder = await asyncio.to_thread(self._load, self._settings.embedder)
            self._current = self._index(None, embedder)
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    @property
    def current(self) -> Index:
        """What serves now. Unavailable when something is live that cannot be served."""
        assert self._current is not None
        if self._current.collection is None and self._problem is not None:
            raise Unavailable(f"Search does not work: {self._problem}", hint="See the Retriever's log.")
        return self._current

    @property
    def embedders(self) -> dict[str, int]:
        """Name → dimension of the embedders that texts can be embedded with."""
        assert self._current is not None
        configured, live = self._settings.embedder, self._current.embedder
        return {configured.name: configured.dimension, live.name: live.dimension}

    async def use(self, work: Callable[[Index], Awaitable[T]]) -> T:
        """The result of `work` on the live index; once more when its collection was dropped under it."""
        if self._current is not None and self._current.collection is None:
            await self._try()
        index = self.current
        try:
            return await work(index)
        except NotFound as error:
            if index.collection is None or error.extra.get("collection") != index.collection:
                raise
            await self.refresh()
            if self.current is index:
                raise
            return await work(self.current)

    async def embedder(self, name: str | None) -> Embedder:
        """The live one by default; the configured one by its name, loaded when first asked for."""
        live = self.current.embedder if name is None else self._named(name)
        if live is not None:
            return live
        async with self._switching:
            if self._configured is None:
                self._configured = await asyncio.to_thread(self._load, self._settings.embedder)
            return self._configured

    async def refresh(self) -> None:
        """Follow the alias now. Raises StoreUnavailable, and ConfigurationError without the weights."""
        async with self._switching:
            if self._current is not None and self._current.collection is not None:
                # One cheap question as long as nothing changes.
                name = await self._store.live_name(self._alias)
                if name in {None, self._current.collection}:
                    return
            live = await self._store.live(self._alias)
            if live is None:
                return
            embedder = await self._embedder_of(live)
            self._current = self._index(live.name, embedder)
        log.info("index_live", collection=live.name, embedder=embedder.name)

    def _named(self, name: str) -> Embedder | None:
        assert self._current is not None
        if name == self._current.embedder.name:
            return self._current.embedder
        if name != self._settings.embedder.name:
            raise NotFound(
                f"There is no embedding model {name!r}.",
                hint=f"Use {' or '.join(self.embedders)}.",
                field="model",
            )
        return self._configured

    async def _embedder_of(self, live: CollectionInfo) -> Embedder:
        known = [self._current.embedder] if self._current else []
        known += [self._configured] if self._configured else []
        for embedder in known:
            if (embedder.name, embedder.dimension) == (live.embedder, live.dimension):
                return embedder
        settings = installed_embedder(self._settings, live.embedder)
        settings = settings.model_copy(update={"dimension": live.dimension})
        return await asyncio.to_thread(self._load, settings)

    def _index(self, collection: str | None, embedder: Embedder) -> Index:
        # No collection has a name with a zero: nothing is found, and nothing of another embedder either.
        name = collection or f"{self._alias}__none__0"
        qdrant = self._settings.qdrant.model_copy(update={"collection": name})
        settings = self._settings.model_copy(update={"qdrant": qdrant})
        return Index(
            collection, embedder, SearchService(self._store, partial(self._embed, embedder), settings)
        )

    def _load(self, embedder: EmbedderSettings) -> Embedder:
        path = embedder.path or self._settings.models_dir / embedder.name
        return SentenceTransformerEmbedder(embedder, path)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.learning.poll_s)
            await self._try()

    async def _try(self) -> None:
        """Follow the alias; a failure leaves what served, and is told once."""
        try:
            await self.refresh()
            self._problem = self._told = None
        except Exception as error:
            # A store that is away says nothing about what is live.
            if not (isinstance(error, AssistantError) and error.retryable):
                self._problem = str(error)
            if str(error) != self._told:
                self._told = str(error)
                log.error("alias_not_followed", alias=self._alias, reason=self._told)
