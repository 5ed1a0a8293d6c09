"""Spans in memory, for tests that ask what was traced."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from assistant import tracing
from assistant.settings import TelemetrySettings


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.all() if span.name == name]
        return found

    def tree(self) -> set[tuple[str, str | None]]:
        """Each span's name with its parent's; the parent is None at the root and when it is not ours."""
        names = {span.context.span_id: span.name for span in self.all() if span.context}
        return {(s.name, names.get(s.parent.span_id) if s.parent else None) for s in self.all()}


@contextmanager
def traced(*, content: bool = False) -> Iterator[Spans]:
    """Tracing is on within the block; the spans go into memory."""
    spans = Spans()
    tracing.configure_tracing(
        TelemetrySettings(trace_content=content), "test", {}, SimpleSpanProcessor(spans.exporter)
    )
    try:
        yield spans
    finally:
        tracing.shut_down()
