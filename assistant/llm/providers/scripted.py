"""A backend that answers from a script: for demonstrations, drills and tests of everything above a model.

A script says what is answered, how fast, and how it goes wrong, so a failure at the k-th token can be
played without a network or a broken machine:

    ScriptedBackend(spec, [Reply("one two three", fail_after=2, failure="truncated"), Reply("fine")])

Replies are used in order, the last one for ever. Prompts in which the pattern of a `match` is found are
answered by the replies with it alone. A token is a word with the white space before it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from assistant.errors import AssistantError, ContextTooLong
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import check_request, failed, too_long
from assistant.llm.types import BackendHealth, ChatRequest, FinishReason, Piece
from assistant.types import RequestContext, Usage

TOKEN = re.compile(r"\s*\S+|\s+$")

Failure = Literal[
    "connect", "timeout", "rate_limited", "server_error", "auth", "malformed", "truncated", "hang", "context"
]


class Reply(BaseModel):
    """One scripted answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    text: str = ""
    match: str | None = None
    """A regular expression looked for in the last message."""
    first_token_s: float = Field(0.0, ge=0)
    """Pause before the first token."""
    token_s: float = Field(0.0, ge=0)
    """Pause before each later token."""
    fail_after: int | None = Field(None, ge=0)
    """Tokens that arrive before `failure` happens; 0 fails before the first."""
    failure: Failure = "server_error"
    """`hang` never answers again; `context` refuses the prompt as too long."""
    retry_after_s: float | None = Field(None, ge=0)
    usage: bool = True
    """False plays a server that does not say what it used."""

    def __init__(self, text: str = "", **others: object) -> None:
        super().__init__(text=text, **others)


def _reply(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


class ScriptedOptions(BaseModel):
    """`options` of a scripted model in models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    replies: tuple[Annotated[Reply, BeforeValidator(_reply)], ...] = Field(min_length=1)
    """Texts, or mappings with the fields of `Reply`."""
    state: Literal["ready", "loading", "down"] = "ready"
    """What health says."""


class ScriptedBackend:
    """Plays its replies. `requests` keeps what was asked."""

    def __init__(self, spec: ModelSpec, replies: Sequence[Reply | str], state: str = "ready") -> None:
        options = ScriptedOptions.model_validate({"replies": tuple(replies), "state": state})
        self._spec = spec
        self._replies = options.replies
        self._used: set[int] = set()
        self._slots = asyncio.Semaphore(spec.slots)
        self.state = options.state
        self.running = 0
        self.requests: list[ChatRequest] = []

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def model(self) -> str:
        return self._spec.name

    async def aclose(self) -> None:
        """Nothing to close; the backends of real servers have something."""

    async def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[Piece]:
        """Pieces of the next reply. Raises what the script says."""
        del context
        check_request(request)
        self.requests.append(request)
        prompt = sum(len(TOKEN.findall(m.content)) for m in request.messages)
        if prompt >= self._spec.context_tokens:
            raise too_long(self.name, prompt, self._spec.context_tokens)
        reply = self._next(request.messages[-1].content)
        tokens, finish = _cut(TOKEN.findall(reply.text), request)
        async with self._slots:
            self.running += 1
            try:
                for index, token in enumerate(tokens):
                    await asyncio.sleep(reply.token_s if index else reply.first_token_s)
                    await self._fail(reply, index)
                    yield Piece(token)
                await self._fail(reply, len(tokens))
            finally:
                self.running -= 1
        yield Piece("", finish, Usage(prompt, len(tokens), 0) if reply.usage else None)

    async def health(self) -> BackendHealth:
        return BackendHealth(
            backend=self.name,
            model=self.model,
            engine="scripted",
            state=self.state,
            latency_ms=0.0,
            detail=None if self.state == "ready" else "the script says so",
            info={"running": self.running},
        )

    def _next(self, prompt: str) -> Reply:
        numbered = list(enumerate(self._replies))
        fitting = [(n, r) for n, r in numbered if r.match is not None and re.search(r.match, prompt)]
        fitting = fitting or [(n, r) for n, r in numbered if r.match is None]
        if not fitting:
            raise failed(self.name, "rejected", "no reply of the script matches", retryable=False)
        fresh = [(number, reply) for number, reply in fitting if number not in self._used]
        number, reply = fresh[0] if fresh else fitting[-1]
        self._used.add(number)
        return reply

    async def _fail(self, reply: Reply, tokens_sent: int) -> None:
        if reply.fail_after is None or tokens_sent != reply.fail_after:
            return
        if reply.failure == "hang":
            await asyncio.Event().wait()
        raise self._failure(reply)

    def _failure(self, reply: Reply) -> AssistantError:
        if reply.failure == "context":
            return ContextTooLong(f"{self.name} refused the prompt: scripted.", field="messages")
        return failed(
            self.name,
            reply.failure,
            f"scripted {reply.failure}",
            retryable=reply.failure != "auth",
            retry_after_s=reply.retry_after_s,
        )


def _cut(tokens: list[str], request: ChatRequest) -> tuple[list[str], FinishReason]:
    """The tokens before the first stop string, at most max_tokens of them."""
    text = "".join(tokens)
    ends = [end for stop in request.stop if (end := text.find(stop)) >= 0]
    kept = TOKEN.findall(text[: min(ends)]) if ends else tokens
    if request.max_tokens is not None and len(kept) > request.max_tokens:
        return kept[: request.max_tokens], "length"
    return kept, "stop"
