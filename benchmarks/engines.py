"""Tokens per second of the engine objects, without Serve: `python -m benchmarks.engines [--vllm]`.

llama.cpp is measured three ways in one run, in turns: the bare library (its handler called from plain
threads), our engine over it, and its own HTTP server through our openai_compatible backend. The ratios to
the bare library say what each way costs. Tokens per CPU second count all threads of this process, so they
hold on a busy machine too, where wall times do not.
"""

import argparse
import asyncio
import json
import os
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from assistant.clock import now
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine, gguf_file
from assistant.llm.engines.llama_cpp import LlamaCppOptions, common_params
from assistant.llm.providers import create_backend
from assistant.llm.providers.openai_wire import chat_body, read_chunk
from assistant.llm.types import ChatRequest, Engine, Message, Piece
from assistant.types import Principal, RequestContext
from benchmarks import save

BARE = "llama.cpp bare"

Stream = Callable[[ChatRequest], AsyncIterator[Piece]]
Run = Callable[[list[ChatRequest]], Awaitable["list[Timing]"]]


@dataclass(frozen=True)
class Timing:
    """One answer."""

    tokens: int
    first_token_s: float


@dataclass(frozen=True)
class Round:
    """One way at one number of streams, once."""

    way: str
    streams: int
    tokens: int
    wall_s: float
    cpu_s: float
    first_token_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s

    @property
    def tokens_per_cpu_s(self) -> float:
        return self.tokens / self.cpu_s


def requests(streams: int, tokens: int, seed: int) -> list[ChatRequest]:
    """Prompts of one length that share no prefix beyond the template, so that no cache helps one way."""
    return [
        ChatRequest(
            "m",
            (Message("user", f"{seed}{n:02d} is the number. Write a long story about a lighthouse."),),
            max_tokens=tokens,
            temperature=0.0,
        )
        for n in range(streams)
    ]


async def through(stream: Stream, batch: list[ChatRequest]) -> list[Timing]:
    async def one(request: ChatRequest) -> Timing:
        started, first, tokens = time.monotonic(), 0.0, 0
        async for piece in stream(request):
            if piece.text and not first:
                first = time.monotonic() - started
            if piece.usage and piece.usage.completion_tokens:
                tokens = piece.usage.completion_tokens
        return Timing(tokens, first)

    return list(await asyncio.gather(*(one(request) for request in batch)))


def keep(chunks: list[tuple[float, str]], chunk: str) -> bool:
    chunks.append((time.monotonic(), chunk))
    return False


def bare(server: Any, batch: list[ChatRequest]) -> list[Timing]:
    """The library's handler from one plain thread per stream; chunks are read at the end."""
    timings: list[Timing] = []

    def one(request: ChatRequest) -> None:
        chunks: list[tuple[float, str]] = []
        started = time.monotonic()
        body = json.dumps(chat_body(request, "m"))
        server.handle_chat_completions(body, lambda chunk: keep(chunks, chunk))
        read = [(at, read_chunk(json.loads(chunk))) for at, chunk in chunks]
        first = next(at for at, chunk in read if chunk.text) - started
        timings.append(Timing(sum(c.usage.completion_tokens or 0 for _, c in read if c.usage), first))

    threads = [threading.Thread(target=one, args=(request,)) for request in batch]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return timings


async def measure(way: str, run: Run, batch: list[ChatRequest]) -> Round:
    cpu, started = cpu_s(), time.monotonic()
    timings = await run(batch)
    return Round(
        way,
        len(batch),
        sum(t.tokens for t in timings),
        time.monotonic() - started,
        cpu_s() - cpu,
        statistics.median(t.first_token_s for t in timings),
    )


def cpu_s() -> float:
    """CPU seconds of this process and its children."""
    me = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [me, *me.children(recursive=True)])


