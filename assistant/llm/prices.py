"""What an attempt cost: its tokens at the price that models.yaml states."""

from decimal import Decimal

from assistant.llm.catalog import ModelSpec
from assistant.types import Usage

MILLION = Decimal(1_000_000)


def cost_usd(spec: ModelSpec, usage: Usage) -> Decimal | None:
    """US dollars, exact; None when the model has no price or the backend did not count its tokens."""
    if spec.input_usd_per_1m is None or spec.output_usd_per_1m is None:
        return None
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    cached_price = spec.input_usd_per_1m if spec.cached_usd_per_1m is None else spec.cached_usd_per_1m
    return (
        (usage.prompt_tokens - cached) * spec.input_usd_per_1m
        + cached * cached_price
        + usage.completion_tokens * spec.output_usd_per_1m
    ) / MILLION
