"""The RFC calls over real repositories; a hand instead of a Writer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from assistant.rfc.artefacts import STAGES
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.postgres import Database
from assistant.types import Citation
from serve_app.writer import principal_of
from tests.serve_app.conftest import Bench, served

pytestmark = pytest.mark.integration
BODY = {"title": "Grow  volumes", "brief": "Volumes fill up.", "answers": {"who": "platform"}}


@pytest.fixture
def bench(make_bench: Callable[..., Bench], database: Database) -> Bench:
    return make_bench(database=database)


def events_of(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])))
    return found


async def create(client: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    response = await client.post("/api/v1/rfc", json=BODY, headers=headers)
    assert response.status_code == 202, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_created_draft_is_a_job_of_its_caller(bench: Bench) -> None:
    async with bench.client(**{"x-request-id": "draft-1"}) as client:
        response = await client.post("/api/v1/rfc", json=BODY)
        made = response.json()
        shown = (await client.get(made["links"]["self"])).json()
        listed = (await client.get("/api/v1/rfc")).json()
    assert response.headers["location"] == made["links"]["self"]
    assert (made["status"], shown["title"], shown["answers"]) == (
        "queued",
        "Grow volumes",
        {"who": "platform"},
    )
    assert [s["stage"] for s in shown["stages"]] == list(STAGES)
    assert {s["status"] for s in shown["stages"]} == {"pending"}
    assert [item["id"] for item in listed["items"]] == [made["id"]]
    assert bench.writing.notified == 1
    job = await bench.services.jobs.get(UUID(made["job_id"]))
    assert job is not None
    assert job.payload["request_id"] == "draft-1"
    assert principal_of(job).kind == "anonymous"


async def test_same_key_is_the_same_draft_and_another_body_a_conflict(bench: Bench) -> None:
    async with bench.client() as client:
        first = await create(client, **{"idempotency-key": "k1"})
        assert (await create(client, **{"idempotency-key": "k1"}))["id"] == first["id"]
        assert (await create(client))["id"] != first["id"]
        other = await client.post(
            "/api/v1/rfc", json=BODY | {"title": "Else"}, headers={"idempotency-key": "k1"}
        )
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"title": ""}, 422),
        ({"title": "   "}, 400),
        ({"brief": ""}, 422),
        ({"template": "unknown"}, 404),
        ({"titel": "x"}, 422),
        ({"answers": {"q": 1}}, 422),
    ],
)
async def test_wrong_drafts_are_refused(bench: Bench, change: dict[str, Any], status: int) -> None:
    async with bench.client() as client:
        response = await client.post("/api/v1/rfc", json=BODY | change)
        assert response.status_code == status
        assert (await client.get("/api/v1/rfc")).json()["items"] == []


async def test_drafts_belong_to_their_author(make_bench: Callable[..., Bench], database: Database) -> None:
    keys = ApiKeyRepository(database)
    ada, _ = await keys.create("a", "ada", ["platform"])
    bob, _ = await keys.create("b", "bob", ["platform"])
    bench = make_bench(database=database, overrides={"security": {"auth": "api_key"}})
    async with bench.client(authorization=f"Bearer {ada}") as client:
        made = await create(client, **{"idempotency-key": "k"})
        assert (await client.get(made["links"]["self"])).status_code == 200
    async with bench.client(authorization=f"Bearer {bob}") as client:
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/export"),
            ("POST", "/cancel"),
        ):
            assert (await client.request(method, made["links"]["self"] + path)).status_code == 404
        assert (await client.get("/api/v1/rfc")).json()["items"] == []
        assert (await create(client, **{"idempotency-key": "k"}))["id"] != made["id"]


async def test_events_are_followed_live_and_end(bench: Bench) -> None:
    jobs = bench.services.jobs
    async with (
        served(bench.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        made = await create(client)
        job_id = UUID(made["job_id"])
        await jobs.claim("rfc", "hand", 60)
        await jobs.append_event(job_id, "stage", {"stage": "brief", "status": "started"})
        got: list[str] = []
        async with client.stream("GET", made["links"]["events"]) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    got.append(line[7:])
                    if got == ["stage"]:
                        await jobs.append_event(job_id, "section", {"index": 0})
                        await jobs.append_event(job_id, "done", {"rfc_id": made["id"]})
    assert got == ["stage", "section", "done"]


async def test_events_resume_after_the_last_one_seen(bench: Bench) -> None:
    jobs = bench.services.jobs
    async with bench.client() as client:
        made = await create(client)
        job_id = UUID(made["job_id"])
        await jobs.claim("rfc", "hand", 60)
        seqs = [await jobs.append_event(job_id, "stage", {"n": n}) for n in range(3)]
        seqs.append(await jobs.append_event(job_id, "done", {}))
        await jobs.finish(job_id, "hand", "done")
        whole = events_of((await client.get(made["links"]["events"])).text)
        rest = await client.get(made["links"]["events"], headers={"last-event-id": str(seqs[1])})
        over = await client.get(made["links"]["events"], headers={"last-event-id": str(seqs[-1])})
        wrong = await client.get(made["links"]["events"], headers={"last-event-id": "x"})
    assert [seq for seq, _, _ in whole] == seqs
    assert events_of(rest.text) == whole[2:]
    assert over.status_code == 204
    assert (wrong.status_code, wrong.json()["field"]) == (400, "Last-Event-ID")


async def test_cancelled_before_anybody_took_it(bench: Bench) -> None:
    async with bench.client() as client:
        made = await create(client)
        cancelled = await client.post(f"{made['links']['self']}/cancel")
        again = await client.post(f"{made['links']['self']}/cancel")
        events = events_of((await client.get(made["links"]["events"])).text)
    assert cancelled.json()["status"] == "cancelled"
    assert again.status_code == 409
    ((_, name, data),) = events
    assert (name, data["problem"]["state"]) == ("error", "cancelled")
    assert await bench.services.jobs.claim("rfc", "hand", 60) is None


async def test_finished_draft_is_shown_and_exported(bench: Bench) -> None:
    rfcs, jobs = bench.services.rfcs, bench.services.jobs
    citation = Citation(1, uuid4(), uuid4(), "Runbook", ("Fix",), 0, 9, "Grow it.", "hash", None, None)
    async with bench.client() as client:
        made = await create(client)
        early = await client.get(f"{made['links']['self']}/export")
        job = await jobs.claim("rfc", "hand", 60)
        assert job is not None
        rfc_id = UUID(made["id"])
        await rfcs.save_stage(rfc_id, "brief", {"a": 1}, None, 12)
        running = (await client.get(made["links"]["self"])).json()
        await rfcs.finish(rfc_id, "# Grow <b>volumes</b> [1]", [citation], "small", 7, None, 99)
        shown = (await client.get(made["links"]["self"])).json()
        export = await client.get(f"{made['links']['self']}/export?format=md")
        other = await client.get(f"{made['links']['self']}/export?format=pdf")
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    assert [s["status"] for s in running["stages"][:3]] == ["done", "started", "pending"]
    assert (shown["status"], shown["model"], shown["tokens_used"]) == ("done", "small", 7)
    assert "<b>" not in shown["html"]
    assert f'data-chunk="{citation.chunk_id}"' in shown["html"]
    assert shown["citations"][0]["quote"] == "Grow it."
    assert export.headers["content-disposition"].startswith('attachment; filename="rfc.md"')
    assert "Grow it." in export.text
    assert other.status_code == 422


async def test_pages_follow_the_cursor(bench: Bench) -> None:
    async with bench.client() as client:
        made = [(await create(client))["id"] for _ in range(5)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = (
                await client.get("/api/v1/rfc", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            ).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    assert seen == made[::-1]


async def test_templates_are_listed(bench: Bench) -> None:
    async with bench.client() as client:
        items = (await client.get("/api/v1/rfc/templates")).json()["items"]
    assert "new_feature" in {item["name"] for item in items}
    assert all(item["sections"] for item in items)


async def test_watchers_do_not_take_the_slots_of_work(
    make_bench: Callable[..., Bench], database: Database
) -> None:
    bench = make_bench(
        database=database, overrides={"serve": {"max_ongoing_requests": 1, "max_queued_requests": 0}}
    )
    async with (
        served(bench.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        made = await create(client)
        async with client.stream("GET", made["links"]["events"]) as stream, asyncio.timeout(10):
            await anext(stream.aiter_lines())
            assert (await client.get("/api/v1/me")).status_code == 200
            assert (await client.get(made["links"]["events"])).status_code == 429
