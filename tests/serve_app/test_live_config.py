from collections.abc import Callable
from typing import Any

import pytest

from assistant.errors import ConfigurationError
from assistant.llm.providers.scripted import Reply
from serve_app.live_config import LiveConfig, read_user_config
from tests.serve_app.conftest import Bench, make_hit


@pytest.mark.parametrize(("config", "share"), [({"canary_share": 0.2}, 0.2), ({"canary_share": 1}, 1.0)])
def test_the_share_is_taken(config: Any, share: float) -> None:
    live = LiveConfig()
    live.apply(config)
    assert (live.share(), live.refused) == (share, None)


@pytest.mark.parametrize("config", [None, {}, {"canary_share": None}])
def test_nothing_leaves_it_to_the_table(config: Any) -> None:
    live = LiveConfig()
    live.apply({"canary_share": 0.2})
    live.apply(config)
    assert live.share() is None


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"canary_share": 1.5}, "canary_share"),
        ({"canary_share": -0.1}, "canary_share"),
        ({"canary_share": "half"}, "canary_share"),
        ({"canary_share": True}, "canary_share"),
        ({"canary_share": float("nan")}, "canary_share"),
        ({"canary_shares": 0.1}, "canary_shares"),
        ([0.1], "user_config"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_changes_nothing(config: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read_user_config(config)
    live = LiveConfig()
    live.apply({"canary_share": 0.2})
    live.apply(config)
    assert live.share() == 0.2
    assert named in str(live.refused)


ASK = [{"role": "user", "content": "What should I do when the volume fills up?"}]
EVIDENCE = "When the volume fills up, delete old snapshots and grow the claim. Then watch the usage."


async def chat(bench: Bench, model: str, **more: Any) -> dict[str, Any]:
    async with bench.client() as client:
        response = await client.post("/v1/chat/completions", json={"model": model, "messages": ASK, **more})
    told: dict[str, Any] = response.json()
    return {**told, "status": response.status_code}


async def test_priorities_change_who_answers_first(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(["small says"] * 3, others={"large": ["large says"] * 3})
    assert (await chat(bench, "auto"))["model"] == "small"
    bench.services.live.apply({"priorities": {"small": 9}})
    assert (await chat(bench, "auto"))["model"] == "large"
    bench.services.live.apply({})
    assert (await chat(bench, "auto"))["model"] == "small"


async def test_an_alias_means_a_model(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert (await chat(bench, "gpt-4o"))["status"] == 404
    bench.services.live.apply({"model_aliases": {"gpt-4o": "small"}})
    assert (await chat(bench, "gpt-4o"))["model"] == "small"


async def test_completions_are_as_long_as_now_in_force(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(["one two three four five"] * 3)
    bench.services.live.apply({"max_output_tokens": 3})
    assert (await chat(bench, "small"))["choices"][0]["finish_reason"] == "length"
    assert bench.backends["small"].requests[-1].max_tokens == 3
    await chat(bench, "small", max_tokens=4)
    assert bench.backends["small"].requests[-1].max_tokens == 4


async def test_the_deadline_is_the_one_in_force(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench([Reply("late", first_token_s=30.0)])
    bench.services.live.apply({"request_timeout_s": 0.05})
    assert (await chat(bench, "small"))["status"] == 504


async def test_answers_come_from_the_default_model_with_the_prompt_in_force(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(
        ["small says [1]."], others={"large": ["large says [1]."]}, hits=[make_hit(EVIDENCE)], writing="free"
    )
    bench.services.live.apply({"default_model": "large", "answer_prompt": "Rhyme on these: {{passages}}"})
    told = await chat(bench, "assistant")
    assert told["assistant"]["model"] == "large"
    system = bench.backends["large"].requests[-1].messages[0].content
    assert system.startswith("Rhyme on these: ")
    assert "delete old snapshots" in system
    bench.services.live.apply({})
    assert "Rhyme" not in bench.services.live.answer_prompt().text


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"priorities": {"smal": 1}}, "priorities: there is no model 'smal'"),
        ({"default_model": "huge"}, "default_model: there is no model 'huge'"),
        ({"model_aliases": {"x": "huge"}}, "model_aliases: 'x' means 'huge'"),
        ({"model_aliases": {"small": "auto"}}, "'small' is the name of a model itself"),
        ({"model_aliases": {"auto": "small"}}, "'auto' is the name of a model itself"),
        ({"answer_prompt": "No place for them."}, "answer_prompt"),
        ({"answer_prompt": "{{passages}} {{other}}"}, "answer_prompt"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_names_that_the_catalogue_lacks_are_refused(config: Any, named: str) -> None:
    live = LiveConfig(["small"])
    live.apply({"default_model": "small"})
    live.apply(config)
    assert named in str(live.refused)
    assert live.current.default_model == "small"
