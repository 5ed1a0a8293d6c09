"""Handlers for collections, payload indexes and aliases."""

from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from cluster.qdrant_edge.collections import Collections
from cluster.qdrant_edge.errors import bad_request
from cluster.qdrant_edge.mapping_config import index_schema


def list_collections(store: Collections) -> Any:
    return {"collections": [{"name": name} for name in store.names()]}


def create_collection(store: Collections, body: models.CreateCollection, name: str) -> Any:
    return store.create(name, body)


def get_collection(store: Collections, name: str) -> Any:
    return store.get(name).info()


def delete_collection(store: Collections, name: str) -> Any:
    return store.delete(name)


def collection_exists(store: Collections, name: str) -> Any:
    return {"exists": store.exists(name)}


def create_index(store: Collections, body: models.CreateFieldIndex, name: str) -> Any:
    schema = index_schema(body.field_schema)
    store.get(name).write(edge.UpdateOperation.create_field_index(body.field_name, schema))
    return store.completed()


def delete_index(store: Collections, name: str, field: str) -> Any:
    if not field:
        raise bad_request("the field name is empty")
    store.get(name).write(edge.UpdateOperation.delete_field_index(field))
    return store.completed()


def change_aliases(store: Collections, body: models.ChangeAliasesOperation) -> Any:
    return store.change_aliases(body.actions)


def list_aliases(store: Collections) -> Any:
    return _descriptions(store.aliases)


def collection_aliases(store: Collections, name: str) -> Any:
    real = store.get(name).name
    return _descriptions({alias: target for alias, target in store.aliases.items() if target == real})


def _descriptions(aliases: dict[str, str]) -> Any:
    return {
        "aliases": [
            {"alias_name": alias, "collection_name": target} for alias, target in sorted(aliases.items())
        ]
    }
