"""When a learning run is due. Nothing here reads a clock or a store."""

from datetime import datetime, timedelta

from assistant.settings import LearningSettings


class Trigger:
    """Enough new examples start a run at once, a single one after a while."""

    @staticmethod
    def due(
        new_examples: int,
        last_run_at: datetime | None,
        now: datetime,
        settings: LearningSettings,
        *,
        failed_at: datetime | None = None,
    ) -> str | None:
        """Why a run should start now, in words; None when it should not.

        `new_examples` came since the last run that ended well. `last_run_at` is when the last run began;
        before the first one, when the first example came. `failed_at` is set when the last run failed.
        """
        if not settings.automatic or new_examples < 1:
            return None
        if failed_at is not None and now < failed_at + timedelta(hours=settings.retry_h):
            return None
        if new_examples >= settings.min_new_examples:
            return f"{new_examples} new examples, {settings.min_new_examples} start a run"
        if last_run_at is not None and now >= last_run_at + timedelta(hours=settings.every_h):
            some = "1 new example" if new_examples == 1 else f"{new_examples} new examples"
            return f"{some} and {settings.every_h:g} h since the last run"
        return None

    @staticmethod
    def next_at(
        new_examples: int,
        last_run_at: datetime | None,
        settings: LearningSettings,
        *,
        failed_at: datetime | None = None,
    ) -> datetime | None:
        """When a run becomes due if nothing else comes; None when it never would."""
        if not settings.automatic or new_examples < 1:
            return None
        retry = None if failed_at is None else failed_at + timedelta(hours=settings.retry_h)
        if new_examples >= settings.min_new_examples:
            return retry
        if last_run_at is None:
            return None
        due = last_run_at + timedelta(hours=settings.every_h)
        return due if retry is None else max(due, retry)
