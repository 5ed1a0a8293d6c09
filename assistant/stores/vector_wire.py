"""The connection to Qdrant: one client, one place where its failures become ours, and a short way for reads.

Queries and scrolls are written and read as plain JSON, over the client's own HTTP connections: the client's
models cost more than the whole exchange (measured per hybrid query of 2 x 100 hits: 3.4-4.4 ms of CPU with
them, 2.2 ms without). The client's in-memory mode has no wire, so there the same JSON goes through the models.
"""

import json
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from pydantic_core import from_json, to_json
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal

from assistant import tracing
from assistant.errors import (
    AssistantError,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    StoreUnavailable,
)
from assistant.settings import QdrantSettings

# The client opens a new connection per request to a loopback address unless it is given limits.
LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=30.0)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HINT_AWAY = "Look at /health; on a local stack `ai-assistant status` names the process and its log."


def connect(settings: QdrantSettings) -> AsyncQdrantClient:
    """A client for the server in `settings`; nothing is sent yet. ConfigurationError without an address."""
    if settings.url is None:
        raise ConfigurationError(
            "No Qdrant address is set.",
            hint="Set QDRANT_URL, or start the local stack with `ai-assistant up`.",
        )
    loopback = urlsplit(settings.url).hostname in LOOPBACK
    with warnings.catch_warnings():
        if loopback:
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=settings.url,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            timeout=max(1, round(settings.timeout_s)),
            limits=LIMITS,
            trust_env=not loopback,
            # It would ask the server from a thread of its own; `ping` is our check.
            check_compatibility=False,
        )


class QdrantWire:
    """Reads in plain JSON, and the client for everything else."""

    def __init__(self, settings: QdrantSettings, client: AsyncQdrantClient | None) -> None:
        self.client = client or connect(settings)
        self.in_memory = isinstance(self.client._client, AsyncQdrantLocal)
        self._headers = {"content-type": "application/json"}
        if settings.api_key:
            self._headers["api-key"] = settings.api_key.get_secret_value()
        self._timeout = httpx.Timeout(settings.timeout_s).as_dict()

    async def query_batch(
        self, collection: str, searches: Sequence[Mapping[str, Any]]
    ) -> list[list[tuple[UUID, float]]]:
        """(id, score) per hit of each search; the searches are Qdrant's QueryRequest as JSON."""
        async with translated(collection):
            if self.in_memory:
                requests = [models.QueryRequest.model_validate(search) for search in searches]
                answers = await self.client.query_batch_points(collection, requests)
                return [[(UUID(str(p.id)), p.score) for p in answer.points] for answer in answers]
            result = await self._post(collection, "points/query/batch", {"searches": searches})
            return [[(UUID(p["id"]), p["score"]) for p in answer["points"]] for answer in result]

    async def scroll(
        self, collection: str, query_filter: Mapping[str, Any], limit: int, offset: UUID | None = None
    ) -> tuple[list[tuple[UUID, dict[str, Any]]], UUID | None]:
        """One page of (id, payload) in order of id, and where the next one starts."""
        async with translated(collection):
            if self.in_memory:
                records, following = await self.client.scroll(
                    collection,
                    models.Filter.model_validate(query_filter),
                    limit,
                    offset=str(offset) if offset else None,
                )
                page = [(UUID(str(r.id)), r.payload or {}) for r in records]
                return page, UUID(str(following)) if following else None
            body = {"filter": query_filter, "limit": limit, "offset": offset, "with_payload": True}
            result = await self._post(collection, "points/scroll", body)
            following = result.get("next_page_offset")
            page = [(UUID(r["id"]), r["payload"] or {}) for r in result["points"]]
            return page, UUID(following) if following else None

    async def _post(self, collection: str, action: str, body: Mapping[str, Any]) -> Any:
        http = self.client.http.client
        request = httpx.Request(
            "POST",
            f"{http.host.rstrip('/')}/collections/{collection}/{action}",
            headers=self._headers,
            content=to_json(body),
            extensions={"timeout": self._timeout},
        )
        with tracing.span(
            f"{action} {collection}",
            kind="client",
            nested=True,
            db__system__name="qdrant",
            db__operation__name=action,
            db__collection__name=collection,
        ):
            response = await http.send_inner(request)
            if response.status_code != 200:
                raise UnexpectedResponse.for_response(response)
        return from_json(response.content)["result"]


@asynccontextmanager
async def translated(collection: str) -> AsyncIterator[None]:
    """Turns what the client raises, over the wire or in memory, into this product's errors."""
    try:
        yield
    except ResponseHandlingException as error:
        raise _away(str(error.source) or type(error.source).__name__) from error
    except ResourceExhaustedResponse as error:
        raise _away("it is overloaded") from error
    except UnexpectedResponse as error:
        raise _refused(collection, error.status_code or 500, _message(error.content)) from error
    except ValueError as error:
        if isinstance(error, AssistantError):
            raise
        found = "not found" in str(error) or "doesn't exist" in str(error)
        exists = "already exists" in str(error)
        raise _refused(collection, 404 if found else 409 if exists else 400, str(error)) from error


def _refused(collection: str, status: int, message: str) -> AssistantError:
    if status == 404:
        return NotFound(
            f"Qdrant has no collection {collection!r}.",
            hint="Ingest something first: `ai-assistant ingest`.",
            collection=collection,
        )
    if status in {401, 403}:
        return ConfigurationError(
            "Qdrant refused the API key.", hint="Set QDRANT_API_KEY to the server's key."
        )
    if status == 409:
        return Conflict(f"Qdrant: {message}", collection=collection)
    if status < 500 and status != 429:
        return InvalidInput(f"Qdrant refused the request: {message}", collection=collection)
    return _away(f"it answered {status}: {message}")


def _away(why: str) -> StoreUnavailable:
    return StoreUnavailable(f"Qdrant does not answer: {why}.", hint=HINT_AWAY, store="qdrant")


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
