import pytest

from assistant.errors import TooLarge
from assistant.rfc.brief import BriefStage, finished, kind_of, read_brief, topic_of
from assistant.rfc.templates import template
from tests.assistant.rfc.world import BRIEF, TITLE, work


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Today an engineer resizes volumes by hand.", "problem"),
        ("We will build a controller that expands a volume when less than 10% is free.", "proposal"),
        ("Queries must answer within 10 seconds.", "goal"),
        ("Volumes that cannot be resized are out of scope.", "non_goal"),
        ("We do not want to replace the scheduler.", "non_goal"),
        ("There is a risk that a quota is hit.", "risk"),
        ("It is rolled out behind a feature flag.", "rollout"),
        ("We also considered a nightly job.", "alternative"),
        ("An alert fires when the queue grows.", "observability"),
        ("A load test runs before the release.", "test"),
        ("Our Prometheus servers keep metrics and run out of disk.", "problem"),
        ("The team has five members.", "context"),
    ],
)
def test_the_kind_of_a_sentence(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind


def test_sentences_get_refs_and_the_title_is_b0() -> None:
    brief = read_brief(TITLE, BRIEF, template("new_feature"))
    assert [s.ref for s in brief.sentences] == ["b0", "b1", "b2", "b3", "b4"]
    assert brief.sentences[0].text == TITLE
    assert [s.kind for s in brief.sentences[1:]] == ["problem", "proposal", "goal", "non_goal"]


def test_headings_of_the_brief_decide_over_cues() -> None:
    brief = read_brief(
        "T", "## Non goals\n\n- Faster builds\n\n## Risks\n\nWe must reduce cost.\n", template("new_feature")
    )
    assert [(s.text, s.kind, s.section) for s in brief.sentences[1:]] == [
        ("Faster builds.", "non_goal", "non_goals"),
        ("We must reduce cost.", "risk", "risks"),
    ]


async def test_a_book_is_no_brief() -> None:
    with pytest.raises(TooLarge, match="30 characters"):
        await BriefStage().run(work(brief="x" * 20, answers={"scale": "y" * 10}, max_brief_chars=29))


def test_an_empty_brief_leaves_the_title() -> None:
    brief = read_brief("  Cache   for pages ", "", template("new_feature"))
    assert [s.text for s in brief.sentences] == ["Cache for pages"]
    assert brief.topic == ("Cache", "pages")


def test_topic_takes_the_title_first_and_each_stem_once() -> None:
    topic = topic_of(
        "Caching of pages", ["A cached page is fast.", "Redis is a store.", "Redis keeps pages."]
    )
    assert topic == ("Caching", "pages", "Redis")


def test_finished_adds_a_full_stop_only_where_none_is() -> None:
    assert finished("Do it") == "Do it."
    assert finished("Do it:") == "Do it."
    assert finished("Done!") == "Done!"
    assert finished('He said "no."') == 'He said "no."'
