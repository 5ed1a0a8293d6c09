"""BM25 by another hand: the rows that stand beside the product's own, so that a slip in ours is seen.

bm25s, Lucene's variant, English stop words and Snowball stems: the setting of the published figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.ranking import scores_of


@dataclass(frozen=True, slots=True)
class Bm25Parameters:
    """`k1` bounds what repetition counts, `b` how much length is punished."""

    k1: float
    b: float

    @property
    def name(self) -> str:
        return f"bm25s k1={self.k1} b={self.b}"


PUBLISHED = (Bm25Parameters(0.9, 0.4), Bm25Parameters(1.2, 0.75), Bm25Parameters(1.5, 0.75))


class Bm25Oracle:
    """Tokens are made once, an index for every setting."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._ids = list(documents)
        self._tokens = _tokens(list(documents.values()))

    def runs(
        self, queries: Mapping[str, str], parameters: Bm25Parameters, limit: int
    ) -> dict[str, dict[str, float]]:
        """The scores of the best `limit` documents of each query, as a run keeps them."""
        import bm25s

        index = bm25s.BM25(method="lucene", k1=parameters.k1, b=parameters.b)
        index.index(self._tokens, show_progress=False)
        found, _ = index.retrieve(
            _tokens(list(queries.values())), k=min(limit, len(self._ids)), show_progress=False
        )
        return {
            query: scores_of([self._ids[i] for i in row]) for query, row in zip(queries, found, strict=True)
        }


def _tokens(texts: Sequence[str]) -> Any:
    import bm25s
    import Stemmer  # type: ignore[import-not-found]

    return bm25s.tokenize(
        list(texts), stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
