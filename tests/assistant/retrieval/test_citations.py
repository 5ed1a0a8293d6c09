"""Markers: unknown ones vanish, known ones are numbered in order of appearance, code is left alone."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.retrieval.citations import MarkerResolver, resolve
from assistant.types import Hit


def hit(number: int) -> Hit:
    id_ = UUID(int=number)
    return Hit(
        id_, id_, 1.0, f"First {number}. Second.", f"T{number}", (), 0, 10, "s", "t", f"{number}.md", "h"
    )


HITS = [hit(n) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "expected", "cited"),
    [
        ("Disks fill [3]. Then [1].", "Disks fill [1]. Then [2].", [3, 1]),
        ("Made up [9]. True [2].", "Made up. True [1].", [2]),
        ("Both [1, 3] and [3][1].", "Both [1][2] and [2][1].", [1, 3]),
        ("Zero [0] and none.", "Zero and none.", []),
        ("A [link](http://x) and [2](http://y).", "A [link](http://x) and [2](http://y).", []),
        ("Inline `a[1]` and [2].", "Inline `a[1]` and [1].", [2]),
        ("```sh\necho [1]\n```\nThen [2].", "```sh\necho [1]\n```\nThen [1].", [2]),
        ("An open ` tick.\n\nNext [2].", "An open ` tick.\n\nNext [1].", [2]),
        ("", "", []),
    ],
)
def test_markers_are_checked_and_renumbered(text: str, expected: str, cited: list[int]) -> None:
    resolved, citations = resolve(text, HITS)
    assert resolved == expected
    assert [c.chunk_id.int for c in citations] == cited
    assert [c.marker for c in citations] == list(range(1, len(cited) + 1))


pieces = st.lists(
    st.sampled_from(["[", "]", "1", "2", "9", ",", " ", "`", "```", "\n\n", "a", "("]), max_size=30
)


@settings(deadline=None)
@given(pieces=pieces)
def test_a_stream_gives_what_the_whole_text_gives(pieces: list[str]) -> None:
    resolver = MarkerResolver(HITS)
    streamed = "".join(resolver.feed(piece) for piece in pieces) + resolver.flush()
    whole, citations = resolve("".join(pieces), HITS)
    assert streamed == whole
    assert resolver.citations == citations


def test_a_citation_quotes_whole_sentences() -> None:
    (citation,) = resolve("[1]", HITS)[1]
    assert citation.quote == "First 1. Second."
    assert (citation.title, citation.start, citation.end) == ("T1", 0, 10)
