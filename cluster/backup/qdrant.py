"""Collections of a Qdrant, as snapshots over its REST API: the same for a server and for Qdrant Edge.

They differ in one step. A server takes a snapshot as an upload; Qdrant Edge runs on this machine and reads the file.
Of a cluster of servers this sees one node: production snapshots each node by itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

import httpx

from assistant.errors import ConfigurationError, InvalidInput, StoreUnavailable
from assistant.settings import QdrantSettings
from cluster.backup.manifest import sha256

TIMEOUT_S = 3600.0
"""A snapshot of a large collection takes minutes, in which nothing is sent."""
CHUNK = 1 << 20


class QdrantBackup:
    """Raises StoreUnavailable when Qdrant is away or fails, InvalidInput when it refuses a snapshot."""

    def __init__(self, settings: QdrantSettings, transport: httpx.BaseTransport | None = None) -> None:
        if settings.url is None:
            raise ConfigurationError("No Qdrant address is set.", hint="Set QDRANT_URL.")
        key = {"api-key": settings.api_key.get_secret_value()} if settings.api_key else {}
        loopback = urlsplit(settings.url).hostname in {"127.0.0.1", "localhost", "::1"}
        self._client = httpx.Client(
            base_url=settings.url,
            headers=key,
            timeout=httpx.Timeout(TIMEOUT_S, connect=10),
            transport=transport,
            trust_env=not loopback,
        )
        about = self._json("GET", "/", whole=True)
        self.kind: Literal["qdrant", "qdrant-edge"] = (
            "qdrant-edge" if "Edge" in str(about.get("title")) else "qdrant"
        )
        self.version = str(about.get("version", "unknown"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def collections(self) -> list[str]:
        return sorted(item["name"] for item in self._json("GET", "/collections")["collections"])

    def aliases(self) -> dict[str, str]:
        listed = self._json("GET", "/aliases")["aliases"]
        return {item["alias_name"]: item["collection_name"] for item in listed}

    def points(self, collection: str) -> int:
        answer = self._json("POST", f"{_path(collection)}/points/count", {"exact": True})
        return int(answer["count"])

    def save(self, collection: str, target: Path) -> None:
        """A snapshot into `target`; none is left on the server."""
        made = self._json("POST", f"{_path(collection)}/snapshots?wait=true")
        address = f"{_path(collection)}/snapshots/{quote(made['name'], safe='')}"
        try:
            with (
                self._translated(),
                self._client.stream("GET", address) as answer,
                target.open("wb") as sink,
            ):
                answer.raise_for_status()
                for chunk in answer.iter_bytes(CHUNK):
                    sink.write(chunk)
        finally:
            self._json("DELETE", f"{address}?wait=true")
        if made.get("checksum") not in {None, sha256(target)}:
            raise StoreUnavailable(f"The snapshot of {collection} arrived damaged.", hint="Try again.")

    def load(self, collection: str, source: Path, checksum: str) -> None:
        """Replace the collection, or make it, from a snapshot."""
        path = f"{_path(collection)}/snapshots"
        if self.kind == "qdrant-edge":
            body = {"location": source.absolute().as_uri(), "checksum": checksum, "priority": "snapshot"}
            self._json("PUT", f"{path}/recover?wait=true", body)
            return
        query = f"priority=snapshot&wait=true&checksum={checksum}"
        with self._translated(), source.open("rb") as stream:
            files = {"snapshot": (source.name, stream, "application/octet-stream")}
            _refuse(self._client.post(f"{path}/upload?{query}", files=files))

    def point_aliases(self, wanted: Mapping[str, str]) -> None:
        """Make the aliases exactly these, in one step."""
        actions: list[dict[str, Any]] = [{"delete_alias": {"alias_name": alias}} for alias in self.aliases()]
        actions += [
            {"create_alias": {"alias_name": alias, "collection_name": name}} for alias, name in wanted.items()
        ]
        if actions:
            self._json("POST", "/collections/aliases", {"actions": actions})

    def drop(self, collection: str) -> None:
        self._json("DELETE", _path(collection))

    def _json(self, method: str, path: str, body: Any = None, *, whole: bool = False) -> Any:
        with self._translated():
            answer = self._client.request(method, path, json=body)
            _refuse(answer)
            return answer.json() if whole else answer.json()["result"]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise StoreUnavailable(
                f"Qdrant at {self._client.base_url} does not answer: {error or type(error).__name__}.",
                hint="Look at `ai-assistant status`.",
            ) from None


def _refuse(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        reason = answer.json()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        reason = answer.text[:300] or f"status {answer.status_code}"
    if answer.status_code in {401, 403}:
        raise ConfigurationError(f"Qdrant refuses our key: {reason}.", hint="Check QDRANT_API_KEY.")
    kind = InvalidInput if answer.status_code < 500 else StoreUnavailable
    raise kind(f"Qdrant refuses {answer.request.url.path}: {str(reason).rstrip('.')}.")


def _path(collection: str) -> str:
    return f"/collections/{quote(collection, safe='')}"
