"""Collection and index settings: Qdrant's request models to the engine's configuration and back."""

from typing import Any

import qdrant_edge as edge
from pydantic import BaseModel, JsonValue
from qdrant_client import models

from cluster.qdrant_edge.errors import bad_request, unsupported

MAX_DIMENSION = 65_536

IGNORED_WHEN = {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1}
"""Options of a cluster that are true of one process anyway, at this value only."""

UNMAPPED = ("sharding_method", "wal_config", "strict_mode_config", "quantization_config")
UNMAPPED_OPTIMIZER = ("memmap_threshold", "flush_interval_sec", "max_optimization_threads")


def given(model: BaseModel) -> dict[str, Any]:
    """The fields that the request set to something."""
    return {name: value for name in model.model_fields_set if (value := getattr(model, name)) is not None}


def edge_config(request: models.CreateCollection) -> Any:
    """The engine's configuration of a new shard; 400 for an option that would be dropped."""
    options = given(request)
    for name, value in IGNORED_WHEN.items():
        if options.get(name, value) != value:
            raise unsupported(f"{name}={options[name]}")
    _refuse(options, UNMAPPED)
    optimizers = request.optimizers_config
    return edge.EdgeConfig(
        vectors={name: _vector(name, params) for name, params in dense_vectors(request).items()},
        sparse_vectors={name: _sparse(p) for name, p in (request.sparse_vectors or {}).items()} or None,
        on_disk_payload=request.on_disk_payload,
        payload_memory=_memory(request.payload.memory if request.payload else None),
        id_tracker_memory=_memory(request.id_tracker.memory if request.id_tracker else None),
        hnsw_config=_hnsw(request.hnsw_config),
        optimizers=_optimizers(optimizers) if optimizers else None,
    )


def dense_vectors(request: models.CreateCollection) -> dict[str, models.VectorParams]:
    """The dense vectors by name; the unnamed one is called ''."""
    if request.vectors is None:
        return {}
    return (
        {"": request.vectors} if isinstance(request.vectors, models.VectorParams) else dict(request.vectors)
    )


def _vector(name: str, params: models.VectorParams) -> Any:
    if not 1 <= params.size <= MAX_DIMENSION:
        raise bad_request(f"vectors.{name}.size must be from 1 to {MAX_DIMENSION}, not {params.size}")
    _refuse(given(params), ("quantization_config", "multivector_config"))
    return edge.EdgeVectorParams(
        size=params.size,
        distance=getattr(edge.Distance, params.distance.value),
        on_disk=params.on_disk,
        datatype=_datatype(params.datatype),
        hnsw_config=_hnsw(params.hnsw_config),
        memory=_memory(params.memory),
    )


def _sparse(params: models.SparseVectorParams) -> Any:
    index = params.index or models.SparseIndexParams()
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.full_scan_threshold,
        on_disk=index.on_disk,
        modifier=edge.Modifier.Idf if params.modifier == models.Modifier.IDF else None,
        datatype=_datatype(index.datatype),
        memory=_memory(index.memory),
    )


def _hnsw(diff: models.HnswConfigDiff | None) -> Any:
    if diff is None:
        return None
    return edge.HnswIndexConfig(
        m=16 if diff.m is None else diff.m,
        ef_construct=100 if diff.ef_construct is None else diff.ef_construct,
        full_scan_threshold=10_000 if diff.full_scan_threshold is None else diff.full_scan_threshold,
        max_indexing_threads=diff.max_indexing_threads or 0,
        on_disk=diff.on_disk,
        payload_m=diff.payload_m,
        inline_storage=diff.inline_storage,
        memory=_memory(diff.memory),
    )


def _optimizers(diff: models.OptimizersConfigDiff) -> Any:
    options = given(diff)
    _refuse(options, UNMAPPED_OPTIMIZER)
    return edge.EdgeOptimizersConfig(**options)


def _memory(memory: models.Memory | None) -> Any:
    return None if memory is None else getattr(edge.Memory, memory.value.capitalize())


def _datatype(datatype: models.Datatype | None) -> Any:
    if datatype is None:
        return None
    found = getattr(edge.VectorStorageDatatype, datatype.value.capitalize(), None)
    if found is None:
        raise unsupported(f"datatype {datatype.value}")
    return found


def _refuse(options: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in options:
            raise unsupported(name)


INDEX_PARAMS: dict[type, Any] = {
    models.KeywordIndexParams: edge.KeywordIndexParams,
    models.IntegerIndexParams: edge.IntegerIndexParams,
    models.FloatIndexParams: edge.FloatIndexParams,
    models.GeoIndexParams: edge.GeoIndexParams,
    models.BoolIndexParams: edge.BoolIndexParams,
    models.DatetimeIndexParams: edge.DatetimeIndexParams,
    models.UuidIndexParams: edge.UuidIndexParams,
}


def index_schema(schema: models.PayloadFieldSchema | None) -> Any:
    """The engine's schema of a payload index."""
    if schema is None:
        raise bad_request("field_schema is required")
    if schema == models.PayloadSchemaType.TEXT:
        raise unsupported("a text index")
    if isinstance(schema, models.PayloadSchemaType):
        return getattr(edge.PayloadSchemaType, schema.value.capitalize())
    build = INDEX_PARAMS.get(type(schema))
    if build is None:
        raise unsupported(type(schema).__name__)
    options = given(schema)
    options.pop("type")
    if "memory" in options:
        options["memory"] = _memory(options["memory"])
    return build(**options)


def collection_info(request: models.CreateCollection, info: Any, status: str) -> dict[str, JsonValue]:
    """Qdrant's description of a collection; settings the request left open show the server's defaults."""
    body = request.model_dump(mode="json", exclude_none=True)
    params = {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1}
    for name in ("vectors", "sparse_vectors", "on_disk_payload"):
        if name in body:
            params[name] = body[name]
    hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0}
    optimizers = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
    config: dict[str, Any] = {
        "params": params,
        "hnsw_config": hnsw | body.get("hnsw_config", {}),
        "optimizer_config": {**optimizers, "flush_interval_sec": 5} | body.get("optimizers_config", {}),
        "metadata": body.get("metadata"),
    }
    return {
        "status": status,
        "optimizer_status": "ok",
        "points_count": info.points_count,
        "indexed_vectors_count": info.indexed_vectors_count,
        "segments_count": info.segments_count,
        "config": config,
        "payload_schema": {
            name: {"data_type": _type_name(index.data_type), "points": index.points}
            for name, index in info.payload_schema.items()
        },
    }


def _type_name(data_type: Any) -> str:
    return str(data_type).rpartition(".")[2].lower()
