"""A whole learning run on a stack of its own: `python -m benchmarks.loop --knowledge FOLDER --documents FOLDER`.

Ingests the knowledge, asks one question per document until `--examples` answers are rated well, starts
`ai-assistant learn run` on the design documents with the settings as they are, and tells the time of each step,
the memory of the whole stack while it ran (PSS, where Linux tells it) and what the gate said. On a virtual machine
it also tells how much of the processors the host gave to others meanwhile. Without folders those of `shared/data`
beside the checkout are taken.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from assistant.clock import now
from benchmarks import save
from benchmarks.stack import command
from cluster.layout import ROOT, Layout
from cluster.memory import stack_processes
from cluster.plan import Plan
from cluster.ports import pick
from cluster.shutdown import stop_stack
from cluster.state import State

DATA = ROOT.parent / "shared" / "data"
LIMIT_S = 20 * 60.0
LIMIT_BYTES = 8_000_000_000
LOOK_S = 15.0
SHOWN = 12


def rate(url: str, knowledge: Path, count: int) -> int:
    """Ask about a document each and rate what was answered from evidence; the number of ratings."""
    names = sorted({path.stem for path in knowledge.rglob("*.md") if not path.stem.startswith("_")})
    rated = 0
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        for name in track(names, "asking and rating", transient=True):
            question = {"role": "user", "content": f"What should I do about {name}?"}
            body = {"model": "assistant", "messages": [question]}
            said = client.post("/v1/chat/completions", json=body).raise_for_status().json()["assistant"]
            opinion = {"thumb": 1, "stars": 5}
            client.post(f"/api/v1/answers/{said['id']}/feedback", json=opinion).raise_for_status()
            rated += bool(said["grounded"])
            if rated == count:
                break
    return rated


class Peak(threading.Thread):
    """The most memory that the stack, its learning run included, held at one look, and which processes held it."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(daemon=True)
        self._layout = layout
        self._over = threading.Event()
        self._began = time.monotonic()
        self.bytes = 0
        self.after_s = 0.0
        self.largest: list[dict[str, Any]] = []

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            state, plan = State.read(self._layout.state), Plan.read(self._layout.plan)
            if state is None:
                continue
            groups = stack_processes(state, plan)
            held = [(held_by(p), service, p) for service, group in groups.items() for p in group]
            whole = sum(size for size, _, _ in held)
            if whole > self.bytes:
                self.bytes, self.after_s = whole, round(time.monotonic() - self._began, 1)
                held.sort(key=lambda one: one[0], reverse=True)
                self.largest = [
                    {"bytes": size, "service": service, "process": called(process)}
                    for size, service, process in held[:SHOWN]
                ]

    def end(self) -> None:
        self._over.set()
        self.join()


def held_by(process: psutil.Process) -> int:
    """PSS; RSS where the system does not tell it; nothing once the process is gone."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(memory, "pss", memory.rss))


def withheld(before: Any, after: Any) -> float:
    """Of the processor time that was asked for, the share that the host gave to others; 0 where none is told."""
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    used = {name: getattr(after, name, 0.0) - getattr(before, name, 0.0) for name in names}
    return used["steal"] / max(sum(used.values()), 1e-9)


def called(process: psutil.Process) -> str:
    try:
        words = [Path(word).name for word in process.cmdline() if not word.startswith("-")]
    except psutil.Error:
        return "gone"
    return " ".join(words[:3])[:60]


@contextmanager
def stack(layout: Layout, port: int) -> Iterator[str]:
    layout.home.mkdir()
    (layout.home / "models").symlink_to(ROOT / ".local" / "models")
    try:
        command(layout, port, "up", "--no-ingest")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_stack(layout)


def measure(knowledge: Path, documents: Path, examples: int, settings: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="aia-bench-") as folder:
        layout, port = Layout(Path(folder) / "home"), pick()
        # Before all ratings are given, nothing may start.
        os.environ["AI_ASSISTANT_LEARNING__AUTOMATIC"] = "false"
        with stack(layout, port) as url:
            command(layout, port, "ingest", str(knowledge))
            rated = rate(url, knowledge, examples)
            load = os.getloadavg()[0]
            peak = Peak(layout)
            peak.start()
            began, before = time.monotonic(), psutil.cpu_times()
            chosen = [argument for setting in settings for argument in ("--set", setting)]
            run = command(layout, port, "learn", "run", "--documents", str(documents), *chosen)["answer"]
            seconds, stolen = time.monotonic() - began, withheld(before, psutil.cpu_times())
            peak.end()
    return {
        "at": now().isoformat(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "rated": rated,
        "settings": settings,
        "steps": {
            step["name"]: {"seconds": step["seconds"], "detail": step["detail"]} for step in run["steps"]
        },
        "status": run["status"],
        "total_s": round(seconds, 1),
        "withheld": round(stolen, 3),
        "peak_pss_bytes": peak.bytes,
        "peak_after_s": peak.after_s,
        "peak_processes": peak.largest,
        "of_the_time": round(seconds / LIMIT_S, 2),
        "of_the_memory": round(peak.bytes / LIMIT_BYTES, 2),
    }


def table(result: dict[str, Any]) -> Table:
    shown = Table(title=f"A learning run on {result['rated']} rated answers, load {result['load_before']}")
    shown.add_column("step")
    shown.add_column("s", justify="right")
    shown.add_column("what came of it")
    for name, step in result["steps"].items():
        shown.add_row(name, f"{step['seconds']:.0f}", step["detail"])
    shown.add_row("all", f"{result['total_s']:.0f}", f"{result['of_the_time']:.0%} of 20 minutes")
    if result["withheld"]:
        shown.add_row("", "", f"the host withheld {result['withheld']:.0%} of the processor time asked for")
    held = f"{result['peak_pss_bytes'] / 1e9:.2f} GB, {result['of_the_memory']:.0%} of 8 GB"
    shown.add_row("memory", f"{result['peak_after_s']:.0f}", f"whole stack at its peak: {held}")
    for one in result["peak_processes"]:
        shown.add_row("", "", f"{one['bytes'] / 1e9:.2f} GB {one['service']}: {one['process']}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--knowledge", type=Path, default=DATA / "knowledge" / "alert-runbooks")
    parser.add_argument("--documents", type=Path, default=DATA / "design-docs")
    parser.add_argument("--examples", type=int, default=60, help="answers rated before the run")
    parser.add_argument("--set", action="append", default=[], help="a setting of the run: training.epochs=1")
    given = parser.parse_args()
    for folder in (given.knowledge, given.documents):
        if not folder.is_dir():
            Console().print(
                f"SKIPPED: {folder} is not a folder; name others with --knowledge and --documents."
            )
            return
    result = measure(given.knowledge.absolute(), given.documents.absolute(), given.examples, given.set)
    save("loop", result)
    Console().print(table(result))
    if result["status"] != "done":
        raise SystemExit(1)


if __name__ == "__main__":
    main()
