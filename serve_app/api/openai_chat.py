"""POST /v1/chat/completions: any model of the catalogue, `auto`, or `assistant` with citations."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic_core import to_json

from assistant.errors import AssistantError, InvalidInput, NoBackend
from assistant.llm.types import ChatRequest, Completion, FinishReason
from assistant.markup import render_html
from assistant.stores.answers import AnswerRecord
from assistant.types import Answer, RequestContext, Usage
from serve_app.api import sse
from serve_app.api.auth import Context, Graph
from serve_app.api.errors import openai_error, problem
from serve_app.api.limits import before_deadline, until_deadline
from serve_app.api.openai_wire import ChatBody, ChatFrame
from serve_app.api.services import Services

ASSISTANT = "assistant"

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/chat/completions", summary="Chat, streamed or whole", response_model=None)
async def chat_completions(body: ChatBody, graph: Graph, context: Context) -> Response:
    request = _as_meant(body.request(), graph)
    frame = ChatFrame(context.request_id)
    from_knowledge = request.model == ASSISTANT
    if from_knowledge and request.json_schema is not None:
        raise InvalidInput(
            "response_format is not supported by the model `assistant`.",
            hint="Use `auto` or a model of /v1/models.",
            field="response_format",
        )
    if not body.stream and not from_knowledge:
        done = await _complete(graph, request, context)
        return _json(frame.whole(done.model, done.text, done.finish_reason, done.usage, adapter=done.adapter))
    steps = _answer(graph, request, context) if from_knowledge else _completion(graph, request, context)
    if not body.stream:
        return _json(await _whole(steps, frame))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return await sse.open_stream(
        _chunks(steps, frame, request.model, usage), lambda error: _error_event(error, context.request_id)
    )


def _as_meant(request: ChatRequest, graph: Services) -> ChatRequest:
    """The request with what the operator set while we run: aliases, and the length nobody asked for."""
    live = graph.live.current
    return replace(
        request,
        model=graph.live.model(request.model),
        max_tokens=live.max_output_tokens if request.max_tokens is None else request.max_tokens,
    )


class _Step:
    """A part of an answer from either source; the last one has `finish_reason`."""

    __slots__ = ("extra", "finish_reason", "model", "text", "usage")

    def __init__(
        self,
        text: str,
        model: str,
        finish_reason: FinishReason | None = None,
        usage: Usage | None = None,
        **extra: Any,
    ) -> None:
        self.text = text
        self.model = model
        self.finish_reason = finish_reason
        self.usage = usage
        self.extra = extra


async def _completion(
    graph: Services, request: ChatRequest, context: RequestContext
) -> AsyncGenerator[_Step, None]:
    async with aclosing(until_deadline(graph.models.stream(request, context), context)) as pieces:
        async for piece in pieces:
            # On the last one only: clients that do not know the member read past it.
            extra = {"adapter": piece.adapter} if piece.finish_reason is not None else {}
            yield _Step(piece.text, piece.model, piece.finish_reason, piece.usage, **extra)


async def _answer(
    graph: Services, request: ChatRequest, context: RequestContext
) -> AsyncGenerator[_Step, None]:
    model = graph.live.current.default_model or graph.settings.llm.default_model
    stream = graph.answers.stream(request.messages, context, model)
    async with aclosing(until_deadline(stream, context)) as pieces:
        async for piece in pieces:
            if piece.answer is None:
                yield _Step(piece.text, ASSISTANT)
            else:
                answer = piece.answer
                # No model was asked for an extractive answer, so it used no tokens.
                usage = Usage(0, 0) if answer.extractive else answer.usage
                record = AnswerRecord.of(answer, request.messages, context.principal.id, context.request_id)
                graph.learning.log.record(record)
                graph.meter.add("ai_assistant_answers_total", kind=_kind(answer))
                extra = assistant_json(answer, record.id)
                yield _Step(piece.text, ASSISTANT, "stop", usage, assistant=extra)


async def _chunks(
    steps: AsyncGenerator[_Step, None], frame: ChatFrame, model: str, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    usage = Usage()
    async with aclosing(steps):
        async for step in steps:
            usage, model = step.usage or usage, step.model
            yield sse.event(frame.chunk(step.model, step.text, step.finish_reason, **step.extra))
    if include_usage:
        yield sse.event(frame.usage_chunk(model, usage))
    yield sse.DONE


async def _complete(graph: Services, request: ChatRequest, context: RequestContext) -> Completion:
    """The whole answer. Nothing was sent yet, so a replica that died in the middle costs only time."""
    try:
        return await before_deadline(graph.models.complete(request, context), context)
    except NoBackend as error:
        if not any(cause.get("cause") == "stopped" for cause in error.extra.get("causes", ())):
            raise
    return await before_deadline(graph.models.complete(request, context), context)


async def _whole(steps: AsyncGenerator[_Step, None], frame: ChatFrame) -> dict[str, Any]:
    texts: list[str] = []
    usage = Usage()
    extra: dict[str, Any] = {}
    async with aclosing(steps):
        async for step in steps:
            texts.append(step.text)
            usage, extra = step.usage or usage, step.extra or extra
    return frame.whole(ASSISTANT, "".join(texts), "stop", usage, **extra)


def assistant_json(answer: Answer, answer_id: UUID) -> dict[str, Any]:
    """The extra member of an answer from the knowledge base. `id` is what feedback refers to."""
    return {
        "id": str(answer_id),
        "citations": [asdict(citation) for citation in answer.citations],
        "html": render_html(answer.text, answer.citations),
        "grounded": answer.grounded,
        "extractive": answer.extractive,
        "model": answer.model,
        "adapter": answer.adapter,
    }


def _kind(answer: Answer) -> str:
    if not answer.grounded:
        return "no_evidence"
    return "extractive" if answer.extractive else "written"


def _json(body: dict[str, Any]) -> Response:
    return Response(to_json(body), media_type="application/json")


def _error_event(error: AssistantError, request_id: str) -> bytes:
    return sse.event({"error": {**problem(error, request_id), **openai_error(error)}})
