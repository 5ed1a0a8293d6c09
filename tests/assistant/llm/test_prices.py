from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from assistant.llm.catalog import ModelSpec
from assistant.llm.prices import cost_usd
from assistant.types import Usage


def spec(**prices: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "engine": "scripted", **prices})


PRICED = spec(input_usd_per_1m=2, output_usd_per_1m="8.50")


def test_tokens_at_their_prices() -> None:
    assert cost_usd(PRICED, Usage(1_000, 200)) == Decimal("0.0037")


def test_cached_tokens_have_a_price_of_their_own() -> None:
    cheap = spec(input_usd_per_1m=2, output_usd_per_1m=0, cached_usd_per_1m="0.5")
    assert cost_usd(cheap, Usage(1_000_000, 1, 400_000)) == Decimal("1.4")
    assert cost_usd(PRICED, Usage(1_000_000, 0, 400_000)) == Decimal(2)


@pytest.mark.parametrize(
    ("model", "usage"), [(spec(), Usage(1, 1)), (PRICED, Usage(None, 1)), (PRICED, Usage(1, None))]
)
def test_unknown_is_not_zero(model: ModelSpec, usage: Usage) -> None:
    assert cost_usd(model, usage) is None


def test_a_local_model_may_cost_nothing() -> None:
    assert cost_usd(spec(input_usd_per_1m=0, output_usd_per_1m=0), Usage(5, 5)) == 0


@pytest.mark.parametrize(
    "prices", [{"input_usd_per_1m": 1}, {"cached_usd_per_1m": 1}, {"output_usd_per_1m": -1}]
)
def test_half_a_price_is_refused(prices: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="usd_per_1m"):
        spec(**prices)
