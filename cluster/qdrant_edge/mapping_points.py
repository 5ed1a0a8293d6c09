"""Points: Qdrant's request models to the engine's points, and the engine's records to JSON.

Everything the engine could refuse is checked here first. The engine logs an operation before it looks at
it, so a refused one would come back, half applied, when the log is replayed after a restart.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models

from cluster.qdrant_edge.errors import bad_request, unsupported
from cluster.qdrant_edge.mapping_config import dense_vectors

FLOAT32_MAX = 3.4e38
MAX_ID = 2**64
MAX_SPARSE_INDEX = 2**32


class VectorSchema:
    """The vectors of one collection: which names exist, which are sparse, how long the others are."""

    def __init__(self, request: models.CreateCollection) -> None:
        self.dimensions = {name: params.size for name, params in dense_vectors(request).items()}
        self.sparse = frozenset(request.sparse_vectors or {})

    def checked(self, name: str, vector: Any) -> Any:
        """The engine's form of one vector; 400 for an unknown name, wrong length or non-finite value."""
        if name in self.sparse:
            if not isinstance(vector, models.SparseVector):
                raise bad_request(f"vector `{name}` is sparse: send indices and values")
            return _sparse(name, vector)
        dimension = self.dimensions.get(name)
        if dimension is None:
            known = ", ".join(f"`{n}`" for n in (*self.dimensions, *sorted(self.sparse)))
            raise bad_request(f"Not existing vector name error: `{name}`; known: {known}")
        if not isinstance(vector, list) or (vector and isinstance(vector[0], list)):
            raise bad_request(f"vector `{name}` must be a list of {dimension} numbers")
        if len(vector) != dimension:
            raise bad_request(f"Vector dimension error: expected dim: {dimension}, got {len(vector)}")
        # False for NaN too, and for what becomes infinite as a 32-bit float: stored, it is never found.
        if not sum(map(abs, vector)) < FLOAT32_MAX:
            raise bad_request(f"vector `{name}` holds a value that is not a finite 32-bit number")
        return vector


def _sparse(name: str, vector: models.SparseVector) -> Any:
    indices, values = vector.indices, vector.values
    if len(indices) != len(values):
        raise bad_request(f"vector `{name}`: {len(indices)} indices but {len(values)} values")
    if len(set(indices)) != len(indices):
        raise bad_request(f"vector `{name}`: indices must be unique")
    if indices and not (min(indices) >= 0 and max(indices) < MAX_SPARSE_INDEX):
        raise bad_request(f"vector `{name}`: indices must be from 0 to {MAX_SPARSE_INDEX - 1}")
    if not sum(map(abs, values)) < FLOAT32_MAX:
        raise bad_request(f"vector `{name}` holds a value that is not a finite 32-bit number")
    return edge.SparseVector(indices, values)


def point_id(value: Any) -> Any:
    """An unsigned integer or a UUID; 400 otherwise."""
    if isinstance(value, int):
        if not 0 <= value < MAX_ID:
            raise bad_request(f"point id {value} is not an unsigned 64-bit number")
        return value
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise bad_request(f"point id {value!r} is neither an unsigned integer nor a UUID") from None


def point_ids(values: Sequence[Any]) -> list[Any]:
    return [point_id(value) for value in values]


def edge_points(request: models.PointInsertOperations, schema: VectorSchema) -> list[Any]:
    """The points of an upsert, all checked before the first is written."""
    if request.shard_key is not None:
        raise unsupported("shard_key")
    if request.update_filter is not None or request.update_mode is not None:
        raise unsupported("a conditional upsert (update_filter, update_mode)")
    structs = (
        request.points if isinstance(request, models.PointsList) else list(_points_of_batch(request.batch))
    )
    return [
        edge.Point(point_id(point.id), _vectors(point.vector, schema), point.payload or {})
        for point in structs
    ]


def _points_of_batch(batch: models.Batch) -> Iterator[models.PointStruct]:
    count = len(batch.ids)
    payloads: Sequence[Any] = batch.payloads or [None] * count
    columns: Mapping[str, Sequence[Any]]
    columns = batch.vectors if isinstance(batch.vectors, dict) else {"": batch.vectors}
    if len(payloads) != count or any(len(column) != count for column in columns.values()):
        raise bad_request("ids, vectors and payloads of a batch must have the same length")
    for i, identifier in enumerate(batch.ids):
        vector = {name: column[i] for name, column in columns.items()}
        yield models.PointStruct.model_construct(id=identifier, vector=vector, payload=payloads[i])


def _vectors(vectors: Any, schema: VectorSchema) -> Any:
    if isinstance(vectors, dict):
        named = {name: schema.checked(name, vector) for name, vector in vectors.items()}
        return named[""] if list(named) == [""] else named
    return schema.checked("", vectors)


def payload_selector(selector: Any, default: bool) -> Any:
    """What `with_payload` means to the engine."""
    if selector is None:
        return default
    if isinstance(selector, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(selector.include)
    if isinstance(selector, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(selector.exclude)
    return selector


def vectors_json(vectors: Any) -> Any:
    if isinstance(vectors, dict):
        return {name: vectors_json(vector) for name, vector in vectors.items()}
    if isinstance(vectors, edge.SparseVector):
        return {"indices": vectors.indices, "values": vectors.values}
    return vectors


def record_json(record: Any) -> dict[str, Any]:
    body = {"id": record.id, "payload": record.payload}
    if record.vector is not None:
        body["vector"] = vectors_json(record.vector)
    if record.order_value is not None:
        body["order_value"] = record.order_value
    return body


def scored_json(point: Any, bare: bool) -> dict[str, Any]:
    """One hit. `bare` when neither payload nor vectors were asked for: reading them costs a call each."""
    if bare:
        return {"id": point.id, "version": point.version, "score": point.score}
    body = {"version": point.version, "score": point.score}
    return record_json(point) | body
