import json

import pytest
import structlog

from assistant.settings import TelemetrySettings
from assistant.telemetry import METRICS, NullMeter, configure_logging, get_logger


def test_a_log_line_is_json_with_service_and_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(), "router")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        get_logger("x").info("answered", status=200)
    line = json.loads(capsys.readouterr().err)
    assert (line["service"], line["request_id"], line["event"], line["status"]) == (
        "router",
        "r-1",
        "answered",
        200,
    )
    assert line["level"] == "info"


def test_level_is_respected(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(log_level="warning"), "router")
    get_logger("x").info("quiet")
    assert capsys.readouterr().err == ""


def test_metrics_refuse_unknown_names_and_labels() -> None:
    meter = NullMeter()
    meter.add("ai_assistant_requests_total", route="/", method="GET", status="200")
    with pytest.raises(KeyError):
        meter.add("nope")
    with pytest.raises(ValueError, match="takes the labels"):
        meter.observe("ai_assistant_request_seconds", 1.0, route="/")


def test_metric_names_carry_their_unit_or_total() -> None:
    for name, spec in METRICS.items():
        assert name.startswith("ai_assistant_")
        assert name.endswith("_total") == (spec.kind == "counter")
