import asyncio
import time
from typing import Any

import pytest

from assistant.errors import BackendFailed, ConfigurationError, ContextTooLong
from assistant.llm.catalog import ModelSpec
from assistant.llm.providers import create_backend
from assistant.llm.providers.scripted import Reply, ScriptedBackend
from assistant.llm.types import ChatRequest, Message, Piece
from assistant.types import Principal, RequestContext

SPEC = ModelSpec(name="demo", engine="scripted")


async def play(backend: ScriptedBackend, text: str = "Hello", **knobs: Any) -> list[Piece]:
    context = RequestContext("r", Principal("ada"), time.time() + 60)
    return [p async for p in backend.stream(ChatRequest("demo", (Message("user", text),), **knobs), context)]


def text_of(pieces: list[Piece]) -> str:
    return "".join(p.text for p in pieces)


async def test_replies_come_in_order_and_the_last_stays() -> None:
    backend = ScriptedBackend(SPEC, ["first", "second"])
    assert [text_of(await play(backend)) for _ in range(3)] == ["first", "second", "second"]
    assert len(backend.requests) == 3


async def test_a_matching_reply_answers_its_prompts_alone() -> None:
    backend = ScriptedBackend(SPEC, [Reply("other"), Reply("runbook", match="(?i)kube")])
    assert text_of(await play(backend, "What about KubeVolume?")) == "runbook"
    assert text_of(await play(backend)) == "other"
    only = ScriptedBackend(SPEC, [Reply("x", match="never")])
    with pytest.raises(BackendFailed, match="no reply"):
        await play(only)


@pytest.mark.parametrize("k", [0, 1, 3])
async def test_it_fails_at_the_kth_token(k: int) -> None:
    backend = ScriptedBackend(SPEC, [Reply("a b c", fail_after=k, failure="rate_limited", retry_after_s=9)])
    seen: list[Piece] = []
    with pytest.raises(BackendFailed) as caught:
        async for piece in backend.stream(
            ChatRequest("demo", (Message("user", "x"),)), RequestContext("r", Principal("a"), time.time() + 9)
        ):
            seen.append(piece)
    assert text_of(seen) == " ".join(["a", "b", "c"][:k])
    assert (caught.value.extra["cause"], caught.value.extra["retry_after_s"]) == ("rate_limited", 9)


async def test_it_can_refuse_as_too_long_and_by_its_own_context() -> None:
    with pytest.raises(ContextTooLong):
        await play(ScriptedBackend(SPEC, [Reply("x", fail_after=0, failure="context")]))
    with pytest.raises(ContextTooLong, match="takes 2048"):
        await play(ScriptedBackend(SPEC, ["x"]), "word " * 3000)


async def test_stop_and_max_tokens_cut_the_text() -> None:
    backend = ScriptedBackend(SPEC, ["alpha beta gamma"])
    stopped = await play(backend, stop=("ta g", "zzz"))
    assert (text_of(stopped), stopped[-1].finish_reason) == ("alpha be", "stop")
    cut = await play(backend, max_tokens=2)
    assert (text_of(cut), cut[-1].finish_reason) == ("alpha beta", "length")


async def test_slots_are_bounded() -> None:
    backend = ScriptedBackend(
        SPEC.model_copy(update={"slots": 2}), [Reply("a b", first_token_s=0.02, token_s=0.02)]
    )
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, backend.running)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(play(backend) for _ in range(4)))
    watcher.cancel()
    assert most == 2


def test_a_wrong_script_is_named() -> None:
    for options in ({}, {"replies": []}, {"replies": [{"text": "x", "fail_afer": 1}]}):
        with pytest.raises(ConfigurationError, match=r"demo.*options\.replies"):
            create_backend(SPEC.model_copy(update={"options": options}))


def test_a_local_engine_is_no_remote_backend() -> None:
    with pytest.raises(ConfigurationError, match="local engine"):
        create_backend(ModelSpec(name="x", engine="llama_cpp", path="x.gguf"))
