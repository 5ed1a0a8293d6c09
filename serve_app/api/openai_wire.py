"""OpenAI's chat wire: what is read from a request, what is refused by name, and what is sent."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import InvalidInput
from assistant.llm.types import ChatRequest, FinishReason, Message, Role
from assistant.types import Usage

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

# A feature that is asked for and not there changes what the caller gets, so it is refused. Knobs that only
# tune the sampling (penalties, logit_bias) and notes (user, metadata) are ignored.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "modalities": (["text"],),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prediction": (),
    "web_search_options": (),
}
"""Fields of features that are not there, and the values that ask for nothing."""


class ChatMessage(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None


class JsonSchema(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    name: str = "answer"
    body: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """`model`: `assistant` answers from the knowledge base, `auto` picks a model, any other name is pinned."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None

    def request(self) -> ChatRequest:
        """The request in our terms. Raises InvalidInput naming what is not supported."""
        for field, harmless in UNSUPPORTED.items():
            value = (self.model_extra or {}).get(field)
            if value is not None and value not in harmless:
                raise InvalidInput(f"{field} is not supported.", hint=f"Leave {field} out.", field=field)
        return ChatRequest(
            model=self.model,
            messages=tuple(_message(i, m) for i, m in enumerate(self.messages)),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            json_schema=self._schema(),
        )

    def _schema(self) -> Mapping[str, Any] | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return {"type": "object"}
        if wanted.json_schema is None:
            raise InvalidInput(
                "response_format.json_schema is missing.",
                hint='Give {"name": …, "schema": {…}}.',
                field="response_format.json_schema",
            )
        return wanted.json_schema.body


def _message(index: int, message: ChatMessage) -> Message:
    role = ROLES.get(message.role)
    if role is None:
        raise InvalidInput(
            f"messages[{index}].role is {message.role!r}.",
            hint=f"Use {', '.join(ROLES)}.",
            field=f"messages[{index}].role",
        )
    if isinstance(message.content, str):
        return Message(role, message.content)
    texts = []
    for position, part in enumerate(message.content or ()):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            field = f"messages[{index}].content[{position}]"
            raise InvalidInput(
                f"{field} is of type {part.get('type')!r}; only text is supported.", field=field
            )
        texts.append(part["text"])
    return Message(role, "\n".join(texts))


def usage_json(usage: Usage) -> dict[str, Any] | None:
    """None when the backend did not count."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
    }


class ChatFrame:
    """The fields that all chunks of one answer share."""

    def __init__(self, id: str) -> None:  # noqa: A002
        self.id = f"chatcmpl-{id}"
        self.created = int(time.time())
        self._opened = False

    def chunk(
        self, model: str, text: str, finish_reason: FinishReason | None = None, **extra: Any
    ) -> dict[str, Any]:
        """One streamed chunk; the first one names the role."""
        delta: dict[str, Any] = {} if self._opened else {"role": "assistant", "content": ""}
        self._opened = True
        if text:
            delta["content"] = text
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk", model, [choice]), **extra}

    def usage_chunk(self, model: str, usage: Usage) -> dict[str, Any]:
        """The chunk without choices that `stream_options.include_usage` asks for."""
        return {**self._head("chat.completion.chunk", model, []), "usage": usage_json(usage)}

    def whole(
        self, model: str, text: str, finish_reason: FinishReason, usage: Usage, **extra: Any
    ) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {**self._head("chat.completion", model, [choice]), "usage": usage_json(usage), **extra}

    def _head(self, kind: str, model: str, choices: Sequence[Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": model,
            "choices": list(choices),
        }
