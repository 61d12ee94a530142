"""The scheduler in virtual time: delays, the wall clock and its steps, order. Exact, on both backends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from anyio import to_thread

from anysched import Scheduler
from anysched.testing import VirtualClock
from support import nothing, timeline_of

pytestmark = pytest.mark.anyio

START = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

Seen = dict[object, tuple[datetime, float]]
Note = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def seen() -> Seen:
    return {}


@pytest.fixture
def note(seen: Seen, virtual_clock: VirtualClock) -> Note:
    async def note(key: object = None) -> None:
        seen[key] = virtual_clock.now(), virtual_clock.monotonic()

    return note


@pytest.fixture
def manual(virtual_clock: VirtualClock) -> VirtualClock:
    virtual_clock.autojump = False
    return virtual_clock


async def test_in_thirty_days(seen: Seen, note: Note) -> None:
    async with Scheduler("test") as scheduler:
        task = scheduler.schedule_later(timedelta(days=30), "x", note, "x")
        assert task.due == datetime(2025, 1, 31, tzinfo=UTC)
        await scheduler.join()
    assert seen == {"x": (datetime(2025, 1, 31, tzinfo=UTC), 30 * 86_400)}


async def test_at_a_time_across_a_change_to_summer_time(seen: Seen, note: Note) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    async with Scheduler("test") as scheduler:
        # The clocks go forward on 30 March, at 1:00 UTC.
        scheduler.schedule_at(datetime(2025, 3, 29, 12, tzinfo=berlin), "before", note, "before")
        scheduler.schedule_at(datetime(2025, 3, 30, 12, tzinfo=berlin), "after", note, "after")
        scheduler.schedule_at(datetime(2025, 10, 26, 2, 30, tzinfo=berlin, fold=1), "fold", note, "fold")
        await scheduler.join()
    assert {key: moment for key, (moment, _) in seen.items()} == {
        "before": datetime(2025, 3, 29, 11, tzinfo=UTC),
        "after": datetime(2025, 3, 30, 10, tzinfo=UTC),
        "fold": datetime(2025, 10, 26, 1, 30, tzinfo=UTC),
    }
    assert seen["after"][1] - seen["before"][1] == 23 * 3600


async def test_a_suspend_of_two_hours(manual: VirtualClock, seen: Seen, note: Note) -> None:
    """The wall clock continues in the meantime, elapsed time does not."""
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + HOUR, "at", note, "at")
        scheduler.schedule_later(HOUR, "later", note, "later")
        await manual.advance(600)
        assert seen == {}
        manual.suspend(2 * HOUR)
        assert seen == {}
        await manual.settle()
        assert seen == {"at": (START + timedelta(minutes=130), 600)}
        await manual.advance(3000)
        assert seen["later"] == (START + 3 * HOUR, 3600)


async def test_an_ntp_step_of_an_hour_forward(manual: VirtualClock, seen: Seen, note: Note) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + timedelta(minutes=90), "at", note, "at")
        scheduler.schedule_later(timedelta(minutes=90), "later", note, "later")
        await manual.advance(600)
        manual.step_wall(HOUR)
        await manual.advance(0)
        assert seen == {}
        await manual.advance(1200)
        assert seen == {"at": (START + timedelta(minutes=90), 1800)}
        await manual.advance(3600)
        assert seen["later"] == (START + timedelta(minutes=150), 5400)


async def test_an_ntp_step_of_an_hour_back(virtual_clock: VirtualClock, seen: Seen, note: Note) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + timedelta(minutes=90), "at", note, "at")
        scheduler.schedule_later(timedelta(minutes=90), "later", note, "later")
        await anyio.sleep(600)
        virtual_clock.step_wall(-HOUR)
        await scheduler.join()
    assert seen == {
        "later": (START + timedelta(minutes=30), 5400),
        "at": (START + timedelta(minutes=90), 9000),
    }


async def test_a_step_that_nobody_tells_of_is_found_by_the_recheck(
    manual: VirtualClock, seen: Seen, note: Note
) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + HOUR, "at", note, "at")
        await manual.advance(600)
        manual.step_wall(HOUR, notify=False)
        await manual.advance(29.999)
        assert seen == {}
        await manual.advance(0.001)
        assert seen == {"at": (START + HOUR + timedelta(seconds=630), 630)}


async def test_a_silent_step_is_found_under_autojump_too(virtual_clock: VirtualClock, seen: Seen, note: Note) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + HOUR, "at", note, "at")
        await anyio.sleep(600)
        virtual_clock.suspend(HOUR, notify=False)
        await scheduler.join()
    assert seen == {"at": (START + HOUR + timedelta(seconds=630), 630)}


async def test_a_silent_step_is_found_in_time_if_the_task_is_due_before_the_recheck(
    manual: VirtualClock, seen: Seen, note: Note
) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + timedelta(seconds=10), "at", note, "at")
        await manual.settle()
        manual.suspend(5, notify=False)
        await manual.advance(60)
        assert seen == {"at": (START + timedelta(seconds=15), 10)}


async def test_a_silent_step_back_makes_nothing_early(virtual_clock: VirtualClock, seen: Seen, note: Note) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + HOUR, "at", note, "at")
        await anyio.sleep(600)
        virtual_clock.step_wall(-HOUR, notify=False)
        await scheduler.join()
    assert seen == {"at": (START + HOUR, 7200)}


@pytest.mark.parametrize(("step", "found"), [(HOUR, 630), (-HOUR, 7200)])
async def test_with_a_recheck_interval_the_scheduler_polls_as_in_real_time(
    anyio_backend_name: Any, step: timedelta, found: float
) -> None:
    clock = VirtualClock(recheck_interval=30)
    seen = []

    async def note() -> None:
        seen.append((clock.now(), clock.monotonic()))

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule_at(START + HOUR, "at", note)
            await anyio.sleep(610)
            clock.step_wall(step, notify=False)
            await scheduler.join()

    name, options = clock.backend(anyio_backend_name)
    await to_thread.run_sync(lambda: anyio.run(main, backend=name, backend_options=options))
    assert seen == [(START + timedelta(seconds=found) + step, found)]


async def test_there_is_no_polling_when_steps_are_announced(
    anyio_backend_name: Any, virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anysched._core import dispatcher as dispatcher_module

    sleeps = 0
    sleep = dispatcher_module.Dispatcher._sleep

    async def counting(self: dispatcher_module.Dispatcher) -> None:
        nonlocal sleeps
        sleeps += 1
        await sleep(self)

    monkeypatch.setattr(dispatcher_module.Dispatcher, "_sleep", counting)
    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + timedelta(days=30), "x", anyio.sleep, 0)
        await scheduler.join()
    assert sleeps <= 3


async def test_the_clock_is_not_called_by_schedulers_that_are_closed(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test"):
        await virtual_clock.settle()
        assert timeline_of(virtual_clock).subscriber_count == 1
    assert timeline_of(virtual_clock).subscriber_count == 0
    virtual_clock.step_wall(5)


def test_in_real_time_nobody_tells() -> None:
    from anysched._core.clock import SystemClock

    unsubscribe = SystemClock(lambda: 0.0).subscribe(pytest.fail)
    unsubscribe()


def test_a_subscription_can_be_ended_after_the_run() -> None:
    clock = VirtualClock()
    calls = []

    async def main() -> Callable[[], object]:
        unsubscribe = clock.subscribe(lambda: calls.append(clock.now()))
        clock.step_wall(60)
        return unsubscribe

    name, options = clock.backend("asyncio")
    unsubscribe = anyio.run(main, backend=name, backend_options=options)
    anyio.run(main, backend=name, backend_options=options)
    unsubscribe()
    assert calls == [START + timedelta(minutes=1)] * 2


async def test_first_steps_of_tasks_due_at_one_instant_run_in_the_order_of_the_calls(
    virtual_clock: VirtualClock,
) -> None:
    """trio itself shuffles tasks that become runnable in one tick."""
    started = []

    async def task(number: int) -> None:
        started.append((number, virtual_clock.monotonic()))
        await anyio.sleep(1)

    async with Scheduler("test") as scheduler:
        for number in range(0, 300, 3):
            scheduler.schedule_later(60, number, task, number)
            scheduler.schedule_at(START + timedelta(seconds=60), number + 1, task, number + 1)
            scheduler.schedule_later(timedelta(minutes=1), number + 2, task, number + 2)
        await scheduler.join()
    assert started == [(number, 60) for number in range(300)]


async def test_a_task_that_reschedules_itself_keeps_its_beat_for_a_year(virtual_clock: VirtualClock) -> None:
    beats = []

    async def beat() -> None:
        beats.append(virtual_clock.now())
        if len(beats) < 365:
            scheduler.schedule_at(virtual_clock.now() + timedelta(days=1), "beat", beat, on_conflict="follow")

    async with Scheduler("test") as scheduler:
        scheduler.schedule_at(START + timedelta(days=1), "beat", beat)
        await scheduler.join()
    assert beats == [START + timedelta(days=day) for day in range(1, 366)]


@pytest.mark.parametrize("years", [273, 600, 2000, 7900])
async def test_time_moves_past_272_years(anyio_backend_name: Any, years: int) -> None:
    """Neighbouring floats are more than a microsecond apart there, and wall time is in microseconds."""
    clock = VirtualClock(datetime(1000, 1, 1, tzinfo=UTC), busy_limit=5000)
    late: list[timedelta] = []

    async def note(due: datetime) -> None:
        late.append(clock.now() - due)

    async def main() -> None:
        await anyio.sleep(years * 365.25 * 86_400 + 0.123)
        async with Scheduler("test") as scheduler:
            for microseconds in (1, 2, 3, 7, 100, 1_000_001, 3_600_000_001):
                due = clock.now() + timedelta(microseconds=microseconds)
                scheduler.schedule_at(due, "at", note, due)
                scheduler.schedule_later(microseconds / 1e6, "later", nothing)
                await scheduler.join()
                due = clock.now() + timedelta(microseconds=microseconds)
                await clock.travel_to(due)
                await note(due)
            begin = clock.monotonic()
            task = scheduler.schedule_every(0.1, "every", nothing)
            while task.run_count < 10:
                await anyio.sleep(0.05)
            assert abs(clock.monotonic() - begin - 1) < 0.06
            task.cancel()
            last = datetime.max.replace(tzinfo=UTC)
            scheduler.schedule_at(last, "at", note, last)
            await scheduler.join()

    name, options = clock.backend(anyio_backend_name)
    await to_thread.run_sync(lambda: anyio.run(main, backend=name, backend_options=options))
    assert len(late) == 15
    assert timedelta(0) <= min(late) <= max(late) <= timedelta(microseconds=32)
