"""The requests to a Qdrant server, as its documentation has them: no server binary is at hand to ask."""

import hashlib
import json
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from assistant.errors import ConfigurationError, InvalidInput, StoreUnavailable
from assistant.settings import QdrantSettings
from cluster.backup.qdrant import QdrantBackup

SETTINGS = QdrantSettings(url="http://127.0.0.1:6333", api_key=SecretStr("key"))
CONTENT = b"snapshot of a server"


class Server:
    """Answers as Qdrant 1.20 does, and notes what it was asked."""

    def __init__(self, checksum: str | None = None, refuse: int = 0) -> None:
        self.checksum = checksum or hashlib.sha256(CONTENT).hexdigest()
        self.refuse = refuse
        self.asked: list[tuple[str, str, bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        self.asked.append((request.method, path, request.read()))
        assert request.headers["api-key"] == "key"
        if path == "/":
            return httpx.Response(200, json={"title": "qdrant - vector search engine", "version": "1.20.0"})
        if self.refuse:
            return httpx.Response(self.refuse, json={"status": {"error": "Wrong input: no."}})
        if request.method == "GET" and path.endswith(".snapshot"):
            return httpx.Response(200, content=CONTENT)
        results = {
            "/collections": {"collections": [{"name": "b"}, {"name": "a"}]},
            "/aliases": {"aliases": [{"alias_name": "live", "collection_name": "a"}]},
            "/collections/a/points/count": {"count": 3},
            "/collections/a/snapshots?wait=true": {"name": "a-1.snapshot", "checksum": self.checksum},
        }
        return httpx.Response(200, json={"result": results.get(path, True), "status": "ok"})

    def connected(self) -> QdrantBackup:
        return QdrantBackup(SETTINGS, httpx.MockTransport(self))


def test_a_server_is_told_from_the_edge() -> None:
    with Server().connected() as qdrant:
        assert (qdrant.kind, qdrant.version) == ("qdrant", "1.20.0")
        assert qdrant.collections() == ["a", "b"]
        assert qdrant.aliases() == {"live": "a"}
        assert qdrant.points("a") == 3


def test_a_snapshot_is_fetched_and_none_stays_on_the_server(tmp_path: Path) -> None:
    server = Server()
    with server.connected() as qdrant:
        qdrant.save("a", tmp_path / "a.snapshot")
    assert (tmp_path / "a.snapshot").read_bytes() == CONTENT
    assert [(method, path) for method, path, _ in server.asked[1:]] == [
        ("POST", "/collections/a/snapshots?wait=true"),
        ("GET", "/collections/a/snapshots/a-1.snapshot"),
        ("DELETE", "/collections/a/snapshots/a-1.snapshot?wait=true"),
    ]


def test_a_snapshot_that_arrives_damaged_is_refused(tmp_path: Path) -> None:
    server = Server(checksum="0" * 64)
    with server.connected() as qdrant, pytest.raises(StoreUnavailable, match="arrived damaged"):
        qdrant.save("a", tmp_path / "a.snapshot")
    assert server.asked[-1][0] == "DELETE"


def test_a_server_gets_the_snapshot_as_an_upload(tmp_path: Path) -> None:
    source = tmp_path / "a.snapshot"
    source.write_bytes(CONTENT)
    server = Server()
    with server.connected() as qdrant:
        qdrant.load("a", source, "abc")
    method, path, body = server.asked[-1]
    assert (method, path) == (
        "POST",
        "/collections/a/snapshots/upload?priority=snapshot&wait=true&checksum=abc",
    )
    assert b'name="snapshot"' in body
    assert CONTENT in body


def test_aliases_change_in_one_step() -> None:
    server = Server()
    with server.connected() as qdrant:
        qdrant.point_aliases({"live": "b"})
    assert json.loads(server.asked[-1][2]) == {
        "actions": [
            {"delete_alias": {"alias_name": "live"}},
            {"create_alias": {"alias_name": "live", "collection_name": "b"}},
        ]
    }


@pytest.mark.parametrize(
    ("status", "error"), [(403, ConfigurationError), (400, InvalidInput), (500, StoreUnavailable)]
)
def test_refusals_say_why(status: int, error: type[Exception]) -> None:
    with Server(refuse=status).connected() as qdrant, pytest.raises(error, match="no"):
        qdrant.drop("a")


def test_a_server_that_is_away_is_unavailable() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(StoreUnavailable, match="does not answer"):
        QdrantBackup(SETTINGS, httpx.MockTransport(away))
