"""Asks the stores and servers of an installation whether they answer, each with a real question."""

import time
from collections.abc import Mapping

import httpx

from assistant.errors import Unavailable
from assistant.settings import Settings
from assistant.stores.postgres import Database
from assistant.stores.vectors import VectorStore
from serve_app.api.services import Ping


def store_pings(
    settings: Settings, database: Database, vectors: VectorStore, http: httpx.AsyncClient
) -> Mapping[str, Ping]:
    """Milliseconds by name: postgres, qdrant, and mlflow where its address is one of HTTP."""
    pings: dict[str, Ping] = {"postgres": database.ping, "qdrant": vectors.ping}
    uri = settings.mlflow.tracking_uri
    if uri is not None and uri.startswith(("http://", "https://")):
        pings["mlflow"] = lambda: _ping_mlflow(http, uri)
    return pings


async def _ping_mlflow(http: httpx.AsyncClient, uri: str) -> float:
    started = time.perf_counter()
    try:
        (await http.get(f"{uri.rstrip('/')}/health")).raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"MLflow does not answer: {error}") from None
    return (time.perf_counter() - started) * 1000
