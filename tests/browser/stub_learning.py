"""Feedback and learning of the stub: opinions are kept, runs play their steps, deployments move."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from assistant.errors import Conflict, InvalidInput, NotFound

MODEL = "smollm2-135m-instruct"
STEPS: tuple[tuple[str, str | Mapping[str, int]], ...] = (
    ("collect", "12 examples of 9 documents"),
    ("build", {"train": 204, "validation": 22, "frozen": 40, "guard": 30}),
    ("train", "96 of 96 steps, loss 2.11"),
    ("evaluate", "40 cases"),
    ("gate", "promote"),
    ("deploy", "answerer-4 gets 10 % of the requests"),
)
INTERVALS = {
    "champion": {
        "rouge l": {"mean": 0.198, "low": 0.171, "high": 0.226, "n": 40},
        "held-out loss": {"mean": 2.43, "low": 2.31, "high": 2.55, "n": 40},
        "guard loss": {"mean": 1.92, "low": 1.81, "high": 2.03, "n": 30},
    },
    "challenger": {
        "rouge l": {"mean": 0.231, "low": 0.203, "high": 0.26, "n": 40},
        "held-out loss": {"mean": 2.11, "low": 2.0, "high": 2.22, "n": 40},
        "guard loss": {"mean": 1.93, "low": 1.82, "high": 2.04, "n": 30},
    },
    "previous": {
        "rouge l": {"mean": 0.164, "low": 0.139, "high": 0.19, "n": 40},
        "held-out loss": {"mean": 2.71, "low": 2.58, "high": 2.85, "n": 40},
    },
}
DECISION = {
    "promote": True,
    "reasons": [
        "frozen set: better, the lower bound of the difference is above 0",
        "guard set: no worse than the margin of 0.02 allows",
    ],
    "frozen": {"difference": 0.32, "low": 0.25, "high": 0.39, "p_value": 0.0002, "verdict": "better"},
    "guard": {"difference": -0.01, "low": -0.018, "high": 0.004, "p_value": 0.21, "verdict": "cannot tell"},
}


def ago(**past: float) -> str:
    return (datetime.now(UTC) - timedelta(**past)).isoformat()


def deployment(alias: str, number: int | None, **more: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "model": MODEL,
        "adapter": None if number is None else f"answerer-{number}",
        "alias": alias,
        "decision": "candidate" if alias == "challenger" else "promoted",
        "share": 0.1 if alias == "challenger" else 0.0,
        "registry_version": None if number is None else str(number),
        "data_hash": f"sha256:{number}f09c27b1",
        "code_version": "bdcd5f6",
        "metrics": INTERVALS.get(alias, {}),
        "lineage": {"mlflow_run_id": "b7c1d2", "examples": 12, "documents": 214},
        "decided_by": "gate",
        "created_at": ago(hours=30 - 5 * (number or 0)),
        "updated_at": None,
        "retired_at": None,
    } | more


@dataclass
class Learning:
    """What a test may turn and look at."""

    new_examples: int = 7
    opinions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path and part: the last opinion."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    hold: set[str] = field(default_factory=set)
    step_s: float = 0.02
    problems: dict[str, str] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def with_history(self) -> "Learning":
        lineage = {"decision": DECISION, "mlflow_run_id": "f41a", "examples": 12, "documents": 214}
        self.live = {
            "champion": deployment("champion", 3),
            "challenger": deployment("challenger", 4, lineage=lineage),
            "previous": deployment("previous", 2),
        }
        steps = [_step(name, "done", detail, 4.0 + n) for n, (name, detail) in enumerate(STEPS)]
        self.runs = [
            _run("done", "10 new examples, 10 start a run", steps, hours=2),
            _run("failed", "1 new example and 24 h since the last run", steps[:2], hours=28)
            | {"error": "The disk is full: 120 MB are needed for a checkpoint.", "attempts": 3},
        ]
        return self


def learning_of(request: Request) -> Learning:
    learning: Learning = request.app.state.stub.learning
    return learning


async def give(request: Request) -> Response:
    body = await request.json()
    if not any(body.get(name) for name in ("thumb", "stars", "comment", "edited_text")):
        raise InvalidInput("The feedback is empty.", field="thumb")
    part = body.get("chunk_id") or body.get("section") or ""
    kept = {name: body.get(name) for name in ("thumb", "stars", "comment", "edited_text")}
    item = kept | {"id": str(uuid4()), "section": body.get("section"), "chunk_id": body.get("chunk_id")}
    learning_of(request).opinions[f"{request.url.path} {part}".strip()] = item
    return JSONResponse(item | {"verified": True})


async def given(request: Request) -> Response:
    path = request.url.path
    found = [item for key, item in learning_of(request).opinions.items() if key.split(" ")[0] == path]
    return JSONResponse({"items": found})


async def stats(request: Request) -> Response:
    learning = learning_of(request)
    running = next((run["id"] for run in learning.runs if run["status"] in ("queued", "running")), None)
    return JSONResponse(
        {
            "feedback": {"total": 31, "edits": 4},
            "examples": {"total": 22, "usable": 17, "quality": [1, 0, 2, 0, 1, 1, 2, 4, 5, 6]},
            "next_run": {
                "automatic": True,
                "new_examples": learning.new_examples,
                "needed": 10,
                "missing": max(0, 10 - learning.new_examples),
                "due": None,
                "due_at": ago(hours=-20) if learning.new_examples else None,
                "running": running,
                "last_run_at": None,
            },
            "mlflow_url": "http://127.0.0.1:5000",
            "runs": learning.runs[:5],
        }
    )


async def start(request: Request) -> Response:
    learning = learning_of(request)
    if any(run["status"] == "running" for run in learning.runs):
        raise Conflict("A learning run is running already.", hint="Follow it, or wait until it has ended.")
    run = _run("running", "asked for by local", [])
    run["events"] = []
    learning.runs.insert(0, run)
    learning.tasks.append(asyncio.create_task(_play(learning, run)))
    return JSONResponse({"id": run["id"], "status": "queued", "links": {}}, 202)


async def _play(learning: Learning, run: dict[str, Any]) -> None:
    for n, (name, detail) in enumerate(STEPS):
        run["events"].append(("step", {"name": name, "status": "started"}))
        await asyncio.sleep(learning.step_s)
        while name in learning.hold:
            await asyncio.sleep(0.01)
        run["events"].append(("step", {"name": name, "status": "done", "detail": detail, "seconds": 1.5 + n}))
        run["steps"].append(_step(name, "done", detail, 1.5 + n))
    run.update(status="done", finished_at=ago(), attempts=1)
    learning.new_examples = 0
    run["events"].append(("done", {"status": "done"}))


async def one_run(request: Request) -> Response:
    return JSONResponse(_run_of(request))


async def run_events(request: Request) -> Response:
    run = _run_of(request)

    async def events() -> AsyncIterator[str]:
        at = int(request.headers.get("last-event-id") or 0)
        yield "retry: 1000\n\n"
        while True:
            while at < len(run["events"]):
                kind, body = run["events"][at]
                at += 1
                yield f"id: {at}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"
                if kind == "done":
                    return
            await asyncio.sleep(0.01)

    return StreamingResponse(events(), media_type="text/event-stream")


async def deployments(request: Request) -> Response:
    learning = learning_of(request)
    live = {alias: learning.live.get(alias) for alias in ("champion", "challenger", "previous")}
    history = [record for record in live.values() if record]
    model = {"model": MODEL, **live, "serving": {"problems": learning.problems}, "history": history}
    return JSONResponse({"items": [model], "canary_share": None, "canary_refused": None})


async def promote(request: Request) -> Response:
    live = learning_of(request).live
    if "challenger" not in live:
        raise NotFound("There is no challenger to promote.")
    live["previous"] = live["champion"] | {"alias": "previous"}
    live["champion"] = live.pop("challenger") | {"alias": "champion", "decided_by": "local"}
    return JSONResponse(live["champion"])


async def rollback(request: Request) -> Response:
    live = learning_of(request).live
    live["champion"] = live.pop("previous", deployment("champion", None)) | {"alias": "champion"}
    return JSONResponse(live["champion"])


def _run_of(request: Request) -> dict[str, Any]:
    for run in learning_of(request).runs:
        if run["id"] == request.path_params["id"]:
            return run
    raise NotFound("There is no such run.")


def _run(status: str, reason: str, steps: list[dict[str, Any]], hours: float = 0) -> dict[str, Any]:
    over = status in ("done", "failed")
    return {
        "id": str(uuid4()),
        "status": status,
        "reason": reason,
        "error": None,
        "attempts": 1,
        "steps": steps,
        "created_at": ago(hours=hours),
        "updated_at": ago(hours=hours),
        "finished_at": ago(hours=hours - 0.15) if over else None,
    }


def _step(name: str, status: str, detail: str | Mapping[str, int], seconds: float) -> dict[str, Any]:
    return {"name": name, "status": status, "seconds": seconds, "detail": detail, "at": ago()}


ROUTES = [
    *(
        route
        for kind in ("answers", "search", "rfc")
        for route in (
            Route(f"/api/v1/{kind}/{{id}}/feedback", give, methods=["POST"]),
            Route(f"/api/v1/{kind}/{{id}}/feedback", given),
        )
    ),
    Route("/api/v1/learning/stats", stats),
    Route("/api/v1/learning/runs", start, methods=["POST"]),
    Route("/api/v1/learning/runs/{id}", one_run),
    Route("/api/v1/learning/runs/{id}/events", run_events),
    Route("/api/v1/learning/deployments", deployments),
    Route("/api/v1/learning/deployments/{model}/promote", promote, methods=["POST"]),
    Route("/api/v1/learning/deployments/{model}/rollback", rollback, methods=["POST"]),
]
