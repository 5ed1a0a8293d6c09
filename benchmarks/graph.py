"""What the graph costs over its parts: `python -m benchmarks.graph [--vllm] [--default-flags]`.

 - chat: tokens through HTTP, Router and LocalLLM against the same engine object alone, in turns;
 - token: CPU per streamed token over a handle, each alone and coalesced;
 - gateway: a request that only the Router answers against the same application under plain uvicorn,
   and one more hop over a handle.

Starts Ray and Postgres of its own. CPU is summed over every process that takes part, so it holds on a busy
machine too, where wall times do not; ratios within one run are what counts.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.types import ChatRequest, Message
from assistant.settings import Settings, load_settings
from benchmarks import save

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "200",
    "HF_HUB_OFFLINE": "1",
}
FAST = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
TARGET = 0.9
TOKENS = 64
Row = dict[str, Any]


@dataclass
class Spent:
    """Seconds of a block: of the wall, and of the processors, in all and by process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    by_process: dict[str, float] = field(default_factory=dict)


class Meter:
    """CPU time of our child processes by a part of their command line."""

    @contextmanager
    def spent(self, *titles: str) -> Iterator[Spent]:
        result = Spent()
        before, started = self._cpu(titles), time.perf_counter()
        yield result
        result.wall_s = time.perf_counter() - started
        for key, seconds in self._cpu(titles).items():
            used = seconds - before.get(key, 0.0)
            result.cpu_s += used
            result.by_process[key[1]] = result.by_process.get(key[1], 0.0) + used

    def _cpu(self, titles: tuple[str, ...]) -> dict[tuple[int, str], float]:
        found = {}
        for process in psutil.Process().children(recursive=True):
            try:
                line = " ".join(process.cmdline())
                if any(title in line for title in titles):
                    times = process.cpu_times()
                    found[process.pid, process_name(line)] = times.user + times.system
            except psutil.Error:
                continue
        return found


def process_name(line: str) -> str:
    """`ray::ServeReplica:graph:Router.handle…` as `Router`."""
    # Process titles are padded with blanks to the length of the first one.
    if line.startswith("ray::ServeReplica:"):
        return line.split(":")[4].split(".")[0].split("-")[0].strip()
    if line.startswith("ray::"):
        return line[5:].split(".")[0].strip()
    return "Ray's own"


def prompts(count: int) -> list[str]:
    return [f"Write a long story about the sea and the number {n}." for n in range(count)]


async def engine_tokens(engine: Any, streams: int) -> int:
    """Tokens of `streams` answers at once by the engine object."""

    async def one(text: str) -> int:
        request = ChatRequest("bench", (Message("user", text),), max_tokens=TOKENS, temperature=0.0)
        last = None
        async for piece in engine.stream(request, "bench"):
            last = piece
        return int(last.usage.completion_tokens) if last and last.usage else 0

    return sum(await asyncio.gather(*map(one, prompts(streams))))


