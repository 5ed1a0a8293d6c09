"""What a request costs, by route and by process: `python -m benchmarks.capacity [--requests 60]`.

Starts a stack of its own, ingests documents, then sends requests of one route after another, one at a time, and
counts the processor time of every process of the stack before and after, less what the idle stack takes, and the
memory each holds. Wall times are those of a machine with nothing else to do; processor time holds on a busy one too.
The result is what `python -m benchmarks.simulation` and docs/operations/capacity.md reckon with.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from assistant.clock import now
from benchmarks import save
from benchmarks.graph import process_name
from benchmarks.loop import DATA, held_by, stack
from benchmarks.stack import command
from cluster.layout import Layout
from cluster.memory import stack_processes
from cluster.plan import Plan
from cluster.ports import pick
from cluster.state import State

IDLE_S = 30.0
WARM_UP = 8
WIDTH = 110
SEARCH, ASK, FEEDBACK, HEALTH = "search", "ask", "feedback", "health"
Cpu = dict[str, float]


def cpu_by_part(layout: Layout) -> Cpu:
    """Seconds of processor time since their start, by Serve deployment, by Ray's other processes, by service."""
    state, plan = State.read(layout.state), Plan.read(layout.plan)
    assert state is not None
    found: Cpu = {}
    for service, processes in stack_processes(state, plan).items():
        for process in processes:
            try:
                part = process_name(" ".join(process.cmdline())) if service == "ray" else service
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[part] = found.get(part, 0.0) + times.user + times.system
    return found


def memory_by_part(layout: Layout) -> dict[str, int]:
    """Bytes (PSS, RSS where it is not told) of the same parts."""
    state, plan = State.read(layout.state), Plan.read(layout.plan)
    assert state is not None
    found: dict[str, int] = {}
    for service, processes in stack_processes(state, plan).items():
        for process in processes:
            part = service
            if service == "ray":
                with contextlib.suppress(psutil.Error):
                    part = process_name(" ".join(process.cmdline()))
            found[part] = found.get(part, 0) + held_by(process)
    return found


def difference(after: Cpu, before: Cpu) -> Cpu:
    return {part: after[part] - before.get(part, 0.0) for part in after}


class Routes:
    """One request of each route; each call is another question."""

    def __init__(self, url: str, titles: list[str]) -> None:
        self.client = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self._titles: Iterator[str] = cycle(titles)
        self._answers: list[str] = []

    def search(self) -> None:
        body = {"query": f"What should I do about {next(self._titles)}?", "limit": 10}
        self.client.post("/api/v1/search", json=body).raise_for_status()

    def ask(self) -> None:
        question = {"role": "user", "content": f"What should I do about {next(self._titles)}?"}
        body = {"model": "assistant", "messages": [question]}
        said = self.client.post("/v1/chat/completions", json=body).raise_for_status().json()
        self._answers.append(said["assistant"]["id"])

    def feedback(self) -> None:
        answer = self._answers.pop() if len(self._answers) > 1 else self._answers[0]
        body = {"thumb": 1, "stars": 4}
        self.client.post(f"/api/v1/answers/{answer}/feedback", json=body).raise_for_status()

    def health(self) -> None:
        self.client.get("/health/live").raise_for_status()

    def all(self) -> dict[str, Callable[[], None]]:
        return {SEARCH: self.search, ASK: self.ask, FEEDBACK: self.feedback, HEALTH: self.health}


def measure(knowledge: Path, requests: int) -> dict[str, Any]:
    titles = sorted({path.stem for path in knowledge.rglob("*.md") if not path.stem.startswith("_")})
    with tempfile.TemporaryDirectory(prefix="aia-bench-") as folder:
        layout, port = Layout(Path(folder) / "home"), pick()
        os.environ["AI_ASSISTANT_LEARNING__AUTOMATIC"] = "false"
        with stack(layout, port) as url:
            command(layout, port, "ingest", str(knowledge))
            routes = Routes(url, titles)
            idle = idle_of(layout)
            memory = memory_by_part(layout)
            measured = {
                name: measured_route(layout, name, send, requests, idle)
                for name, send in routes.all().items()
            }
            loaded = memory_by_part(layout)
    return {
        "at": now().isoformat(),
        "cores": os.cpu_count(),
        "load_after": round(os.getloadavg()[0], 2),
        "idle_cores": {part: round(share, 4) for part, share in idle.items()},
        "idle_bytes": memory,
        "loaded_bytes": loaded,
        "routes": measured,
    }


