"""Which weights answer a request: names in requests, and the choice between champion and challenger. Pure.

`m` is what is live (for a share of the requests the challenger), `m:base`, `m:champion` and `m:challenger`
are pinned. The Router says which variant was asked for; the replica, which knows what it has loaded, chooses
the adapter. So a request never meets an adapter that has just left.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from assistant.errors import NotFound
from assistant.types import RequestContext

Variant = Literal["live", "base", "champion", "challenger"]
PINNED: tuple[Variant, ...] = get_args(Variant)[1:]


@dataclass(frozen=True, slots=True)
class Route:
    """What a request asks of a local model, whichever replica takes it.

    `key` decides whether it goes to the challenger: the same key, the same side. `share` overrides the share
    in the table of deployments.
    """

    variant: Variant = "live"
    key: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """The adapters that a replica serves with now. None: the base model, or no challenger."""

    champion: str | None = None
    challenger: str | None = None
    share: float = 0.0


def split_name(model: str, known: Collection[str]) -> tuple[str, Variant]:
    """The catalogue name in `model`, and the variant after it. A catalogue name with a colon comes first."""
    name, colon, variant = model.rpartition(":")
    if model not in known and colon and name in known and variant in PINNED:
        return name, variant  # type: ignore[return-value]
    return model, "live"


def route_of(model: str, name: str, context: RequestContext, share: float | None = None) -> Route:
    """The route of a request that names `model` to the local model called `name`.

    A person stays on one side, whatever the request; who is not known is told apart by the request.
    """
    principal = context.principal
    key = context.request_id if principal.kind == "anonymous" else principal.id
    return Route(split_name(model, (name,))[1], key, share)


def choose(model: str, route: Route, live: Live) -> str | None:
    """The adapter that answers; None is the base model. NotFound when the pinned one does not exist."""
    if route.variant == "base":
        return None
    if route.variant != "live":
        adapter = live.champion if route.variant == "champion" else live.challenger
        if adapter is None:
            raise NotFound(
                f"{model} has no {route.variant} now.",
                hint=f"{model} is what is live; /v1/models lists what exists.",
                field="model",
            )
        return adapter
    share = live.share if route.share is None else route.share
    if live.challenger is not None and position(model, route.key) < share:
        return live.challenger
    return live.champion


def position(model: str, key: str) -> float:
    """Where a key falls, evenly in [0, 1): the same in every process, another for every model."""
    digest = hashlib.blake2b(f"{model}\0{key}".encode(), digest_size=8).digest()
    # 53 bits, so that the largest does not round to 1.
    return (int.from_bytes(digest) >> 11) / 2**53


def names_of(model: str, live: Live) -> list[str]:
    """The names under which requests may ask for this model."""
    if live.champion is None and live.challenger is None:
        return [model]
    names = [model, f"{model}:base"]
    if live.champion is not None:
        names.append(f"{model}:champion")
    if live.challenger is not None:
        names.append(f"{model}:challenger")
    return names
