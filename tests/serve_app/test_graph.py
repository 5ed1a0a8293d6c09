"""The whole graph with real parts: what clients see of it, and what they see of its deaths.

One application for this file: it costs a minute to start. Tests leave it well.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from assistant.settings import QdrantSettings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.postgres import Database, scalar
from tests.fixtures_adapters import make_adapter
from tests.fixtures_cluster import RayCluster
from tests.fixtures_postgres import truncate
from tests.serve_app.clients import Clients
from tests.serve_app.graph import APP, PASSAGES, Graph, empty_qdrant, store_passages

pytestmark = [pytest.mark.cluster, pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

LLM = "smollm2-135m-instruct"
ALERT = "What should I do when KubePersistentVolumeFillingUp fires?"
OVERRIDES: dict[str, Any] = {
    # On a crowded machine a new Retriever takes long to import torch.
    "serve": {"max_ongoing_requests": 6, "max_queued_requests": 2, "drain_s": 1, "search_timeout_s": 240},
    "llm": {"request_timeout_s": 300},
    "rfc": {"lease_s": 3},
}


@pytest.fixture(scope="module")
def home(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of this file's own, with the weights and two adapters."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(smollm.parent)
    for number in (1, 2):
        make_adapter(smollm / "hf", home / "adapters" / f"answerer-{number}", LLM, number)
    return home


@pytest.fixture(scope="module")
def graph(
    ray_cluster: RayCluster, database_url: str, qdrant_server: QdrantSettings, home: Path
) -> Iterator[Graph]:
    from ray import serve

    from serve_app.app import AppArgs, app

    # Other modules ingest into the same server, with embedders and settings of their own.
    asyncio.run(empty_qdrant(qdrant_server))
    truncate(database_url)
    key = qdrant_server.api_key
    args = AppArgs(
        settings={
            "home": str(home),
            "postgres": {"url": database_url},
            "qdrant": {"url": qdrant_server.url, "api_key": key.get_secret_value() if key else None},
            **OVERRIDES,
        }
    )
    serve.run(app(args), name=APP, route_prefix="/")
    running = Graph(ray_cluster.url, LLM)
    running.wait_until_well()
    yield running
    serve.delete(APP)


@pytest.fixture(scope="module")
def passages(graph: Graph, qdrant_server: QdrantSettings) -> dict[str, UUID]:
    return asyncio.run(store_passages(graph, qdrant_server))


@pytest.fixture
def client(graph: Graph) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": LLM, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(name, id, data) of each server-sent event."""
    name, seq = "", 0
    for line in lines:
        if line.startswith("id: "):
            seq = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, seq, json.loads(line[6:])


