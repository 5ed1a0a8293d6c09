"""Feedback over HTTP: on what one may see, once per person and thing, whatever was flushed yet."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from assistant.clock import new_id, stable_id
from assistant.learning.examples import MAKER
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.documents import DocumentRecord, DocumentRepository
from assistant.stores.postgres import Database
from assistant.stores.sources import SourceRepository
from assistant.types import Citation, Hit
from tests.serve_app.conftest import Bench, make_hit

pytestmark = pytest.mark.integration
KEYS = {"security": {"auth": "api_key"}}
QUESTION = "What should I do when the volume fills up?"
EVIDENCE = "When the volume fills up, delete old snapshots and grow the claim. Then watch the usage."


@pytest.fixture
def bench(make_bench: Callable[..., Bench], database: Database) -> Bench:
    return make_bench(database=database, hits=[make_hit(EVIDENCE)])


async def document_of(database: Database, hit: Hit, *acl: str) -> None:
    source = await SourceRepository(database).ensure("runbooks", "search_sources", "folder", {})
    record = DocumentRecord(hit.document_id, source.id, str(uuid4()), "Runbook", "h", "text/plain", acl=acl)
    await DocumentRepository(database).begin([record])


async def asked(client: httpx.AsyncClient) -> dict[str, Any]:
    body = {"model": "assistant", "messages": [{"role": "user", "content": QUESTION}]}
    answer = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
    extra: dict[str, Any] = answer["assistant"]
    return {**extra, "text": answer["choices"][0]["message"]["content"]}


async def test_an_answer_is_stored_rated_and_learned_from(bench: Bench, database: Database) -> None:
    await document_of(database, bench.retrieval.hits[0], "public")
    learning = bench.services.learning
    async with bench.client() as client:
        answer = await asked(client)
        await learning.log.flush()
        response = await client.post(
            f"/api/v1/answers/{answer['id']}/feedback", json={"thumb": 1, "comment": "Right."}
        )
        again = await client.post(f"/api/v1/answers/{answer['id']}/feedback", json={"stars": 5})
        own = (await client.get(f"/api/v1/answers/{answer['id']}/feedback")).json()["items"]
    assert (response.status_code, response.json()["verified"]) == (200, True)
    assert again.json()["id"] == response.json()["id"]
    assert [(o["thumb"], o["stars"], o["comment"]) for o in own] == [(None, 5, None)]
    stored = await learning.answers.get(UUID(answer["id"]))
    assert stored is not None
    assert (stored.question, stored.text, stored.grounded) == (QUESTION, answer["text"], True)
    assert [e.text for e in stored.evidence] == [EVIDENCE]
    assert bench.meter.named("ai_assistant_feedback_total") == {("answer", "positive"): 2.0}
    assert bench.meter.named("ai_assistant_answers_total") == {("extractive",): 1.0}
    assert await learning.examples.refresh(MAKER) == 1
    (example,) = await learning.examples.usable(0.6)
    assert "[1]" in example.response
    assert EVIDENCE in example.messages[0].content
    assert "no language model" not in example.response


async def test_feedback_that_comes_before_the_answer_is_stored_is_not_lost(
    bench: Bench, database: Database
) -> None:
    await document_of(database, bench.retrieval.hits[0], "public")
    learning = bench.services.learning
    async with bench.client() as client:
        answer = await asked(client)
        assert learning.log.waiting == 1
        response = await client.post(f"/api/v1/answers/{answer['id']}/feedback", json={"thumb": 1})
        assert (response.status_code, response.json()["verified"]) == (200, False)
    await learning.examples.refresh(MAKER)
    assert await learning.examples.usable(0.6) == []
    await learning.log.close()
    await learning.examples.refresh(MAKER)
    assert len(await learning.examples.usable(0.6)) == 1


async def test_streams_name_their_answer_too(bench: Bench) -> None:
    body = {"model": "assistant", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    async with bench.client() as client:
        text = (await client.post("/v1/chat/completions", json=body)).text
    assert '"assistant":{"id":"' in text
    assert bench.services.learning.log.waiting == 1
    await bench.services.learning.log.close()


async def test_a_rating_waits_for_nothing_but_fresh_ids(bench: Bench) -> None:
    async with bench.client() as client:
        for path in (f"/api/v1/answers/{uuid4()}/feedback", f"/api/v1/search/{uuid4()}/feedback"):
            response = await client.post(path, json={"thumb": 1})
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert response.headers["content-type"] == "application/problem+json"
        fresh = await client.post(f"/api/v1/search/{new_id()}/feedback", json={"thumb": 1})
    assert (fresh.status_code, fresh.json()["verified"]) == (200, False)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "thumb"),
        ({"comment": " "}, 400, "thumb"),
        ({"thumb": 0}, 422, "thumb"),
        ({"stars": 6}, 422, "stars"),
        ({"stars": 4.5}, 422, "stars"),
        ({"comment": "x" * 4001}, 422, "comment"),
        ({"edited_text": "x" * 50_001}, 422, "edited_text"),
        ({"thumb": 1, "more": 1}, 422, "more"),
    ],
)
async def test_bad_bodies_name_the_field(bench: Bench, body: dict[str, Any], status: int, field: str) -> None:
    async with bench.client() as client:
        response = await client.post(f"/api/v1/answers/{new_id()}/feedback", json=body)
    assert response.status_code == status, response.text
    assert response.json()["field"] == field


async def test_what_one_may_not_see_one_may_not_rate(
    make_bench: Callable[..., Bench], database: Database
) -> None:
    bench = make_bench(database=database, hits=[make_hit(EVIDENCE)], overrides=KEYS)
    await document_of(database, bench.retrieval.hits[0], "group:platform")
    keys = ApiKeyRepository(database)
    ada, _ = await keys.create("a", "ada", ["platform"])
    bob, _ = await keys.create("b", "bob", ["platform"])
    eve, _ = await keys.create("e", "eve", ["sales"])
    async with bench.client(authorization=f"Bearer {ada}") as client:
        answer = await asked(client)
        found = (await client.post("/api/v1/search", json={"query": "volume"})).json()
        await bench.services.learning.log.close()
        await bench.services.searches.close()
        path, search = (
            f"/api/v1/answers/{answer['id']}/feedback",
            f"/api/v1/search/{found['query_id']}/feedback",
        )
        assert (await client.post(path, json={"thumb": 1})).status_code == 200
        chunk = found["hits"][0]["chunk_id"]
        assert (await client.post(search, json={"stars": 2, "chunk_id": chunk})).status_code == 200
        assert (await client.post(search, json={"stars": 2, "chunk_id": str(uuid4())})).status_code == 404
    async with bench.client(authorization=f"Bearer {bob}") as client:
        assert (await client.post(path, json={"thumb": -1})).status_code == 200
        assert (await client.post(search, json={"thumb": 1})).status_code == 404
    async with bench.client(authorization=f"Bearer {eve}") as client:
        assert (await client.post(path, json={"thumb": 1})).status_code == 404
        assert (await client.get(path)).json()["items"] == []
        assert (await client.get("/api/v1/learning/examples")).json()["items"] == []
    learning = bench.services.learning
    await learning.examples.refresh(MAKER)
    assert (await learning.feedback.stats())["total"] == 3
    assert await learning.examples.usable(0.0) == []


async def finished_rfc(bench: Bench, client: httpx.AsyncClient) -> str:
    made = (await client.post("/api/v1/rfc", json={"title": "Limits", "brief": "Protect the API."})).json()
    markdown = "# Limits\n\n## Goals and scope\n\nThe API stays alive under bursts of a single team [1].\n"
    cited = Citation(1, uuid4(), stable_id("d"), "Runbook", (), 0, 5, "quote", "h")
    await bench.services.rfcs.finish(UUID(made["id"]), markdown, [cited], None, None, None, None)
    return str(made["id"])


async def test_an_rfc_and_its_sections_are_rated(bench: Bench) -> None:
    async with bench.client() as client:
        rfc_id = await finished_rfc(bench, client)
        path = f"/api/v1/rfc/{rfc_id}/feedback"
        assert (await client.post(path, json={"stars": 4})).status_code == 200
        edit = {"section": "goals_and_scope", "edited_text": "It stays alive, whatever one team does to it."}
        response = await client.post(path, json=edit)
        assert response.json()["section"] == "Goals and scope"
        own = (await client.get(path)).json()["items"]
        wrong = await client.post(path, json=edit | {"section": "Nothing"})
        nowhere = await client.post(path, json={"edited_text": "x"})
    assert [(o["section"], o["stars"]) for o in own] == [(None, 4), ("Goals and scope", None)]
    assert (wrong.status_code, wrong.json()["field"]) == (400, "section")
    assert "Goals and scope" in wrong.json()["hint"]
    assert (nowhere.status_code, nowhere.json()["field"]) == (400, "section")


async def test_an_unfinished_or_foreign_rfc_is_not_rated(bench: Bench) -> None:
    async with bench.client() as client:
        made = (await client.post("/api/v1/rfc", json={"title": "t", "brief": "b"})).json()
        early = await client.post(f"/api/v1/rfc/{made['id']}/feedback", json={"thumb": 1})
        foreign = await client.post(f"/api/v1/rfc/{new_id()}/feedback", json={"thumb": 1})
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    assert foreign.status_code == 404
