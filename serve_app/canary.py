"""The Router's `user_config`: what an operator may change while it runs, without a restart."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assistant.errors import ConfigurationError
from assistant.telemetry import get_logger

log = get_logger("canary")


class RouterConfig(BaseModel):
    """`user_config` of the deployment Router in a Serve config file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    canary_share: float | None = Field(None, ge=0, le=1)
    """Share of the requests that challengers get, of all models; null leaves it to the table of deployments."""


def read_user_config(config: Any) -> RouterConfig:
    """Raises ConfigurationError naming the key and what is allowed."""
    try:
        return RouterConfig.model_validate({} if config is None else config)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'user_config'}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(
            f"The user_config of Router is wrong: {'; '.join(lines)}.",
            hint=f"Known keys: {', '.join(RouterConfig.model_fields)}.",
        ) from None


class Canary:
    """The share in force. A wrong `user_config` is refused and reported, and what was in force stays.

    It must not raise inside the replica: Serve would end a Router that works, and could not start the next.
    """

    def __init__(self) -> None:
        self._share: float | None = None
        self.refused: str | None = None

    def share(self) -> float | None:
        return self._share

    def apply(self, config: Any) -> None:
        try:
            self._share, self.refused = read_user_config(config).canary_share, None
        except ConfigurationError as error:
            self.refused = str(error)
            log.error("user_config_refused", reason=str(error))
            return
        log.info("user_config_applied", canary_share=self._share)