async def graph_tokens(url: str, streams: int) -> int:
    """The same answers through the graph."""
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:

        async def one(text: str) -> int:
            body = {
                "model": "bench",
                "messages": [{"role": "user", "content": text}],
                "max_tokens": TOKENS,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            used = 0
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        used = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", used)
            return used

        return sum(await asyncio.gather(*map(one, prompts(streams))))


async def bench_chat(url: str, spec: ModelSpec, settings: Settings, meter: Meter, rounds: int) -> list[Row]:
    from assistant.llm.engines import create_engine

    engine = create_engine(spec, settings.models_dir)
    await engine.start()
    own = psutil.Process()
    rows = []
    try:
        await engine_tokens(engine, 1)
        await graph_tokens(url, 1)
        for streams in (1, 8):
            bare: list[tuple[float, float]] = []
            through: list[tuple[float, float]] = []
            shares: dict[str, list[float]] = {}
            for _ in range(rounds):
                before, started = own.cpu_times(), time.perf_counter()
                with meter.spent("EngineCore", "VLLM") as children:
                    tokens = await engine_tokens(engine, streams)
                wall, after = time.perf_counter() - started, own.cpu_times()
                cpu = after.user + after.system - before.user - before.system + children.cpu_s
                bare.append((tokens / wall, tokens / cpu))
                with meter.spent("ray", "EngineCore", "VLLM") as spent:
                    tokens = await graph_tokens(url, streams)
                through.append((tokens / spent.wall_s, tokens / spent.cpu_s))
                for name, seconds in spent.by_process.items():
                    shares.setdefault(name, []).append(1000 * seconds / tokens)
            medians = [
                statistics.median(column) for side in (bare, through) for column in zip(*side, strict=True)
            ]
            rows.append(
                {
                    "streams": streams,
                    "bare_tokens_per_s": medians[0],
                    "graph_tokens_per_s": medians[2],
                    "ratio": medians[2] / medians[0],
                    "bare_tokens_per_cpu_s": medians[1],
                    "graph_tokens_per_cpu_s": medians[3],
                    "cpu_ratio": medians[3] / medians[1],
                    "cpu_ms_per_token": {
                        name: round(statistics.median(values), 2) for name, values in shares.items()
                    },
                }
            )
    finally:
        await engine.stop()
    return rows


async def bench_tokens(drain: Any, meter: Meter) -> list[Row]:
    """CPU per token over a handle at speeds of small and large engines."""
    rows = []
    for streams, per_s in ((1, 50.0), (8, 50.0), (8, 200.0)):
        tokens = int(per_s * 4)
        total = tokens * streams
        with meter.spent("ServeReplica:parts:") as making:
            await drain.make.remote(streams, tokens, per_s)
        for ms in (-1.0, 0.0, 20.0, 50.0):
            with meter.spent("ServeReplica:parts:") as spent:
                messages = await drain.drain.remote(streams, tokens, per_s, ms)
            rows.append(
                {
                    "streams": streams,
                    "tokens_per_s_each": per_s,
                    "coalesce_ms": None if ms < 0 else ms,
                    "tokens_per_message": total / messages,
                    "cpu_ms_per_token": 1000 * (spent.cpu_s - making.cpu_s) / total,
                    "late": spent.wall_s / making.wall_s,
                }
            )
    return rows


async def closed_loop(call: Callable[[], Awaitable[Any]], requests: int, clients: int) -> list[float]:
    times: list[float] = []

    async def one() -> None:
        for _ in range(requests // clients):
            started = time.perf_counter()
            await call()
            times.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(one() for _ in range(clients)))
    return times


async def bench_gateway(url: str, bare_url: str, drain: Any, meter: Meter, requests: int) -> list[Row]:
    rows = []
    ways = {
        "noop, plain uvicorn": (bare_url, "benchmarks.graph"),
        "noop, proxy and Router": (url, "ray::"),
    }
    for clients in (1, 16):
        for way, (target, title) in ways.items():
            limits = httpx.Limits(max_connections=clients)
            async with httpx.AsyncClient(
                base_url=target, timeout=60, trust_env=False, limits=limits
            ) as client:

                async def call(client: httpx.AsyncClient = client) -> None:
                    (await client.get("/health/live")).raise_for_status()

                await closed_loop(call, clients * 5, clients)
                with meter.spent(title) as spent:
                    times = await closed_loop(call, requests, clients)
            rows.append(_gateway_row(way, clients, times, spent))
        with meter.spent("ServeReplica:parts:") as spent:
            times = await drain.hops.remote(requests, clients)
        rows.append(_gateway_row("one hop over a handle", clients, times, spent))
    return rows


def _gateway_row(way: str, clients: int, times: list[float], spent: Spent) -> Row:
    return {
        "way": way,
        "clients": clients,
        "cpu_ms": 1000 * spent.cpu_s / len(times),
        "p50_ms": statistics.median(times),
        "p99_ms": sorted(times)[min(len(times) - 1, int(len(times) * 0.99))],
        "per_s": len(times) / spent.wall_s,
    }


def serve_bare(port: int) -> None:
    """The same application under uvicorn alone; only what /health/live touches is there."""
    import uvicorn

    from assistant.telemetry import NullMeter
    from serve_app.api.application import create_app
    from serve_app.api.services import Services

    services = cast(Any, Services)(load_settings(), Catalog(()), *[None] * 10, pings={}, meter=NullMeter())
    uvicorn.run(create_app(services), host="127.0.0.1", port=port, log_config=None, access_log=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", action="store_true", help="vLLM instead of llama.cpp")
    parser.add_argument("--default-flags", action="store_true", help="without THROUGHPUT_OPTIMIZED")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--bare-port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare_port:
        serve_bare(arguments.bare_port)
        return
    os.environ.update(FLAGS)
    # Serve reads its flags at import. This process keeps the defaults, so that its handles work outside of a
    # loop of Serve; the cluster inherits what is set now.
    from benchmarks._graph_stack import GraphStack

    os.environ.update({} if arguments.default_flags else FAST)

    spec = ModelSpec(
        name="bench",
        engine="vllm" if arguments.vllm else "llama_cpp",
        path=Path("smollm2-135m-instruct"),
        slots=8,
        first_token_timeout_s=300,
        stall_timeout_s=300,
    )
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        stack = GraphStack(Path(folder), spec, ROOT / ".local")
        try:
            stack.start()
            result = asyncio.run(measure(stack, spec, arguments))
        finally:
            stack.stop()
    result["flags"] = "default" if arguments.default_flags else "throughput_optimized"
    result["engine"] = spec.engine
    save(f"graph-{spec.engine}{'-default' if arguments.default_flags else ''}", result)
    show(result)


async def measure(stack: Any, spec: ModelSpec, arguments: argparse.Namespace) -> dict[str, Any]:
    meter = Meter()
    await stack.wait_ready()
    load = os.getloadavg()[0]
    return {
        "at": now().isoformat(),
        "load_before": load,
        "cores": os.cpu_count(),
        "chat": await bench_chat(stack.url, spec, stack.settings, meter, arguments.rounds),
        "token": await bench_tokens(stack.drain, meter),
        "gateway": await bench_gateway(stack.url, stack.bare_url, stack.drain, meter, arguments.requests),
        "load_after": os.getloadavg()[0],
    }


def show(result: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"{result['engine']}, flags {result['flags']}, load {result['load_before']:.1f} to "
        f"{result['load_after']:.1f} on {result['cores']} cores"
    )
    shares = [
        {"streams": row["streams"], "process": name, "cpu_ms_per_token": ms}
        for row in result["chat"]
        for name, ms in row.pop("cpu_ms_per_token").items()
        if ms >= 0.1
    ]
    for name, rows in (
        {k: result[k] for k in ("chat", "token", "gateway")} | {"chat by process": shares}
    ).items():
        table = Table(*rows[0], title=name)
        for row in rows:
            table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)
    worst = min(row["ratio"] for row in result["chat"])
    console.print(f"chat through the graph ÷ bare engine: {worst:.2f} at worst, target {TARGET}")


if __name__ == "__main__":
    main()
