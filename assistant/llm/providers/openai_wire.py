"""The OpenAI chat wire, as far as this product speaks it: the request body, and one streamed chunk.

Remote OpenAI-compatible servers and the llama.cpp engine both read and write it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assistant.llm.types import ChatRequest, FinishReason
from assistant.types import Usage

FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "stop"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one `chat.completion.chunk` says. `error` is the server's error object."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: Mapping[str, Any] | None = None


def chat_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body of a streamed chat completion. Knobs that are None are left to the server."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.stop:
        body["stop"] = list(request.stop)
    if request.json_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": dict(request.json_schema)},
        }
    return body


def read_chunk(data: Any) -> Chunk:
    """One parsed chunk. Raises ValueError when it does not have the shape of the wire."""
    if not isinstance(data, dict):
        raise ValueError(f"a chunk is a {type(data).__name__}, not an object")
    if data.get("error"):
        error = data["error"]
        return Chunk(error=error if isinstance(error, dict) else {"message": str(error)})
    choices = data.get("choices")
    if not isinstance(choices, list):
        raise ValueError("a chunk has no choices")
    usage = _usage(data.get("usage"))
    if not choices:
        return Chunk(usage=usage)
    choice = choices[0]
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict):
        raise ValueError("a choice has no delta")
    text = delta.get("content") or ""
    if not isinstance(text, str):
        raise ValueError(f"delta.content is a {type(text).__name__}, not a string")
    reason = choice.get("finish_reason")
    return Chunk(text, FINISH.get(reason, "error") if reason is not None else None, usage)


def _usage(data: Any) -> Usage | None:
    if not isinstance(data, dict):
        return None
    details = data.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(data.get("prompt_tokens")), _count(data.get("completion_tokens")), _count(cached))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
