"""BM25 on our side, and highlights that use the same stems."""

import pytest

from assistant.errors import ConfigurationError
from assistant.retrieval.highlight import highlights
from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import RetrievalSettings

ENCODER = Bm25Encoder(RetrievalSettings())


def marked(text: str, query: str) -> list[str]:
    return [text[start:end] for start, end in highlights(text, ENCODER.terms(query), ENCODER)]


def test_documents_and_queries_share_stems_without_stop_words() -> None:
    assert ENCODER.query("the replicas").indices == ENCODER.query("Replica").indices
    assert set(ENCODER.document("replica running").indices) >= set(ENCODER.query("replicas run").indices)
    assert ENCODER.query("the of and").indices == ()


def test_a_longer_document_weighs_a_word_less() -> None:
    short, long = ENCODER.document("disk"), ENCODER.document("disk " + "volume storage claim " * 100)
    position = long.indices.index(short.indices[0])
    assert long.values[position] < short.values[0]


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="klingon"):
        Bm25Encoder(RetrievalSettings(language="klingon"))


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Replicas restart; a replica restarted.", "replica", ["Replicas", "replica"]),
        ("The persistent volumes fill up.", "filling persistent volume", ["persistent volumes fill"]),
        ("set snake_case_name here", "snake case", ["snake_case_name"]),
        ("Nothing here.", "disk", []),
        ("Die Größe 磁盘 zählt", "größe", ["Größe"]),
    ],
)
def test_forms_of_the_query_words_are_marked(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected
