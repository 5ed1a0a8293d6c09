"""models: what answers, and in which state."""

from cluster.cli.installation import Installation
from cluster.cli.options import Json
from cluster.cli.output import say_json, table


def models(json_output: Json = False) -> None:
    """List the models that requests may name, and whether each can answer now.

    `auto` picks the best one that is ready; `assistant` answers from your documents. models.yaml says
    which models this installation has.

    Examples:

        ai-assistant models

        ai-assistant models --json | jq -r '.[].name'
    """
    api = Installation.load().api()
    known = [item["id"] for item in api.get("/v1/models")["data"]]
    states = {item["name"]: item for item in api.get("/health").get("models") or []}
    rows = [
        {
            "name": name,
            "engine": states.get(name, {}).get("engine"),
            "state": states.get(name, {}).get("state"),
            "writing": states.get(name, {}).get("writing"),
            "context_tokens": states.get(name, {}).get("context_tokens"),
        }
        for name in known
    ]
    if json_output:
        say_json(rows)
        return
    table(
        ("model", "engine", "state", "writing", "context"),
        [
            [
                row[c] if row[c] is not None else "-"
                for c in ("name", "engine", "state", "writing", "context_tokens")
            ]
            for row in rows
        ],
    )
