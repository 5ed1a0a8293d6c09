import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from assistant.errors import (
    BackendFailed,
    ContextTooLong,
    DeadlineExceeded,
    InvalidInput,
    NoBackend,
    NotFound,
)
from assistant.llm.attempts import Attempt, cooldown_s
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.messages import failed
from assistant.llm.providers.scripted import Reply, ScriptedBackend
from assistant.llm.routing import LlmRouter, RoutedPiece
from assistant.llm.strategies import Candidate
from assistant.llm.types import ChatRequest, Message
from assistant.telemetry import NullMeter
from assistant.types import Principal, RequestContext


class CountingMeter(NullMeter):
    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = {}

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        super().add(name, value, **labels)
        key = (name, *labels.values())
        self.counts[key] = self.counts.get(key, 0) + value


class Stage:
    """A router over scripted backends, best first."""

    def __init__(self, *scripts: Sequence[Reply | str], specs: Sequence[dict[str, Any]] = (), **options: Any):
        extra = [*specs, *([{}] * (len(scripts) - len(specs)))]
        self.specs = tuple(
            ModelSpec.model_validate({"name": f"m{n}", "engine": "scripted", "priority": n, **fields})
            for n, fields in enumerate(extra)
        )
        self.backends = [ScriptedBackend(s, list(r)) for s, r in zip(self.specs, scripts, strict=True)]
        self.meter = CountingMeter()
        self.attempts: list[Attempt] = []
        self.router = LlmRouter(
            Catalog(self.specs), self.backends, self.meter, self.attempts.append, **options
        )

    async def run(self, request: ChatRequest | None = None, seconds: float = 60) -> list[RoutedPiece]:
        return [p async for p in self.router.stream(request or ask(), context(seconds))]

    def outcomes(self) -> list[tuple[str, str, str | None]]:
        return [(a.backend, a.outcome, a.cause) for a in self.attempts]


def ask(model: str = "auto", text: str = "Hello there", **knobs: Any) -> ChatRequest:
    return ChatRequest(model, (Message("user", text),), **knobs)


def context(seconds: float = 60) -> RequestContext:
    return RequestContext("r-1", Principal("ada"), time.time() + seconds)


def text_of(pieces: Sequence[RoutedPiece]) -> str:
    return "".join(p.text for p in pieces)


FAILURES = ["connect", "timeout", "rate_limited", "server_error", "auth", "malformed", "truncated"]


async def test_the_best_priority_answers_and_the_attempt_is_recorded() -> None:
    stage = Stage(["one two three"], ["other"])
    pieces = await stage.run()
    assert text_of(pieces) == "one two three"
    assert {p.model for p in pieces} == {"m0"}
    assert pieces[-1].finish_reason == "stop"
    (attempt,) = stage.attempts
    assert (attempt.outcome, attempt.request_id, attempt.principal_id) == ("ok", "r-1", "ada")
    assert attempt.first_token_s is not None
    assert attempt.duration_s >= attempt.first_token_s
    assert attempt.usage.completion_tokens == 3
    assert stage.meter.counts["ai_assistant_tokens_total", "m0", "m0", "completion"] == 3
    assert stage.meter.counts["ai_assistant_backend_attempts_total", "m0", "ok"] == 1


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_before_the_first_token_is_silent(failure: str) -> None:
    stage = Stage([Reply("x", fail_after=0, failure=failure)], ["saved"])
    assert text_of(await stage.run()) == "saved"
    assert stage.outcomes() == [("m0", "failed", failure), ("m1", "ok", None)]


async def test_a_failure_after_the_first_token_reaches_the_caller() -> None:
    stage = Stage([Reply("one two three", fail_after=2, failure="truncated")], ["never"])
    seen = []
    with pytest.raises(BackendFailed) as caught:
        async for piece in stage.router.stream(ask(), context()):
            seen.append(piece.text)
    assert "".join(seen) == "one two"
    assert caught.value.extra["cause"] == "truncated"
    assert stage.outcomes() == [("m0", "failed", "truncated")]


async def test_a_complete_answer_is_taken_elsewhere_even_after_the_first_token() -> None:
    stage = Stage([Reply("one two three", fail_after=2)], ["whole answer"])
    completion = await stage.router.complete(ask(), context())
    assert (completion.text, completion.model, completion.finish_reason) == ("whole answer", "m1", "stop")
    assert completion.usage.completion_tokens == 2


