"""Handlers for points: writes, reads and queries of one collection."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from cluster.qdrant_edge.collections import Collection, Collections
from cluster.qdrant_edge.errors import bad_request, unsupported
from cluster.qdrant_edge.mapping_filters import edge_filter
from cluster.qdrant_edge.mapping_points import (
    edge_points,
    payload_selector,
    point_id,
    point_ids,
    record_json,
    scored_json,
)
from cluster.qdrant_edge.mapping_queries import MAX_LIMIT, QueryMapper, order_by

POINTS_PER_CALL = 256
"""Points written in one engine call (about 30 ms), which holds up every other request."""
QUERIES_PER_CALL = 16

Update = edge.UpdateOperation


async def upsert(store: Collections, body: models.PointInsertOperations, name: str) -> Any:
    collection = store.get(name)
    points = edge_points(body, collection.schema)
    for batch in _batches(points, POINTS_PER_CALL):
        collection.write(Update.upsert_points(batch), len(batch))
        await asyncio.sleep(0)
    return store.completed()


def delete_points(store: Collections, body: models.PointsSelector, name: str) -> Any:
    _refuse_shard_key(body)
    if isinstance(body, models.PointIdsList):
        operation = Update.delete_points(point_ids(body.points))
    else:
        operation = Update.delete_points_by_filter(edge_filter(body.filter))
    store.get(name).delete(operation)
    return store.completed()


def set_payload(store: Collections, body: models.SetPayload, name: str) -> Any:
    return _write_payload(store, name, body, Update.set_payload, Update.set_payload_by_filter)


def overwrite_payload(store: Collections, body: models.SetPayload, name: str) -> Any:
    return _write_payload(store, name, body, Update.overwrite_payload, Update.overwrite_payload_by_filter)


def _write_payload(
    store: Collections,
    name: str,
    body: models.SetPayload,
    by_id: Callable[..., Any],
    by_filter: Callable[..., Any],
) -> Any:
    _refuse_shard_key(body)
    if body.points is not None:
        operation = by_id(point_ids(body.points), body.payload, body.key)
    elif body.filter is not None:
        operation = by_filter(edge_filter(body.filter), body.payload, body.key)
    else:
        raise bad_request("either points or filter is required")
    store.get(name).write(operation)
    return store.completed()


def delete_payload(store: Collections, body: models.DeletePayload, name: str) -> Any:
    _refuse_shard_key(body)
    if body.points is not None:
        operation = Update.delete_payload(point_ids(body.points), body.keys)
    elif body.filter is not None:
        operation = Update.delete_payload_by_filter(edge_filter(body.filter), body.keys)
    else:
        raise bad_request("either points or filter is required")
    store.get(name).write(operation)
    return store.completed()


def retrieve(store: Collections, body: models.PointRequest, name: str) -> Any:
    _refuse_shard_key(body)
    ids = point_ids(body.ids)
    if len(ids) > MAX_LIMIT:
        raise bad_request(f"at most {MAX_LIMIT} ids in one request")
    with_vector = False if body.with_vector is None else body.with_vector
    found = store.get(name).shard.retrieve(ids, payload_selector(body.with_payload, True), with_vector)
    return [record_json(record) for record in found]


def scroll(store: Collections, body: models.ScrollRequest, name: str) -> Any:
    _refuse_shard_key(body)
    limit = 10 if body.limit is None else body.limit
    if not 1 <= limit <= MAX_LIMIT:
        raise bad_request(f"limit must be from 1 to {MAX_LIMIT}")
    records, following = store.get(name).shard.scroll(
        edge.ScrollRequest(
            offset=None if body.offset is None else point_id(body.offset),
            limit=limit,
            filter=edge_filter(body.filter),
            with_payload=payload_selector(body.with_payload, True),
            with_vector=False if body.with_vector is None else body.with_vector,
            order_by=None if body.order_by is None else order_by(body.order_by),
        )
    )
    return {"points": [record_json(record) for record in records], "next_page_offset": following}


def count(store: Collections, body: models.CountRequest, name: str) -> Any:
    _refuse_shard_key(body)
    request = edge.CountRequest(exact=body.exact is not False, filter=edge_filter(body.filter))
    return {"count": store.get(name).shard.count(request)}


def facet(store: Collections, body: models.FacetRequest, name: str) -> Any:
    _refuse_shard_key(body)
    limit = 10 if body.limit is None else body.limit
    if not 1 <= limit <= MAX_LIMIT:
        raise bad_request(f"limit must be from 1 to {MAX_LIMIT}")
    request = edge.FacetRequest(
        body.key, limit=limit, exact=bool(body.exact), filter=edge_filter(body.filter)
    )
    found = store.get(name).shard.facet(request)
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in found.hits]}


def query(store: Collections, body: models.QueryRequest, name: str) -> Any:
    return {"points": next(_answers(store.get(name), [body]))}


async def query_batch(store: Collections, body: models.QueryRequestBatch, name: str) -> Any:
    collection = store.get(name)
    answers: list[Any] = []
    for batch in _batches(body.searches, QUERIES_PER_CALL):
        if answers:
            await asyncio.sleep(0)
        answers += [{"points": points} for points in _answers(collection, batch)]
    return answers


def _answers(collection: Collection, requests: Sequence[models.QueryRequest]) -> Iterator[list[Any]]:
    """The hits of each query; planned together, so the engine passes over the points once."""
    mapper = QueryMapper(collection.schema, collection.stored_vector)
    mapped = [mapper.query(request) for request in requests]
    found = collection.shard.query_batch(edge.QueryBatchRequest(mapped))
    for request, points in zip(requests, found, strict=True):
        bare = not (request.with_payload or request.with_vector)
        yield [scored_json(point, bare) for point in points]


def _refuse_shard_key(body: Any) -> None:
    if body.shard_key is not None:
        raise unsupported("shard_key")


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
