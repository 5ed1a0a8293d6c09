"""models: what answers, and in which state."""

from collections.abc import Mapping
from typing import Any

from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import say_json, table


def models(json_output: Json = False) -> None:
    """List the models that requests may name, and whether each can answer now.

    `auto` picks the best one that is ready; `assistant` answers from your documents. models.yaml says
    which models this installation has. A model that has learned shows its adapter; `NAME:base`,
    `NAME:champion` and `NAME:challenger` ask for one of them.

    Examples:

        ai-assistant models

        ai-assistant models --json | jq -r '.[].name'
    """
    api = Installation.load().api()
    known = [item["id"] for item in api.get("/v1/models")["data"]]
    states = {item["name"]: item for item in api.get("/health").get("models") or []}
    rows = [_row(name, states) for name in known]
    if json_output:
        say_json(rows)
        return
    table(
        ("model", "engine", "state", "writing", "context", "adapter"),
        [
            [
                row[c] if row[c] is not None else "-"
                for c in ("name", "engine", "state", "writing", "context_tokens", "adapter")
            ]
            for row in rows
        ],
    )


def _row(name: str, states: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a name; a variant like `m:champion` shares its model's state."""
    model, _, variant = name.rpartition(":")
    if name in states or model not in states:
        model, variant = name, "champion"
    state = states.get(model, {})
    return {
        "name": name,
        "engine": state.get("engine"),
        "state": state.get("state"),
        "writing": state.get("writing"),
        "context_tokens": state.get("context_tokens"),
        "adapter": (state.get("adapters") or {}).get(variant),
    }
