"""Passages for a case from all other documents of a folder, found by the product's own chunks and search.

By words only: embedding a thousand proposals takes a quarter of an hour and changes little for a floor. The
document of the case and every copy of its text are excluded inside the query.
"""

from collections.abc import Callable, Sequence
from uuid import UUID

from assistant.clock import stable_id
from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import TextTokenizer
from assistant.settings import Settings
from assistant.stores.vectors import VectorStore
from assistant.types import Document, Hit
from evals.cases import SectionCase
from evals.collection import SOURCE, Indexed, Searcher, fill
from evals.documents import DesignDocument

PASSAGES = 4
MAX_QUERY_CHARS = 2_000


class SectionEvidence:
    """Search over the chunks of a folder of documents."""

    def __init__(self, searcher: Searcher, documents: Sequence[DesignDocument]) -> None:
        self._searcher = searcher
        self._documents = [(_id(d.path), d.path, d.text_hash) for d in documents]

    @classmethod
    async def index(
        cls,
        store: VectorStore,
        settings: Settings,
        documents: Sequence[DesignDocument],
        step: Callable[[str, int, int], None] = lambda *_: None,
    ) -> "SectionEvidence":
        """Chunk and store the documents behind `settings.qdrant.collection`."""
        chunker = Chunker(settings.chunk, TextTokenizer(settings.embedder_path, settings.embedder.max_tokens))
        items: list[Indexed] = []
        for number, document in enumerate(documents, 1):
            items += _chunks(chunker, document)
            step("chunk", number, len(documents))
        await fill(store, settings, items, None, lambda done, all_: step("store", done, all_))
        return cls(Searcher(store, settings, {}), documents)

    async def passages(self, case: SectionCase, limit: int = PASSAGES) -> tuple[Hit, ...]:
        """The best chunks of other documents for the case's title, section and summary."""
        others = [
            id_ for id_, path, text in self._documents if path != case.document and text != case.exclude_hash
        ]
        if not others:
            return ()
        query = f"{case.title} {case.section}\n{case.summary}"[:MAX_QUERY_CHARS]
        return await self._searcher.search(query, "sparse", limit, others)


def _chunks(chunker: Chunker, document: DesignDocument) -> list[Indexed]:
    whole = Document(
        id=_id(document.path),
        source_id=stable_id(SOURCE),
        external_id=document.path,
        title=document.title,
        text=document.text,
        content_hash=document.text_hash,
        content_type="text/markdown",
    )
    return [
        Indexed(
            document.path,
            document.title,
            document.text_hash,
            chunk,
            chunker.embedding_text(document.title, chunk),
        )
        for chunk in chunker.split(whole)
    ]


def _id(path: str) -> UUID:
    return stable_id(SOURCE, path)
