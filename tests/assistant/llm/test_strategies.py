from hypothesis import given
from hypothesis import strategies as st

from assistant.llm.catalog import ModelSpec
from assistant.llm.strategies import Candidate, by_priority, priority
from assistant.llm.types import ChatRequest

REQUEST = ChatRequest("auto", ())


def candidate(name: str, rank: int, available: bool = True, in_flight: int = 0) -> Candidate:
    spec = ModelSpec.model_validate(
        {"name": name, "engine": "ollama", "remote_model": "m", "priority": rank, "slots": 4}
    )
    return Candidate(spec, name, available, in_flight)


def order(*candidates: Candidate) -> list[str]:
    return [c.backend for c in priority(REQUEST, candidates)]


def test_lower_numbers_go_first() -> None:
    assert order(candidate("b", 2), candidate("a", 1)) == ["a", "b"]


def test_other_numbers_count_for_those_that_are_named() -> None:
    ordered = by_priority({"a": 5})(REQUEST, [candidate("a", 1), candidate("b", 2), candidate("c", 9)])
    assert [c.backend for c in ordered] == ["b", "a", "c"]


def test_unavailable_ones_go_last_but_stay() -> None:
    assert order(candidate("a", 1, available=False), candidate("b", 9)) == ["b", "a"]


def test_of_equals_the_least_busy_goes_first_then_the_given_order() -> None:
    assert order(candidate("a", 1, in_flight=3), candidate("b", 1), candidate("c", 1)) == ["b", "c", "a"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 9)), max_size=12))
def test_nothing_is_lost_or_invented(rows: list[tuple[int, bool, int]]) -> None:
    given_ones = [candidate(f"m{n}", *row) for n, row in enumerate(rows)]
    ordered = priority(REQUEST, given_ones)
    assert sorted(c.backend for c in ordered) == sorted(c.backend for c in given_ones)
    assert [c.available for c in ordered] == sorted((c.available for c in given_ones), reverse=True)