async def test_when_all_fail_the_error_lists_every_cause() -> None:
    stage = Stage([Reply("x", fail_after=0, failure="auth")], [Reply("x", fail_after=0, failure="connect")])
    for call in (stage.run(), stage.router.complete(ask(), context())):
        with pytest.raises(NoBackend) as caught:
            await call
        assert [(c["backend"], c["cause"]) for c in caught.value.extra["causes"]] == [
            ("m0", "auth"),
            ("m1", "connect"),
        ]


async def test_a_pinned_model_has_no_fallback() -> None:
    stage = Stage([Reply("x", fail_after=0)], ["other"])
    with pytest.raises(NoBackend, match="m0"):
        await stage.run(ask("m0"))
    assert text_of(await stage.run(ask("m1"))) == "other"


async def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    stage = Stage(["a"], ["b"])
    with pytest.raises(NotFound, match=r"nope.*auto, assistant, m0, m1"):
        await stage.run(ask("nope"))
    with pytest.raises(NotFound):
        stage.router.spec_for("nope")
    assert stage.attempts == []


async def test_a_failed_backend_rests_and_comes_last() -> None:
    stage = Stage([Reply("x", fail_after=0), "back"], ["second"])
    await stage.run()
    assert stage.router.spec_for("auto").name == "m1"
    assert text_of(await stage.run()) == "second"
    assert len(stage.backends[0].requests) == 1


async def test_resting_backends_are_tried_when_no_other_is_left() -> None:
    stage = Stage([Reply("x", fail_after=0), "back"])
    with pytest.raises(NoBackend):
        await stage.run()
    assert text_of(await stage.run()) == "back"


async def test_a_hung_backend_is_left_after_its_first_token_limit() -> None:
    stage = Stage(
        [Reply("x", fail_after=0, failure="hang")], ["saved"], specs=[{"first_token_timeout_s": 0.05}]
    )
    assert text_of(await stage.run()) == "saved"
    assert stage.outcomes()[0] == ("m0", "failed", "timeout")
    assert stage.backends[0].running == 0


async def test_the_last_backend_may_take_longer_for_its_first_token() -> None:
    slow = Reply("late", first_token_s=0.2)
    stage = Stage(["x"], [slow], specs=[{}, {"first_token_timeout_s": 0.01}])
    assert text_of(await stage.run(ask("m1"))) == "late"


async def test_a_stall_in_the_middle_is_an_error_and_frees_the_slot() -> None:
    stage = Stage([Reply("one two", fail_after=1, failure="hang")], specs=[{"stall_timeout_s": 0.05}])
    with pytest.raises(BackendFailed, match="no token within"):
        await stage.run()
    assert stage.backends[0].running == 0


async def test_the_deadline_covers_all_attempts() -> None:
    stage = Stage([Reply("x", fail_after=0, failure="hang")], ["too late"])
    with pytest.raises(DeadlineExceeded):
        await stage.run(seconds=0.1)
    assert stage.outcomes() == [("m0", "deadline", "deadline_exceeded")]


async def test_a_deadline_already_over_asks_nobody_for_long() -> None:
    stage = Stage([Reply("x", first_token_s=30)])
    with pytest.raises(DeadlineExceeded):
        await stage.run(seconds=-1)


async def test_a_too_long_prompt_goes_on_to_a_longer_context_only() -> None:
    specs = [{"context_tokens": 64}, {"context_tokens": 64}, {"context_tokens": 1000}]
    stage = Stage(["a"], ["b"], ["long enough"], specs=specs)
    assert text_of(await stage.run(ask(text="word " * 100))) == "long enough"
    assert stage.outcomes() == [("m0", "refused", "context_too_long"), ("m2", "ok", None)]
    with pytest.raises(ContextTooLong, match="takes 1000"):
        await stage.run(ask(text="word " * 2000))
    assert stage.router.spec_for("auto").name == "m0", "a long prompt is not the backend's fault"


async def test_wrong_input_is_refused_before_any_backend() -> None:
    stage = Stage(["a"])
    with pytest.raises(InvalidInput):
        await stage.run(ChatRequest("auto", ()))
    with pytest.raises(InvalidInput, match="temperature"):
        await stage.run(ask(temperature=9))
    assert stage.attempts == []


