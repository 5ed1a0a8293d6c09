"""BM25 weights of a text, made on our side; the store multiplies them by the inverse document frequency."""

from functools import lru_cache

from qdrant_edge import Bm25, Bm25Config

from assistant.errors import ConfigurationError
from assistant.settings import RetrievalSettings
from assistant.stores.vectors import SparseWeights


class Bm25Encoder:
    """Tokens are split at everything but letters and digits, lowercased, stemmed and freed of stop words.

    `average_length` and `language` shape stored weights: documents and queries must use the same.
    """

    def __init__(self, settings: RetrievalSettings) -> None:
        try:
            config = Bm25Config(language=settings.language, avg_len=settings.average_length)
            self._model = Bm25(config)
        except ValueError as error:
            raise ConfigurationError(
                f"retrieval.language: {error}.",
                hint="Name a language in English, such as english or russian.",
            ) from None
        self._terms = lru_cache(maxsize=20_000)(self._encode_terms)

    def document(self, text: str) -> SparseWeights:
        vector = self._model.embed_document(text)
        return SparseWeights(tuple(vector.indices), tuple(vector.values))

    def query(self, text: str) -> SparseWeights:
        vector = self._model.embed_query(text)
        return SparseWeights(tuple(vector.indices), tuple(vector.values))

    def terms(self, text: str) -> frozenset[int]:
        """The stems in a text, as the store numbers them. Cheap for single words, which are remembered."""
        return self._terms(text)

    def _encode_terms(self, text: str) -> frozenset[int]:
        return frozenset(self._model.embed_query(text).indices)
