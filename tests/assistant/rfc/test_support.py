import pytest

from assistant.rfc.support import facts, missing, unsupported

SOURCE = (
    "Thanos 0.31.2 splits queries into ranges of 24h and retries five times. "
    "Set `--query-range.split-interval` to 1d; it needs 1,000 MB and 200 milliseconds. "
    "The store does not use Kafka. It was released on 2023-03-21 as `quay.io/thanos/thanos`."
)


@pytest.mark.parametrize(
    "sentence",
    [
        "Queries are split into ranges of 24 hours.",
        "It retries 5 times.",
        "It needs 200 ms and 1000 MB.",
        "Thanos v0.31.2 retries.",
        "The flag is --query-range.split-interval.",
        "Thanos was released on 2023-03-21.",
    ],
)
def test_what_the_source_says_in_other_words_is_supported(sentence: str) -> None:
    assert missing(sentence, [SOURCE]) == ()


@pytest.mark.parametrize(
    ("sentence", "lost"),
    [
        ("Queries are split into ranges of 48 hours.", "48h"),
        ("It retries three times.", "3"),
        ("It needs 200 s.", "200s"),
        ("Thanos 0.31.3 retries.", "0.31.3"),
        ("The flag is `--query-range.max-interval`.", "--query-range.max-interval"),
        ("The store uses Redis.", "redis"),
        ("It was released on 2024-03-21.", "2024-03-21"),
        ("The manual calls it “the best store of all”.", "the best store of all"),
        ("It speaks gRPC.", "grpc"),
        ("It costs 24%.", "24%"),
    ],
)
def test_a_changed_fact_is_named(sentence: str, lost: str) -> None:
    assert lost in missing(sentence, [SOURCE])


def test_negation_and_other_words_are_refused() -> None:
    positive = "The controller expands the volume when it is nearly full."
    assert unsupported(positive, [positive], least_overlap=0.5) is None
    assert "negates" in str(
        unsupported("The controller never expands the volume.", [positive], least_overlap=0.5)
    )
    assert "words" in str(unsupported("Bananas grow on trees.", [positive], least_overlap=0.5))
    assert "no source" in str(unsupported(positive, [], least_overlap=0.5))


def test_numbers_inside_code_count_as_code() -> None:
    assert facts("Run `sleep 5` now.").quantities == frozenset()
    assert facts("Run `sleep 5` now.").names == {"sleep 5"}
