"""What every request gets: problems for every failure, an id, limits, headers, and the page's files."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI

from assistant.errors import StoreUnavailable
from assistant.llm.providers.scripted import Reply
from serve_app.api import page
from serve_app.api.middleware import accept_request_id
from tests.serve_app.conftest import Bench, make_hit, served, until

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/nowhere", 404, "not_found"),
        ("GET", "/static/missing.js", 404, "not_found"),
        ("GET", "/api/v1/search", 405, "method_not_allowed"),
        ("GET", "/api/v1/chunks/7f000000-0000-0000-0000-000000000000", 404, "not_found"),
        ("GET", "/api/v1/chunks/no-uuid", 422, "invalid_request"),
        ("GET", "/api/v1/documents", 503, "store_unavailable"),
        ("GET", "/api/v1/documents?limit=0", 422, "invalid_request"),
        ("GET", "/v1/models/unknown", 404, "not_found"),
    ],
)
async def test_every_failure_is_a_problem(
    make_bench: Callable[..., Bench], method: str, path: str, status: int, code: str
) -> None:
    async with make_bench().client() as client:
        response = await client.request(method, path)
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["instance"] == f"urn:ai-assistant:request:{response.headers['x-request-id']}"
    assert body["type"] == f"urn:ai-assistant:problem:{code}"
    assert body["detail"]


async def test_405_names_what_is_allowed(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        response = await client.get("/api/v1/search")
    assert response.headers["allow"] == "POST"
    assert "POST" in response.json()["hint"]


async def test_validation_lists_each_field(make_bench: Callable[..., Bench]) -> None:
    body = {"model": "small", "messages": [{"content": "no role"}], "temperature": 9}
    async with make_bench().client() as client:
        response = await client.post("/v1/chat/completions", json=body)
    errors = {e["field"]: e["message"] for e in response.json()["errors"]}
    assert response.status_code == 422
    assert errors["messages[0].role"] == "field required"
    assert "less than or equal to 2" in errors["temperature"]
    assert response.json()["detail"].startswith("messages[0].role: field required")


async def test_misspelt_member_of_a_product_call_is_named(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        response = await client.post("/api/v1/search", json={"query": "x", "filter": {}})
    assert (response.status_code, response.json()["field"]) == (422, "filter")


async def test_unknown_query_parameters_are_ignored(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        assert (await client.get("/api/v1/me?utm=1")).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
async def test_body_that_is_no_json(make_bench: Callable[..., Bench], content: bytes) -> None:
    async with make_bench().client() as client:
        response = await client.post(
            "/api/v1/search", content=content, headers={"content-type": "application/json"}
        )
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"


async def test_unexpected_error_tells_an_id_and_nothing_else(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.retrieval.failure = ZeroDivisionError("secret detail")
    async with bench.client() as client:
        with structlog.testing.capture_logs() as logs:
            response = await client.post("/api/v1/search", json={"query": "x"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    assert any(entry["event"] == "unexpected_error" for entry in logs)


async def test_retryable_store_failure_says_when_to_return(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.retrieval.failure = StoreUnavailable("Qdrant does not answer.")
    async with bench.client() as client:
        response = await client.post("/api/v1/search", json={"query": "x"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["retryable"] is True


@pytest.mark.parametrize("header", ["short-1", "a" * 128, "urn:x/y+z="])
def test_plain_request_ids_are_kept(header: str) -> None:
    assert accept_request_id(header) == header


@pytest.mark.parametrize("header", [None, "", "a" * 129, "two words", "line\nbreak", "ümlaut"])
def test_other_request_ids_are_replaced(header: str | None) -> None:
    assert accept_request_id(header) != header
    assert len(accept_request_id(header)) == 36


async def test_one_log_line_under_the_request_id(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
            response = await client.get("/api/v1/me", headers={"x-request-id": "mine-1"})
            await client.get("/health/live")
    assert response.headers["x-request-id"] == "mine-1"
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert (line["request_id"], line["path"], line["status"], line["principal"]) == (
        "mine-1",
        "/api/v1/me",
        200,
        "local",
    )


async def test_announced_and_unannounced_bodies_are_limited(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(overrides={"serve": {"max_body_bytes": 1000}})

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    headers = {"content-type": "application/json"}
    async with bench.client() as client:
        announced = await client.post("/api/v1/search", content=b"x" * 1001, headers=headers)
        streamed = await client.post("/api/v1/search", content=parts(), headers=headers)
    for response in (announced, streamed):
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert "1000" in response.json()["detail"]


async def test_overload_is_refused_with_a_problem_and_the_rest_is_served(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(
        [Reply("slow", first_token_s=0.3)],
        overrides={"serve": {"max_ongoing_requests": 2, "max_queued_requests": 3}},
    )
    async with bench.client() as client:
        responses = await asyncio.gather(*(client.post("/v1/chat/completions", json=CHAT) for _ in range(12)))
        health = await client.get("/health/live")
    assert sorted(r.status_code for r in responses) == [200] * 5 + [429] * 7
    refused = next(r for r in responses if r.status_code == 429)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["code"] == "rate_limited"
    assert health.status_code == 200


async def test_slot_is_held_for_the_whole_stream_and_freed_by_a_client_that_leaves(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(
        [Reply("word " * 500, token_s=0.01)],
        overrides={"serve": {"max_ongoing_requests": 1, "max_queued_requests": 0}},
    )
    async with (
        served(bench.app) as url,
        httpx.AsyncClient(trust_env=False, base_url=url, timeout=60) as client,
    ):
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
            await anext(response.aiter_lines())
            assert (await client.get("/api/v1/me")).status_code == 429
        await until(lambda: bench.backends["small"].running == 0)
        assert (await client.get("/api/v1/me")).status_code == 200


async def test_security_headers_stand_on_pages_and_problems(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client(origin="https://evil.example") as client:
        for path in ("/health/live", "/nowhere", "/api/v1/me"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>x</title>")
    (folder / "app.js").write_text("export {}")
    (folder / "style.css").write_text("body{}")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


async def test_page_is_served_with_types_and_revalidated(web: Path) -> None:
    app = FastAPI()
    page.install(app, web)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path, kind in (
            ("/", "text/html"),
            ("/static/app.js", "text/javascript"),
            ("/static/style.css", "text/css"),
        ):
            response = await client.get(path)
            assert response.headers["content-type"].startswith(kind)
            assert response.headers["cache-control"] == "no-cache"
            again = await client.get(path, headers={"if-none-match": response.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for outside in ("/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static//etc/passwd"):
            assert (await client.get(outside)).status_code == 404


async def test_openapi_lists_every_call(make_bench: Callable[..., Bench]) -> None:
    async with make_bench().client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/models",
        "/api/v1/search",
        "/api/v1/chunks/{chunk_id}",
        "/api/v1/documents",
        "/api/v1/sources",
        "/api/v1/me",
        "/api/v1/rfc",
        "/api/v1/rfc/{rfc_id}",
        "/api/v1/rfc/{rfc_id}/events",
        "/api/v1/rfc/{rfc_id}/export",
        "/api/v1/rfc/{rfc_id}/cancel",
        "/api/v1/rfc/templates",
        "/health",
        "/health/live",
        "/health/ready",
    } <= set(paths)


async def test_passage_and_search_carry_the_fields_of_a_hit(make_bench: Callable[..., Bench]) -> None:
    hit = make_hit("Grow the claim.")
    async with make_bench(hits=[hit]).client() as client:
        found = (await client.post("/api/v1/search", json={"query": "grow"})).json()
        passage = (await client.get(f"/api/v1/chunks/{hit.chunk_id}")).json()
    assert found["hits"][0]["chunk_id"] == passage["hit"]["chunk_id"] == str(hit.chunk_id)
    assert found["timings_ms"]["embed"] == 1.5
    assert (passage["before"], passage["after"]) == (["before"], ["after"])
