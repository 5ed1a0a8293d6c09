"""An Ollama server, by its own chat protocol (NDJSON): it can be told the context and not to cut prompts."""

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
from assistant.llm.types import BackendHealth, ChatRequest, FinishReason, Piece
from assistant.types import RequestContext, Usage

DEFAULT_URL = "http://127.0.0.1:11434"
CONTEXT_WORDS = ("context length", "context size", "context window")
FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


class OllamaOptions(BaseModel):
    """`options` of an ollama model in models.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    keep_alive: str | int = "5m"
    """How long Ollama keeps the model in memory after a request."""
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    """Ollama's own `options`, for example `num_gpu`."""


class OllamaBackend:
    """One model of one Ollama server."""

    def __init__(
        self,
        spec: ModelSpec,
        options: OllamaOptions,
        transport: httpx.AsyncBaseTransport | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._spec = spec
        self._options = options
        self._server = _Server(spec, spec.base_url or DEFAULT_URL, transport, environ)

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
        async with (
            self._server.post("api/chat", self._body(request), context.traceparent) as response,
            aclosing(self._server.lines(response)) as lines,
        ):
            async for line in lines:
                if not line.strip():
                    continue
                piece = self._read(line)
                if piece.text or piece.finish_reason is not None:
                    yield piece
                if piece.finish_reason is not None:
                    return
        raise self._server.truncated()

    async def health(self) -> BackendHealth:
        """Ready when the server runs and has the model."""
        started = time.monotonic()
        detail = None
        try:
            detail = self._missing(await self._server.get("api/tags"))
        except BackendFailed as error:
            detail = error.detail
        return BackendHealth(
            backend=self.name,
            model=self.model,
            engine="ollama",
            state="down" if detail else "ready",
            latency_ms=(time.monotonic() - started) * 1000,
            detail=detail,
            info={"remote_model": self._spec.remote_model},
        )

    def _missing(self, tags: Any) -> str | None:
        wanted = self._spec.remote_model or ""
        models = tags.get("models") if isinstance(tags, dict) else None
        names = {str(m.get("name")) for m in models or [] if isinstance(m, dict)}
        if wanted in names or f"{wanted}:latest" in names:
            return None
        return f"Ollama has no model {wanted}; run `ollama pull {wanted}`"

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        parameters: dict[str, Any] = {"num_ctx": self._spec.context_tokens, **self._options.parameters}
        given = {
            "num_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
        }
        parameters |= {name: value for name, value in given.items() if value is not None}
        body: dict[str, Any] = {
            "model": self._spec.remote_model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": True,
            "keep_alive": self._options.keep_alive,
            "options": parameters,
            # By default Ollama drops the oldest messages of a long prompt without a word. Versions that do
            # not know these two members still do.
            "truncate": False,
            "shift": False,
        }
        if request.json_schema is not None:
            body["format"] = dict(request.json_schema)
        return body

    def _read(self, line: bytes) -> Piece:
        try:
            data = json.loads(line)
        except (ValueError, UnicodeDecodeError) as error:
            raise self._server.malformed(str(error)) from None
        if not isinstance(data, dict):
            raise self._server.malformed(f"a line is a {type(data).__name__}, not an object")
        if "error" in data:
            raise self._server.refuse(500, line.decode("utf-8", "replace"), None)
        message = data.get("message")
        text = message.get("content", "") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise self._server.malformed("a line has no message.content")
        if not data.get("done"):
            return Piece(text)
        prompt, completion = data.get("prompt_eval_count"), data.get("eval_count")
        usage = Usage(
            prompt if isinstance(prompt, int) else None, completion if isinstance(completion, int) else None
        )
        return Piece(text, FINISH.get(str(data.get("done_reason", "stop")), "error"), usage)


class _Server(HttpServer):
    def refuse(self, status: int, body: str, wait_s: float | None) -> AssistantError:
        try:
            message = str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError):
            message = body.strip() or "no body"
        if any(words in message.lower() for words in CONTEXT_WORDS):
            return ContextTooLong(
                f"{self.name} refused the prompt: {message[:500]}",
                hint="Shorten the messages, or use a model with a longer context.",
                field="messages",
            )
        return self.error_from(status, message, wait_s)
