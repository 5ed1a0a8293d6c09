import pytest

from assistant.errors import NotFound
from assistant.llm.variants import Live, Route, choose, names_of, position, route_of, split_name
from assistant.types import Principal, RequestContext

BOTH = Live("a-1", "a-2", 0.25)
KEYS = [f"person-{n}" for n in range(4000)]


def context(principal: Principal, request_id: str = "r-1") -> RequestContext:
    return RequestContext(request_id, principal, 0)


@pytest.mark.parametrize(
    ("model", "known", "expected"),
    [
        ("m", ("m",), ("m", "live")),
        ("m:base", ("m",), ("m", "base")),
        ("m:challenger", ("m", "n"), ("m", "challenger")),
        ("qwen3:8b", ("qwen3:8b",), ("qwen3:8b", "live")),
        ("qwen3:8b:champion", ("qwen3:8b",), ("qwen3:8b", "champion")),
        ("m:base", ("m", "m:base"), ("m:base", "live")),
        ("m:live", ("m",), ("m:live", "live")),
        ("n:base", ("m",), ("n:base", "live")),
        ("auto", ("m",), ("auto", "live")),
    ],
)
def test_names_are_split(model: str, known: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert split_name(model, known) == expected


@pytest.mark.parametrize(
    ("variant", "live", "expected"),
    [
        ("live", Live(), None),
        ("live", Live("a-1"), "a-1"),
        ("live", Live(None, "a-2", 1.0), "a-2"),
        ("live", Live("a-1", "a-2", 0.0), "a-1"),
        ("live", Live("a-1", None, 1.0), "a-1"),
        ("base", BOTH, None),
        ("champion", BOTH, "a-1"),
        ("challenger", Live("a-1", "a-2", 0.0), "a-2"),
    ],
)
def test_what_answers(variant: str, live: Live, expected: str | None) -> None:
    assert choose("m", Route(variant, "ada"), live) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["champion", "challenger"])
def test_a_pinned_adapter_that_does_not_exist_is_not_replaced_by_another(variant: str) -> None:
    with pytest.raises(NotFound, match=f"m has no {variant} now"):
        choose("m", Route(variant), Live())  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_challenger_gets_its_share_and_keeps_its_people(share: float) -> None:
    def sent(share: float) -> set[str]:
        live = Live("a-1", "a-2", share)
        return {key for key in KEYS if choose("m", Route("live", key), live) == "a-2"}

    assert len(sent(share)) / len(KEYS) == pytest.approx(share, abs=0.03)
    assert sent(share) <= sent(min(1.0, share + 0.2))


def test_the_share_of_the_route_beats_that_of_the_table() -> None:
    chosen = {choose("m", Route("live", key, 0.0), Live("a-1", "a-2", 1.0)) for key in KEYS}
    assert chosen == {"a-1"}
    assert choose("m", Route("live", "ada", 1.0), BOTH) == "a-2"


def test_positions_are_the_same_in_every_process_and_differ_between_models() -> None:
    assert position("m", "ada") == pytest.approx(0.0667, abs=1e-4)
    assert position("m", "ada") != position("n", "ada")
    assert all(0 <= position("m", key) < 1 for key in KEYS)


def test_a_person_is_followed_and_an_anonymous_caller_is_not() -> None:
    ada, nobody = Principal("ada"), Principal("local", "anonymous")
    assert route_of("m", "m", context(ada, "r-9"), 0.5) == Route("live", "ada", 0.5)
    assert route_of("m:base", "m", context(nobody, "r-9")) == Route("base", "r-9")
    assert route_of("auto", "m", context(ada)) == Route("live", "ada")


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (Live(), ["m"]),
        (Live("a-1"), ["m", "m:base", "m:champion"]),
        (Live(None, "a-2"), ["m", "m:base", "m:challenger"]),
        (BOTH, ["m", "m:base", "m:champion", "m:challenger"]),
    ],
)
def test_names_that_exist(live: Live, expected: list[str]) -> None:
    assert names_of("m", live) == expected
