"""Structured logs and the names of metrics, which dashboards and alerts rely on."""

import logging
import sys
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from assistant import tracing
from assistant.settings import TelemetrySettings

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: its kind, meaning and label names. Seconds and bytes are the units."""

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = LATENCY_BUCKETS_S


METRICS: dict[str, MetricSpec] = {
    "ai_assistant_requests_total": MetricSpec("counter", "HTTP requests", ("route", "method", "status")),
    "ai_assistant_request_seconds": MetricSpec("histogram", "Time to the whole answer", ("route", "method")),
    "ai_assistant_first_token_seconds": MetricSpec("histogram", "Time to the first token", ("model",)),
    "ai_assistant_tokens_total": MetricSpec("counter", "Tokens used", ("model", "backend", "kind")),
    "ai_assistant_backend_attempts_total": MetricSpec("counter", "Calls to backends", ("backend", "outcome")),
    "ai_assistant_cost_usd_total": MetricSpec(
        "counter", "Cost in US dollars of the attempts whose price is known", ("model", "backend")
    ),
    "ai_assistant_unpriced_attempts_total": MetricSpec(
        "counter", "Attempts that used tokens and whose cost is not known", ("model", "backend")
    ),
    "ai_assistant_model_info": MetricSpec(
        "gauge",
        "1 for the adapter that a model serves under an alias, 0 for earlier ones",
        ("model", "alias", "adapter"),
    ),
    "ai_assistant_adapter_problems": MetricSpec(
        "gauge", "Adapters that should serve and cannot be loaded", ("model",)
    ),
    "ai_assistant_search_seconds": MetricSpec("histogram", "Search by stage", ("stage",)),
    "ai_assistant_search_results": MetricSpec(
        "histogram", "Hits per search", (), (0.5, 1, 2, 5, 10, 20, 50, 100)
    ),
    "ai_assistant_answers_total": MetricSpec("counter", "Answers from the knowledge base", ("kind",)),
    "ai_assistant_feedback_total": MetricSpec("counter", "Opinions given", ("target", "opinion")),
    "ai_assistant_rfc_stage_seconds": MetricSpec("histogram", "RFC stages", ("stage",)),
    "ai_assistant_records_dropped_total": MetricSpec("counter", "Records not written", ("record",)),
    "ai_assistant_store_up": MetricSpec("gauge", "1 when a store or server answers, else 0", ("store",)),
    "ai_assistant_ingestion_age_seconds": MetricSpec(
        "gauge", "Time since a source was last read without failure", ("source",)
    ),
    "ai_assistant_documents": MetricSpec("gauge", "Documents of a source", ("source", "status")),
    "ai_assistant_jobs": MetricSpec("gauge", "Jobs in the queue and ended ones", ("kind", "status")),
    "ai_assistant_learning_examples": MetricSpec("gauge", "Examples made of feedback", ("state",)),
}
"""No label has values that grow with use: no ids of people, requests or documents."""


class Meter(Protocol):
    """Records values under the names in METRICS; the labels must be those of the spec."""

    def add(self, name: str, value: float = 1.0, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def set(self, name: str, value: float, **labels: str) -> None: ...


class NullMeter:
    """Checks names and labels, keeps nothing. For tools and tests."""

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        check_metric(name, labels)

    observe = add
    set = add


def check_metric(name: str, labels: dict[str, str]) -> MetricSpec:
    """The spec of `name`; KeyError for an unknown name, ValueError for wrong labels."""
    spec = METRICS[name]
    if set(labels) != set(spec.labels):
        raise ValueError(f"{name} takes the labels {spec.labels}, not {tuple(labels)}")
    return spec


def configure_logging(settings: TelemetrySettings, service: str) -> None:
    """One line per event on stderr, with time, level, service and whatever was bound (the request id).

    A line that is written inside a span carries `trace_id` and `span_id`.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _named(service),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _named(service: str) -> structlog.typing.Processor:
    def add_service(
        logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {"service": service, **event}

    return add_service


def _with_trace(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if (found := tracing.ids()) is not None:
        event["trace_id"], event["span_id"] = found
    return event


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return logger
