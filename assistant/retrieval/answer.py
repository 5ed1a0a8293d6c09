"""Answer a question from the knowledge base, with citations that a machine can resolve.

Large models write from numbered passages, and every marker they set is checked. For small ones, and when
no model answers at all, the answer is put together from the sources' own sentences and says so.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Protocol

from assistant.errors import ContextTooLong, InvalidInput, Unavailable
from assistant.llm.catalog import ModelSpec
from assistant.llm.routing import RoutedPiece
from assistant.llm.types import ChatRequest, Message
from assistant.retrieval.citations import MarkerResolver, resolve
from assistant.retrieval.extract import (
    LABEL,
    asked_section,
    best_document,
    section_answer,
    sentence_answer,
)
from assistant.retrieval.prompts import Prompt, load_prompt
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import Settings
from assistant.telemetry import get_logger
from assistant.types import Answer, Citation, Hit, Principal, RequestContext, Usage

EXTRACTIVE = "extractive"
"""The model name of answers that no model wrote."""
NOTHING_FOUND = "I found nothing in the knowledge base that answers this question."
UNCITED = "\n\n*This answer cites no passage of the knowledge base: check it before you rely on it.*"
_SEARCH_LIMIT = 20
_DOCUMENT_LIMIT = 100
_HISTORY_MESSAGES = 6
_BEST_DOCUMENT = 1.25
"""How much more a passage of the best document counts: an answer out of one document reads better."""
_CHARS_PER_TOKEN = 3
"""A cautious estimate: English has about four, code and other languages fewer."""

_WORD = re.compile(r"\w+")
_IDENTIFIER = re.compile(r"\b(?:\w*[a-z]\w*[A-Z]\w*|\w+_\w+)\b")

log = get_logger("answer")


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """One step of an answer. Only the last one has `answer`, whose text is all the pieces' text."""

    text: str
    answer: Answer | None = None


class Quotable(Protocol):
    """What a prompt shows of a passage."""

    @property
    def title(self) -> str: ...

    @property
    def headings(self) -> tuple[str, ...]: ...

    @property
    def text(self) -> str: ...


class Searcher(Protocol):
    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult: ...


class AnswerModels(Protocol):
    """The part of the router that answers need."""

    def stream(self, request: ChatRequest, context: RequestContext) -> AsyncIterator[RoutedPiece]: ...

    def spec_for(self, model: str) -> ModelSpec: ...


