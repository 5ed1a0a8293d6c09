"""What a stage may use: the request, the artefacts before it, search, and a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from assistant.clock import epoch_s
from assistant.errors import (
    AssistantError,
    BackendFailed,
    ContextTooLong,
    DeadlineExceeded,
    NoBackend,
    NotFound,
)
from assistant.llm.catalog import ModelSpec
from assistant.llm.types import ChatRequest, Completion, Message
from assistant.retrieval.answer import Searcher
from assistant.rfc.artefacts import Artefact, ModelUse
from assistant.rfc.prompting import prompt
from assistant.rfc.templates import Template
from assistant.settings import Settings
from assistant.telemetry import get_logger
from assistant.types import RequestContext

A = TypeVar("A", bound=Artefact)
log = get_logger("rfc")


class Llm(Protocol):
    """The two verbs of the LlmRouter that writing needs."""

    async def complete(self, request: ChatRequest, context: RequestContext) -> Completion: ...

    def spec_for(self, model: str) -> ModelSpec: ...


@dataclass(slots=True)
class Work:
    """One RFC being written. `artefacts` holds what earlier stages made, by stage."""

    title: str
    brief: str
    answers: Mapping[str, str]
    template: Template
    context: RequestContext
    settings: Settings
    searcher: Searcher
    llm: Llm
    artefacts: dict[str, Artefact] = field(default_factory=dict)

    def of(self, kind: type[A]) -> A:
        """The artefact of an earlier stage; KeyError when that stage has not run."""
        artefact = self.artefacts[kind.stage]
        assert isinstance(artefact, kind)
        return artefact

    def phraser(self, stage: str) -> "Phraser":
        name = self.settings.rfc.stage_models.get(stage, self.settings.llm.default_model)  # type: ignore[call-overload]
        return Phraser(self.llm, str(name), self.context, self.settings.llm.request_timeout_s)


class Phraser:
    """One stage's access to its model. Counts what it uses and remembers why a model did not answer.

    A model that fails is no reason to lose the document: `ask` returns None then, and the stage goes on
    without it.
    """

    def __init__(self, llm: Llm, model: str, context: RequestContext, timeout_s: float) -> None:
        self._llm = llm
        self.model = model
        self._context = context
        self._timeout_s = timeout_s
        self._use = ModelUse()

    def spec(self) -> ModelSpec | None:
        """The model that would answer first, or None when there is none."""
        try:
            return self._llm.spec_for(self.model)
        except (NoBackend, NotFound) as error:
            self._failed(error)
            return None

    async def ask(
        self,
        name: str,
        *,
        max_tokens: int,
        json_schema: Mapping[str, Any] | None = None,
        **values: object,
    ) -> str | None:
        """The model's answer to the prompt `name`, or None when no model could answer."""
        used = prompt(name)
        request = ChatRequest(
            model=self.model,
            messages=(Message("user", used.fill(**values)),),
            max_tokens=max_tokens,
            temperature=0.0,
            json_schema=json_schema,
        )
        until = min(self._context.deadline_s, epoch_s() + self._timeout_s)
        try:
            answer = await self._llm.complete(request, replace(self._context, deadline_s=until))
        except (NoBackend, BackendFailed, ContextTooLong, DeadlineExceeded, NotFound) as error:
            if self._context.remaining_s() <= 0:
                raise
            self._failed(error)
            return None
        self._use = ModelUse(
            model=answer.model,
            calls=self._use.calls + 1,
            prompt_tokens=_sum(self._use.prompt_tokens, answer.usage.prompt_tokens),
            completion_tokens=_sum(self._use.completion_tokens, answer.usage.completion_tokens),
            prompts={**self._use.prompts, used.name: used.hash},
            failures=self._use.failures,
        )
        return answer.text

    def used(self) -> ModelUse:
        return self._use

    def _failed(self, error: AssistantError) -> None:
        log.warning("rfc_model_failed", model=self.model, code=error.code, detail=error.detail)
        self._use = replace(self._use, failures=(*self._use.failures, str(error)))


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
