"""What every place that can answer has to do, run against all of them (`tests.contract.subjects`)."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import pytest_asyncio

from assistant.errors import BackendFailed, ConfigurationError, ContextTooLong, InvalidInput, NotFound
from assistant.llm.adapters import Adapter, read_adapter
from cluster import weights
from tests.contract.subjects import (
    CONTEXT,
    PHRASE,
    PHRASE_SCHEMA,
    SLOTS,
    SUBJECTS,
    UNICODE,
    Subject,
    ask,
    collect,
)
from tests.contract.swaps import Load, damaged, request, text_of
from tests.fixtures_adapters import TinyLlama, make_adapter

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.integration,
    pytest.mark.timeout(900),
    # vLLM and torch: a zmq context that its start-up leaves to the collector, and deprecations inside.
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning:zmq"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Porto", "Lyon"]}, "visits": {"type": "integer"}},
    "required": ["city", "visits"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name == "vllm" else name for name in SUBJECTS],
)
async def subject(request: pytest.FixtureRequest, models_dir: Path) -> AsyncIterator[Subject]:
    if request.param == "vllm":
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vLLM is not installed here, so its engine was NOT tested (see engines/__init__.py)")
        weights.ensure_hf(models_dir)
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(SUBJECTS[request.param](models_dir))


@pytest.fixture(scope="module")
def adapters(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """Two adapters of the built-in model, strong enough to change every answer."""
    folder = tmp_path_factory.mktemp("adapters")
    made = [make_adapter(smollm / "hf", folder / f"answerer-{n}", "subject", n) for n in (1, 2)]
    return {path.name: read_adapter(path, "subject") for path in made}


async def idle(subject: Subject) -> None:
    """Wait until no slot is busy; the test's timeout is the limit."""
    async with asyncio.timeout(120):
        while await subject.running():
            await asyncio.sleep(0.05)


async def test_the_answer_comes_in_pieces_and_the_last_says_how_it_ended(subject: Subject) -> None:
    pieces = [p async for p in subject.stream(ask("Say hello to the team.", max_tokens=12))]
    assert sum(bool(p.text) for p in pieces) > 3
    assert [p.finish_reason for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason in {"stop", "length"}


async def test_max_tokens_ends_the_answer_with_length_and_usage_counts_it(subject: Subject) -> None:
    _, last, _ = await collect(subject, ask("Tell a story.", max_tokens=6))
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 6
    assert last.usage.prompt_tokens
    assert last.usage.total_tokens == last.usage.prompt_tokens + 6


async def test_a_longer_prompt_counts_more_tokens(subject: Subject) -> None:
    _, short, _ = await collect(subject, ask("Hi.", max_tokens=1))
    _, longer, _ = await collect(subject, ask("Hi. " + "one two three four " * 10, max_tokens=1))
    assert short.usage
    assert longer.usage
    assert (longer.usage.prompt_tokens or 0) - (short.usage.prompt_tokens or 0) >= 40


@pytest.mark.parametrize("stop", ["beta", "ta gam", " "])
async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(subject: Subject, stop: str) -> None:
    request = ask("Write alpha.", json_schema=PHRASE_SCHEMA, max_tokens=40, temperature=0, stop=(stop,))
    text, last, _ = await collect(subject, request)
    assert text.strip() == json.dumps(PHRASE).partition(stop)[0].strip()
    assert last.finish_reason == "stop"


async def test_output_follows_the_json_schema(subject: Subject) -> None:
    text, last, _ = await collect(
        subject, ask("Which city, how many visits?", json_schema=CITY_SCHEMA, max_tokens=80, temperature=0)
    )
    assert last.finish_reason == "stop", text
    jsonschema.validate(json.loads(text), CITY_SCHEMA)


async def test_characters_of_several_tokens_arrive_whole(subject: Subject) -> None:
    schema = {"type": "string", "enum": [UNICODE]}
    text, _, _ = await collect(subject, ask("Write naïve.", json_schema=schema, max_tokens=80, temperature=0))
    assert json.loads(text) == UNICODE


async def test_unicode_in_the_prompt_is_accepted(subject: Subject) -> None:
    _, last, _ = await collect(subject, ask('Привет 👋\u2028東京 \x07 \\ "quoted"', max_tokens=2))
    assert last.finish_reason in {"stop", "length"}


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(subject: Subject) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await collect(subject, ask("word " * (CONTEXT + 200), max_tokens=2))
    if subject.name != "ollama":
        assert str(CONTEXT) in caught.value.detail
    if subject.engine or subject.name == "scripted":
        assert caught.value.extra["prompt_tokens"] > CONTEXT
        assert caught.value.extra["context_tokens"] == CONTEXT
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"temperature": 7.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": ("",)}, "stop"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
    ],
)
async def test_a_wrong_knob_is_refused_by_name(subject: Subject, knobs: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await collect(subject, ask("Hello.", **knobs))
    assert caught.value.extra["field"] == field


async def test_a_schema_that_cannot_be_enforced_is_refused_and_harms_nothing(subject: Subject) -> None:
    if subject.name == "scripted":
        pytest.skip("the scripted backend enforces no schema, so it can refuse none")
    with pytest.raises((InvalidInput, BackendFailed)):
        await collect(subject, ask("Hello.", json_schema={"$ref": "#/definitions/none"}, max_tokens=4))
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


async def test_cancelled_streams_free_their_slots(subject: Subject) -> None:
    first_tokens = asyncio.Semaphore(0)

    async def endless() -> None:
        async with aclosing(subject.stream(ask("Tell a very long story.", max_tokens=900))) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if piece.text:
                    first_tokens.release()

    tasks = [asyncio.create_task(endless()) for _ in range(SLOTS)]
    for _ in range(SLOTS):
        await first_tokens.acquire()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results), results
    await idle(subject)
    text, _, _ = await collect(subject, ask("Hello.", max_tokens=2))
    assert text


