"""Helpers for the tests of recurring tasks."""

from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from anysched import ScheduledTask, Scheduler
from anysched.testing import VirtualClock

HOUR = 3600.0
DAY = 24 * HOUR
START = datetime(2025, 1, 1, tzinfo=UTC)
PENDING, RUNNING = ScheduledTask.Status.PENDING, ScheduledTask.Status.RUNNING
FINISHED, FAILED, CANCELLED = (ScheduledTask.Status[name] for name in ("FINISHED", "FAILED", "CANCELLED"))


def at(*seconds: float) -> list[datetime]:
    """Return the times a number of seconds after the start."""
    return [START + timedelta(seconds=second) for second in seconds]


class Runs:
    """A function whose runs take some time each and record when they started."""

    def __init__(self, *durations: float) -> None:
        self.starts: list[float] = []
        self.durations = list(durations)
        self.active = 0

    async def __call__(self) -> str:
        self.starts.append(round(anyio.current_time(), 6))
        self.active += 1
        assert self.active == 1, "two runs at once"
        try:
            if self.durations:
                await anyio.sleep(self.durations.pop(0))
            return "dropped"
        finally:
            self.active -= 1


class Listed:
    """An iterator that counts how often it was asked."""

    def __init__(self, *times: Any) -> None:
        self.times = list(times)
        self.asked = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.asked += 1
        if not self.times:
            raise StopIteration
        time = self.times.pop(0)
        if isinstance(time, BaseException):
            raise time
        return time


def by_generator(closed: list[bool], *seconds: float, forever: bool = False) -> Generator[datetime, None, None]:
    """A generator of times that records when it is closed or exhausted."""
    try:
        yield from at(*seconds)
        while forever:
            yield START
    finally:
        closed.append(True)


def recur(way: str, scheduler: Scheduler, task_id: Any, func: Any, *args: Any, **options: Any) -> ScheduledTask[None]:
    """Schedule something every 10 seconds, without end, by either call."""
    if way == "every":
        return scheduler.schedule_every(10, task_id, func, *args, **options)
    now = VirtualClock.current().now()
    times = (now + timedelta(seconds=10 * n) for n in range(1, 1_000_000))
    return scheduler.schedule_at_times(times, task_id, func, *args, **options)
