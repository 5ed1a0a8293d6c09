"""Queries: Qdrant's request models, prefetches included, to the engine's."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models

from cluster.qdrant_edge.errors import ApiError, bad_request, unsupported
from cluster.qdrant_edge.mapping_filters import edge_filter
from cluster.qdrant_edge.mapping_points import VectorSchema, payload_selector, point_id

MAX_LIMIT = 10_000
"""Most results of one query: a bigger one would hold every other request for too long."""
DEFAULT_LIMIT = 10
DEFAULT_RRF_K = 2

Stored = Callable[[Any, str], Any]
"""Looks up the vector of a stored point: (id, vector name) → the engine's vector, or ApiError 404."""


class QueryMapper:
    """Maps the queries of one request against one collection."""

    def __init__(self, schema: VectorSchema, stored: Stored) -> None:
        self._schema = schema
        self._stored = stored

    def query(self, request: models.QueryRequest) -> Any:
        if request.shard_key is not None:
            raise unsupported("shard_key")
        self._refuse_lookup(request)
        scoring, examples = self._scoring(request.query, request.using or "")
        limit = DEFAULT_LIMIT if request.limit is None else request.limit
        offset = request.offset or 0
        if limit < 1 or offset < 0 or limit + offset > MAX_LIMIT:
            raise bad_request(f"limit must be at least 1 and limit + offset at most {MAX_LIMIT}")
        return edge.QueryRequest(
            limit=limit,
            offset=offset,
            query=scoring,
            prefetches=self._prefetches(request.prefetch),
            with_vector=False if request.with_vector is None else request.with_vector,
            with_payload=payload_selector(request.with_payload, False),
            filter=edge_filter(request.filter, without_ids=examples),
            score_threshold=request.score_threshold,
            params=_params(request.params),
        )

    def _prefetches(self, prefetch: Any) -> list[Any] | None:
        if prefetch is None:
            return None
        stages = prefetch if isinstance(prefetch, list) else [prefetch]
        return [self._prefetch(stage) for stage in stages] or None

    def _prefetch(self, stage: models.Prefetch) -> Any:
        self._refuse_lookup(stage)
        scoring, examples = self._scoring(stage.query, stage.using or "")
        limit = DEFAULT_LIMIT if stage.limit is None else stage.limit
        if not 1 <= limit <= MAX_LIMIT:
            raise bad_request(f"prefetch limit must be from 1 to {MAX_LIMIT}")
        return edge.Prefetch(
            limit=limit,
            query=scoring,
            prefetches=self._prefetches(stage.prefetch),
            params=_params(stage.params),
            filter=edge_filter(stage.filter, without_ids=examples),
            score_threshold=stage.score_threshold,
        )

    def _refuse_lookup(self, request: models.QueryRequest | models.Prefetch) -> None:
        if request.lookup_from is not None:
            raise unsupported("lookup_from")

    def _scoring(self, query: Any, using: str) -> tuple[Any, list[Any]]:
        """The engine's query, and the ids of points that were given as examples."""
        match query:
            case None:
                return None, []
            case models.NearestQuery():
                if query.mmr is not None:
                    raise unsupported("mmr")
                return self._nearest(query.nearest, using)
            case models.RecommendQuery():
                return self._recommend(query.recommend, using)
            case models.FusionQuery():
                rrf = query.fusion == models.Fusion.RRF
                return edge.Fusion.Rrf(DEFAULT_RRF_K) if rrf else edge.Fusion.Dbsf(), []
            case models.RrfQuery():
                k = DEFAULT_RRF_K if query.rrf.k is None else query.rrf.k
                return edge.Fusion.Rrf(k, query.rrf.weights), []
            case models.OrderByQuery():
                return order_by(query.order_by), []
            case list() | models.SparseVector() | int() | str() | UUID():
                return self._nearest(query, using)
        raise unsupported(type(query).__name__)

    def _nearest(self, target: Any, using: str) -> tuple[Any, list[Any]]:
        vector, examples = self._vector(target, using)
        return edge.Query.Nearest(vector, using=using or None), examples

    def _recommend(self, wanted: models.RecommendInput, using: str) -> tuple[Any, list[Any]]:
        builders = {
            models.RecommendStrategy.BEST_SCORE: edge.Query.RecommendBestScore,
            models.RecommendStrategy.SUM_SCORES: edge.Query.RecommendSumScores,
        }
        if wanted.strategy not in builders:
            raise unsupported("recommend with strategy average_vector")
        positives, liked = self._vectors(wanted.positive or [], using)
        negatives, disliked = self._vectors(wanted.negative or [], using)
        example = edge.RecommendQuery(positives, negatives)
        return builders[wanted.strategy](example, using=using or None), liked + disliked

    def _vectors(self, targets: Sequence[Any], using: str) -> tuple[list[Any], list[Any]]:
        found = [self._vector(target, using) for target in targets]
        return [vector for vector, _ in found], [i for _, ids in found for i in ids]

    def _vector(self, target: Any, using: str) -> tuple[Any, list[Any]]:
        if isinstance(target, int | str | UUID):
            identifier = point_id(target)
            return self._stored(identifier, using), [identifier]
        if not isinstance(target, list | models.SparseVector):
            raise unsupported(f"{type(target).__name__} as a query")
        return self._schema.checked(using, target), []


def no_such_point(identifier: Any) -> ApiError:
    return ApiError(404, f"Not found: No point with id {identifier} found")


def order_by(order: models.OrderByInterface) -> Any:
    if isinstance(order, str):
        return edge.OrderBy(order)
    start = order.start_from
    return edge.OrderBy(
        order.key,
        direction=None if order.direction is None else getattr(edge.Direction, order.direction.capitalize()),
        start_from=start.isoformat() if isinstance(start, date) else start,
    )


def _params(params: models.SearchParams | None) -> Any:
    if params is None:
        return None
    for name in ("quantization", "acorn", "idf"):
        if getattr(params, name) is not None:
            raise unsupported(f"params.{name}")
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef, exact=bool(params.exact), indexed_only=bool(params.indexed_only)
    )
