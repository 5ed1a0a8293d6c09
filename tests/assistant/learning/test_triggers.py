from datetime import UTC, datetime, timedelta

import pytest

from assistant.learning.triggers import Trigger
from assistant.settings import LearningSettings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SETTINGS = LearningSettings(min_new_examples=10, every_h=24, retry_h=1)


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("new", "last", "failed", "due"),
    [
        (0, None, None, False),
        (0, hours_ago(1000), None, False),
        (9, None, None, False),
        (9, hours_ago(23.9), None, False),
        (10, None, None, True),
        (10, hours_ago(0.01), None, True),
        (1, hours_ago(24), None, True),
        (50, hours_ago(2), hours_ago(0.5), False),
        (50, hours_ago(2), hours_ago(1), True),
        (1, hours_ago(48), hours_ago(0.1), False),
    ],
)
def test_due(new: int, last: datetime | None, failed: datetime | None, due: bool) -> None:
    reason = Trigger.due(new, last, NOW, SETTINGS, failed_at=failed)
    assert (reason is not None) is due
    assert Trigger.due(new, last, NOW, SETTINGS.model_copy(update={"automatic": False})) is None


def test_the_reason_says_what_happened() -> None:
    assert Trigger.due(12, None, NOW, SETTINGS) == "12 new examples, 10 start a run"
    assert Trigger.due(1, hours_ago(30), NOW, SETTINGS) == "1 new example and 24 h since the last run"


@pytest.mark.parametrize(
    ("new", "last", "failed"),
    [(3, hours_ago(2), None), (3, hours_ago(23.5), hours_ago(0)), (30, hours_ago(3), hours_ago(0.2))],
)
def test_the_announced_time_is_the_first_at_which_it_is_due(
    new: int, last: datetime | None, failed: datetime | None
) -> None:
    at = Trigger.next_at(new, last, SETTINGS, failed_at=failed)
    assert at is not None
    assert Trigger.due(new, last, at, SETTINGS, failed_at=failed)
    assert not Trigger.due(new, last, at - timedelta(seconds=1), SETTINGS, failed_at=failed)


def test_nothing_is_announced_where_nothing_waits() -> None:
    assert Trigger.next_at(0, hours_ago(2), SETTINGS) is None
    assert Trigger.next_at(3, None, SETTINGS) is None
