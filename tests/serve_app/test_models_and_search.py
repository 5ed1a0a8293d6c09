"""Models, embeddings, search; the search row in Postgres."""

import base64
from collections.abc import Callable

import httpx
import numpy as np
import openai
import pytest

from assistant.errors import Unavailable
from assistant.stores.postgres import Database, rows
from tests.serve_app.conftest import Bench, make_hit, stock_client


async def test_models_are_listed_and_found(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench(others={"big": ["x"]})) as client:
        names = [m.id async for m in client.models.list()]
        one = await client.models.retrieve("big")
    assert names == ["auto", "assistant", "small", "big", "all-MiniLM-L6-v2"]
    assert one.id == "big"


async def test_stock_client_reads_embeddings(make_bench: Callable[..., Bench]) -> None:
    async with stock_client(make_bench()) as client:
        made = await client.embeddings.create(model="all-MiniLM-L6-v2", input=["ab", "abc"])
        plain = await client.embeddings.create(
            model="all-MiniLM-L6-v2", input="abcd", encoding_format="float"
        )
    assert [d.embedding for d in made.data] == [[2.0, 1.0, 0.5], [3.0, 1.0, 0.5]]
    assert plain.data[0].embedding == [4.0, 1.0, 0.5]
    assert made.usage.total_tokens == 5


async def test_the_live_embedder_is_named_beside_the_configured_one(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.retrieval.embedders = {"next-v2": 96}
    async with stock_client(bench) as client:
        assert [m.id async for m in client.models.list()][-2:] == ["all-MiniLM-L6-v2", "next-v2"]
        made = await client.embeddings.create(model="next-v2", input="ab")
        with pytest.raises(openai.BadRequestError, match="96 dimensions"):
            await client.embeddings.create(model="next-v2", input="ab", dimensions=384)
        bench.retrieval.failure = Unavailable("The Retriever did not answer.")
        assert [m.id async for m in client.models.list()][-1] == "all-MiniLM-L6-v2"
    assert made.model == "next-v2"


async def test_base64_is_little_endian_float32(make_bench: Callable[..., Bench]) -> None:
    body = {"model": "all-MiniLM-L6-v2", "input": "ab", "encoding_format": "base64"}
    async with make_bench().client() as client:
        data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert np.frombuffer(base64.b64decode(data[0]["embedding"]), dtype="<f4").tolist() == [2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"input": []}, 400, "input"),
        ({"input": [[1, 2]]}, 400, "input"),
        ({"input": ["ok", "  "]}, 400, "input"),
        ({"input": ["x"] * 257}, 400, "input"),
        ({"dimensions": 64}, 400, "dimensions"),
        ({"model": "other"}, 404, "model"),
    ],
)
async def test_wrong_embedding_requests(
    make_bench: Callable[..., Bench], change: dict[str, object], status: int, field: str
) -> None:
    body = {"model": "all-MiniLM-L6-v2", "input": "ab"} | change
    async with make_bench().client() as client:
        response = await client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["field"]) == (status, field)


async def test_search_asks_as_the_caller_with_everything_given(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(overrides={"security": {"local_groups": ["platform"]}})
    body = {"query": "volume", "limit": 3, "mode": "dense", "filters": {"source": "runbooks"}}
    async with bench.client() as client:
        assert (await client.post("/api/v1/search", json=body)).status_code == 200
    ((query, principal),) = bench.retrieval.searches
    assert (query.text, query.limit, query.mode, query.filters) == (
        "volume",
        3,
        "dense",
        {"source": "runbooks"},
    )
    assert principal.acl_terms() == ("public", "group:platform")


async def test_filter_on_an_unknown_field_is_named(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        response = await client.post("/api/v1/search", json={"query": "x", "filters": {"colour": "red"}})
    assert response.status_code == 400
    assert "colour" in response.json()["detail"]


async def test_search_ends_at_the_deadline(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(overrides={"llm": {"request_timeout_s": 0.1}})
    bench.retrieval.delay_s = 30
    async with bench.client() as client:
        response = await client.post("/api/v1/search", json={"query": "x"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


@pytest.mark.integration
async def test_search_leaves_its_row(make_bench: Callable[..., Bench], database: Database) -> None:
    hit = make_hit("Grow the claim.")
    bench = make_bench(hits=[hit], database=database)
    async with bench.client(**{"x-request-id": "search-1"}) as client:
        answer: httpx.Response = await client.post("/api/v1/search", json={"query": "grow", "mode": "sparse"})
    await bench.services.searches.close()
    async with database.transaction() as connection:
        (row,) = await rows(connection, "select * from ai_assistant.search_queries")
    assert str(row["id"]) == answer.json()["query_id"]
    assert (row["query_text"], row["request_id"], row["principal_id"], row["mode"]) == (
        "grow",
        "search-1",
        "local",
        "sparse",
    )
    assert (row["results_count"], row["chunk_ids"]) == (1, [hit.chunk_id])