async def test_closing_the_stream_frees_the_slot_and_is_recorded_as_cancelled() -> None:
    stage = Stage([Reply("one two three", token_s=0.01)])
    async with aclosing(stage.router.stream(ask(), context())) as pieces:  # type: ignore[type-var]
        async for _ in pieces:
            break
    assert stage.backends[0].running == 0
    assert stage.outcomes() == [("m0", "cancelled", None)]
    assert stage.router.spec_for("auto").name == "m0"


async def test_cancelling_a_waiting_caller_frees_the_slot() -> None:
    stage = Stage([Reply("x", first_token_s=60)])
    task = asyncio.create_task(stage.run())
    while not stage.backends[0].running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.backends[0].running == 0
    assert stage.outcomes() == [("m0", "cancelled", None)]


async def test_an_answer_is_bounded_when_the_caller_sets_no_bound() -> None:
    stage = Stage(["one two three four"], default_max_tokens=2)
    pieces = await stage.run()
    assert (text_of(pieces), pieces[-1].finish_reason) == ("one two", "length")
    assert text_of(await stage.run(ask(max_tokens=3))) == "one two three"


async def test_cost_is_counted_where_the_price_is_known() -> None:
    price = {"input_usd_per_1m": "1000000", "output_usd_per_1m": "2000000"}
    stage = Stage(["one two three"], specs=[price])
    await stage.run()
    (attempt,) = stage.attempts
    assert attempt.usage.prompt_tokens is not None
    assert attempt.cost_usd == attempt.usage.prompt_tokens + 6
    assert stage.meter.counts["ai_assistant_cost_usd_total", "m0", "m0"] == float(attempt.cost_usd)
    assert not any(key[0] == "ai_assistant_unpriced_attempts_total" for key in stage.meter.counts)


async def test_an_answer_without_a_price_is_counted_as_such_and_a_failure_is_not() -> None:
    stage = Stage([Reply("x", fail_after=0, failure="connect")], ["one"])
    await stage.run()
    assert [a.cost_usd for a in stage.attempts] == [None, None]
    unpriced = {k: v for k, v in stage.meter.counts.items() if k[0] == "ai_assistant_unpriced_attempts_total"}
    assert unpriced == {("ai_assistant_unpriced_attempts_total", "m1", "m1"): 1}


async def test_missing_usage_stays_unknown() -> None:
    stage = Stage([Reply("one two", usage=False)])
    completion = await stage.router.complete(ask(), context())
    assert completion.usage.completion_tokens is None
    assert stage.attempts[0].usage.total_tokens is None
    assert not any(key[0] == "ai_assistant_tokens_total" for key in stage.meter.counts)


async def test_health_reports_all_and_puts_down_ones_last() -> None:
    stage = Stage(["a"], ["b"])
    stage.backends[0].state = "down"
    health = await stage.router.health()
    assert [(h.backend, h.state) for h in health] == [("m0", "down"), ("m1", "ready")]
    assert stage.router.spec_for("auto").name == "m1"
    assert text_of(await stage.run()) == "b"


async def test_a_backend_that_breaks_in_health_is_down_not_fatal() -> None:
    stage = Stage(["a"], ["b"])

    async def broken() -> Any:
        raise RuntimeError("boom")

    stage.backends[0].health = broken  # type: ignore[method-assign]
    first, second = await stage.router.health()
    assert (first.state, second.state) == ("down", "ready")
    assert "boom" in (first.detail or "")


async def test_the_strategy_decides_the_order() -> None:
    def reverse(request: ChatRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        return list(reversed(candidates))

    stage = Stage(["a"], ["b"], strategy=reverse)
    assert text_of(await stage.run()) == "b"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (failed("b", "rate_limited", "x", retry_after_s=42.0), 42.0),
        (failed("b", "rate_limited", "x"), 5.0),
        (failed("b", "auth", "x"), 60.0),
        (failed("b", "connect", "x"), 5.0),
        (failed("b", "rejected", "x"), 0.0),
        (BackendFailed("without a cause"), 5.0),
    ],
)
def test_cooldown_follows_the_cause(error: BackendFailed, seconds: float) -> None:
    assert cooldown_s(error) == seconds
