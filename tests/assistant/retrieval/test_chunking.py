"""Chunks are exact slices that the embedder can read whole, and nothing of the text is lost."""

from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistant.errors import ConfigurationError
from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import TextTokenizer
from assistant.settings import ChunkSettings
from assistant.types import Chunk, Document

RELAXED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def tokenizer(models_dir: Path) -> TextTokenizer:
    return TextTokenizer(models_dir / "all-MiniLM-L6-v2", 256)


@pytest.fixture(scope="session")
def chunker(tokenizer: TextTokenizer) -> Chunker:
    return Chunker(ChunkSettings(), tokenizer)


def document(text: str, content_type: str = "text/markdown", title: str = "A title") -> Document:
    return Document(uuid4(), uuid4(), "a.md", title, text, "hash", content_type)


words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40)
paragraph = st.lists(words, max_size=60).map(" ".join)
block = st.one_of(
    paragraph,
    st.tuples(st.integers(1, 6), words).map(lambda h: "#" * h[0] + " " + h[1]),
    st.lists(paragraph, max_size=8).map(lambda items: "\n".join(f"- {i}" for i in items)),
    st.lists(words, max_size=40).map(lambda lines: "```sh\n" + "\n".join(lines) + "\n```"),
    st.lists(words, max_size=30).map(
        lambda rows: "| a | b |\n|---|---|\n" + "\n".join(f"| {r} | x |" for r in rows)
    ),
    st.integers(0, 4000).map(lambda n: "x" * n),
    st.just("> quoted\n> more"),
)
texts = st.tuples(st.lists(block, max_size=12), st.sampled_from(["\n\n", "\r\n\r\n", "\n", "\r"])).map(
    lambda parts: parts[1].join(parts[0])
)


@RELAXED
@given(text=texts, content_type=st.sampled_from(["text/markdown", "text/plain"]), title=words)
def test_every_chunk_is_a_slice_that_fits_the_embedder(
    chunker: Chunker, tokenizer: TextTokenizer, text: str, content_type: str, title: str
) -> None:
    doc = document(text, content_type, title)
    chunks = chunker.split(doc)
    for chunk in chunks:
        assert doc.text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip() == chunk.text != ""
        assert chunk.token_count <= 220
        assert tokenizer.count_tokens(chunker.embedding_text(doc.title, chunk)) + 2 <= 256
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert len({c.id for c in chunks}) == len(chunks)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(chunks))


@RELAXED
@given(text=st.lists(paragraph, max_size=20).map("\n\n".join))
def test_plain_text_is_covered_without_a_gap(chunker: Chunker, text: str) -> None:
    covered = bytearray(len(text))
    for chunk in chunker.split(document(text, "text/plain")):
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert all(c or text[i].isspace() for i, c in enumerate(covered))


def split(chunker: Chunker, text: str) -> list[Chunk]:
    return chunker.split(document(text))


def test_headings_become_the_path_and_not_the_body(chunker: Chunker) -> None:
    body = "It fills up because nobody deletes anything, and nobody ever asks why that is so. " * 2
    text = f"# Disk `full`\n\n{body}\n\n## [What](http://x) to *do*\n\n{body}\n\nSetext\n------\n\n{body}"
    chunks = split(chunker, text)
    assert [c.headings for c in chunks] == [
        ("Disk full",),
        ("Disk full", "What to do"),
        ("Disk full", "Setext"),
    ]
    assert all("#" not in c.text and "---" not in c.text for c in chunks)


def test_a_hash_inside_a_code_fence_is_no_heading(chunker: Chunker) -> None:
    (chunk,) = split(
        chunker, "# T\n\nRun it now, and then look at what it says:\n\n```sh\n# a comment\nls\n```\n"
    )
    assert chunk.headings == ("T",)
    assert chunk.text.endswith("# a comment\nls\n```")


