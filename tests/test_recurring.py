"""Recurring tasks, in virtual time: every moment is exact."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from anysched import Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

START = datetime(2025, 1, 1, tzinfo=UTC)


class Runs:
    """A function whose runs take their time, and note when they started."""

    def __init__(self, *durations: float) -> None:
        self.starts: list[float] = []
        self.durations = list(durations)

    async def __call__(self) -> None:
        self.starts.append(anyio.current_time())
        if self.durations:
            await anyio.sleep(self.durations.pop(0))


async def test_every_period_the_function_runs(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    task = scheduler.schedule_every(10, "id", runs)
    await virtual_clock.advance(35)
    assert runs.starts == [10, 20, 30]
    assert task.runs == 3
    assert task.due == START + timedelta(seconds=40)


async def test_each_time_the_function_runs_and_after_the_last_one_the_id_is_free(scheduler: Scheduler) -> None:
    runs = Runs()
    task = scheduler.schedule_each([START + timedelta(seconds=n) for n in (1, 5, 6)], "id", runs)
    assert await task is None
    assert runs.starts == [1, 5, 6]
    assert task.runs == 3
    assert "id" not in scheduler
