"""This installation as a command sees it: settings, state folder, and whether its stack runs."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.cli.exits import NotRunning
from cluster.layout import ROOT, Layout
from cluster.plan import Plan
from cluster.processes import is_alive
from cluster.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from assistant.settings import Settings
    from cluster.cli.api import Api

HINT = "Start it with `ai-assistant up`."


@dataclass(frozen=True)
class Installation:
    settings: "Settings"
    layout: Layout

    @classmethod
    def load(cls) -> "Installation":
        """Raises ConfigurationError for wrong settings."""
        from assistant.settings import load_settings

        environ = dict(os.environ)
        if "AI_ASSISTANT_CONFIG" not in environ and (ROOT / "config.yaml").is_file():
            # The command works from any folder, and means the same there.
            environ["AI_ASSISTANT_CONFIG"] = str(ROOT / "config.yaml")
        settings = load_settings(environ)
        if "home" not in settings.model_fields_set:
            settings = settings.model_copy(update={"home": ROOT / ".local"})
        return cls(settings, Layout(settings.home))

    def state(self) -> State:
        """Raises NotRunning."""
        state = State.read(self.layout.state)
        if state is None or not any(
            map(is_alive, [state.leader, *(s.process for s in state.services.values())])
        ):
            raise NotRunning(f"AI Assistant does not run (state folder {self.layout.home}).", hint=HINT)
        return state

    def plan(self) -> Plan:
        """Raises NotRunning."""
        try:
            return Plan.read(self.layout.plan)
        except FileNotFoundError:
            raise NotRunning(f"Nothing was ever started in {self.layout.home}.", hint=HINT) from None

    def url(self) -> str:
        """Where the API is. Raises NotRunning."""
        return self.state().urls["page"]

    def api_key(self) -> str | None:
        return os.environ.get("AI_ASSISTANT_API_KEY") or None

    def api(self) -> "Api":
        """A client of the running stack. Raises NotRunning."""
        from cluster.cli.api import Api

        return Api(self.url(), self.api_key())

    @property
    def dataset_config(self) -> "Path":
        return ROOT / "dataset_config.yml"
