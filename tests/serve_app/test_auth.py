"""Keys against the real repository: who gets in, as whom, and for how long after a revocation."""

from collections.abc import Callable

import pytest

from assistant.settings import SecuritySettings
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.postgres import Database
from serve_app.api.auth import Authenticator
from tests.serve_app.conftest import Bench

pytestmark = pytest.mark.integration
KEYS = {"security": {"auth": "api_key"}}


async def test_key_names_its_principal(make_bench: Callable[..., Bench], database: Database) -> None:
    secret, _ = await ApiKeyRepository(database).create("laptop", "ada", ["platform"])
    bench = make_bench(database=database, overrides=KEYS)
    async with bench.client(authorization=f"Bearer {secret}") as client:
        me = (await client.get("/api/v1/me")).json()
        await client.post("/api/v1/search", json={"query": "x"})
    assert me == {"id": "ada", "kind": "user", "groups": ["platform"], "auth": "api_key"}
    assert bench.retrieval.searches[0][1].acl_terms() == ("public", "user:ada", "group:platform")


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer ", "Basic abc", "Bearer aia_wrong"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("POST", "/api/v1/search"),
        ("GET", "/api/v1/documents"),
        ("GET", "/api/v1/sources"),
        ("GET", "/api/v1/me"),
        ("POST", "/api/v1/rfc"),
        ("GET", "/api/v1/rfc"),
        ("GET", "/api/v1/rfc/templates"),
        ("GET", "/api/v1/rfc/7f000000-0000-0000-0000-000000000000/events"),
    ],
)
async def test_nothing_is_told_without_a_key(
    make_bench: Callable[..., Bench], database: Database, authorization: str | None, method: str, path: str
) -> None:
    bodies = {
        "/v1/chat/completions": {"model": "small", "messages": [{"role": "user", "content": "x"}]},
        "/v1/embeddings": {"model": "all-MiniLM-L6-v2", "input": "x"},
        "/api/v1/search": {"query": "x"},
        "/api/v1/rfc": {"title": "t", "brief": "b"},
    }
    bench = make_bench(database=database, overrides=KEYS)
    headers = {"authorization": authorization} if authorization else {}
    async with bench.client(**headers) as client:
        response = await client.request(method, path, json=bodies.get(path) if method == "POST" else None)
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert not bench.backends["small"].requests


async def test_health_without_a_key_tells_only_the_state(
    make_bench: Callable[..., Bench], database: Database
) -> None:
    secret, _ = await ApiKeyRepository(database).create("probe", "ops", [])
    bench = make_bench(database=database, overrides=KEYS)
    async with bench.client() as client:
        closed = (await client.get("/health")).json()
        open_ = (await client.get("/health", headers={"authorization": f"Bearer {secret}"})).json()
    assert closed["status"] == open_["status"]
    assert (closed["checks"], closed["models"], closed["counts"]) == ({}, [], None)
    assert "postgres" in open_["checks"]


async def test_known_key_costs_one_query_and_ends_with_the_cache(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ApiKeyRepository(database)
    secret, record = await keys.create("laptop", "ada", [])
    asked = []
    resolve = keys.resolve

    async def counted(text: str) -> object:
        asked.append(text)
        return await resolve(text)

    monkeypatch.setattr(keys, "resolve", counted)
    authenticator = Authenticator(SecuritySettings(auth="api_key"), keys)
    for _ in range(3):
        assert (await authenticator.principal(f"Bearer {secret}")).id == "ada"
    assert len(asked) == 1
    await keys.revoke(record.id)
    authenticator._known.clear()
    with pytest.raises(Exception, match="revoked"):
        await authenticator.principal(f"bearer {secret}")


async def test_secrets_are_not_kept(database: Database) -> None:
    secret, _ = await ApiKeyRepository(database).create("laptop", "ada", [])
    authenticator = Authenticator(SecuritySettings(auth="api_key"), ApiKeyRepository(database))
    await authenticator.principal(f"Bearer {secret}")
    assert secret not in repr(list(authenticator._known.items()))
