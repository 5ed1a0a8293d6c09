"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, LM Studio, gateways."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import AssistantError, BackendFailed, ContextTooLong
from assistant.llm.catalog import ModelSpec
from assistant.llm.messages import check_request
from assistant.llm.providers.http import HttpServer
from assistant.llm.providers.openai_wire import chat_body, read_chunk
from assistant.llm.types import BackendHealth, ChatRequest, Piece
from assistant.types import RequestContext, Usage

CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
CONTEXT_WORDS = ("maximum context length", "context size", "context window", "context length")


class OpenAIOptions(BaseModel):
    """`options` of an openai_compatible model in models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_tokens_field: str = Field("max_tokens", pattern="^max_(completion_)?tokens$")
    """OpenAI's reasoning models want `max_completion_tokens`."""
    extra_body: Mapping[str, Any] = Field(default_factory=dict)
    """Members added to every request."""


class OpenAICompatibleBackend:
    """One model of one server."""

    def __init__(
        self,
        spec: ModelSpec,
        options: OpenAIOptions,
        transport: httpx.AsyncBaseTransport | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._spec = spec
        self._options = options
        self._server = _Server(spec, spec.base_url or "", transport, environ)

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def model(self) -> str:
        return self._spec.name

    async def aclose(self) -> None:
        await self._server.aclose()

    async def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[Piece]:
        """Pieces of the answer. Raises InvalidInput, ContextTooLong, BackendFailed."""
        check_request(request)
        finish, usage, done = None, None, False
        async with (
            self._server.post("chat/completions", self._body(request), context.traceparent) as response,
            aclosing(self._server.lines(response)) as lines,
        ):
            async for data in _events(lines):
                if data == b"[DONE]":
                    done = True
                    break
                chunk = self._read(data)
                usage = chunk.usage or usage
                finish = chunk.finish_reason or finish
                if chunk.text:
                    yield Piece(chunk.text)
        if finish is None:
            if done:
                raise self._server.malformed("no finish_reason before [DONE]")
            raise self._server.truncated()
        yield Piece("", finish, usage or Usage())

    async def health(self) -> BackendHealth:
        """Asks for the model list. Ready also when the server lists other models: aliases are common."""
        started = time.monotonic()
        detail = None
        try:
            await self._server.get("models")
        except BackendFailed as error:
            detail = error.detail
        return BackendHealth(
            backend=self.name,
            model=self.model,
            engine="openai_compatible",
            state="down" if detail else "ready",
            latency_ms=(time.monotonic() - started) * 1000,
            detail=detail,
            info={"remote_model": self._spec.remote_model},
        )

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body = chat_body(request, self._spec.remote_model or "")
        if "max_tokens" in body:
            body[self._options.max_tokens_field] = body.pop("max_tokens")
        return body | dict(self._options.extra_body)

    def _read(self, data: bytes) -> Any:
        try:
            chunk = read_chunk(json.loads(data))
        except (ValueError, UnicodeDecodeError) as error:
            raise self._server.malformed(str(error)) from None
        if chunk.error is not None:
            raise self._server.from_error(_status(chunk.error.get("code")), chunk.error)
        return chunk


class _Server(HttpServer):
    def refuse(self, status: int, body: str, wait_s: float | None) -> AssistantError:
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            error = body.strip() or "no body"
        return self.from_error(status, error if isinstance(error, dict) else {"message": str(error)}, wait_s)

    def from_error(
        self, status: int, error: Mapping[str, Any], wait_s: float | None = None
    ) -> AssistantError:
        message = str(error.get("message", error))
        kinds = {str(error.get("code")), str(error.get("type"))}
        if kinds & CONTEXT_CODES or (status == 400 and any(w in message.lower() for w in CONTEXT_WORDS)):
            return ContextTooLong(
                f"{self.name} refused the prompt: {message[:500]}",
                hint="Shorten the messages, or use a model with a longer context.",
                field="messages",
            )
        return self.error_from(status, message, wait_s)


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event; comments and other fields are skipped."""
    data: list[bytes] = []
    async for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []
    if data:
        yield b"\n".join(data)


def _status(code: Any) -> int:
    """The HTTP status inside an error that came after 200; servers put a number, a name or nothing there."""
    return code if isinstance(code, int) and 400 <= code < 600 else 500
