"""The times that are passed to instruments, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from instrument_recorder import Recorder

from anysched import Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("wall", [False, True])
async def test_due_start_lateness_and_seconds(virtual_clock: VirtualClock, wall: bool) -> None:
    recorder = Recorder()
    async with Scheduler("test", instruments=[recorder], max_running=1) as scheduler:
        start = virtual_clock.now()
        scheduler.schedule("first", anyio.sleep, 10)
        if wall:
            task = scheduler.schedule_at(start + timedelta(seconds=4), "second", anyio.sleep, 1)
        else:
            task = scheduler.schedule_later(4, "second", anyio.sleep, 1)
        await task
    started, (_, finished) = recorder.starts[1], recorder.runs
    assert started.due == start + timedelta(seconds=4)
    assert started.started == start + timedelta(seconds=10)
    assert started.lateness == pytest.approx(6)
    assert (finished.due, finished.started, finished.lateness) == (started.due, started.started, started.lateness)
    assert finished.seconds == pytest.approx(1)


async def test_each_run_of_a_recurring_task_has_its_due_time(virtual_clock: VirtualClock) -> None:
    recorder = Recorder()
    async with Scheduler("test", instruments=[recorder]) as scheduler:
        start = virtual_clock.now()
        moments = [start + timedelta(hours=hours) for hours in (1, 2, 3)]
        await scheduler.schedule_at_times(moments, "id", anyio.sleep, 60)
    assert [run.due for run in recorder.runs] == moments
    assert [run.seconds for run in recorder.runs] == pytest.approx([60, 60, 60])
    assert [run.lateness for run in recorder.runs] == pytest.approx([0, 0, 0], abs=0.001)


async def test_a_time_in_the_past_is_due_at_the_call(virtual_clock: VirtualClock) -> None:
    recorder = Recorder()
    async with Scheduler("test", instruments=[recorder]) as scheduler:
        await scheduler.schedule_at(virtual_clock.now() - timedelta(days=1), "id", anyio.sleep, 0)
    assert recorder.starts[0].due == virtual_clock.now()


async def test_when_the_wall_clock_is_set_during_a_run_the_seconds_are_elapsed_time(
    virtual_clock: VirtualClock,
) -> None:
    recorder = Recorder()

    async def work() -> None:
        virtual_clock.step_wall(timedelta(hours=1))
        await anyio.sleep(5)

    async with Scheduler("test", instruments=[recorder]) as scheduler:
        await scheduler.schedule("id", work)
    assert recorder.runs[0].seconds == pytest.approx(5)
