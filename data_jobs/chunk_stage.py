"""First stage: read, parse and cut one document. What cannot be read becomes a dead letter, not a failure."""

from functools import lru_cache
from pathlib import Path

from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import TextTokenizer
from assistant.settings import ChunkSettings
from assistant.types import Document
from data_jobs.connectors import connector_for
from data_jobs.job import EmbeddableChunk, Job, Part, Row, Task, parts_of
from data_jobs.plan import content_hash_of, fingerprint
from data_jobs.processors import Unreadable, parse


def chunk_row(row: Row, job: Job) -> list[Row]:
    """The parts of the document that a task row names, as rows."""
    return [part.row() for part in chunk_task(Task.of(row), job)]


def chunk_task(task: Task, job: Job) -> list[Part]:
    stage = "read"
    try:
        data = connector_for(job.source).read(task.item, job.settings.ingest.max_document_bytes)
        if content_hash_of(task.item, data, fingerprint(job.settings, job.source)) != task.content_hash:
            raise Unreadable("It changed while it was being ingested; the next run takes the new version.")
        stage = "parse"
        parsed = parse(task.item.content_type, data)
        title = task.item.title if task.item.title_is_final else parsed.title or task.item.title
        stage = "chunk"
        return parts_of(task, title, _chunks(task, title, parsed.text, job))
    except Unreadable as error:
        return [Part(task, task.item.title, 0).failed(stage, str(error))]
    except Exception as error:
        # One document may break a parser in any way; the other documents must not suffer.
        return [Part(task, task.item.title, 0).failed(stage, f"{type(error).__name__}: {error}")]


def _chunks(task: Task, title: str, text: str, job: Job) -> list[EmbeddableChunk]:
    settings = job.settings
    chunker = _chunker(settings.embedder_path, settings.embedder.max_tokens, settings.chunk)
    document = Document(
        id=task.document_id,
        source_id=job.source_id,
        external_id=task.item.external_id,
        title=title,
        text=text,
        content_hash=task.content_hash,
        content_type=task.item.content_type,
    )
    return [EmbeddableChunk(c, chunker.embedding_text(title, c)) for c in chunker.split(document)]


@lru_cache(maxsize=2)
def _chunker(path: Path, max_tokens: int, settings: ChunkSettings) -> Chunker:
    return Chunker(settings, TextTokenizer(path, max_tokens))
