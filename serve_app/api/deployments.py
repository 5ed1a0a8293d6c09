"""/api/v1/learning/deployments: which adapters serve, where they come from, and moving them."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from assistant.errors import NotFound
from assistant.stores.deployments import Deployment
from serve_app.api.auth import Caller, Graph
from serve_app.api.health import Board
from serve_app.api.learning import require_admin
from serve_app.api.schemas import DESCRIBED, STRICT
from serve_app.api.services import Services

SHOWN = 20
"""Records of the history that the list shows."""
KNOWN = 200
"""How far back an adapter may have been offered to be promoted by name."""

router = APIRouter(prefix="/api/v1/learning/deployments", tags=["Learning"])


class DeploymentItem(BaseModel):
    model_config = DESCRIBED

    id: UUID
    model: str
    adapter: str | None
    """None is the base model."""
    alias: Literal["champion", "challenger", "previous"]
    decision: Literal["candidate", "promoted", "rejected", "rolled_back", "withdrawn"]
    share: float
    """Of the requests that a challenger gets."""
    registry_version: str | None
    data_hash: str | None
    code_version: str | None
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    decided_by: str | None
    created_at: datetime
    updated_at: datetime | None
    retired_at: datetime | None
    """None: it is live."""

    @classmethod
    def of(cls, record: Deployment) -> "DeploymentItem":
        return cls.model_validate(record, from_attributes=True)


class ModelDeployments(BaseModel):
    model_config = DESCRIBED

    model: str
    champion: DeploymentItem | None
    """None, like a champion without an adapter: the base model serves."""
    challenger: DeploymentItem | None
    previous: DeploymentItem | None
    serving: Mapping[str, Any] | None
    """What a replica serves with now (champion, challenger, share, loaded, problems); None until one answers."""
    history: list[DeploymentItem]


class DeploymentList(BaseModel):
    model_config = DESCRIBED

    items: list[ModelDeployments]
    canary_share: float | None
    """Overrides the share of every challenger (`user_config` of the Router); None: the shares below hold."""
    canary_refused: str | None
    """Why the last `user_config` was not taken."""


class RollbackBody(BaseModel):
    model_config = STRICT

    adapter: str | None = None
    """The champion to take back; when another one serves by now, nothing changes."""


class PromoteBody(BaseModel):
    model_config = STRICT

    adapter: str | None = None
    """Unset: the challenger."""


class ShareBody(BaseModel):
    model_config = STRICT

    share: float = Field(ge=0, le=1)


@router.get("", summary="Champion, challenger and previous of each local model, with lineage and history")
async def deployments(graph: Graph, caller: Caller, board: Board) -> DeploymentList:
    serving = await board.adapters()
    models = await asyncio.gather(
        *(_model(graph, spec.name, serving.get(spec.name)) for spec in graph.catalog.local())
    )
    return DeploymentList(
        items=list(models), canary_share=graph.live.share(), canary_refused=graph.live.refused
    )


@router.post("/{model}/rollback", summary="The previous adapter, or the base, becomes champion again")
async def rollback(
    model: str, graph: Graph, caller: Caller, body: RollbackBody | None = None
) -> DeploymentItem:
    """Replicas follow within `learning.poll_s` and the time to load."""
    require_admin(graph, caller)
    _check_model(graph, model)
    adapter = body.adapter if body is not None else None
    return DeploymentItem.of(await graph.deployments.rollback(model, caller.id, adapter))


@router.post("/{model}/promote", summary="The challenger, or an adapter offered before, becomes champion")
async def promote(
    model: str, graph: Graph, caller: Caller, body: PromoteBody | None = None
) -> DeploymentItem:
    require_admin(graph, caller)
    _check_model(graph, model)
    adapter = body.adapter if body is not None else None
    if adapter is None:
        live = await graph.deployments.active(model)
        adapter = next((record.adapter for record in live if record.alias == "challenger"), None)
        if adapter is None:
            raise NotFound(f"{model} has no challenger to promote.", hint="Name an adapter in the body.")
    elif adapter not in {d.adapter for d in await graph.deployments.history(model, KNOWN)}:
        raise NotFound(f"{model} was never offered an adapter {adapter!r}.", field="adapter")
    return DeploymentItem.of(await graph.deployments.promote(model, adapter, caller.id))


@router.post("/{model}/share", summary="The share of the requests that the challenger gets")
async def share(model: str, body: ShareBody, graph: Graph, caller: Caller) -> DeploymentItem:
    require_admin(graph, caller)
    _check_model(graph, model)
    return DeploymentItem.of(await graph.deployments.set_share(model, body.share))


async def _model(graph: Services, name: str, serving: Mapping[str, Any] | None) -> ModelDeployments:
    active, history = await asyncio.gather(
        graph.deployments.active(name), graph.deployments.history(name, SHOWN)
    )
    live = {record.alias: DeploymentItem.of(record) for record in active}
    return ModelDeployments(
        model=name,
        champion=live.get("champion"),
        challenger=live.get("challenger"),
        previous=live.get("previous"),
        serving=serving,
        history=[DeploymentItem.of(record) for record in history],
    )


def _check_model(graph: Services, model: str) -> None:
    """Raises NotFound naming the known models, also for one that is served elsewhere."""
    if not graph.catalog.get(model).is_local:
        raise NotFound(f"{model} is served elsewhere and takes no adapters from here.", field="model")