async def test_cancelling_before_the_first_token_frees_the_slot(subject: Subject) -> None:
    task = asyncio.create_task(collect(subject, ask("long " * 700, max_tokens=20)))
    async with asyncio.timeout(60):
        while not await subject.running():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(subject)


async def test_closing_the_stream_early_frees_the_slot(subject: Subject) -> None:
    stream = subject.stream(ask("Tell a very long story.", max_tokens=900))
    async with aclosing(stream):  # type: ignore[type-var]
        async for piece in stream:
            if piece.text:
                break
    await idle(subject)


async def test_eight_streams_at_once_all_end_with_their_own_answer(subject: Subject) -> None:
    words = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]

    async def one(word: str) -> str:
        schema = {"type": "string", "enum": [f"alpha {word}"]}
        text, last, _ = await collect(
            subject, ask(f"Write alpha {word}.", json_schema=schema, max_tokens=30, temperature=0)
        )
        assert last.finish_reason == "stop"
        return str(json.loads(text))

    answers = await asyncio.gather(*(one(word) for word in words))
    expected = [PHRASE] * 8 if subject.name == "scripted" else [f"alpha {word}" for word in words]
    assert answers == expected


async def test_more_requests_than_slots_wait_and_finish(subject: Subject) -> None:
    results = await asyncio.gather(
        *(collect(subject, ask(f"Hello {n}.", max_tokens=3)) for n in range(SLOTS + 3))
    )
    assert all(last.finish_reason in {"stop", "length"} for _, last, _ in results)


async def test_adapters_come_and_go_under_load_without_a_failed_request(
    subject: Subject, adapters: dict[str, Adapter]
) -> None:
    if subject.engine is None:
        pytest.skip("only engines hold adapters")
    engine, (a, b) = subject.engine, list(adapters.values())[:2]
    plain = await text_of(engine, None)
    async with Load(engine).running(2) as load:
        await load.served([None])
        await engine.set_adapters([a])
        await load.served([None, a.name])
        long = asyncio.create_task(collect(subject, request(a.name, 60)))
        await engine.set_adapters([a, b])
        await load.served([None, a.name, b.name])
        assert (await subject.health()).info["adapters"] == [a.name, b.name]
        texts = [await text_of(engine, name) for name in (None, a.name, b.name)]
        await engine.set_adapters([])
        await load.served([None])
    _, last, _ = await long
    assert load.failures == []
    assert last.finish_reason in {"stop", "length"}
    assert len({plain, *texts[1:]}) == 3
    assert engine.adapters == ()
    with pytest.raises(NotFound, match="has no adapter 'answerer-1'"):
        await collect(subject, request(a.name))


async def test_an_adapter_that_cannot_be_loaded_harms_nothing(
    subject: Subject, adapters: dict[str, Adapter], tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    if subject.engine is None:
        with pytest.raises(NotFound, match="has no adapter"):
            await collect(subject, request("answerer-1"))
        return
    good, *_ = adapters.values()
    await subject.engine.set_adapters([good])
    foreign = tiny_llama.adapters["answerer-3"]
    async with Load(subject.engine).running(2) as load:
        with pytest.raises(ConfigurationError, match="made for other weights"):
            await subject.engine.set_adapters([good, foreign])
        with pytest.raises(ConfigurationError, match="could not load the adapter answerer-9"):
            await subject.engine.set_adapters([good, damaged(good, tmp_path / "answerer-9")])
        await load.served([None, good.name])
    assert load.failures == []
    assert subject.engine.adapters == (good.name,)
    await subject.engine.set_adapters([])


async def test_a_ready_backend_says_so(subject: Subject) -> None:
    health = await subject.health()
    assert health.state == "ready", health
    assert health.detail is None
    assert health.latency_ms is not None


async def test_a_stopped_engine_ends_its_streams_and_says_that_it_is_down(subject: Subject) -> None:
    """Last on purpose: it takes the engine away."""
    if subject.engine is None:
        pytest.skip("only engines are stopped by us")
    # Python's own resource tracker lives as long as this process.
    children = [
        p
        for p in set(psutil.Process().children(recursive=True)) - subject.older
        if "resource_tracker" not in " ".join(p.cmdline())
    ]
    started = asyncio.Event()

    async def endless() -> None:
        async for piece in subject.stream(ask("Tell a very long story.", max_tokens=900)):
            if piece.text:
                started.set()

    task = asyncio.create_task(endless())
    await started.wait()
    await subject.engine.stop()
    with pytest.raises(BackendFailed) as caught:
        await task
    assert caught.value.extra["cause"] == "stopped"
    assert (await subject.health()).state == "down"
    with pytest.raises(BackendFailed):
        await collect(subject, ask("Hello.", max_tokens=2))
    _, left = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert left == []
