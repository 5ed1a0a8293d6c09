"""The command line against a small API of the test's own: output, exit codes, errors, streams."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import exits
from cluster.cli.api import events
from cluster.cli.app import app, main
from cluster.cli.output import plain
from cluster.layout import Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.processes import identify
from cluster.state import ServiceRecord, State

RFC_ID = "0190f5a0-0000-7000-8000-000000000001"
HIT = {
    "title": "Runbook",
    "headings": ["Runbook", "Mitigation"],
    "start": 10,
    "end": 50,
    "text": "Delete  old\x1b[31m data.",
    "score": 0.9,
    "chunk_id": "0190f5a0-0000-7000-8000-00000000000c",
    "url": None,
    "external_id": "runbooks/volume.md",
}
CITATION = HIT | {
    "marker": 1,
    "document_id": "d",
    "quote": "Delete old data.",
    "content_hash": "h",
}
PROBLEM = {
    "status": 400,
    "detail": "The query is empty.",
    "hint": "Write what you are looking for.",
    "code": "invalid_input",
    "retryable": False,
    "instance": "request-7",
}


class FakeApi(ThreadingHTTPServer):
    """Answers `routes[METHOD path]`: (status, JSON or raw text); notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def _answer(self) -> None:
        key = f"{self.command} {self.path.partition('?')[0]}"
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((key, headers, json.loads(body) if body else None))
        found = self.server.routes.get(
            key, (404, {"status": 404, "detail": "Not there.", "code": "not_found"})
        )
        status, content = found(headers) if callable(found) else found
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A state folder whose stack is this test."""
    layout = Layout(tmp_path / "home")
    state = State(str(layout.home), "0.1.0", urls={"page": api.url}, leader=identify(os.getpid()))
    state.services["ray"] = ServiceRecord("ray", "ready", process=identify(os.getpid()), url=api.url)
    state.write(layout.state)
    Plan((ServiceSpec("ray", ("x",), Probe("tcp", "127.0.0.1:1")),)).write(layout.plan)
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(layout.home))
    return layout


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ai-assistant", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [
        (c.name or c.callback.__name__,) for c in app.registered_commands if c.callback
    ]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        assert group.name is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            found.append((group.name, command.name or command.callback.__name__))
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_teaches_by_example_and_speaks_json(run: Run, command: tuple[str, ...]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert f"ai-assistant {' '.join(command)}" in out
    assert "Examples:" in out
    assert "--json" in out


def test_help_names_the_exit_codes_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\nsys.argv = ['ai-assistant', '--help']\n"
        "from cluster.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'mlflow', 'numpy', 'pydantic', 'httpx', 'psycopg', 'fastapi'} & set(sys.modules)\n"
        "sys.stderr.write(','.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Exit codes" in done.stdout


def test_search_prints_where_a_passage_is(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /api/v1/search"] = (200, {"query_id": RFC_ID, "hits": [HIT], "took_ms": 12.3})
    code, out, _ = run("search", "volume", "--limit", "3", "--where", "team=a", "--where", "team=b")
    assert code == exits.OK
    assert "Runbook › Mitigation (characters 10-50) runbooks/volume.md" in out
    assert "\x1b" not in out
    assert api.asked[0][2] == {
        "query": "volume",
        "limit": 3,
        "mode": "hybrid",
        "filters": {"team": ["a", "b"]},
    }


def test_search_as_json_is_the_answer_of_the_api(run: Run, api: FakeApi, home: Layout) -> None:
    answer = {"hits": [HIT], "took_ms": 12.3}
    api.routes["POST /api/v1/search"] = (200, answer)
    code, out, err = run("search", "volume", "--json")
    assert (code, json.loads(out), err) == (0, answer, "")


def test_a_problem_becomes_a_sentence_a_hint_and_a_code(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /api/v1/search"] = (400, PROBLEM)
    code, out, err = run("search", " ")
    assert code == exits.USAGE
    assert out == ""
    assert err.splitlines()[:2] == ["Error: The query is empty.", "  Write what you are looking for."]
    assert "request-7" in err


def test_a_problem_as_json_goes_to_stdout(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /api/v1/search"] = (400, PROBLEM)
    code, out, err = run("search", " ", "--json")
    assert (code, err) == (exits.USAGE, "")
    assert json.loads(out)["error"] | PROBLEM == json.loads(out)["error"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, exits.NOT_PERMITTED), (403, exits.NOT_PERMITTED), (404, exits.NOT_FOUND), (503, exits.ERROR)],
)
def test_a_status_has_its_exit_code(run: Run, api: FakeApi, home: Layout, status: int, code: int) -> None:
    api.routes["POST /api/v1/search"] = (status, {"status": status, "detail": "No.", "code": "x"})
    assert run("search", "a")[0] == code


def test_an_answer_that_is_no_problem_body_is_shown_too(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /api/v1/search"] = (500, "Internal Server Error")
    code, _, err = run("search", "a")
    assert code == exits.ERROR
    assert "Internal Server Error" in err


def test_nothing_running_says_how_to_start(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_ASSISTANT_HOME", str(tmp_path / "empty"))
    for command in (("search", "a"), ("ask", "a"), ("models",), ("rfc", "list"), ("keys", "list")):
        code, _, err = run(*command)
        assert code == exits.NOT_RUNNING, command
        assert "ai-assistant up" in err
    assert run("status")[0] == exits.NOT_RUNNING
    code, out, _ = run("down")
    assert (code, out) == (exits.OK, "Nothing was running.\n")
    assert not (tmp_path / "empty").exists()


def test_a_server_that_died_is_not_running(run: Run, api: FakeApi, home: Layout) -> None:
    state = State.read(home.state)
    assert state is not None
    state.urls = {"page": "http://127.0.0.1:9"}
    state.write(home.state)
    code, _, err = run("search", "a")
    assert code == exits.NOT_RUNNING
    assert "does not answer" in err


def chunk(text: str, **extra: Any) -> str:
    finish = "stop" if extra else None
    body = {"choices": [{"delta": {"content": text}, "finish_reason": finish}], **extra}
    return f"data: {json.dumps(body)}\n\n"


def test_ask_streams_and_lists_its_sources(run: Run, api: FakeApi, home: Layout) -> None:
    extra = {"citations": [CITATION], "grounded": True, "extractive": True, "model": "m", "html": "<p>"}
    stream = ": keep-alive\n\n" + chunk("Delete ") + chunk("data. [1]", assistant=extra) + "data: [DONE]\n\n"
    api.routes["POST /v1/chat/completions"] = (200, stream)
    code, out, _ = run("ask", "what?")
    assert code == exits.OK
    assert out.startswith("Delete data. [1]\n")
    assert "[1] Runbook › Mitigation (characters 10-50)" in out
    assert api.asked[0][2]["model"] == "assistant"
    code, out, _ = run("ask", "what?", "--json")
    assert json.loads(out) == {"question": "what?", "answer": "Delete data. [1]", **extra}


def test_ask_says_when_the_answer_breaks_off(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /v1/chat/completions"] = (200, chunk("Delete "))
    code, out, err = run("ask", "what?")
    assert (code, out) == (exits.ERROR, "Delete ")
    assert "broke off" in err


def test_ask_shows_an_error_in_the_stream(run: Run, api: FakeApi, home: Layout) -> None:
    failed = {"error": {"detail": "The model died.", "hint": "Ask again.", "status": 502, "message": "x"}}
    api.routes["POST /v1/chat/completions"] = (200, chunk("Del") + f"data: {json.dumps(failed)}\n\n")
    code, _, err = run("ask", "what?")
    assert code == exits.ERROR
    assert "Error: The model died." in err


def test_the_key_of_the_environment_is_sent(
    run: Run, api: FakeApi, home: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_ASSISTANT_API_KEY", "aia_secret")
    api.routes["POST /api/v1/search"] = (200, {"query_id": RFC_ID, "hits": [], "took_ms": 1})
    run("search", "a")
    assert api.asked[0][1]["authorization"] == "Bearer aia_secret"


def event(identifier: int, name: str, **data: Any) -> str:
    return f"id: {identifier}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


def rfc_routes(api: FakeApi, first: str, rest: str) -> None:
    api.routes["POST /api/v1/rfc"] = (202, {"id": RFC_ID, "job_id": "j", "status": "queued"})

    def follow(headers: dict[str, str]) -> tuple[int, str]:
        return 200, rest if headers.get("last-event-id") else first

    api.routes[f"GET /api/v1/rfc/{RFC_ID}/events"] = follow
    rfc = {
        "id": RFC_ID,
        "title": "T",
        "status": "done",
        "markdown": "# T\n\nText [1]",
        "citations": [CITATION],
    }
    api.routes[f"GET /api/v1/rfc/{RFC_ID}"] = (200, rfc)
    api.routes[f"GET /api/v1/rfc/{RFC_ID}/export"] = (200, "# T\n\nText [1]\n\n[1] Runbook\n")


def test_an_rfc_is_followed_over_a_lost_connection(
    run: Run, api: FakeApi, home: Layout, tmp_path: Path
) -> None:
    first = "retry: 1000\n\n" + event(1, "stage", stage="brief", status="done", duration_ms=40)
    rest = event(2, "section", index=0, title="Summary", markdown="…") + event(3, "done", rfc_id=RFC_ID)
    rfc_routes(api, first, rest)
    out_file = tmp_path / "rfc.md"
    code, out, err = run(
        "rfc", "new", "--title", "T", "--brief", "B", "--answer", "Who?=Us", "--out", str(out_file)
    )
    assert (code, out) == (exits.OK, "")
    assert out_file.read_text() == "# T\n\nText [1]\n\n[1] Runbook\n"
    assert "brief        done     0.0 s" in err
    assert "1. Summary" in err
    assert api.asked[0][2]["answers"] == {"Who?": "Us"}
    assert [h.get("last-event-id") for key, h, _ in api.asked if key.endswith("/events")] == [None, "1"]


def test_an_rfc_that_fails_says_why(run: Run, api: FakeApi, home: Layout) -> None:
    problem = {"status": 503, "detail": "No model could answer.", "code": "no_backend"}
    rfc_routes(api, event(1, "error", problem=problem), "")
    code, _, err = run("rfc", "new", "--title", "T", "--brief", "B")
    assert code == exits.ERROR
    assert "No model could answer." in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("rfc", "new", "--title", "T"),
        ("rfc", "new", "--title", "T", "--brief", "B", "--brief-file", "x"),
        ("rfc", "new", "--title", "T", "--brief-file", "/does/not/exist"),
        ("rfc", "new", "--title", "T", "--brief", "B", "--answer", "no equals sign"),
        ("rfc", "new", "--title", "T", "--brief", "B", "--out", "/does/not/exist/rfc.md"),
        ("rfc", "show", "not-an-id"),
        ("keys", "revoke", "not-an-id"),
        ("search", "a", "--where", "nonsense"),
        ("search", "a", "--mode", "nonsense"),
        ("ingest", "/does/not/exist"),
        ("ingest", __file__),
        ("ingest", ".", "--config", "x.yml"),
        ("logs", "nonsense"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_happens(
    run: Run, api: FakeApi, home: Layout, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(*arguments)
    assert code == exits.USAGE
    assert out == ""
    assert err
    assert api.asked == []


def test_wrong_settings_name_the_key(run: Run, home: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_ASSISTANT_SERVE__PROT", "8001")
    code, _, err = run("status")
    assert code == exits.ERROR
    assert "serve.prot" in err


def test_status_tells_health_and_counts(run: Run, api: FakeApi, home: Layout) -> None:
    health = {
        "status": "degraded",
        "checks": {"mlflow": {"state": "down", "detail": "no answer"}},
        "models": [],
        "counts": {"documents": 3},
    }
    api.routes["GET /health"] = (200, health)
    code, out, _ = run("status")
    assert code == exits.OK
    assert "mlflow: down no answer" in out
    assert "3 documents" in out
    code, out, _ = run("status", "--json")
    found = json.loads(out)
    assert found["urls"] == {"page": api.url}
    ray = next(s for s in found["services"] if s["name"] == "ray")
    assert ray["pid"] == os.getpid()
    assert ray["rss_bytes"] > 0
    assert found["versions"]["ray"]
    assert found["home"] == str(home.home)


@pytest.mark.parametrize("broken", ["service", "health", "page"])
def test_status_of_a_sick_stack_has_its_own_code(run: Run, api: FakeApi, home: Layout, broken: str) -> None:
    if broken != "page":
        api.routes["GET /health"] = (200, {"status": "down" if broken == "health" else "ok", "checks": {}})
    if broken == "service":
        state = State.read(home.state)
        assert state is not None
        state.services["ray"].phase = "restarting"
        state.services["ray"].failure = "ended by signal 9"
        state.write(home.state)
    code, out, _ = run("status")
    assert code == exits.UNHEALTHY
    assert broken != "service" or "ended by signal 9" in out


def test_models_join_names_and_states(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["GET /v1/models"] = (200, {"data": [{"id": "auto"}, {"id": "small"}]})
    model = {
        "name": "small",
        "engine": "llama_cpp",
        "state": "ready",
        "writing": "extractive",
        "context_tokens": 1,
    }
    api.routes["GET /health"] = (200, {"status": "ok", "models": [model]})
    code, out, _ = run("models", "--json")
    assert code == exits.OK
    assert [m["name"] for m in json.loads(out)] == ["auto", "small"]
    assert json.loads(out)[1]["state"] == "ready"
    assert "llama_cpp" in run("models")[1]


def test_models_show_the_adapter_behind_each_name(run: Run, api: FakeApi, home: Layout) -> None:
    names = ["auto", "small", "small:base", "small:champion", "small:challenger", "qwen3:8b"]
    api.routes["GET /v1/models"] = (200, {"data": [{"id": name} for name in names]})
    adapters = {"champion": "answerer-3", "challenger": "answerer-4", "share": 0.1}
    model = {"name": "small", "engine": "llama_cpp", "state": "ready", "adapters": adapters}
    remote = {"name": "qwen3:8b", "engine": "ollama", "state": "down", "adapters": None}
    api.routes["GET /health"] = (200, {"status": "ok", "models": [model, remote]})
    code, out, _ = run("models", "--json")
    assert code == exits.OK
    shown = [(row["name"], row["state"], row["adapter"]) for row in json.loads(out)]
    assert shown == [
        ("auto", None, None),
        ("small", "ready", "answerer-3"),
        ("small:base", "ready", None),
        ("small:champion", "ready", "answerer-3"),
        ("small:challenger", "ready", "answerer-4"),
        ("qwen3:8b", "down", None),
    ]
    assert "answerer-4" in run("models")[1]


def test_logs_print_the_end(run: Run, home: Layout) -> None:
    home.logs.mkdir()
    home.log("ray").write_text("".join(f"line {i}\n" for i in range(200)))
    home.log("qdrant").write_text("started\n")
    assert run("logs", "ray", "-n", "2")[1] == "line 198\nline 199\n"
    assert "qdrant: started" in run("logs")[1]
    assert json.loads(run("logs", "qdrant", "--json")[1]) == {"log": "qdrant", "line": "started"}


def test_events_are_read_as_the_standard_says() -> None:
    lines = [
        ": comment", "", "event: stage", "id: 4", 'data: {"a":', "data: 1}", "", "data: plain", "", "data: [DONE]", "",
        "data: never", "",
    ]  # fmt: skip
    found = list(events(iter(lines)))
    assert [(e.name, e.data, e.id) for e in found] == [("stage", {"a": 1}, "4"), ("message", "plain", "4")]


def test_control_characters_never_reach_the_terminal() -> None:
    assert plain("a\x1b]0;title\x07b\x9b31mc\r\td\n") == "a]0;titleb31mc\td\n"
