import pickle

import pytest

from assistant import errors
from assistant.errors import AssistantError, InvalidInput, NoBackend

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, AssistantError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_crosses_processes_whole(kind: type[AssistantError]) -> None:
    error = kind("what was wrong", hint="what to do", field="query")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.problem() == error.problem()
    assert 400 <= copy.status < 600


def test_problem_body_follows_rfc_9457() -> None:
    problem = InvalidInput("The query is empty.", hint="Type a question.", field="query").problem()
    assert problem["type"] == "urn:ai-assistant:problem:invalid_input"
    assert problem["status"] == 400
    assert problem["field"] == "query"
    assert not problem["retryable"]


def test_no_backend_lists_its_causes() -> None:
    error = NoBackend.after("auto", [{"backend": "a", "detail": "refused"}])
    assert error.problem()["causes"] == [{"backend": "a", "detail": "refused"}]


def test_codes_are_unique() -> None:
    codes = [k.code for k in KINDS]
    assert len(set(codes)) == len(codes)
