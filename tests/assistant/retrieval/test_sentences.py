"""Sentences by offsets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.retrieval.sentences import sentence_spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use e.g. Kafka or v1.2 now. Then stop.", ["Use e.g. Kafka or v1.2 now.", "Then stop."]),
        ('He said "stop." Then `ls` ran.', ['He said "stop."', "Then `ls` ran."]),
        ("A line\nthat goes on.\n\nA paragraph", ["A line\nthat goes on.", "A paragraph"]),
        ("Диск полон. Удалите данные.", ["Диск полон.", "Удалите данные."]),
        ("**1. Start the server** now. 2. Wait.", ["**1. Start the server** now.", "2. Wait."]),
        ("  ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentence_spans(text)] == expected


@settings(deadline=None)
@given(text=st.text(alphabet="Ab .!?\n\"'`*e.g", max_size=200))
def test_nothing_but_white_space_is_between_sentences(text: str) -> None:
    position = 0
    for start, end in sentence_spans(text):
        assert text[position:start].strip() == ""
        position = end
    assert text[position:].strip() == ""