async def llama_rounds(arguments: argparse.Namespace) -> list[Round]:
    import xllamacpp

    spec = ModelSpec(
        name="m", engine="llama_cpp", path=Path("smollm2-135m-instruct"), threads=arguments.threads
    )
    engine = create_engine(spec, arguments.models_dir)
    await engine.start()
    params = common_params(spec, gguf_file(spec, arguments.models_dir), LlamaCppOptions())
    params.hostnames, params.port = ["127.0.0.1"], 0
    server = await asyncio.to_thread(xllamacpp.Server, params)
    remote = spec.model_copy(
        update={
            "engine": "openai_compatible",
            "base_url": f"{server.listening_address}/v1",
            "remote_model": "m",
        }
    )
    backend = create_backend(remote)
    ways: dict[str, Run] = {
        BARE: lambda batch: asyncio.to_thread(bare, server, batch),
        "llama.cpp engine": lambda batch: through(engine_stream(engine), batch),
        "llama.cpp over HTTP": lambda batch: through(lambda r: backend.stream(r, context()), batch),
    }
    try:
        return await in_turns(ways, arguments)
    finally:
        await backend.aclose()
        await engine.stop()


async def vllm_rounds(arguments: argparse.Namespace) -> list[Round]:
    spec = ModelSpec(name="m", engine="vllm", path=Path("smollm2-135m-instruct"), threads=arguments.threads)
    engine = create_engine(spec, arguments.models_dir)
    await engine.start()
    try:
        return await in_turns({"vLLM engine": lambda b: through(engine_stream(engine), b)}, arguments)
    finally:
        await engine.stop()


def engine_stream(engine: Engine) -> Stream:
    return lambda request: engine.stream(request, os.urandom(8).hex())


def context() -> RequestContext:
    return RequestContext("bench", Principal("bench"), time.time() + 3600)


async def in_turns(ways: dict[str, Run], arguments: argparse.Namespace) -> list[Round]:
    """All ways in every round, the first place going round, after one round that does not count."""
    rounds = []
    for turn in range(arguments.rounds + 1):
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for streams in arguments.streams:
            for way in order:
                seed = 100 * turn + 10 * streams + list(ways).index(way)
                tokens = arguments.tokens if turn else 4
                found = await measure(way, ways[way], requests(streams, tokens, seed))
                if turn:
                    rounds.append(found)
                    print(f"  {way}, {streams} streams: {found.tokens_per_s:.1f} tokens/s", flush=True)
    return rounds


def summarise(rounds: list[Round]) -> list[dict[str, float | str | int | None]]:
    """Medians per way and number of streams, and their ratio to the bare library."""
    rows: list[dict[str, float | str | int | None]] = []
    for streams in sorted({r.streams for r in rounds}):
        here = [r for r in rounds if r.streams == streams]
        reference = [r for r in here if r.way == BARE]
        for way in sorted(dict.fromkeys(r.way for r in here), key=lambda way: way != BARE):
            mine = [r for r in here if r.way == way]
            speed, thrift = median(mine, "tokens_per_s"), median(mine, "tokens_per_cpu_s")
            compare = reference and way.startswith("llama.cpp")
            rows.append(
                {
                    "way": way,
                    "streams": streams,
                    "tokens_per_s": round(speed, 1),
                    "tokens_per_cpu_s": round(thrift, 1),
                    "first_token_s": round(median(mine, "first_token_s"), 2),
                    "speed_ratio": round(speed / median(reference, "tokens_per_s"), 3) if compare else None,
                    "cpu_ratio": round(thrift / median(reference, "tokens_per_cpu_s"), 3)
                    if compare
                    else None,
                }
            )
    return rows


def median(rounds: list[Round], field: str) -> float:
    return float(statistics.median(getattr(r, field) for r in rounds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".local/models").absolute())
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vllm", action="store_true", help="also vLLM, whose start takes about a minute")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rounds = asyncio.run(llama_rounds(arguments))
    if arguments.vllm:
        rounds += asyncio.run(vllm_rounds(arguments))
    rows = summarise(rounds)
    head = list(rows[0])
    print(
        f"\nSmolLM2-135M, {arguments.tokens} new tokens, {arguments.threads} thread, load at start {load:.1f}"
    )
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join("" if v is None else str(v) for v in row.values()) + " |")
    report = {
        "measured_at": now().isoformat(),
        "cpus": os.cpu_count(),
        "load_at_start": load,
        "load_at_end": os.getloadavg()[0],
        "new_tokens": arguments.tokens,
        "threads": arguments.threads,
        "rows": rows,
        "rounds": [asdict(r) for r in rounds],
    }
    save("engines", report)


if __name__ == "__main__":
    main()
