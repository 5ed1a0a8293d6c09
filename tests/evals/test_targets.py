"""Writers: the prompt of training, greedy, over HTTP and from an engine in this process."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from assistant.errors import AssistantError, BackendFailed
from assistant.llm.types import ChatRequest, Piece
from evals.cases import SectionCase
from evals.targets import MAX_BRIEF_CHARS, EngineWriter, HttpWriter, section_messages

CASE = SectionCase("c", "d.md", "rust", "Cache", "Keep {{braces}} and answers.", "Motivation", "x", "h")


class Server(ThreadingHTTPServer):
    asked: dict[str, Any]
    key: str | None
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.key = self.headers.get("authorization")
        chunks: list[dict[str, Any]] = [
            {"choices": [{"delta": {"content": t}}]} for t in (" It is", " slow. ")
        ]
        chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        lines = "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"
        body = lines.encode() if self.server.status == 200 else b'{"error": {"message": "no such model"}}'
        self.send_response(self.server.status)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_the_prompt_names_title_summary_and_section_and_is_bounded() -> None:
    (message,) = section_messages(CASE)
    assert message.role == "user"
    for part in ("Cache", "Keep {{braces}} and answers.", '"Motivation"'):
        assert part in message.content
    assert "Passages" not in message.content
    (with_evidence,) = section_messages(CASE, ["one", "two"])
    assert "[1] one\n\n[2] two" in with_evidence.content
    long = SectionCase("c", "d.md", "rust", "T", "word " * 5000, "S", "x", "h")
    assert len(section_messages(long)[0].content) < MAX_BRIEF_CHARS + 500


async def test_a_model_behind_http(server: Server) -> None:
    writer = HttpWriter(server.url, "some:challenger", "secret", max_tokens=40)
    assert await writer.write(CASE) == "It is slow."
    assert (server.asked["model"], server.asked["temperature"], server.asked["max_tokens"]) == (
        "some:challenger",
        0.0,
        40,
    )
    assert server.key == "Bearer secret"
    server.status = 404
    with pytest.raises(AssistantError, match="no such model"):
        await writer.write(CASE)
    await writer.aclose()


class Engine:
    """Says what it was asked for; only `stream` is used."""

    finish = "stop"

    async def stream(self, request: ChatRequest, request_id: str) -> AsyncIterator[Piece]:
        yield Piece(f"adapter {request.adapter}, ")
        yield Piece(f"temperature {request.temperature}", self.finish)  # type: ignore[arg-type]


async def test_an_engine_in_this_process_with_an_adapter() -> None:
    engine: Any = Engine()
    assert await EngineWriter(engine, "answerer-3").write(CASE) == "adapter answerer-3, temperature 0.0"
    engine.finish = "error"
    with pytest.raises(BackendFailed, match="broke off"):
        await EngineWriter(engine).write(CASE)
