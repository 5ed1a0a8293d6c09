"""The span of one attempt at one backend, by OpenTelemetry's conventions for generative AI."""

import json
from dataclasses import replace

from assistant import tracing
from assistant.llm.attempts import Attempt
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest
from assistant.types import RequestContext


class AttemptSpan:
    """Begins with the attempt; `context` is what the backend gets, so that its spans are children."""

    def __init__(self, spec: ModelSpec, request: ChatRequest, context: RequestContext) -> None:
        self._said: list[str] | None = [] if tracing.content_enabled() else None
        self._span = tracing.start(
            f"chat {spec.name}",
            kind="client",
            parent=tracing.traceparent() or context.traceparent,
            gen_ai__operation__name="chat",
            gen_ai__provider__name=spec.engine,
            gen_ai__request__model=spec.remote_model or spec.name,
            gen_ai__request__max_tokens=request.max_tokens,
            gen_ai__request__temperature=request.temperature,
            gen_ai__request__top_p=request.top_p,
            gen_ai__input__messages=None if self._said is None else _messages(request),
        )
        parent = tracing.traceparent(self._span)
        self.context = context if parent is None else replace(context, traceparent=parent)

    def said(self, text: str) -> None:
        """A piece of the answer."""
        if self._said is not None:
            self._said.append(text)

    def end(self, attempt: Attempt) -> None:
        if not self._span.is_recording():
            self._span.end()
            return
        usage = attempt.usage
        seen: dict[str, str | int | float | None] = {
            "gen_ai.response.model": attempt.model,
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.response.time_to_first_chunk": attempt.first_token_s,
            "ai_assistant.backend": attempt.backend,
            "ai_assistant.adapter": attempt.adapter,
            "ai_assistant.outcome": attempt.outcome,
            "ai_assistant.request_id": attempt.request_id,
            "ai_assistant.cost_usd": None if attempt.cost_usd is None else float(attempt.cost_usd),
        }
        self._span.set_attributes({key: value for key, value in seen.items() if value is not None})
        if self._said is not None:
            self._span.set_attribute("gen_ai.output.messages", _message("assistant", "".join(self._said)))
        if attempt.outcome not in {"ok", "cancelled"}:
            tracing.fail(self._span, attempt.cause or attempt.outcome)
        self._span.end()


def _messages(request: ChatRequest) -> str:
    return json.dumps([_part(message.role, message.content) for message in request.messages])


def _message(role: str, text: str) -> str:
    return json.dumps([_part(role, text)])


def _part(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