@pytest.mark.parametrize(
    "block",
    [
        "```sh\n" + "kubectl get pods --all-namespaces\n" * 12 + "```",
        "| name | meaning |\n|---|---|\n" + "| alpha | the first one of them |\n" * 14,
        "- " + "\n- ".join(f"step {i}: do the thing that is needed" for i in range(14)),
    ],
)
def test_blocks_that_fit_stay_whole(chunker: Chunker, block: str) -> None:
    filler = "Some words that stand before the block and take up room. " * 12
    chunks = split(chunker, f"# T\n\n{filler}\n\n{block}\n\n{filler}")
    assert sum(block.strip() in c.text for c in chunks) == 1


def test_an_introduction_goes_with_its_command(chunker: Chunker) -> None:
    filler = "Words that fill the first chunk nearly up to its limit of tokens. " * 13
    fence = "```sh\n" + "kubectl delete pod one\n" * 9 + "```"
    chunks = split(chunker, f"# T\n\n{filler}\n\nTo restart it, run this command:\n\n{fence}")
    assert [c.text for c in chunks if "To restart it" in c.text] == [
        f"To restart it, run this command:\n\n{fence}"
    ]


def test_long_prose_overlaps_by_a_sentence(chunker: Chunker) -> None:
    text = " ".join(f"Sentence number {i} says something about disks." for i in range(80))
    chunks = split(chunker, text)
    assert len(chunks) > 2
    for before, after in pairwise(chunks):
        assert before.start < after.start < before.end
        assert after.text.startswith("Sentence number")


def test_very_short_sections_are_joined_with_their_headings(chunker: Chunker) -> None:
    long = "A real paragraph with enough words to stand alone in the index of a store. " * 3
    text = f"# T\n\n{long}\n\n## Impact\n\nReads only.\n\n## Diagnosis\n\nCheck the use over time.\n\n## Else\n\n{long}"
    joined = split(chunker, text)[1]
    assert joined.headings == ("T",)
    assert joined.text == "## Impact\n\nReads only.\n\n## Diagnosis\n\nCheck the use over time."


def test_a_document_of_headings_alone_still_has_a_chunk(chunker: Chunker) -> None:
    assert [c.text for c in split(chunker, "# Only a heading")] == ["# Only a heading"]


@pytest.mark.parametrize("text", ["", "   \n\n\t", "[ref]: http://example.org"])
def test_a_document_without_text_has_no_chunks(chunker: Chunker, text: str) -> None:
    assert split(chunker, text) == []


def test_a_word_longer_than_any_chunk_is_cut(chunker: Chunker) -> None:
    text = "x" * 50_000
    chunks = split(chunker, text)
    assert "".join(c.text for c in chunks) == text
    assert max(len(c.text) for c in chunks) <= 2200


def test_a_long_path_gives_way_to_the_body(chunker: Chunker, tokenizer: TextTokenizer) -> None:
    doc = document("## " + "deep heading " * 60 + "\n\n" + "body words here. " * 50, title="title " * 100)
    for chunk in chunker.split(doc):
        embedded = chunker.embedding_text(doc.title, chunk)
        assert embedded.endswith(chunk.text)
        assert embedded.startswith("title title")
        assert tokenizer.count_tokens(embedded) + 2 <= 256


def test_ids_are_stable_per_version(chunker: Chunker) -> None:
    doc = document("# A\n\nSome text that is long enough to be one chunk.")
    assert [c.id for c in chunker.split(doc)] == [c.id for c in chunker.split(doc)]
    other = Document(doc.id, doc.source_id, "a.md", "t", doc.text, "other", doc.content_type)
    assert chunker.split(other)[0].id != chunker.split(doc)[0].id


def test_chunks_larger_than_the_embedder_are_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens is 256"):
        Chunker(ChunkSettings(max_tokens=256), tokenizer)


def test_the_real_corpus_is_cut_without_loss(chunker: Chunker, real_data: Path) -> None:
    for path in sorted((real_data / "knowledge" / "alert-runbooks").rglob("*.md")):
        doc = document(path.read_text(encoding="utf-8"))
        chunks = chunker.split(doc)
        assert chunks, path
        assert all(doc.text[c.start : c.end] == c.text for c in chunks)
