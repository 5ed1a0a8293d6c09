"""GET /v1/models and POST /v1/embeddings."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from assistant.errors import AssistantError, InvalidInput, NotFound
from assistant.llm.catalog import RESERVED
from assistant.llm.variants import Live, names_of
from serve_app.api.auth import Caller, Context, Graph
from serve_app.api.health import Board, HealthBoard
from serve_app.api.limits import before_deadline
from serve_app.api.services import Services

MAX_INPUTS = 256
OWNER = "ai-assistant"

router = APIRouter(tags=["OpenAI"])


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = OWNER


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models", summary="The models that requests may name")
async def models(graph: Graph, caller: Caller, board: Board) -> ModelList:
    """`m` is what is live of a local model; `m:base`, `m:champion`, `m:challenger` are pinned."""
    return ModelList(data=await _models(graph, board))


@router.get("/v1/models/{model:path}", summary="One model")
async def model(model: str, graph: Graph, caller: Caller, board: Board) -> Model:
    known = await _models(graph, board)
    for item in known:
        if item.id == model:
            return item
    names = ", ".join(item.id for item in known)
    raise NotFound(f"There is no model {model!r}.", hint=f"Known models: {names}.", field="model")


class EmbeddingsBody(BaseModel):
    model: str
    input: str | list[Any] = Field(description="One text or up to 256.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


@router.post("/v1/embeddings", summary="Vectors of texts", response_model=None)
async def embeddings(body: EmbeddingsBody, graph: Graph, context: Context) -> Response:
    configured = graph.settings.embedder
    known: Mapping[str, int] = {configured.name: configured.dimension}
    if body.model not in known:
        known = await _embedders(graph)
    if body.model not in known:
        raise NotFound(
            f"There is no embedding model {body.model!r}.", hint=f"Use {' or '.join(known)}.", field="model"
        )
    dimension = known[body.model]
    if body.dimensions not in {None, dimension}:
        raise InvalidInput(f"{body.model} has {dimension} dimensions.", field="dimensions")
    made = await before_deadline(graph.retrieval.embeddings(_texts(body.input), body.model), context)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
        for i, vector in enumerate(made.vectors)
    ]
    usage = {"prompt_tokens": made.tokens, "total_tokens": made.tokens}
    answer = {"object": "list", "data": data, "model": body.model, "usage": usage}
    return Response(to_json(answer), media_type="application/json")


async def _models(graph: Services, board: HealthBoard) -> list[Model]:
    names = [*RESERVED]
    adapters = await board.adapters() if graph.catalog.local() else {}
    for spec in graph.catalog.models:
        told = adapters.get(spec.name, {})
        names += names_of(spec.name, Live(told.get("champion"), told.get("challenger")))
    return [Model(id=name) for name in [*names, *await _embedders(graph)]]


async def _embedders(graph: Services) -> Mapping[str, int]:
    """Name → dimension: the configured embedder, and the live collection's when it is another."""
    configured = graph.settings.embedder
    try:
        live: Mapping[str, int] = (await graph.retrieval.health()).get("embedders", {})
    except AssistantError:
        # The list of models is worth more than one name in it.
        live = {}
    return {configured.name: configured.dimension, **live}


def _texts(given: str | Sequence[Any]) -> list[str]:
    texts = [given] if isinstance(given, str) else list(given)
    if not 1 <= len(texts) <= MAX_INPUTS:
        raise InvalidInput(f"input has {len(texts)} texts, it must be 1 to {MAX_INPUTS}.", field="input")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"input[{index}] is not a text.", hint="Send text, not tokens.", field="input")
        if not text.strip():
            raise InvalidInput(f"input[{index}] is empty.", field="input")
    return texts


def _encoded(vector: Any, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return vector.tolist()
