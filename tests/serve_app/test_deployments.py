"""Adapters over HTTP: what serves, moving it, who may, and the names in the list of models."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from assistant.llm.types import BackendHealth
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.postgres import Database
from tests.serve_app.conftest import Bench

PATH = "/api/v1/learning/deployments"
SERVING = {"champion": "answerer-1", "challenger": "answerer-2", "share": 0.1, "loaded": [], "problems": {}}


@pytest.fixture
def make_local(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """A bench whose model is one of this cluster; `serving` is what its replica tells."""

    def build(serving: Mapping[str, Any] | None = None, **options: Any) -> Bench:
        bench = make_bench(engine="llama_cpp", **options)
        backend = bench.backends["small"]
        real = backend.health

        async def health() -> BackendHealth:
            return replace(await real(), info={"slots": 8, "adapters": serving or {}})

        monkeypatch.setattr(backend, "health", health)
        return bench

    return build


async def test_the_list_of_models_has_the_variants_that_exist(make_local: Callable[..., Bench]) -> None:
    async def names(serving: Mapping[str, Any] | None) -> list[str]:
        async with make_local(serving).client() as client:
            return [m["id"] for m in (await client.get("/v1/models")).json()["data"] if "small" in m["id"]]

    assert await names(SERVING) == ["small", "small:base", "small:champion", "small:challenger"]
    assert await names({"champion": None, "challenger": None}) == ["small"]
    assert await names(None) == ["small"]


async def test_one_variant_is_found(make_local: Callable[..., Bench]) -> None:
    async with make_local(SERVING).client() as client:
        assert (await client.get("/v1/models/small:champion")).json()["id"] == "small:champion"
        assert (await client.get("/v1/models/small:oldest")).status_code == 404


async def test_health_shows_what_serves(make_local: Callable[..., Bench]) -> None:
    async with make_local(SERVING).client() as client:
        (model,) = (await client.get("/health")).json()["models"]
    assert model["adapters"] == SERVING
    assert model["info"] == {"slots": 8}


async def test_a_variant_of_a_model_that_is_elsewhere_is_refused(make_bench: Callable[..., Bench]) -> None:
    body = {"model": "small:base", "messages": [{"role": "user", "content": "Hi"}]}
    async with make_bench().client() as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["field"]) == (404, "model")
    assert "served elsewhere" in response.json()["detail"]


@pytest.mark.integration
async def test_everything_about_a_model_is_told(make_local: Callable[..., Bench], database: Database) -> None:
    table = DeploymentRepository(database)
    await table.promote("small", "answerer-1", "gate", data_hash="d", metrics={"rouge_l": {"mean": 0.3}})
    await table.challenge("small", "answerer-2", 0.1)
    await table.reject("small", "answerer-0", "gate", {}, "worse")
    bench = make_local(SERVING, database=database)
    bench.services.live.apply({"canary_share": 0.4})
    async with bench.client() as client:
        told = (await client.get(PATH)).json()
    (item,) = told["items"]
    assert (item["model"], item["serving"]) == ("small", SERVING)
    assert (item["champion"]["adapter"], item["champion"]["data_hash"]) == ("answerer-1", "d")
    assert item["champion"]["metrics"] == {"rouge_l": {"mean": 0.3}}
    assert (item["challenger"]["adapter"], item["challenger"]["share"]) == ("answerer-2", 0.1)
    assert (item["previous"]["adapter"], item["previous"]["alias"]) == (None, "previous")
    assert {(h["adapter"], h["decision"]) for h in item["history"]} >= {("answerer-0", "rejected")}
    assert (told["canary_share"], told["canary_refused"]) == (0.4, None)


@pytest.mark.integration
async def test_the_challenger_is_promoted_and_taken_back(
    make_local: Callable[..., Bench], database: Database
) -> None:
    await DeploymentRepository(database).challenge("small", "answerer-2", 0.1)
    async with make_local(database=database).client() as client:
        share = await client.post(f"{PATH}/small/share", json={"share": 0.5})
        promoted = await client.post(f"{PATH}/small/promote")
        back = await client.post(f"{PATH}/small/rollback", json={"adapter": "answerer-2"})
        again = await client.post(f"{PATH}/small/rollback", json={"adapter": "answerer-2"})
        forth = await client.post(f"{PATH}/small/promote", json={"adapter": "answerer-2"})
    assert share.json()["share"] == 0.5
    assert (promoted.json()["alias"], promoted.json()["decided_by"]) == ("champion", "local")
    assert (back.json()["adapter"], back.json()["alias"]) == (None, "champion")
    assert again.json() == back.json()
    assert forth.json()["adapter"] == "answerer-2"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("call", "body", "status", "named"),
    [
        ("small/promote", None, 404, "no challenger"),
        ("small/promote", {"adapter": "answerer-9"}, 404, "never offered"),
        ("small/share", {"share": 0.5}, 404, "no challenger"),
        ("small/share", {"share": 1.5}, 422, "share"),
        ("small/share", {"share": 0.5, "who": "me"}, 422, "who"),
        ("other/rollback", None, 404, "There is no model 'other'"),
    ],
)
async def test_what_cannot_be_done_is_a_problem(
    make_local: Callable[..., Bench], database: Database, call: str, body: Any, status: int, named: str
) -> None:
    async with make_local(database=database).client() as client:
        response = await client.post(f"{PATH}/{call}", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert named in response.text


async def test_a_remote_model_takes_no_adapters(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        response = await client.post(f"{PATH}/small/rollback")
    assert response.status_code == 404
    assert "served elsewhere" in response.json()["detail"]


@pytest.mark.integration
@pytest.mark.parametrize(("groups", "status"), [((), 403), (("admins",), 200)])
async def test_only_admins_move_adapters_where_keys_are_needed(
    make_local: Callable[..., Bench], database: Database, groups: tuple[str, ...], status: int
) -> None:
    secret, _ = await ApiKeyRepository(database).create("test", "ada", groups)
    bench = make_local(database=database, overrides={"security": {"auth": "api_key"}})
    async with bench.client(authorization=f"Bearer {secret}") as client:
        assert (await client.get(PATH)).status_code == 200
        for call, body in (("rollback", None), ("promote", None), ("share", {"share": 0.1})):
            answer = await client.post(f"{PATH}/small/{call}", json=body)
            assert (answer.status_code == 403) == (status == 403), answer.text
    async with bench.client() as client:
        assert (await client.get(PATH)).status_code == 401
