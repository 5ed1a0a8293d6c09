"""The events of a job as server-sent events, from any point on, until the job has ended."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from assistant.errors import InvalidInput
from assistant.stores.jobs import Job, JobRepository
from serve_app.api import sse

LAST_EVENTS = {"done", "error"}
POLL_S = (0.1, 1.0)
"""Shortest and longest pause between two looks for events."""


async def job_events(
    jobs: JobRepository, job: Job, after: int, ended: Callable[[Job | None], bytes]
) -> AsyncGenerator[bytes, None]:
    """Events with a `seq` above `after`. `ended` tells of a job that ended without a last event."""
    pause_s = POLL_S[0]
    # Sent at once, so that the browser knows that it is connected, and reconnects soon when it is not.
    yield b"retry: 1000\n\n"
    while True:
        # Asked before the events: a job that has ended by now writes no more of them.
        now = await jobs.get(job.id)
        found = await jobs.events_after(job.id, after)
        for event in found:
            after = event.seq
            yield sse.event(event.data, name=event.type, id=event.seq)
            if event.type in LAST_EVENTS:
                return
        if not found and (now is None or now.finished):
            yield ended(now)
            return
        pause_s = POLL_S[0] if found else min(POLL_S[1], pause_s * 1.5)
        await asyncio.sleep(pause_s)


def seq_of(header: str | None) -> int:
    """The `seq` in a Last-Event-ID; 0 without one. InvalidInput for something else."""
    if not header:
        return 0
    if not header.isascii() or not header.isdigit():
        raise InvalidInput(
            f"Last-Event-ID is {header!r}.", hint="Send the id of the last event.", field="Last-Event-ID"
        )
    return int(header)
