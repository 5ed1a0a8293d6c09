"""OpenTelemetry traces: off unless the usual variables of OpenTelemetry ask for them.

`OTEL_TRACES_EXPORTER` (otlp, console, none) or an OTLP endpoint turns them on; protocol, endpoint, headers, sampler and
resource are OpenTelemetry's own variables, read by its SDK. Off, a span is one shared object that does nothing.

Between processes the caller hands over a W3C `traceparent`, as an argument like any other. Spans never hold values of
SQL statements or texts of errors, and prompts and answers only when `telemetry.trace_content` says so.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from assistant.errors import AssistantError, ConfigurationError
from assistant.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Kind = Literal["internal", "server", "client", "consumer"]
Value = str | bool | int | float | Sequence[str]
Span = trace.Span

FLUSH_LIMIT_MS = 3000
NAMESPACE = "ai-assistant"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
KINDS: Mapping[Kind, trace.SpanKind] = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "consumer": trace.SpanKind.CONSUMER,
}

_W3C = TraceContextTextMapPropagator()
OFF: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
"""Around a block: no span."""


class _State:
    """Of this process: a replica is one part of the graph."""

    provider: "TracerProvider | None" = None
    tracer: trace.Tracer | None = None
    content = False


def configure_tracing(
    settings: TelemetrySettings,
    service: str,
    environ: Mapping[str, str] | None = None,
    processor: "SpanProcessor | None" = None,
) -> bool:
    """Whether spans are recorded from now on. `service` names this part unless OTEL_SERVICE_NAME is set.

    `processor` takes the spans instead of what the environment names. Raises ConfigurationError naming the variable.
    """
    env = os.environ if environ is None else environ
    if processor is None:
        name = _exporter_name(env)
        if name is None:
            return False
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processor = BatchSpanProcessor(_exporter(name))
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = {"service.namespace": NAMESPACE}
    if not env.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = service
    # Not the process-wide provider: libraries beside us must not begin to send spans because we do.
    _State.provider = TracerProvider(resource=Resource.create(resource))
    _State.provider.add_span_processor(processor)
    _State.tracer = _State.provider.get_tracer(NAMESPACE)
    _State.content = settings.trace_content
    return True


def enabled() -> bool:
    return _State.tracer is not None


def content_enabled() -> bool:
    """Whether prompts and answers may stand in spans."""
    return _State.tracer is not None and _State.content


def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | Mapping[str, str] | None = None,
    nested: bool = False,
    **attributes: Value | None,
) -> AbstractContextManager[Span]:
    """A span around a block; what begins inside is its child.

    `parent` is a traceparent or the headers of a request; None means the span around. `nested`: only inside another
    one, for what also happens in the background. Attributes are written with `__` for `.`; None is left out.
    """
    if _State.tracer is None or (nested and traceparent() is None):
        return OFF
    return _recorded(start(name, kind=kind, parent=parent, **attributes))


def start(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | Mapping[str, str] | None = None,
    **attributes: Value | None,
) -> Span:
    """A span that does not surround anything: for generators, which other tasks may close. End it with `end`."""
    if _State.tracer is None:
        return trace.INVALID_SPAN
    return _State.tracer.start_span(
        name,
        None if parent is None else _context_of(parent),
        KINDS[kind],
        {key.replace("__", "."): value for key, value in attributes.items() if value is not None},
    )


def end(span: Span, error: BaseException | None = None) -> None:
    """Close a span, with the kind of what ended it."""
    if error is not None:
        fail(span, error.code if isinstance(error, AssistantError) else type(error).__name__)
    span.end()


def fail(span: Span, kind: str) -> None:
    """Mark a span as failed; the error's text may hold what a user wrote, so only its kind is kept."""
    span.set_attribute("error.type", kind)
    if kind != asyncio.CancelledError.__name__:
        span.set_status(trace.StatusCode.ERROR)


def traceparent(span: Span | None = None) -> str | None:
    """The W3C traceparent of a span, by default of the one around; None when there is none."""
    if _State.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, None if span is None else trace.set_span_in_context(span))
    return carrier.get("traceparent")


def ids() -> tuple[str, str] | None:
    """Trace and span id of the span around, as in a traceparent."""
    if _State.tracer is None:
        return None
    found = trace.get_current_span().get_span_context()
    return (format(found.trace_id, "032x"), format(found.span_id, "016x")) if found.is_valid else None


async def flush() -> None:
    """Send what waits, within a few seconds. A replica that ends calls it."""
    provider = _State.provider
    if provider is not None:
        await asyncio.to_thread(provider.force_flush, FLUSH_LIMIT_MS)


def shut_down() -> None:
    """Send what waits, and record nothing from now on."""
    provider, _State.provider, _State.tracer, _State.content = _State.provider, None, None, False
    if provider is not None:
        provider.shutdown()


@contextmanager
def _recorded(span: Span) -> Iterator[Span]:
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        yield span
    except BaseException as error:
        end(span, error)
        raise
    else:
        end(span)
    finally:
        otel_context.detach(token)


def _context_of(parent: str | Mapping[str, str]) -> otel_context.Context:
    carrier = {"traceparent": parent} if isinstance(parent, str) else dict(parent)
    return _W3C.extract(carrier, otel_context.Context())


def _exporter_name(env: Mapping[str, str]) -> str | None:
    """The entry point of the exporter that the environment asks for; None: no traces."""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    chosen = env.get("OTEL_TRACES_EXPORTER", "").strip()
    if not chosen:
        chosen = "otlp" if any(env.get(name) for name in ENDPOINTS) else "none"
    if chosen == "none":
        return None
    if chosen != "otlp":
        return chosen
    protocol = (
        env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or env.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if protocol not in PROTOCOLS:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}.", hint=f"Use one of {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[protocol]


def _exporter(name: str) -> "SpanExporter":
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise ConfigurationError(
            f"No exporter of traces called {name!r} is installed.",
            hint="Set OTEL_TRACES_EXPORTER to otlp, console or none.",
        )
    made: SpanExporter = next(iter(found)).load()()
    return made
