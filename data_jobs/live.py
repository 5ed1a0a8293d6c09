"""Which collection ingestion writes to, and with which embedder: those that searches use."""

from assistant.errors import ConfigurationError, Conflict
from assistant.retrieval.embedders import installed_embedder
from assistant.settings import EmbedderSettings, Settings
from assistant.stores.vectors import CollectionInfo, VectorStore


async def bound_to_live(settings: Settings) -> Settings:
    """The settings with the live collection's own name and its embedder; the first ingestion makes it.

    Raises Conflict when the live collection was built otherwise than the settings ask for, or with an
    embedder whose weights are not here.
    """
    alias = settings.qdrant.collection
    store = VectorStore(settings.qdrant)
    try:
        live = await store.live(alias)
        embedder = settings.embedder
        if live is not None and live.embedder != embedder.name:
            embedder = _followed(settings, live, await store.collections(alias))
        name = await store.ensure_collection(
            alias,
            embedder.name,
            embedder.dimension,
            settings.retrieval.model_dump(mode="json", include={"language", "average_length"}),
        )
    finally:
        await store.close()
    qdrant = settings.qdrant.model_copy(update={"collection": name})
    return settings.model_copy(update={"qdrant": qdrant, "embedder": embedder})


def _followed(settings: Settings, live: CollectionInfo, built: list[CollectionInfo]) -> EmbedderSettings:
    """The live collection's embedder, unless the configuration asks for one that nothing was built with."""
    wanted = settings.embedder.name
    asked = "name" in settings.embedder.model_fields_set
    if asked and wanted not in {collection.embedder for collection in built}:
        raise Conflict(
            f"embedder.name is {wanted!r}, but the live collection {live.name} was built with {live.embedder!r}.",
            hint=f"Build one beside it, `ai-assistant collections build --embedder {wanted}`, and promote it; "
            f"or set embedder.name to {live.embedder}.",
            collection=live.name,
        )
    try:
        return installed_embedder(settings, live.embedder)
    except ConfigurationError as error:
        raise Conflict(
            f"The live collection {live.name} was built with another embedder. {error.detail}",
            hint=f"{error.hint} Or return to the collection before it: `ai-assistant collections rollback`.",
            collection=live.name,
        ) from error
