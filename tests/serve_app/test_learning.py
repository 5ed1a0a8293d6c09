"""/api/v1/learning: the numbers, the examples, the runs and who may start one."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from assistant.clock import new_id
from assistant.learning.examples import MAKER
from assistant.stores.api_keys import ApiKeyRepository
from assistant.stores.learning_runs import JOB_KIND
from assistant.stores.postgres import Database
from tests.serve_app.conftest import Bench, make_hit, served
from tests.serve_app.test_feedback import EVIDENCE, KEYS, asked, document_of
from tests.serve_app.test_rfc import events_of

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(make_bench: Callable[..., Bench], database: Database) -> Bench:
    return make_bench(
        database=database, hits=[make_hit(EVIDENCE)], overrides={"learning": {"min_new_examples": 3}}
    )


async def test_numbers_follow_the_feedback(bench: Bench, database: Database) -> None:
    await document_of(database, bench.retrieval.hits[0], "public")
    learning = bench.services.learning
    async with bench.client() as client:
        empty = (await client.get("/api/v1/learning/stats")).json()
        answer = await asked(client)
        await learning.log.close()
        await client.post(f"/api/v1/answers/{answer['id']}/feedback", json={"stars": 5, "comment": "short"})
        before = (await client.get("/api/v1/learning/stats")).json()
        await learning.examples.refresh(MAKER)
        after = (await client.get("/api/v1/learning/stats")).json()
        listed = (await client.get("/api/v1/learning/examples")).json()
    assert (empty["examples"]["total"], empty["examples"]["quality"]) == (0, [0] * 10)
    assert empty["next_run"] | {"automatic": True, "missing": 3, "due": None} == empty["next_run"]
    assert (before["feedback"]["waiting"], before["examples"]["total"]) == (1, 0)
    assert (after["feedback"]["waiting"], after["feedback"]["stars"]["5"]) == (0, 1)
    assert (after["examples"]["usable"], after["examples"]["by_kind"]["answer"]) == (1, 1)
    assert (after["next_run"]["new_examples"], after["next_run"]["missing"]) == (1, 2)
    assert after["next_run"]["due_at"] is not None
    (item,) = listed["items"]
    assert (item["stars"], item["positive"], item["acl"]) == (5, True, ["public"])
    assert listed["next_cursor"] is None


async def test_a_run_is_started_once_and_shows_its_steps(bench: Bench) -> None:
    jobs = bench.services.jobs
    async with bench.client() as client:
        response = await client.post("/api/v1/learning/runs")
        made = response.json()
        refused = await client.post("/api/v1/learning/runs")
        await jobs.claim(JOB_KIND, "loop", 60)
        step = {"name": "collect", "status": "done", "seconds": 1.5, "detail": "12 examples"}
        await jobs.append_event(UUID(made["id"]), "step", step)
        shown = (await client.get(made["links"]["self"])).json()
        listed = (await client.get("/api/v1/learning/runs")).json()
        stats = (await client.get("/api/v1/learning/stats")).json()
        missing = await client.get(f"/api/v1/learning/runs/{new_id()}")
    assert bench.scheduler.woken == 1
    assert (response.status_code, response.headers["location"]) == (202, made["links"]["self"])
    assert (refused.status_code, refused.json()["id"]) == (409, made["id"])
    assert (shown["status"], shown["reason"], shown["attempts"]) == ("running", "asked for by local", 1)
    assert [(s["name"], s["seconds"], s["detail"]) for s in shown["steps"]] == [
        ("collect", 1.5, "12 examples")
    ]
    assert [item["id"] for item in listed["items"]] == [made["id"]]
    assert (stats["next_run"]["running"], stats["runs"]) == (made["id"], [shown])
    assert missing.status_code == 404


async def test_only_admins_start_runs_where_there_are_keys(
    make_bench: Callable[..., Bench], database: Database
) -> None:
    bench = make_bench(database=database, overrides=KEYS)
    keys = ApiKeyRepository(database)
    ada, _ = await keys.create("a", "ada", ["platform"])
    root, _ = await keys.create("r", "root", ["admins"])
    async with bench.client(authorization=f"Bearer {ada}") as client:
        refused = await client.post("/api/v1/learning/runs")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await client.get("/api/v1/learning/stats")).status_code == 200
    async with bench.client(authorization=f"Bearer {root}") as client:
        assert (await client.post("/api/v1/learning/runs")).status_code == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/learning/stats"),
        ("GET", "/api/v1/learning/examples"),
        ("GET", "/api/v1/learning/runs"),
        ("POST", "/api/v1/learning/runs"),
        ("GET", f"/api/v1/learning/runs/{UUID(int=1)}/events"),
        ("POST", f"/api/v1/answers/{UUID(int=1)}/feedback"),
        ("POST", f"/api/v1/search/{UUID(int=1)}/feedback"),
        ("POST", f"/api/v1/rfc/{UUID(int=1)}/feedback"),
    ],
)
async def test_nothing_is_told_without_a_key(
    make_bench: Callable[..., Bench], database: Database, method: str, path: str
) -> None:
    bench = make_bench(database=database, overrides=KEYS)
    async with bench.client() as client:
        response = await client.request(method, path, json={"thumb": 1} if method == "POST" else None)
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("status", "error", "last", "body"),
    [
        ("done", None, "done", {"status": "done"}),
        ("failed", "The disk is full.", "error", "The disk is full."),
    ],
)
async def test_events_follow_a_run_to_its_end(
    bench: Bench, status: Any, error: str | None, last: str, body: Any
) -> None:
    jobs = bench.services.jobs
    async with served(bench.app) as url, bench.client() as client:
        made = (await client.post("/api/v1/learning/runs")).json()
        run_id = UUID(made["id"])
        await jobs.claim(JOB_KIND, "loop", 60)
        await jobs.append_event(run_id, "step", {"name": "collect", "status": "started"})
        async with httpx.AsyncClient(base_url=url, trust_env=False) as live:
            following = asyncio.create_task(live.get(made["links"]["events"]))
            await jobs.append_event(run_id, "step", {"name": "collect", "status": "done"})
            await jobs.finish(run_id, "loop", status, error)
            events = events_of((await following).text)
            resumed = events_of(
                (await live.get(made["links"]["events"], headers={"last-event-id": "1"})).text
            )
            over = await live.get(made["links"]["events"], headers={"last-event-id": "2"})
    assert [name for _, name, _ in events] == ["step", "step", last]
    told = events[-1][2]
    assert (told.get("problem", {}).get("detail") or told) == body
    assert resumed[0][0] == 2
    assert over.status_code == 204
