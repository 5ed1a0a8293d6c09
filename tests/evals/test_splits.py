"""The side of a document depends on its name alone."""

from collections import Counter

from evals.splits import split_of


def test_a_document_keeps_its_side_whatever_folder_its_path_is_told_from() -> None:
    for name in (f"text/{n:04}-x.md" for n in range(50)):
        assert split_of(name) == split_of(f"/data/rust-rfcs/{name}") == split_of(f"C:\\rfcs\\{name[5:]}")


def test_documents_with_the_same_file_name_are_told_apart_by_their_folder() -> None:
    sides = {split_of(f"keps/{n}-x/README.md") for n in range(50)}
    assert sides == {"train", "dev", "test"}


def test_the_shares_are_what_they_should_be() -> None:
    count = Counter(split_of(f"{n}.md") for n in range(5000))
    assert 0.18 < count["test"] / 5000 < 0.22
    assert 0.08 < count["dev"] / 5000 < 0.12


def test_the_sides_never_move() -> None:
    """Stored runs and trained adapters rely on it."""
    sides = [split_of(f"text/{n:04}-proposal.md") for n in range(12)]
    assert "".join(side[:2] for side in sides) == "trtrtrtrtetetrdetrtrtrtr"
