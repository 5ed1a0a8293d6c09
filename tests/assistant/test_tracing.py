"""Traces: nothing when off, real OTLP when on, parents across processes, and no secrets."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from assistant import tracing
from assistant.errors import ConfigurationError, NotFound
from assistant.settings import TelemetrySettings
from assistant.telemetry import configure_logging, get_logger
from tests.tracing import traced

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SETTINGS = TelemetrySettings()


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A server that takes OTLP over HTTP, as a collector does: its address, and what it was sent."""
    taken: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/x-protobuf"
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_off_is_nothing_at_all(environ: dict[str, str]) -> None:
    assert tracing.configure_tracing(SETTINGS, "router", environ) is False
    assert tracing.span("a") is tracing.span("b", kind="server", parent=PARENT, x=1)
    with tracing.span("a") as span:
        assert not span.is_recording()
        assert tracing.traceparent() is None
        assert tracing.ids() is None
    assert tracing.start("a") is trace.INVALID_SPAN


def test_off_does_not_even_load_the_sdk() -> None:
    check = (
        "import sys; from assistant.settings import TelemetrySettings; from assistant import tracing;"
        "assert not tracing.configure_tracing(TelemetrySettings(), 'x', {});"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_collector_gets_real_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, taken):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        try:
            assert tracing.configure_tracing(SETTINGS, "router")
            with tracing.span("GET /x", kind="server", parent=PARENT, http__route="/x"):
                pass
            asyncio.run(tracing.flush())
        finally:
            tracing.shut_down()
    (batch,) = taken[0].resource_spans
    resource = {a.key: a.value.string_value for a in batch.resource.attributes}
    assert resource["service.name"] == "router"
    assert resource["service.namespace"] == "ai-assistant"
    assert resource["deployment.environment.name"] == "test"
    (span,) = batch.scope_spans[0].spans
    assert (span.name, span.kind) == ("GET /x", span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (PARENT[3:35], PARENT[36:52])
    assert {a.key: a.value.string_value for a in span.attributes} == {"http.route": "/x"}


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    try:
        assert tracing.configure_tracing(SETTINGS, "router")
        with tracing.span("work"):
            pass
    finally:
        tracing.shut_down()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkinn"}, "zipkinn"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
    ],
)
def test_wrong_variables_are_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tracing.configure_tracing(SETTINGS, "router", environ)
    assert not tracing.enabled()


def test_a_given_service_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    try:
        tracing.configure_tracing(SETTINGS, "router")
        provider = tracing._State.provider
        assert provider is not None
        assert provider.resource.attributes["service.name"] == "mine"
    finally:
        tracing.shut_down()


def test_a_traceparent_carries_the_parent_over() -> None:
    with traced() as spans:
        with tracing.span("caller"):
            handed = tracing.traceparent()
        assert handed is not None
        with tracing.span("callee", kind="server", parent=handed):
            pass
        with tracing.span("other"):
            pass
    assert spans.tree() == {("caller", None), ("callee", "caller"), ("other", None)}
    assert spans.one("callee").context.trace_id == spans.one("caller").context.trace_id
    assert spans.one("other").context.trace_id != spans.one("caller").context.trace_id


def test_nonsense_in_the_header_begins_a_trace() -> None:
    with traced() as spans, tracing.span("root", parent={"traceparent": "00-zzz-1"}):
        pass
    assert spans.one("root").parent is None


def test_what_runs_in_the_background_is_not_traced() -> None:
    with traced() as spans:
        with tracing.span("query", nested=True):
            pass
        with tracing.span("request"), tracing.span("query", nested=True):
            pass
    assert spans.tree() == {("request", None), ("query", "request")}


def test_an_error_leaves_its_kind_and_not_its_words() -> None:
    with traced() as spans:
        with pytest.raises(NotFound), tracing.span("known"):
            raise NotFound("secret words")
        with pytest.raises(ZeroDivisionError), tracing.span("unknown"):
            raise ZeroDivisionError("secret words")
        with pytest.raises(asyncio.CancelledError), tracing.span("left"):
            raise asyncio.CancelledError
    kinds = {
        span.name: (dict(span.attributes or {})["error.type"], span.status.status_code)
        for span in spans.all()
    }
    assert kinds == {
        "known": ("not_found", trace.StatusCode.ERROR),
        "unknown": ("ZeroDivisionError", trace.StatusCode.ERROR),
        "left": ("CancelledError", trace.StatusCode.UNSET),
    }
    assert not any("secret" in span.to_json() for span in spans.all())


def test_log_lines_carry_the_trace_beside_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(SETTINGS, "router")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        get_logger("x").info("outside")
        with traced(), tracing.span("request", parent=PARENT):
            get_logger("x").info("inside")
    outside, inside = map(json.loads, capsys.readouterr().err.splitlines())
    assert "trace_id" not in outside
    assert (inside["request_id"], inside["trace_id"]) == ("r-1", PARENT[3:35])
    assert len(inside["span_id"]) == 16
