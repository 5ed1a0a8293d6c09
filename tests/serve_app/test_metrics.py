"""The meter over Ray's metrics takes the names of the contract and nothing else."""

import pytest

from assistant.llm.attempts import Attempt
from assistant.telemetry import METRICS
from serve_app.metrics import RayMeter
from serve_app.models import metric_record


def test_every_metric_of_the_contract_can_be_recorded() -> None:
    meter = RayMeter()
    for name, spec in METRICS.items():
        labels = dict.fromkeys(spec.labels, "x")
        record = {"counter": meter.add, "histogram": meter.observe, "gauge": meter.set}[spec.kind]
        record(name, 0.5, **labels)
        record(name, 0.5, **labels)


def test_unknown_names_labels_and_kinds_are_refused() -> None:
    meter = RayMeter()
    with pytest.raises(KeyError):
        meter.add("ai_assistant_unknown")
    with pytest.raises(ValueError, match="labels"):
        meter.observe("ai_assistant_search_seconds", 1.0, route="x")
    with pytest.raises(TypeError, match="histogram"):
        meter.add("ai_assistant_search_seconds", 1.0, stage="x")


def test_zero_is_a_value() -> None:
    RayMeter().observe("ai_assistant_search_results", 0)


def test_attempt_becomes_a_row(make_attempt: Attempt) -> None:
    row = metric_record(make_attempt)
    assert (row.provider, row.model, row.response_time_ms, row.first_token_ms) == (
        "scripted",
        "small",
        1500.0,
        None,
    )
    assert (row.success, row.error_message, row.request_id) == (False, "timeout: no token", "r1")


@pytest.fixture
def make_attempt() -> Attempt:
    from assistant.clock import now
    from assistant.types import Usage

    return Attempt(
        request_id="r1",
        principal_id="ada",
        model="small",
        backend="small",
        engine="scripted",
        started_at=now(),
        outcome="failed",
        cause="timeout",
        detail="no token",
        first_token_s=None,
        duration_s=1.5,
        usage=Usage(),
    )