def idle_of(layout: Layout) -> Cpu:
    """Cores that each part takes while nobody asks."""
    time.sleep(IDLE_S)
    before, started = cpu_by_part(layout), time.monotonic()
    time.sleep(IDLE_S)
    seconds = time.monotonic() - started
    return {part: used / seconds for part, used in difference(cpu_by_part(layout), before).items()}


def measured_route(
    layout: Layout, name: str, send: Callable[[], None], requests: int, idle: Cpu
) -> dict[str, Any]:
    for _ in range(WARM_UP):
        send()
    before, began, walls = cpu_by_part(layout), time.monotonic(), []
    for _ in track(range(requests), name, transient=True):
        started = time.monotonic()
        send()
        walls.append(time.monotonic() - started)
    took = time.monotonic() - began
    used = difference(cpu_by_part(layout), before)
    cpu_ms = {
        part: round(max(0.0, seconds - idle.get(part, 0.0) * took) / requests * 1000, 2)
        for part, seconds in used.items()
    }
    return {
        "requests": requests,
        "wall_ms": {
            "mean": round(statistics.fmean(walls) * 1000, 1),
            "p50": round(statistics.median(walls) * 1000, 1),
            "p95": round(statistics.quantiles(walls, n=20)[-1] * 1000, 1),
            "stdev": round(statistics.stdev(walls) * 1000, 1),
        },
        "cpu_ms": dict(sorted(cpu_ms.items(), key=lambda one: -one[1])),
        "cpu_ms_all": round(sum(cpu_ms.values()), 2),
    }


def table(result: dict[str, Any]) -> Table:
    parts = sorted({part for route in result["routes"].values() for part in route["cpu_ms"]})
    shown = Table(title="Processor time per request, ms")
    shown.add_column("part")
    shown.add_column("idle, cores", justify="right")
    shown.add_column("idle, MB", justify="right")
    shown.add_column("after, MB", justify="right")
    for name in result["routes"]:
        shown.add_column(name, justify="right")
    for part in parts:
        cells = [f"{route['cpu_ms'].get(part, 0.0):.1f}" for route in result["routes"].values()]
        held = [f"{result[when].get(part, 0) / 1e6:.0f}" for when in ("idle_bytes", "loaded_bytes")]
        shown.add_row(part, f"{result['idle_cores'].get(part, 0.0):.3f}", *held, *cells)
    routes = result["routes"].values()
    whole = [f"{sum(result[when].values()) / 1e6:.0f}" for when in ("idle_bytes", "loaded_bytes")]
    idle = f"{sum(result['idle_cores'].values()):.3f}"
    shown.add_row("all", idle, *whole, *(f"{r['cpu_ms_all']:.1f}" for r in routes))
    shown.add_row("wall, p50", "", "", "", *(f"{r['wall_ms']['p50']:.0f}" for r in routes))
    shown.add_row("wall, p95", "", "", "", *(f"{r['wall_ms']['p95']:.0f}" for r in routes))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--knowledge", type=Path, default=DATA / "knowledge" / "alert-runbooks")
    parser.add_argument("--requests", type=int, default=60, help="of each route")
    given = parser.parse_args()
    if not given.knowledge.is_dir():
        Console().print(f"SKIPPED: {given.knowledge} is not a folder; name another with --knowledge.")
        return
    result = measure(given.knowledge.absolute(), given.requests)
    save("capacity", result)
    Console(width=WIDTH).print(table(result))


if __name__ == "__main__":
    main()