async def test_stock_client_streams_and_asks(graph: Graph) -> None:
    async with openai.AsyncOpenAI(api_key="unused", base_url=f"{graph.url}/v1") as client:
        names = [model.id async for model in client.models.list()]
        body: dict[str, Any] = ask("Count to ten.", max_tokens=12)
        whole = await client.chat.completions.create(**body)
        stream = await client.chat.completions.create(
            **body, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert {"assistant", "auto", LLM} <= set(names)
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert 1 <= whole.usage.completion_tokens <= 12
    assert whole.model == LLM
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    assert len([c for c in chunks if c.choices]) > 2
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


async def test_json_schema_constrains_the_model(graph: Graph) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "count": {"type": "integer"}},
        "required": ["city", "count"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    async with openai.AsyncOpenAI(api_key="unused", base_url=f"{graph.url}/v1") as client:
        answer = await client.chat.completions.create(
            **ask("Name a city.", max_tokens=60, response_format=form)
        )
    made = json.loads(answer.choices[0].message.content or "")
    assert made["city"] in {"Paris", "Rome"}
    assert isinstance(made["count"], int)


def test_bad_requests_are_problems_from_the_engine_too(client: httpx.Client) -> None:
    too_long = client.post("/v1/chat/completions", json=ask("word " * 4000))
    assert (too_long.status_code, too_long.json()["code"]) == (400, "context_too_long")
    empty = client.post("/api/v1/search", json={"query": " "})
    assert (empty.status_code, empty.json()["field"]) == (400, "query")
    unknown = client.post("/api/v1/search", json={"query": "x", "filters": {"colour": "red"}})
    assert unknown.status_code == 400
    assert "colour" in unknown.json()["detail"]
    cut = client.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": ["ok", "word " * 900]})
    assert cut.status_code == 400
    assert cut.json()["detail"].startswith("input[1] has")


def test_request_id_is_one_and_comes_back(client: httpx.Client) -> None:
    response = client.get("/nowhere", headers={"x-request-id": "trace-7"})
    assert response.headers.get_list("x-request-id") == ["trace-7"]
    assert response.json()["instance"].endswith(":trace-7")
    assert response.headers["content-type"] == "application/problem+json"


def test_page_and_health(client: httpx.Client) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/health/ready").json() == {"status": "ready"}
    report = client.get("/health").json()
    assert report["status"] == "ok"
    assert {"postgres", "qdrant", "scheduler", "retriever", "writer", LLM} == set(report["checks"])


def test_search_finds_and_opens_the_passage(client: httpx.Client, passages: dict[str, UUID]) -> None:
    for mode in ("hybrid", "dense", "sparse"):
        found = client.post("/api/v1/search", json={"query": ALERT, "mode": mode, "limit": 2}).json()
        assert found["hits"][0]["title"] == "KubePersistentVolumeFillingUp"
    opened = client.get(f"/api/v1/chunks/{found['hits'][0]['chunk_id']}").json()
    assert opened["hit"]["text"] == PASSAGES["KubePersistentVolumeFillingUp"]
    assert set(found["timings_ms"]) >= {"candidates", "fetch", "total"}


def test_assistant_cites_what_can_be_opened(client: httpx.Client, passages: dict[str, UUID]) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": ALERT}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    text = answer["choices"][0]["message"]["content"]
    (citation, *_) = answer["assistant"]["citations"]
    assert "snapshots" in text
    assert f"[{citation['marker']}]" in text
    assert citation["chunk_id"] == str(passages["KubePersistentVolumeFillingUp"])
    passage = client.get(f"/api/v1/chunks/{citation['chunk_id']}").json()["hit"]
    assert passage["text"][citation["start"] : citation["end"]].startswith(citation["quote"][:40])


def test_an_opinion_becomes_an_example_by_itself(client: httpx.Client, passages: dict[str, UUID]) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": ALERT}]}
    extra = client.post("/v1/chat/completions", json=body).raise_for_status().json()["assistant"]
    path = f"/api/v1/answers/{extra['id']}/feedback"
    client.post(path, json={"stars": 5}).raise_for_status()
    deadline = time.monotonic() + 60
    while client.get("/api/v1/learning/stats").json()["examples"]["total"] == 0:
        assert time.monotonic() < deadline, "no Scheduler made an example"
        time.sleep(0.2)
    found = client.get("/api/v1/learning/stats").json()
    assert (found["feedback"]["waiting"], found["examples"]["positive"]) == (0, 1)
    # The passages of this file are of no stored document, and what cannot be checked is not learned from.
    assert found["examples"]["usable"] == 0


def test_draft_goes_to_its_end_and_can_be_followed_from_any_point(
    client: httpx.Client, passages: dict[str, UUID]
) -> None:
    body = {
        "title": "Grow volumes",
        "brief": "Persistent volumes fill up at night. Goal: no page for KubePersistentVolumeFillingUp.",
    }
    made = client.post("/api/v1/rfc", json=body, headers={"idempotency-key": "draft-1"})
    assert made.status_code == 202
    again = client.post("/api/v1/rfc", json=body, headers={"idempotency-key": "draft-1"})
    assert again.json()["id"] == made.json()["id"]
    links = made.json()["links"]
    with client.stream("GET", links["events"]) as stream:
        events = list(events_of(stream.iter_lines()))
    assert events[-1][0] == "done"
    seqs = [seq for _, seq, _ in events]
    assert seqs == sorted(set(seqs))
    done = [d["stage"] for name, _, d in events if name == "stage" and d["status"] == "done"]
    assert done == ["brief", "questions", "evidence", "outline", "sections", "checks", "render"]
    middle = seqs[len(seqs) // 2]
    with client.stream("GET", links["events"], headers={"last-event-id": str(middle)}) as stream:
        rest = list(events_of(stream.iter_lines()))
    assert rest == events[len(seqs) // 2 + 1 :]
    over = client.get(links["events"], headers={"last-event-id": str(seqs[-1])})
    assert over.status_code == 204

    rfc = client.get(links["self"]).json()
    assert rfc["status"] == "done"
    assert {stage["status"] for stage in rfc["stages"]} == {"done"}
    assert rfc["citations"]
    for citation in rfc["citations"]:
        assert client.get(f"/api/v1/chunks/{citation['chunk_id']}").status_code == 200
    export = client.get(f"{links['self']}/export?format=md")
    assert export.headers["content-type"].startswith("text/markdown")
    assert "Grow volumes" in export.text


async def test_requests_leave_their_rows(graph: Graph, database_url: str, database: Database) -> None:
    async with graph.async_client() as client:
        await client.post("/api/v1/search", json={"query": "rows"}, headers={"x-request-id": "row-1"})
        chat = ask("Hi", max_tokens=3)
        await client.post("/v1/chat/completions", json=chat, headers={"x-request-id": "row-2"})

    async def count(table: str, request_id: str) -> int:
        async with database.transaction() as connection:
            query = f"select count(*)::int from ai_assistant.{table} where request_id = %s"
            return int(await scalar(connection, query, (request_id,)))

    async with asyncio.timeout(20):
        while await count("search_queries", "row-1") + await count("llm_metrics", "row-2") < 2:
            await asyncio.sleep(0.1)


def test_client_that_leaves_frees_the_slot(graph: Graph) -> None:
    with (
        graph.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=ask("Tell a long story.", max_tokens=1500, stream=True)
        ) as stream,
    ):
        next(line for line in stream.iter_lines() if line)
    wait_for(lambda: graph.running() == 0)


async def test_adapters_go_live_and_back_under_load_without_a_failed_request(
    graph: Graph, database: Database
) -> None:
    table = DeploymentRepository(database)
    async with graph.async_client() as client, Clients(client, LLM, 3) as load:
        await load.answered(None)
        await table.challenge(LLM, "answerer-1", 1.0)
        await load.answered("answerer-1")
        names = [m["id"] for m in (await client.get("/v1/models")).json()["data"]]
        assert {LLM, f"{LLM}:base", f"{LLM}:challenger"} <= set(names)
        assert f"{LLM}:champion" not in names
        promoted = await client.post(f"/api/v1/learning/deployments/{LLM}/promote")
        assert promoted.json()["adapter"] == "answerer-1"
        await load.answered("answerer-1")
        await table.challenge(LLM, "answerer-2", 0.0)
        await load.shown("challenger", "answerer-2")
        for variant, adapter in (("base", None), ("champion", "answerer-1"), ("challenger", "answerer-2")):
            body = ask("Hi", max_tokens=4) | {"model": f"{LLM}:{variant}"}
            answer = (await client.post("/v1/chat/completions", json=body)).json()
            assert (answer["model"], answer["adapter"]) == (LLM, adapter)
        back = await client.post(f"/api/v1/learning/deployments/{LLM}/rollback")
        assert back.json()["adapter"] is None
        # The limit that an operator is promised.
        async with asyncio.timeout(30):
            await load.shown("champion", None)
        await load.answered(None)
        await table.withdraw(LLM)
        await load.shown("challenger", None)
    assert load.failures == []
    async with database.transaction() as connection:
        query = "select count(distinct adapter)::int from ai_assistant.llm_metrics"
        assert await scalar(connection, query) >= 2


def test_overload_gets_429_and_the_admitted_get_answers(graph: Graph) -> None:
    def one(number: int) -> httpx.Response:
        with graph.client() as client:
            return client.post("/v1/chat/completions", json=ask(f"Tell me about {number}.", max_tokens=24))

    with ThreadPoolExecutor(20) as threads:
        responses = list(threads.map(one, range(20)))
    codes = [r.status_code for r in responses]
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 8
    refused = next(r for r in responses if r.status_code == 429)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["code"] == "rate_limited"


def test_killed_retriever_loses_no_search(graph: Graph, passages: dict[str, UUID]) -> None:
    old = graph.pids("Retriever")
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def search() -> None:
        with graph.client() as client:
            while not stop.is_set():
                answers.append(client.post("/api/v1/search", json={"query": ALERT, "limit": 1}))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answers) > 5)
        graph.kill("Retriever")
        before = len(answers)
        wait_for(lambda: len(answers) > before + 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    failed = [a.text for a in answers if a.status_code != 200]
    assert failed == []
    assert all(a.json()["hits"][0]["title"] == "KubePersistentVolumeFillingUp" for a in answers)
    assert not graph.pids("Retriever") & old
    graph.wait_until_well()


def test_killed_model_ends_a_stream_in_band_and_comes_back(graph: Graph) -> None:
    name = f"LocalLLM-{LLM}"
    with graph.client() as client:
        body = ask("Tell a long story about a mountain.", max_tokens=1500, stream=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if line)
            gone = graph.kill(name)
            rest = [line for line in lines if line.startswith("data: ")]
        assert first.startswith("data: ")
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert (error["code"], error["retryable"]) == ("backend_failed", True)
        # Asked while nobody is there: the request waits for the next replica.
        answer = client.post("/v1/chat/completions", json=ask("Say hello.", max_tokens=5))
    assert answer.status_code == 200, answer.text
    assert gone not in graph.pids(name)
    graph.wait_until_well()


def test_killed_model_costs_a_whole_answer_only_time(graph: Graph) -> None:
    with ThreadPoolExecutor(1) as thread, graph.client() as client:
        asked = thread.submit(
            client.post, "/v1/chat/completions", json=ask("Tell a story about a river.", max_tokens=60)
        )
        wait_for(lambda: graph.running() > 0)
        graph.kill(f"LocalLLM-{LLM}")
        answer = asked.result()
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    graph.wait_until_well()


def test_killed_writer_loses_no_draft(graph: Graph, client: httpx.Client, passages: dict[str, UUID]) -> None:
    brief = " ".join(f"Goal: alert number {n} about persistent volumes never pages." for n in range(8))
    made = client.post("/api/v1/rfc", json={"title": "Quiet nights", "brief": brief}).json()
    names: list[str] = []
    killed = False
    with client.stream("GET", made["links"]["events"]) as stream:
        for name, _, data in events_of(stream.iter_lines()):
            names.append(name)
            if not killed and name == "stage" and data["stage"] == "evidence":
                graph.kill("Writer")
                killed = True
    assert names[-1] == "done"
    rfc = client.get(made["links"]["self"]).json()
    assert rfc["status"] == "done"
    assert len(rfc["stages"]) == 7
    graph.wait_until_well()


def test_killed_router_is_replaced(graph: Graph) -> None:
    gone = graph.kill("Router")
    wait_for(lambda: graph.pids("Router") - {gone} != set())
    graph.wait_until_well()


def wait_for(condition: Any, limit_s: float = 240.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.05)
