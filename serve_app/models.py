"""The LLM router of a replica: local models behind handles, remote ones in process, every attempt recorded."""

from collections.abc import Callable, Mapping

from ray.serve.handle import DeploymentHandle

from assistant.llm.attempts import Attempt
from assistant.llm.catalog import Catalog
from assistant.llm.providers import create_backend
from assistant.llm.routing import LlmRouter
from assistant.llm.strategies import Strategy, priority
from assistant.settings import Settings
from assistant.stores.llm_metrics import LlmMetricLog, LlmMetricRecord
from assistant.telemetry import Meter
from serve_app.handles import HandleBackend


def open_models(
    catalog: Catalog,
    handles: Mapping[str, DeploymentHandle],
    settings: Settings,
    meter: Meter,
    metrics: LlmMetricLog,
    canary_share: Callable[[], float | None] = lambda: None,
    strategy: Strategy = priority,
) -> LlmRouter:
    """`handles` has one entry per local model, by name. `canary_share`: see HandleBackend."""
    only = len(catalog.models) == 1
    backends = [
        HandleBackend(spec, handles[spec.name], only=only, canary_share=canary_share)
        if spec.is_local
        else create_backend(spec)
        for spec in catalog.models
    ]
    return LlmRouter(
        catalog,
        backends,
        meter,
        lambda attempt: metrics.record(metric_record(attempt)),
        strategy=strategy,
        default_max_tokens=settings.llm.max_output_tokens,
    )


def metric_record(attempt: Attempt) -> LlmMetricRecord:
    """The row in `llm_metrics` for one attempt."""
    return LlmMetricRecord(
        provider=attempt.engine,
        model=attempt.model,
        response_time_ms=attempt.duration_s * 1000,
        first_token_ms=None if attempt.first_token_s is None else attempt.first_token_s * 1000,
        tokens_input=attempt.usage.prompt_tokens,
        tokens_output=attempt.usage.completion_tokens,
        success=attempt.outcome == "ok",
        error_message=None
        if attempt.outcome == "ok"
        else f"{attempt.cause or attempt.outcome}: {attempt.detail or attempt.outcome}",
        principal_id=attempt.principal_id,
        request_id=attempt.request_id,
        adapter=attempt.adapter,
        cost_usd=attempt.cost_usd,
    )
