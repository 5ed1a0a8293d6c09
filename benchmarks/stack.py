"""Start and memory of the whole local stack: `python -m benchmarks.stack`.

Starts a stack of its own in a temporary state folder (weights are linked, not fetched): once empty, as
after an installation, and `--runs` times warm. Then an `up` that has nothing to do, `status`, and the
memory when everything is ready. A machine that is busy with something else makes all of it slower, so
its load and the CPU time that the stack took are part of the result.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from benchmarks import save
from cluster.layout import ROOT, Layout
from cluster.memory import Memory, stack_memory, total_pss
from cluster.plan import Plan
from cluster.ports import pick
from cluster.processes import members
from cluster.shutdown import stop_stack
from cluster.state import State

WARM_TARGET_S = 60.0
COLD_TARGET_S = 120.0
MEMORY_TARGET_BYTES = 6_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2, help="warm starts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aia-bench-") as folder:
        layout = Layout(Path(folder) / "home")
        layout.home.mkdir()
        (layout.home / "models").symlink_to(ROOT / ".local" / "models")
        try:
            result = measure(layout, pick(), arguments.runs)
        finally:
            stop_stack(layout)
    save("stack", result)
    show(result)


def measure(layout: Layout, port: int, runs: int) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    cold = command(layout, port, "up", "--no-ingest")
    command(layout, port, "down")
    warm = []
    for _ in range(runs):
        started = command(layout, port, "up", "--no-ingest")
        cpu_s = cpu_seconds(layout)
        memory, plan = memory_of(layout)
        again = command(layout, port, "up", "--no-ingest")
        status = command(layout, port, "status")
        stopped = command(layout, port, "down")
        warm.append(
            {
                "up_s": started["seconds"],
                "up_cpu_s": round(cpu_s, 1),
                "steps": {s["name"]: s["seconds"] for s in started["answer"]["steps"]},
                "second_up_s": again["seconds"],
                "status_s": status["seconds"],
                "down_s": stopped["seconds"],
                "memory": memory,
                "pss_bytes": plan,
            }
        )
    best = min(warm, key=lambda run: float(run["up_s"]))
    return {
        "at": now().isoformat(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "cold_up_s": cold["seconds"],
        "cold_steps": {s["name"]: s["seconds"] for s in cold["answer"]["steps"]},
        "warm_up_s": best["up_s"],
        "warm_up_median_s": statistics.median(run["up_s"] for run in warm),
        "warm_up_to_target": round(best["up_s"] / WARM_TARGET_S, 2),
        "cold_up_to_target": round(cold["seconds"] / COLD_TARGET_S, 2),
        "memory_to_target": round((best["pss_bytes"] or 0) / MEMORY_TARGET_BYTES, 2),
        "runs": warm,
    }


def command(layout: Layout, port: int, *arguments: str) -> dict[str, Any]:
    """Run `ai-assistant …`: its answer and the seconds it took, the start of Python included."""
    environ = os.environ | {"AI_ASSISTANT_HOME": str(layout.home), "AI_ASSISTANT_SERVE__PORT": str(port)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from cluster.cli import main; main()", *arguments, "--json"],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(
            f"ai-assistant {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return {"answer": json.loads(done.stdout), "seconds": round(seconds, 2)}


def memory_of(layout: Layout) -> tuple[dict[str, dict[str, int | None]], int | None]:
    state, plan = State.read(layout.state), Plan.read(layout.plan)
    assert state is not None
    memory = stack_memory(state, plan, exact=True)
    return {name: _plain(m) for name, m in memory.items()}, total_pss(memory)


def _plain(memory: Memory) -> dict[str, int | None]:
    return {"processes": memory.processes, "rss_bytes": memory.rss, "pss_bytes": memory.pss}


def cpu_seconds(layout: Layout) -> float:
    """What the stack's living processes have used since they began."""
    state, plan = State.read(layout.state), Plan.read(layout.plan)
    assert state is not None
    total = 0.0
    for name, record in state.services.items():
        for process in members(record.process, plan.service(name).marker):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
    return total


def show(result: dict[str, Any]) -> None:
    best = min(result["runs"], key=lambda run: float(run["up_s"]))
    times = Table(
        "what", "measured", "target", "ratio", title="Start of the whole stack", title_justify="left"
    )
    times.add_row(
        "cold (empty state folder)",
        f"{result['cold_up_s']:.1f} s",
        "120 s",
        f"{result['cold_up_to_target']:.2f}",
    )
    times.add_row("warm, best", f"{result['warm_up_s']:.1f} s", "60 s", f"{result['warm_up_to_target']:.2f}")
    times.add_row("warm, CPU time of the services", f"{best['up_cpu_s']:.1f} s", "", "")
    times.add_row("up with nothing to do", f"{best['second_up_s']:.1f} s", "", "")
    times.add_row("status", f"{best['status_s']:.1f} s", "", "")
    times.add_row("down", f"{best['down_s']:.1f} s", "", "")
    memory = Table(
        "service", "processes", "PSS MB", "RSS MB", title="Memory when ready", title_justify="left"
    )
    for name, used in best["memory"].items():
        pss = f"{used['pss_bytes'] / 1e6:.0f}" if used["pss_bytes"] is not None else "-"
        memory.add_row(name, str(used["processes"]), pss, f"{used['rss_bytes'] / 1e6:.0f}")
    total = best["pss_bytes"]
    memory.add_row(
        "all",
        "",
        f"{total / 1e6:.0f}" if total else "-",
        f"target 6000, ratio {result['memory_to_target']:.2f}",
    )
    console = Console(width=120)
    console.print(times, memory)
    console.print(
        f"{result['cores']} cores, load {result['load_before']} before and {result['load_after']} after"
    )


if __name__ == "__main__":
    main()
