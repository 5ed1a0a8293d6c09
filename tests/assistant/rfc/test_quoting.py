from dataclasses import replace

import pytest

from assistant.rfc.artefacts import Passage
from assistant.rfc.quoting import Quoter, quotable, windows
from assistant.rfc.sentences import clean, sentences
from assistant.rfc.words import content, spread
from tests.assistant.rfc.world import passage_hit


def passage(text: str, title: str = "Volumes") -> Passage:
    return replace(
        Passage.of(passage_hit("filling"), 1.0), text=text, title=title, headings=(), end=100 + len(text)
    )


def quoter(passages: list[Passage], topic: str = "filling volume") -> Quoter:
    stems = set(content(topic))
    return Quoter(title=stems, topic=stems, spread=spread([p.text for p in passages]))


@pytest.mark.parametrize(
    "text",
    [
        "To resize the volume run:",
        "See the table below for all volume sizes.",
        "Is the volume full and what happens then?",
        "Run `kubectl` as $ kubectl get pvc -o json now.",
        "and then the volume grows to its limit.",
        "The volume | grows | every | night | again.",
        "TODO describe how the volume is grown.",
        "Too short.",
        "More in our documentation at https://example.org/volumes now.",
        "I like volumes that grow by themselves best.",
        "Docker pulls and volumes (obviously!)",
        "The volume grows when its content\n                    is of the right kind.",
        "The volume is growing (see the first of the lists.",
    ],
)
def test_torn_pointing_and_noisy_sentences_are_not_quoted(text: str) -> None:
    source = passage(text)
    assert not any(quotable(s, source) for s in sentences(text))


@pytest.mark.parametrize(
    "item",
    [
        "- Using volumes as the long term storage of everything you have.",
        "- Supports volumes, snapshots and clones of every size.",
        "- Checks the volume for free space every minute.",
        "- Volume growth and limits",
        "- [A talk about volumes that grow too fast](https://x.y/z).",
    ],
)
def test_list_items_without_a_subject_are_not_quoted(item: str) -> None:
    source = passage(item)
    assert not any(quotable(s, source) for s in sentences(item))


def test_a_chunk_torn_in_mid_sentence_gives_only_its_whole_sentences() -> None:
    source = passage("grows until the disk is full. A full volume stops the service. The volume then is read")
    assert [s.text for s in sentences(source.text) if quotable(s, source)] == [
        "A full volume stops the service."
    ]


def test_a_sentence_that_leans_on_the_one_before_is_quoted_only_with_it() -> None:
    source = passage("A full volume stops the service. It must be grown by hand, which takes time.")
    starts = {w[0].text for w in windows(source)}
    assert starts == {"A full volume stops the service."}
    assert max(len(w) for w in windows(source)) == 2


def test_quotations_point_exactly_at_their_source() -> None:
    text = "# Volumes\n\nA **full** volume [stops](http://x) the service. Another paragraph is about cats only.\n"
    source = passage(text)
    (block,) = quoter([source]).quote([source], set(), 3, general=False)
    (pointer,) = block.statements[0].pointers
    assert pointer.start is not None
    assert pointer.end is not None
    quoted = text[pointer.start - source.start : pointer.end - source.start]
    assert quoted == "A **full** volume [stops](http://x) the service."
    assert clean(quoted) == block.statements[0].text


def test_nothing_is_quoted_twice_and_nothing_off_topic() -> None:
    on, off = (
        passage("A filling volume stops the service."),
        passage("Cats sleep on warm keyboards all day.", "Cats"),
    )
    chosen = quoter([on, off])
    assert len(chosen.quote([on, off], set(), 3, general=False)) == 1
    assert chosen.quote([on, off], set(), 3, general=False) == []


def test_general_advice_needs_the_words_of_its_section() -> None:
    advice = passage("A canary release shows a broken deployment early.", "Releasing")
    about = set(content("canary release and rollback"))
    assert quoter([advice]).quote([advice], about, 3, general=True)
    assert not quoter([advice]).quote([advice], about, 3, general=False)
    assert not quoter([advice]).quote([advice], set(content("alerts and dashboards")), 3, general=True)
