"""What a run has to do: the documents of a source against what is stored of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from assistant.clock import stable_id
from assistant.retrieval import chunking
from assistant.settings import Settings
from assistant.stores.documents import ManifestEntry
from data_jobs import processors
from data_jobs.config import SourceConfig
from data_jobs.connectors import connector_for
from data_jobs.connectors.item import Item, Skipped
from data_jobs.job import Task
from data_jobs.processors import Unreadable


@dataclass(slots=True)
class Plan:
    """`tasks` are new or changed; `skipped` are there, but cannot be read, and what is stored of them stays."""

    tasks: list[Task] = field(default_factory=list)
    added: int = 0
    unchanged: int = 0
    vanished: dict[str, UUID] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def listed(self) -> int:
        return len(self.tasks) + self.unchanged + len(self.skipped)


def make_plan(
    settings: Settings,
    source: SourceConfig,
    source_id: UUID,
    manifest: Mapping[str, ManifestEntry],
    lost: frozenset[UUID] = frozenset(),
) -> Plan:
    """Lists and hashes the source. `lost` names documents whose chunks are not all in the store.

    Raises InvalidInput when the source itself is not there.
    """
    plan = Plan()
    connector = connector_for(source)
    parameters = fingerprint(settings, source)
    seen = set()
    limit = settings.ingest.max_document_bytes
    for item in connector.items(limit):
        seen.add(item.external_id)
        if isinstance(item, Skipped):
            plan.skipped.append(item)
            continue
        try:
            content_hash = content_hash_of(item, connector.read(item, limit), parameters)
        except Unreadable as error:
            plan.skipped.append(Skipped(item.external_id, str(error)))
            continue
        entry = manifest.get(item.external_id)
        if (
            entry is not None
            and entry.status == "ready"
            and entry.content_hash == content_hash
            and entry.document_id not in lost
        ):
            plan.unchanged += 1
            continue
        document_id = entry.document_id if entry else stable_id(str(source_id), item.external_id)
        plan.tasks.append(Task(item, document_id, content_hash, replaces=entry is not None))
        plan.added += entry is None
    plan.vanished = {e: entry.document_id for e, entry in manifest.items() if e not in seen}
    return plan


def content_hash_of(item: Item, data: bytes, parameters: str) -> str:
    """The identity of a version: content, what is known about it, and everything that shapes its chunks."""
    about: dict[str, Any] = {
        "parameters": parameters,
        "title": item.title,
        "url": item.url,
        "version": item.version,
        "content_type": item.content_type,
        "metadata": dict(item.metadata),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def fingerprint(settings: Settings, source: SourceConfig) -> str:
    """Everything but the content that a stored chunk depends on: changing any of it ingests anew.

    The embedder is not part of it: another one takes over the stored chunks, with their ids.
    """
    shaping = {
        "chunking": [chunking.VERSION, settings.chunk.model_dump(mode="json")],
        "processors": processors.VERSION,
        "sparse": settings.retrieval.model_dump(mode="json", include={"language", "average_length"}),
        "source": source.model_dump(mode="json", include={"name", "source_type", "acl", "attributes"}),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