class AnswerService:
    """`prompt` is asked at each answer that a model writes, so that it may change meanwhile."""

    def __init__(
        self,
        searcher: Searcher,
        llm: AnswerModels,
        settings: Settings,
        prompt: Callable[[], Prompt] = lambda: load_prompt("answer"),
    ) -> None:
        self._searcher = searcher
        self._llm = llm
        self._settings = settings
        self._encoder = Bm25Encoder(settings.retrieval)
        self._prompt = prompt

    async def stream(
        self, messages: Sequence[Message], context: RequestContext, model: str = "auto"
    ) -> AsyncIterator[AnswerPiece]:
        """The answer to the last user message. The concatenated pieces are the answer's text.

        Raises InvalidInput without a question, NotFound for an unknown model, StoreUnavailable when the
        search fails, BackendFailed when a model stops in the middle.
        """
        question = _question(messages)
        spec = self._spec(model)
        hits = await self._search(self._search_text(messages, question), context.principal)
        if not self._enough(question, hits):
            answer = Answer(NOTHING_FOUND, (), EXTRACTIVE, grounded=False, extractive=True, usage=Usage())
            yield AnswerPiece(answer.text)
            yield AnswerPiece("", answer)
            return
        if spec is not None and spec.writing == "free":
            written = self._written(messages, hits, spec, context, model)
            try:
                async for piece in written:
                    yield piece
                return
            except _NotWritten as reason:
                log.warning("answer_falls_back_to_extraction", reason=str(reason))
        answer = await self._extracted(question, hits, context.principal)
        for index, part in enumerate(answer.text.split("\n\n")):
            yield AnswerPiece(f"\n\n{part}" if index else part)
        yield AnswerPiece("", answer)

    def _spec(self, model: str) -> ModelSpec | None:
        try:
            return self._llm.spec_for(model)
        except Unavailable:
            return None  # No model at all: quoting still answers.

    async def _search(self, text: str, principal: Principal, **filters: str) -> tuple[Hit, ...]:
        limit = _DOCUMENT_LIMIT if filters else max(_SEARCH_LIMIT, self._settings.retrieval.answer_passages)
        return (await self._searcher.search(SearchQuery(text, limit, filters=filters), principal)).hits

    def _search_text(self, messages: Sequence[Message], question: str) -> str:
        """The question, with the one before it when it is too short to stand alone ("and on AWS?")."""
        earlier = [m.content for m in messages if m.role == "user"][:-1]
        if earlier and len(self._encoder.terms(question)) < 3:
            return f"{earlier[-1]}\n{question}"
        return question

    def _enough(self, question: str, hits: Sequence[Hit]) -> bool:
        """Whether a passage is similar enough, or bears a name that the question spells out."""
        known = [hit.dense for hit in hits if hit.dense is not None]
        if hits and (not known or max(known) >= self._settings.retrieval.min_dense_score):
            return True
        names = {name.casefold() for name in _IDENTIFIER.findall(question)}
        return any(names & set(_WORD.findall(" ".join([h.title, *h.headings]).casefold())) for h in hits)

    async def _extracted(self, question: str, hits: Sequence[Hit], principal: Principal) -> Answer:
        best = best_document(hits)
        whole = await self._search(question, principal, document_id=str(best))
        if asked := asked_section(question, whole, self._encoder):
            intent, passages = asked
            text = section_answer(intent, passages)
        else:
            ranked = sorted(hits, key=lambda h: -h.score * (_BEST_DOCUMENT if h.document_id == best else 1.0))
            passages = ranked[: self._settings.retrieval.answer_passages]
            text = sentence_answer(question, passages, self._encoder)
        text, citations = resolve(text, passages)
        return Answer(
            f"{text}\n\n{LABEL}",
            citations,
            EXTRACTIVE,
            grounded=True,
            extractive=True,
            usage=Usage(),
            evidence=_cited(passages, citations),
        )

    async def _written(
        self,
        messages: Sequence[Message],
        hits: Sequence[Hit],
        spec: ModelSpec,
        context: RequestContext,
        model: str,
    ) -> AsyncIterator[AnswerPiece]:
        """What a model writes. Raises _NotWritten while nothing was said yet."""
        output = min(self._settings.llm.max_output_tokens, spec.context_tokens // 2)
        prompt = self._prompt()
        room = (spec.context_tokens - output) * _CHARS_PER_TOKEN
        passages, request = self._request(messages, hits, prompt, room)
        resolver = MarkerResolver(passages)
        said, usage, name, adapter = "", Usage(), spec.name, None
        stream = self._llm.stream(replace(request, model=model, max_tokens=output), context)
        try:
            async for piece in stream:
                if not said and self._llm.spec_for(piece.model).writing != "free":
                    raise _NotWritten(f"{piece.model} answered instead of {spec.name}")
                name, usage = piece.model, piece.usage or usage
                adapter = getattr(piece, "adapter", None) or adapter
                if text := resolver.feed(piece.text):
                    said += text
                    yield AnswerPiece(text)
        except (Unavailable, ContextTooLong) as error:
            if said:
                raise
            raise _NotWritten(error.detail) from error
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()
        rest = resolver.flush() + ("" if resolver.citations else UNCITED)
        if not (said + rest).removesuffix(UNCITED).strip():
            raise _NotWritten(f"{name} wrote nothing")
        if rest:
            yield AnswerPiece(rest)
        log.info("answer_written", model=name, prompt=prompt.name, prompt_hash=prompt.hash)
        citations = resolver.citations
        answer = Answer(
            said + rest,
            citations,
            name,
            grounded=bool(citations),
            extractive=False,
            usage=usage,
            adapter=adapter,
            # The model has read them all, so each may have coloured the text.
            evidence=tuple(passages),
        )
        yield AnswerPiece("", answer)

    def _request(
        self, messages: Sequence[Message], hits: Sequence[Hit], prompt: Prompt, room: int
    ) -> tuple[list[Hit], ChatRequest]:
        """The prompt with as many passages as fit into `room` characters, best first."""
        history = [m for m in messages if m.role != "system"][-_HISTORY_MESSAGES:]
        left = room - len(prompt.text) - len(history[-1].content)
        passages: list[Hit] = []
        quoted: list[str] = []
        for hit in hits[: self._settings.retrieval.answer_passages]:
            text = quoted_passage(len(passages) + 1, hit)
            if passages and len(text) > left:
                break
            passages.append(hit)
            quoted.append(text)
            left -= len(text)
        while len(history) > 1 and sum(len(m.content) for m in history[:-1]) > left:
            history.pop(0)
        system = Message("system", prompt.fill(passages="\n\n".join(quoted)))
        return passages, ChatRequest("auto", (system, *history))


class _NotWritten(Exception):
    """No model wrote an answer; nothing has been sent yet."""


def _question(messages: Sequence[Message]) -> str:
    last = messages[-1] if messages else None
    if last is None or last.role != "user" or not last.content.strip():
        raise InvalidInput(
            "There is no question.", hint="End the messages with a user message.", field="messages"
        )
    return last.content.strip()


def _cited(hits: Sequence[Hit], citations: Sequence[Citation]) -> tuple[Hit, ...]:
    """Of the hits those that a citation points to: nothing of the others is in an extractive text."""
    chunks = {citation.chunk_id for citation in citations}
    return tuple(hit for hit in hits if hit.chunk_id in chunks)


def quoted_passage(number: int, hit: Quotable) -> str:
    """A passage between tags that its own text cannot close."""
    attributes: Mapping[str, str] = {"title": hit.title, "section": " > ".join(hit.headings)}
    head = "".join(f' {k}="{escape(v)}"' for k, v in attributes.items() if v)
    body = hit.text.replace("</passage", "&lt;/passage")
    return f'<passage number="{number}"{head}>\n{body}\n</passage>'
