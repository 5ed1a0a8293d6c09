"""The Router's `user_config`: what an operator may change while it runs, without a restart."""

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from assistant.errors import ConfigurationError
from assistant.llm.catalog import RESERVED
from assistant.llm.routing import AUTO
from assistant.llm.strategies import Candidate, by_priority
from assistant.llm.types import ChatRequest
from assistant.retrieval.prompts import Prompt, load_prompt
from assistant.telemetry import get_logger

PASSAGES = "{{passages}}"

log = get_logger("live_config")


class RouterConfig(BaseModel):
    """`user_config` of the deployment Router in a Serve config file. What is left out follows the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    canary_share: float | None = Field(None, ge=0, le=1)
    """Share of the requests that challengers get, of all models; null leaves it to the table of deployments."""
    priorities: dict[str, int] = Field(default_factory=dict)
    """Catalogue name → priority, instead of the one in the catalogue. Lower answers first."""
    model_aliases: dict[str, str] = Field(default_factory=dict)
    """Other names that requests may use → a catalogue name, `auto` or `assistant`."""
    default_model: str | None = None
    """The model behind `assistant`: a catalogue name or `auto`, instead of `llm.default_model`."""
    request_timeout_s: float | None = Field(None, gt=0)
    """Deadline of one request, instead of `llm.request_timeout_s`. Keep it below `serve.drain_s`."""
    max_output_tokens: int | None = Field(None, ge=1)
    """Length of a completion whose caller does not say, instead of `llm.max_output_tokens`."""
    answer_prompt: str | None = None
    """What a freely writing model is told; `{{passages}}` stands for the numbered passages."""

    @field_validator("answer_prompt")
    @classmethod
    def _has_passages(cls, text: str | None) -> str | None:
        if text is not None and (text.count("{{") != 1 or PASSAGES not in text):
            raise ValueError(f"it must hold {PASSAGES} once, and no other {{{{...}}}}")
        return text


def read_user_config(config: Any, models: Sequence[str] = ()) -> RouterConfig:
    """`models`: the names of the catalogue; none skips that check.

    Raises ConfigurationError naming the key and what is allowed.
    """
    try:
        read = RouterConfig.model_validate({} if config is None else config)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'user_config'}: {e['msg']}" for e in error.errors()]
        raise _wrong("; ".join(lines), f"Known keys: {', '.join(RouterConfig.model_fields)}.") from None
    if models:
        _check_names(read, models)
    return read


def _check_names(config: RouterConfig, models: Sequence[str]) -> None:
    hint = f"Known models: {', '.join(models)}."
    for name in config.priorities:
        if name not in models:
            raise _wrong(f"priorities: there is no model {name!r}", hint)
    if config.default_model is not None and config.default_model not in (AUTO, *models):
        raise _wrong(f"default_model: there is no model {config.default_model!r}", hint)
    for alias, name in config.model_aliases.items():
        if alias in (*RESERVED, *models):
            raise _wrong(f"model_aliases: {alias!r} is the name of a model itself", hint)
        if name not in (*RESERVED, *models):
            raise _wrong(f"model_aliases: {alias!r} means {name!r}, which there is not", hint)


def _wrong(what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"The user_config of Router is wrong: {what}.", hint=hint)


class LiveConfig:
    """What is in force. A wrong `user_config` is refused and reported, and what was in force stays.

    It must not raise inside the replica: Serve would end a Router that works, and could not start the next.
    """

    def __init__(self, models: Sequence[str] = ()) -> None:
        self._models = tuple(models)
        self.current = RouterConfig()
        self.refused: str | None = None
        self._prompt: Prompt | None = None

    def apply(self, config: Any) -> None:
        try:
            self.current, self.refused = read_user_config(config, self._models), None
        except ConfigurationError as error:
            self.refused = str(error)
            log.error("user_config_refused", reason=str(error))
            return
        text = self.current.answer_prompt
        self._prompt = None
        if text is not None:
            self._prompt = Prompt("user_config", text, hashlib.sha256(text.encode()).hexdigest()[:16])
        # A prompt may be long; its hash says which one it is.
        told = self.current.model_dump(exclude={"answer_prompt"}, exclude_defaults=True)
        log.info("user_config_applied", prompt_hash=self.answer_prompt().hash, **told)

    def share(self) -> float | None:
        return self.current.canary_share

    def model(self, asked: str) -> str:
        """The name that a request means."""
        return self.current.model_aliases.get(asked, asked)

    def answer_prompt(self) -> Prompt:
        return self._prompt or load_prompt("answer")

    def order(self, request: ChatRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """The strategy of the router: by priority, with those of this config."""
        return by_priority(self.current.priorities)(request, candidates)
