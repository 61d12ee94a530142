"""Recurring tasks, in virtual time: every moment is exact."""

import asyncio
import gc
import logging
import math
import random
import weakref
from collections.abc import Generator, Iterator
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anysched import DuplicateTaskError, ScheduledTask, Scheduler, current_scheduled_task
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from support import Gate, fail, forever, is_closed, nothing, settle, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0
DAY = 24 * HOUR
START = datetime(2025, 1, 1, tzinfo=UTC)
PENDING, RUNNING = ScheduledTask.Status.PENDING, ScheduledTask.Status.RUNNING
FINISHED, FAILED, CANCELLED = (ScheduledTask.Status[name] for name in ("FINISHED", "FAILED", "CANCELLED"))


def at(*seconds: float) -> list[datetime]:
    """The times so many seconds after the start."""
    return [START + timedelta(seconds=second) for second in seconds]


class Runs:
    """A function whose runs take their time, one after the other, and note when they started."""

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
    """A generator of times that notes when it is closed, or exhausted."""
    try:
        yield from at(*seconds)
        while forever:
            yield START
    finally:
        closed.append(True)


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def recur(way: str, scheduler: Scheduler, task_id: Any, func: Any, *args: Any, **options: Any) -> ScheduledTask[None]:
    """Schedule something every 10 seconds, for ever, by either call."""
    if way == "every":
        return scheduler.schedule_every(10, task_id, func, *args, **options)
    now = VirtualClock.current().now()
    times = (now + timedelta(seconds=10 * n) for n in range(1, 1_000_000))
    return scheduler.schedule_each(times, task_id, func, *args, **options)


@pytest.fixture(params=["every", "each"])
def way(request: pytest.FixtureRequest) -> str:
    """Either call."""
    return request.param


# One ID, one handle


async def test_the_task_is_pending_between_the_runs_and_running_during_one(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(4, 4)
    task = recur(way, scheduler, "id", runs)
    assert (task.status, task.due, task.runs) == (PENDING, *at(10), 0)
    await virtual_clock.advance(12)
    assert (task.status, task.due, task.runs) == (RUNNING, None, 1)
    await virtual_clock.advance(4)
    assert (task.status, task.due, task.runs) == (PENDING, *at(20), 1)
    with pytest.raises(anyio.TaskNotFinished):
        task.return_value  # noqa: B018
    await virtual_clock.advance(20)
    assert runs.starts == [10, 20, 30]
    assert scheduler.tasks["id"] is task
    assert task.name == "test_id"
    scheduler.cancel("id")
    assert (task.status, task.due, task.runs) == (CANCELLED, *at(40), 3)


async def test_a_task_that_does_not_recur_has_one_run(scheduler: Scheduler) -> None:
    task = scheduler.schedule_later(1, "id", nothing)
    dropped = scheduler.schedule_later(1, "dropped", nothing)
    assert task.runs == 0
    scheduler.cancel("dropped")
    await task
    assert (task.runs, dropped.runs) == (1, 0)


async def test_a_run_knows_its_task(scheduler: Scheduler, way: str) -> None:
    seen: list[Any] = []

    async def work() -> None:
        task = current_scheduled_task()
        assert task is not None
        seen.append((task, task.runs))
        if len(seen) == 3:
            task.cancel()

    task = recur(way, scheduler, "id", work)
    assert await task is None
    assert seen == [(task, 1), (task, 2), (task, 3)]


async def test_arguments_are_passed_to_each_run(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    seen: list[int] = []

    async def work(first: int, second: int) -> None:
        seen.extend([first, second])

    recur(way, scheduler, "id", work, 1, 2)
    await virtual_clock.advance(25)
    assert seen == [1, 2, 1, 2]


async def test_what_a_run_returns_is_dropped(scheduler: Scheduler) -> None:
    task = scheduler.schedule_each(at(1, 2), "id", value, 7)
    assert await task is None
    assert task.return_value is None
    assert task.exception is None


async def test_the_context_is_copied_for_each_run(scheduler: Scheduler, way: str) -> None:
    variable = ContextVar("variable", default="default")
    variable.set("of the call")
    given = copy_context()
    given.run(variable.set, "given")
    seen: list[str] = []

    async def work() -> None:
        seen.append(variable.get())
        variable.set("of a run")
        if len(seen) % 3 == 0:
            scheduler.cancel("id")

    await recur(way, scheduler, "id", work)
    await recur(way, scheduler, "id", work, context=given)
    assert seen == ["of the call"] * 3 + ["given"] * 3
    assert given.run(variable.get) == "given"


async def test_the_times_are_asked_in_the_context_of_the_call(scheduler: Scheduler) -> None:
    variable = ContextVar("variable", default="default")
    variable.set("of the call")
    seen: list[str] = []

    def times() -> Iterator[datetime]:
        for time in [*[START] * 99, *at(1, 2)]:
            seen.append(variable.get())
            yield time

    async def work() -> None:
        variable.set("of a run")

    await scheduler.schedule_each(times(), "id", work)
    assert set(seen) == {"of the call"}
    assert len(seen) == 101


# Every period


@pytest.mark.parametrize("period", [10, 10.0, timedelta(seconds=10), Decimal(10)])
async def test_every_period_the_function_runs(scheduler: Scheduler, virtual_clock: VirtualClock, period: Any) -> None:
    runs = Runs()
    scheduler.schedule_every(period, "id", runs)
    await virtual_clock.advance(35)
    assert runs.starts == [10, 20, 30]


@pytest.mark.parametrize(
    ("first", "starts"),
    [
        (None, [10, 20]),
        (0, [0, 10, 20]),
        (-5, [0, 10, 20]),
        (3, [3, 13, 23]),
        (timedelta(seconds=12), [12, 22]),
        (START + timedelta(seconds=4), [4, 14, 24]),
        (datetime(2025, 1, 1, 0, 0, 4), [4, 14, 24]),
        (START, [0, 10, 20]),
        # In the past: that counts as missed.
        (START - timedelta(seconds=4), [0, 6, 16]),
        (START - timedelta(seconds=44), [0, 6, 16]),
    ],
)
async def test_the_first_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, first: Any, starts: list[float]
) -> None:
    runs = Runs()
    scheduler.schedule_every(10, "id", runs, first=first)
    await virtual_clock.advance(25)
    assert runs.starts == starts


async def test_all_runs_since_a_first_time_in_the_past(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    scheduler.schedule_every(10, "id", runs, first=START - timedelta(seconds=24), missed="all")
    await virtual_clock.advance(20)
    assert runs.starts == [0, 0, 0, 6, 16]


async def test_nothing_drifts(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    """Neither by what the runs take, nor by rounding: a tenth of a second is no float."""
    runs = Runs(*[0.07] * 1_000)
    scheduler.schedule_every(0.1, "id", runs, first=0)
    await virtual_clock.advance(100.05)
    assert runs.starts == [round(n / 10, 6) for n in range(1_001)]


@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_a_first_time_is_true_to_the_wall_clock_and_the_rest_is_elapsed_time(
    scheduler: Scheduler, virtual_clock: VirtualClock, step: float
) -> None:
    runs = Runs()
    scheduler.schedule_every(HOUR, "id", runs, first=START + timedelta(hours=4))
    await virtual_clock.advance(HOUR)
    virtual_clock.step_wall(step)
    await virtual_clock.travel_to(START + timedelta(hours=5, minutes=30))
    virtual_clock.step_wall(step)
    await virtual_clock.advance(HOUR)
    begin = 4 * HOUR - step
    assert runs.starts == [begin, begin + HOUR, begin + 2 * HOUR]


async def test_a_first_time_that_is_overslept_is_where_the_periods_begin(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = Runs()
    scheduler.schedule_every(HOUR, "id", runs, first=START + timedelta(hours=2))
    await virtual_clock.advance(HOUR)
    virtual_clock.suspend(1.25 * HOUR)
    await virtual_clock.advance(2 * HOUR)
    assert runs.starts == [HOUR, 1.75 * HOUR, 2.75 * HOUR]  # 2:15, 3:00, 4:00


async def test_periods_are_elapsed_time(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    scheduler.schedule_every(10, "id", runs)
    await virtual_clock.advance(15)
    virtual_clock.step_wall(HOUR)
    virtual_clock.suspend(HOUR)
    await virtual_clock.advance(10)
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(10)
    assert runs.starts == [10, 20, 30]


# What was missed


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("skip", [10, 45, 50, 60]), ("all", [10, 45, 45, 45, 50, 60])],
)
async def test_a_long_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs(35)
    recur(way, scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(65)
    assert runs.starts == starts


async def test_runs_that_are_always_too_long_follow_one_another(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(*[25] * 10)
    recur(way, scheduler, "id", runs)
    await virtual_clock.advance(100)
    assert runs.starts == [10, 35, 60, 85]


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("skip", [10, 35, 40]), ("all", [10, 35, 35, 40])],
)
async def test_a_blocked_event_loop(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    recur(way, scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(15)
    virtual_clock._timeline._jump(35.0)
    await virtual_clock.settle()
    await virtual_clock.advance(10)
    assert runs.starts == starts


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("skip", [35, 40]), ("all", [35, 35, 35, 40])],
)
async def test_waiting_for_a_slot(virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]) -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        scheduler.schedule("in the way", anyio.sleep, 35)
        runs = Runs()
        task = recur(way, scheduler, "id", runs, missed=missed)
        await virtual_clock.advance(15)
        assert (task.status, task.due) == (PENDING, *at(10))
        await virtual_clock.advance(30)
        assert runs.starts == starts


async def test_recurring_tasks_take_turns_in_a_slot(virtual_clock: VirtualClock, way: str) -> None:
    started: list[str] = []

    async def work(name: str) -> None:
        started.append(name)
        await anyio.sleep(4)

    async with Scheduler("test", max_running=1) as scheduler:
        for name in "abc":
            recur(way, scheduler, name, work, name)
        await virtual_clock.advance(59)
    assert "".join(started[:12]) == "abc" * 4


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("skip", [10, 15, 20]), ("all", [10, *[15] * 360, 20])],
)
@pytest.mark.parametrize("how", ["suspend", "step"])
async def test_a_suspend_and_a_forward_step_miss_times(
    scheduler: Scheduler, virtual_clock: VirtualClock, how: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    recur("each", scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(15)
    if how == "suspend":
        virtual_clock.suspend(HOUR)
    else:
        virtual_clock.step_wall(HOUR)
    await virtual_clock.advance(9)
    assert runs.starts == starts


async def test_a_backward_step_never_runs_a_time_twice(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    seen: list[datetime] = []

    async def work() -> None:
        seen.append(virtual_clock.now())

    recur("each", scheduler, "id", work)
    for _ in range(5):
        await virtual_clock.advance(25)
        virtual_clock.step_wall(-20)
    assert seen == sorted(set(seen))
    assert seen == at(10, 20, 30, 40)


async def test_a_step_that_nobody_tells_is_found_by_the_re_check(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = Runs()
    scheduler.schedule_each([START + timedelta(hours=n) for n in (1, 2)], "id", runs)
    await virtual_clock.advance(10)
    virtual_clock.step_wall(HOUR, notify=False)
    await virtual_clock.advance(50)
    assert runs.starts == [40]


async def test_a_year_asleep_with_a_period_of_a_millisecond(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs(365 * DAY)
    scheduler.schedule_every(0.001, "id", runs, first=0)
    await virtual_clock.advance(365 * DAY + 0.0025)
    assert runs.starts == [0, 365 * DAY, 365 * DAY + 0.001, 365 * DAY + 0.002]


async def test_the_shortest_period(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    scheduler.schedule_every(timedelta(microseconds=1), "id", runs)
    await virtual_clock.advance(10e-6)
    assert 5 <= len(runs.starts) <= 10
    assert len(set(runs.starts)) == len(runs.starts)


# Jitter


@pytest.mark.parametrize("missed", ["skip", "all"])
async def test_jitter_puts_off_each_run_and_does_not_add_up(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any
) -> None:
    random.seed(7)
    runs = Runs()
    recur(way, scheduler, "id", runs, jitter=4, missed=missed)
    await virtual_clock.advance(1_005)
    offsets = [start - 10 * (n + 1) for n, start in enumerate(runs.starts)]
    assert len(offsets) == 100
    assert all(0 <= offset <= 4 for offset in offsets)
    assert min(offsets) < 0.5
    assert max(offsets) > 3.5
    random.seed(7)
    assert offsets == pytest.approx([random.uniform(0, 4) for _ in offsets], abs=2e-6)


async def test_no_jitter_draws_no_number(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    random.seed(7)
    recur(way, scheduler, "id", nothing)
    await virtual_clock.advance(25)
    number = random.random()
    random.seed(7)
    assert number == random.random()


async def test_with_jitter_what_was_missed_is_caught_up_once(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed time is one that would have been due with the offset of the run before."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    runs = Runs(23)
    recur(way, scheduler, "id", runs, jitter=5)
    await virtual_clock.advance(60)
    # It starts at 15 and ends at 38, when 20 and 30 have been missed, as they would have been due at 25 and 35.
    assert runs.starts == [15, 38, 45, 55]


async def test_with_jitter_a_time_whose_turn_has_not_come_is_not_missed(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    runs = Runs(8)
    recur(way, scheduler, "id", runs, jitter=5)
    await virtual_clock.advance(40)
    assert runs.starts == [15, 25, 35]


async def test_jitter_of_times_may_be_of_any_length(scheduler: Scheduler) -> None:
    random.seed(1)
    runs = Runs()
    task = scheduler.schedule_each(at(1, 2, 3), "id", runs, jitter=timedelta(hours=1), missed="all")
    assert task.due is not None
    await task
    assert len(runs.starts) == 3
    assert runs.starts[0] > 1
    first = START + timedelta(days=1)
    task = scheduler.schedule_every(DAY, "id", runs, first=first, jitter=HOUR)
    assert task.due is not None
    assert first < task.due < first + timedelta(hours=1)


# Each time


async def test_each_time_the_function_runs_and_after_the_last_one_the_id_is_free(scheduler: Scheduler) -> None:
    runs = Runs()
    task = scheduler.schedule_each(at(1, 5, 6), "id", runs)
    assert task.due == START + timedelta(seconds=1)
    assert await task is None
    assert (task.status, task.due, task.runs) == (FINISHED, None, 3)
    assert runs.starts == [1, 5, 6]
    assert "id" not in scheduler


async def test_any_iterable_will_do(scheduler: Scheduler) -> None:
    for times in (at(1), tuple(at(2)), {START + timedelta(seconds=3): 1}, iter(at(4)), [datetime(2025, 1, 1, 0, 0, 5)]):
        await scheduler.schedule_each(times, "id", nothing)
    assert anyio.current_time() == 5


async def test_no_more_times_are_asked_for_than_needed(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    times = Listed(*at(10, 20, 30, 40))
    scheduler.schedule_each(times, "id", Runs(5, 15))
    assert times.asked == 1
    await virtual_clock.advance(12)
    assert times.asked == 1
    await virtual_clock.advance(5)
    assert times.asked == 2
    await virtual_clock.advance(19)
    # Whether 30 is the latest time that was missed shows in the next one, which is kept.
    assert times.asked == 3 + 1
    await virtual_clock.advance(10)
    assert times.asked == 5


async def test_times_in_the_past_are_caught_up_once(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    times = [START + timedelta(hours=n) for n in range(-1_000, 3)]
    task = scheduler.schedule_each(times, "id", runs)
    assert task.due == START
    await task
    assert runs.starts == [0, HOUR, 2 * HOUR]


async def test_all_times_in_the_past(scheduler: Scheduler) -> None:
    runs = Runs()
    await scheduler.schedule_each([START + timedelta(hours=n) for n in range(-100, 2)], "id", runs, missed="all")
    assert runs.starts == [0] * 101 + [HOUR]


async def test_no_times_at_all(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    task = scheduler.schedule_each([], "id", fail, ValueError())
    assert (task.status, task.due, task.runs) == (FINISHED, None, 0)
    assert "id" not in scheduler
    assert await task is None
    await scheduler.join()
    statistics = scheduler.statistics()
    assert (statistics.pending, statistics.started, statistics.finished, statistics.cancelled) == (0, 0, 0, 0)


async def test_no_times_at_all_free_an_id_that_is_held(scheduler: Scheduler) -> None:
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    assert scheduler.schedule_each([], "id", nothing) is holder
    gate = Gate()
    with pytest.raises(DuplicateTaskError):
        scheduler.schedule_each([], "id", nothing, on_conflict="error")
    assert scheduler.schedule_each([], "id", nothing, on_conflict="replace").status is FINISHED
    assert holder.status is CANCELLED
    assert "id" not in scheduler
    running = scheduler.schedule("id", gate)
    await settle()
    scheduler.schedule_each([], "id", nothing, on_conflict="follow")
    assert "id" not in scheduler
    gate.open.set()
    assert await running == "through"


async def test_somebody_who_waits_for_the_last_task_is_told_that_there_was_none(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    joined: list[bool] = []

    async def join() -> None:
        await scheduler.join()
        joined.append(True)

    async with anyio.create_task_group() as tg:
        scheduler.schedule_later(HOUR, "id", nothing)
        tg.start_soon(join)
        await virtual_clock.advance(1)
        scheduler.schedule_each([], "id", nothing, on_conflict="replace")
        await virtual_clock.settle()
        assert joined


async def test_a_time_that_does_not_advance_is_left_out(scheduler: Scheduler) -> None:
    runs = Runs()
    times = at(10, 10, 5, 20, 20, *[15] * 50, 30)
    task = scheduler.schedule_each(times, "id", runs)
    await task
    assert runs.starts == [10, 20, 30]


@pytest.mark.parametrize("missed", ["skip", "all"])
async def test_times_that_do_not_advance_end_the_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, missed: Any
) -> None:
    closed: list[bool] = []
    runs = Runs()
    task = scheduler.schedule_each(by_generator(closed, 10, 20, forever=True), "id", runs, missed=missed)
    await task.wait()
    assert (task.status, task.due, task.runs) == (FAILED, None, 2)
    assert "id" not in scheduler
    assert runs.starts == [10, 20]
    assert closed == [True]
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception
    assert isinstance(task.exception, ValueError)
    assert str(task.exception) == ("times does not advance: 100 in a row were not later than 2025-01-01T00:00:20+00:00")


async def test_ninety_nine_times_that_do_not_advance_are_borne(scheduler: Scheduler) -> None:
    runs = Runs()
    await scheduler.schedule_each(at(1, *[0] * 99, 2, *[2] * 99, 3), "id", runs)
    assert runs.starts == [1, 2, 3]


# What the iterable raises


@pytest.mark.parametrize(
    ("times", "error"),
    [
        (5, TypeError),
        (None, TypeError),
        (START, TypeError),
        ("2025-01-01", TypeError),
        ([1.5], TypeError),
        ([START.date()], TypeError),
        (lambda: Listed(ZeroDivisionError("x")), ZeroDivisionError),
        (lambda: Listed(KeyboardInterrupt("x")), KeyboardInterrupt),
    ],
)
async def test_what_is_raised_in_the_call_reaches_the_caller(
    scheduler: Scheduler, times: Any, error: type[BaseException]
) -> None:
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    with pytest.raises(error):
        scheduler.schedule_each(times() if callable(times) else times, "id", nothing, on_conflict="replace")
    assert scheduler.tasks == {"id": holder}
    assert holder.status is PENDING


@pytest.mark.parametrize("late", [ZeroDivisionError("x"), "no datetime", asyncio.CancelledError()])
async def test_what_is_raised_later_ends_the_task_as_failed(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, late: Any
) -> None:
    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule_each(Listed(*at(1), late), "id", nothing)
    await task.wait()
    assert task.status is FAILED
    assert task.exception is late or isinstance(task.exception, TypeError)
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception
    assert record.__dict__["task_id"] == "id"
    assert "id" not in scheduler
    assert sibling.status is RUNNING
    assert await scheduler.schedule("id", value, 7) == 7
    statistics = scheduler.statistics()
    assert (statistics.started, statistics.finished, statistics.failed) == (3, 2, 0)  # of the runs


async def test_the_last_run_and_the_iterable_may_both_fail(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule_each(Listed(*at(1), ValueError("times")), "id", fail, ValueError("run"))
    await task.wait()
    assert str(task.exception) == "times"
    assert [str(record.exc_info[1]) for record in errors(caplog) if record.exc_info] == ["run", "times"]


async def test_a_generator_that_is_running_cannot_schedule_itself(scheduler: Scheduler) -> None:
    def times() -> Iterator[datetime]:
        scheduler.schedule_each(generator, "id", nothing)
        yield START

    generator = times()
    with pytest.raises(ValueError, match="already executing"):
        next(generator)
    assert "id" not in scheduler


# A long search for the next time


async def turns(counter: list[int]) -> None:
    """Count the turns of the event loop."""
    while True:
        counter[0] += 1
        await checkpoint()


async def test_many_missed_times_do_not_hold_up_the_event_loop(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    asked_per_turn: dict[int, int] = {}
    counter = [0]

    def times(*, past: int) -> Iterator[datetime]:
        for n in range(past, 0, -1):
            asked_per_turn[counter[0]] = asked_per_turn.get(counter[0], 0) + 1
            yield START - timedelta(seconds=n)
        yield START + timedelta(hours=1)

    runs = Runs()
    async with anyio.create_task_group() as tg:
        tg.start_soon(turns, counter)
        tasks = [scheduler.schedule_each(times(past=3_000), n, runs) for n in range(3)]
        while any(task.status is not PENDING or task.due != START + timedelta(hours=1) for task in tasks):
            await checkpoint()
        tg.cancel_scope.cancel()
    assert sum(asked_per_turn.values()) == 9_000
    # One search goes on at a time; where runs end in the same turn, each of them begins one.
    assert max(asked_per_turn.values()) <= 400
    # (On trio, which shuffles the tasks, the dispatcher may have two turns between two of the counter's.)
    assert sorted(asked_per_turn.values())[-10] <= 200 + 1
    assert anyio.current_time() == 0
    await virtual_clock.advance(HOUR)
    assert runs.starts == [0, 0, 0, HOUR, HOUR, HOUR]


def long_ago(closed: list[bool], count: int = 1_000_000, *, after: float | None = None) -> Iterator[datetime]:
    """A generator that takes long to search, since so much lies in the past."""
    try:
        yield START - timedelta(days=400)
        for n in range(count, 0, -1):
            yield START - timedelta(seconds=n)
        if after is not None:
            yield START + timedelta(seconds=after)
    finally:
        closed.append(True)


async def search(scheduler: Scheduler, times: Iterator[datetime], runs: Runs) -> ScheduledTask[None]:
    """Schedule, and wait until the first run has ended and the search goes on."""
    task = scheduler.schedule_each(times, "id", runs)
    while not runs.starts or task.status is RUNNING:
        await checkpoint()
    await settle(5)
    assert (task.status, task.due) == (PENDING, START)
    return task


@pytest.mark.parametrize("how", ["cancel", "replace", "follow", "close"])
async def test_a_search_can_be_ended(virtual_clock: VirtualClock, how: str) -> None:
    closed: list[bool] = []
    runs = Runs()
    async with Scheduler("test") as scheduler:
        task = await search(scheduler, long_ago(closed), runs)
        match how:
            case "cancel":
                scheduler.cancel("id")
            case "close":
                assert await scheduler.close(grace=5) == [task]
            case _:
                policy: Any = how
                assert await scheduler.schedule("id", value, 7, on_conflict=policy) == 7
        assert (task.status, task.runs) == (CANCELLED, 1)
        assert closed == [True]
        await virtual_clock.settle()
    assert runs.starts == [0]


async def test_a_task_that_is_rescheduled_during_a_search_starts_and_searches_after(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    closed: list[bool] = []
    runs = Runs()
    task = await search(scheduler, long_ago(closed, 1_000, after=60), runs)
    assert scheduler.reschedule_later(30, "id")
    assert task.due == START + timedelta(seconds=30)
    await task
    assert runs.starts == [0, 30, 60]
    assert closed == [True]


async def test_a_search_may_find_nothing(scheduler: Scheduler) -> None:
    closed: list[bool] = []
    runs = Runs()
    task = await search(scheduler, long_ago(closed, 1_000), runs)
    await task
    # All but the first were missed before it started: it stood for them.
    assert (task.status, runs.starts, closed) == (FINISHED, [0], [True])


async def test_a_search_may_fail(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    def times() -> Iterator[datetime]:
        yield from long_ago([], 1_000)
        raise ValueError("in a search")

    task = await search(scheduler, times(), Runs())
    await task.wait()
    assert str(task.exception) == "in a search"
    assert len(errors(caplog)) == 1
    assert "id" not in scheduler
    await scheduler.join()


@pytest.mark.parametrize("how", ["cancel", "reschedule", "replace"])
@pytest.mark.parametrize("asked", [1, 500])
async def test_what_lists_the_times_may_meddle(
    scheduler: Scheduler, how: str, asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    """When a run has ended, and in a search."""
    closed: list[bool] = []

    def times() -> Iterator[datetime]:
        try:
            for n, time in enumerate(long_ago(closed, 1_000, after=60)):
                if n == asked:
                    match how:
                        case "cancel":
                            scheduler.cancel("id")
                        case "reschedule":
                            assert scheduler.reschedule_later(20, "id") is (asked > 1)
                        case _:
                            scheduler.schedule("id", value, 7, on_conflict="replace")
                yield time
        finally:
            closed.append(True)

    runs = Runs()
    task = scheduler.schedule_each(times(), "id", runs)
    await task.wait()
    await scheduler.join()
    if how == "reschedule":
        assert runs.starts == ([0, 60] if asked == 1 else [0, 20, 60])
        assert task.status is FINISHED
    else:
        assert runs.starts == [0]
        assert task.status is (CANCELLED if asked > 1 else FINISHED)
    gc.collect()
    assert closed == [True, True]
    assert not errors(caplog)


# Failures


async def test_a_run_that_fails_is_logged_and_the_next_one_takes_place(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    task = recur(way, scheduler, "id", fail, ValueError("x"))
    await virtual_clock.advance(35)
    records = errors(caplog)
    assert [record.getMessage() for record in records] == ["Error in task 'id'!"] * 3
    assert all(record.exc_info and isinstance(record.exc_info[1], ValueError) for record in records)
    assert (task.status, task.runs) == (PENDING, 3)
    with pytest.raises(anyio.TaskNotFinished):
        task.exception  # noqa: B018
    statistics = scheduler.statistics()
    assert (statistics.started, statistics.failed, statistics.running, statistics.pending) == (3, 3, 0, 1)


async def test_a_failure_of_the_last_run_is_not_that_of_the_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule_each(at(1, 2), "id", fail, ValueError("x"))
    assert await task is None
    assert task.status is FINISHED
    assert len(errors(caplog)) == 2


async def test_a_function_that_returns_no_coroutine_fails_in_each_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    recur(way, scheduler, "id", lambda: 5)
    await virtual_clock.advance(25)
    assert len(errors(caplog)) == 2


async def test_a_log_handler_may_cancel_the_task_whose_failure_it_logs(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Canceller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            scheduler.cancel("id")

    monkeypatch.setattr(logging.getLogger("anysched.test"), "handlers", [Canceller()])
    task = recur(way, scheduler, "id", fail, ValueError("x"))
    await virtual_clock.advance(25)
    assert (task.status, task.runs) == (CANCELLED, 1)
    assert scheduler.statistics().running == 0


async def test_a_stray_cancellation_ends_only_its_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, anyio_backend_name: str, way: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no stray cancellations")

    async def work() -> None:
        raise asyncio.CancelledError

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert (task.status, task.runs) == (PENDING, 2)
    assert scheduler.statistics().cancelled == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["run", "times", "search"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_to_end_the_process_propagate(backend: Any, where: str, error: type[BaseException]) -> None:
    tasks: list[ScheduledTask[None]] = []

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            if where == "run":
                tasks.append(scheduler.schedule_each(at(1, 2), "id", fail, error("x")))
            else:
                past = at(*range(-1_000, -500)) if where == "search" else []
                tasks.append(scheduler.schedule_each(Listed(*past, *at(-400), error("x")), "id", nothing))
            await anyio.sleep(1_000)

    name, options = VirtualClock().backend(backend)
    with pytest.raises(BaseException) as info:
        anyio.run(main, backend=name, backend_options=options)
    raised = info.value
    while isinstance(raised, BaseExceptionGroup):
        (raised,) = raised.exceptions
    assert type(raised) is error
    assert tasks[0].status is FAILED
    assert isinstance(tasks[0].exception, error)
    assert tasks[0].runs == 1


# Ending


async def test_a_pending_task_is_dropped(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    runs = Runs()
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(15)
    assert scheduler.cancel("id")
    assert task.status is CANCELLED
    with pytest.raises(anyio.TaskCancelled):
        await task
    await virtual_clock.advance(60)
    assert runs.starts == [10]
    await scheduler.join()


@pytest.mark.parametrize("by", ["id", "handle", "all"])
async def test_a_running_task_is_cancelled_and_does_not_recur(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, by: str
) -> None:
    runs = Runs(5)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    match by:
        case "id":
            scheduler.cancel("id")
        case "handle":
            task.cancel()
        case _:
            scheduler.cancel_all()
    assert "id" not in scheduler
    with pytest.raises(anyio.TaskCancelled):
        await task
    await virtual_clock.advance(60)
    assert runs.starts == [10]
    assert scheduler.statistics().cancelled == 1


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_from_inside_it_ends_with_the_outcome_of_that_run(
    scheduler: Scheduler, way: str, child: bool, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[float] = []

    async def cancel() -> None:
        scheduler.cancel("id")

    async def work() -> str:
        if task.runs == 2:
            async with anyio.create_task_group() as tg:
                if child:
                    tg.start_soon(cancel)
                else:
                    scheduler.cancel("id")
            assert "id" not in scheduler
            await anyio.sleep(100)
            ended.append(anyio.current_time())
            if fails:
                raise ValueError("x")
        return "dropped"

    task = recur(way, scheduler, "id", work)
    await task.wait()
    assert ended == [120]
    assert task.runs == 2
    if fails:
        assert str(task.exception) == "x"
        assert len(errors(caplog)) == 1
    else:
        assert task.return_value is None
    await scheduler.join()


async def test_replaced_by_another_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    runs = Runs(5)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    assert await scheduler.schedule("id", value, 7, on_conflict="replace") == 7
    assert task.status is CANCELLED
    assert anyio.current_time() == 12
    await virtual_clock.advance(50)
    assert runs.starts == [10]


async def test_followed_by_another_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    task = recur(way, scheduler, "id", Runs(5))
    await virtual_clock.advance(12)
    other = Runs()
    other_task = recur(way, scheduler, "id", other, on_conflict="follow")
    assert other_task is not task
    assert await task is None
    assert anyio.current_time() == 15
    await virtual_clock.advance(20)
    assert other.starts == [22, 32]


async def test_a_recurring_task_takes_over_from_inside(scheduler: Scheduler, way: str) -> None:
    """A task may give itself another period."""
    starts: list[float] = []

    async def work(period: float) -> None:
        starts.append(anyio.current_time())
        if len(starts) == 2:
            scheduler.schedule_every(50, "id", work, 50, on_conflict="replace")
            await anyio.sleep(7)
        if len(starts) == 4:
            scheduler.cancel("id")

    await recur(way, scheduler, "id", work, 10)
    await scheduler.join()
    assert starts == [10, 20, 70, 120]


async def test_keep_returns_the_handle_of_the_holder(scheduler: Scheduler, way: str) -> None:
    closed: list[bool] = []
    task = recur(way, scheduler, "id", nothing)
    assert recur(way, scheduler, "id", nothing) is task
    assert scheduler.schedule_each(by_generator(closed, 1), "id", nothing) is task
    assert closed == [True]
    one = scheduler.schedule_later(5, "one", nothing)
    assert recur(way, scheduler, "one", nothing) is one
    with pytest.raises(DuplicateTaskError):
        recur(way, scheduler, "one", nothing, on_conflict="error")


async def test_a_run_that_schedules_its_own_id_again_is_warned(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        scheduler.schedule("id", nothing)

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert task.runs == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


async def test_a_run_cannot_wait_for_its_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    refused: list[str] = []

    async def work() -> None:
        for wait in (task.wait, scheduler.join, scheduler.close):
            with pytest.raises(RuntimeError, match="forever"):
                await wait()
            refused.append(wait.__name__)

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert refused == ["wait", "join", "close"] * 2


async def test_close_lets_a_run_finish_and_drops_what_is_pending(virtual_clock: VirtualClock, way: str) -> None:
    async with Scheduler("test") as scheduler:
        runs = Runs(5)
        finishing = recur(way, scheduler, "finishing", runs)
        late = recur(way, scheduler, "late", Runs(500))
        await virtual_clock.advance(5)
        pending = recur(way, scheduler, "pending", Runs())
        await virtual_clock.advance(7)
        assert await scheduler.close(grace=20) == [pending, late]
        assert anyio.current_time() == 32
    assert (finishing.status, finishing.runs) == (FINISHED, 1)
    assert await finishing is None
    assert (pending.status, pending.due) == (CANCELLED, *at(15))
    assert late.status is CANCELLED
    assert runs.starts == [10]


async def test_leaving_cancels_all(virtual_clock: VirtualClock, way: str) -> None:
    async with Scheduler("test") as scheduler:
        child = scheduler.child("child")
        tasks = [recur(way, scheduler, 0, Runs(500)), recur(way, child, 1, Runs(500)), recur(way, scheduler, 2, Runs())]
        await virtual_clock.advance(15)
    assert [task.status for task in tasks] == [CANCELLED] * 3
    assert not scheduler.tasks


@pytest.mark.parametrize("pending", [False, True])
async def test_a_scope_that_is_cancelled_around_the_scheduler(
    virtual_clock: VirtualClock, way: str, pending: bool
) -> None:
    with anyio.CancelScope() as scope:
        async with Scheduler("test") as scheduler:
            task = recur(way, scheduler, "id", Runs() if pending else Runs(500))
            await virtual_clock.advance(15)
            scope.cancel()
            await anyio.sleep(HOUR)
    assert (task.status, task.runs) == (CANCELLED, 1)


@pytest.mark.parametrize("end", ["exhausted", "cancelled", "cancelled in a run", "replaced", "closed", "failed"])
async def test_a_generator_is_closed_when_the_task_ends(virtual_clock: VirtualClock, end: str) -> None:
    closed: list[bool] = []
    async with Scheduler("test") as scheduler:
        times = by_generator(closed, 1, 2, 60, forever=end == "failed")
        runs = Runs(0, 10) if end == "cancelled in a run" else Runs()
        task = scheduler.schedule_each(times, "id", runs)
        await virtual_clock.advance(5)
        assert not closed
        match end:
            case "cancelled" | "cancelled in a run":
                task.cancel()
            case "replaced":
                scheduler.schedule("id", nothing, on_conflict="replace")
            case "closed":
                await scheduler.close()
            case _:
                pass
        await task.wait()
        assert closed == [True]


async def test_the_generator_of_an_iterable_is_closed_too(scheduler: Scheduler) -> None:
    closed: list[bool] = []

    class Rule:
        def __iter__(self) -> Iterator[datetime]:
            return by_generator(closed, 10, 20)

    scheduler.schedule_each(Rule(), "id", nothing).cancel()
    assert closed == [True]


@pytest.mark.parametrize("state", ["pending", "in a run", "exhausted"])
async def test_a_generator_that_fails_to_close_is_logged(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    def times() -> Iterator[datetime]:
        try:
            yield from at(1, 2)
        finally:
            raise ValueError("cleanup")

    task = scheduler.schedule_each(times(), "id", Runs(0, 5))
    await virtual_clock.advance(1.5 if state == "pending" else 3)
    if state != "exhausted":
        task.cancel()
    await task.wait()
    assert task.status is (FAILED if state == "exhausted" else CANCELLED)
    assert "id" not in scheduler
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "cleanup"


async def test_a_generator_may_take_over_the_id_when_it_is_closed(scheduler: Scheduler) -> None:
    taken: list[ScheduledTask[Any]] = []

    def times() -> Iterator[datetime]:
        try:
            while True:
                yield START
        finally:
            taken.append(scheduler.schedule("id", value, 7))

    task = scheduler.schedule_each(times(), "id", nothing)
    await task.wait()
    assert task.status is FAILED
    assert await taken[0] == 7


# Rescheduling


@pytest.mark.parametrize(
    ("to", "missed", "starts"),
    [
        (3, "skip", [3, 20, 30, 40]),
        (12, "skip", [12, 20, 30, 40]),
        (25, "skip", [25, 30, 40]),
        (25, "all", [25, 25, 30, 40]),
    ],
)
@pytest.mark.parametrize("by", ["later", "at"])
async def test_rescheduling_moves_the_next_run_only(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, by: str, to: float, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    task = recur(way, scheduler, "id", runs, missed=missed)
    assert scheduler.reschedule_later(to, "id") if by == "later" else scheduler.reschedule_at(*at(to), "id")
    assert [task.due] == at(to)
    await virtual_clock.advance(45)
    assert runs.starts == starts


async def test_a_first_time_that_is_rescheduled_is_still_where_the_periods_begin(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = Runs()
    scheduler.schedule_every(10, "id", runs, first=START + timedelta(seconds=15))
    scheduler.reschedule_later(3, "id")
    await virtual_clock.advance(40)
    assert runs.starts == [3, 25, 35]


async def test_a_run_cannot_be_rescheduled(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    runs = Runs(5)
    recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    assert not scheduler.reschedule_later(1, "id")
    await virtual_clock.advance(20)
    assert runs.starts == [10, 20, 30]


# Bad input


@pytest.mark.parametrize(
    ("period", "options", "error", "message"),
    [
        (0, {}, ValueError, "period must be positive"),
        (-1, {}, ValueError, "period must be positive"),
        (timedelta(0), {}, ValueError, "period must be positive"),
        (1e-9, {}, ValueError, "period must be positive, a microsecond at the least, not 1e-09"),
        (math.inf, {}, ValueError, "period must be a finite number"),
        (math.nan, {}, ValueError, "period must be a finite number"),
        ("10", {}, TypeError, "period must be a number of seconds or a timedelta, not str"),
        (None, {}, TypeError, "period must be"),
        (10, {"first": "now"}, TypeError, "first must be"),
        (10, {"first": math.nan}, ValueError, "first must be"),
        (10, {"first": START.date()}, TypeError, "first must be"),
        (10, {"missed": "some"}, ValueError, 'missed must be "skip" or "all", not \'some\''),
        (10, {"missed": []}, ValueError, "missed must be"),
        (10, {"jitter": 10}, ValueError, "jitter must be less than the period, 10, not 10"),
        (10, {"jitter": -1}, ValueError, "jitter must not be negative: -1"),
        (10, {"jitter": math.nan}, ValueError, "jitter must be a finite number"),
        (10, {"jitter": "1"}, TypeError, "jitter must be a number"),
        (10, {"on_conflict": "drop"}, ValueError, "on_conflict must be"),
        (10, {"context": {}}, TypeError, "context must be"),
    ],
)
async def test_bad_arguments_are_refused(
    scheduler: Scheduler, period: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scheduler.schedule_every(period, "id", nothing, **options)
    if period == 10 and options.get("jitter") != 10 and "first" not in options:
        closed: list[bool] = []
        generator = by_generator(closed, 1)
        with pytest.raises(error, match=message):
            scheduler.schedule_each(generator, "id", nothing, **options)
        assert generator.gi_frame is None
    assert not scheduler.tasks


async def test_what_is_no_function_is_refused(scheduler: Scheduler, way: str) -> None:
    for bad in (5, None, "work", ValueError, by_generator):
        with pytest.raises(TypeError, match="expected a coroutine or a coroutine function"):
            recur(way, scheduler, "id", bad)
    with pytest.raises(TypeError, match="unhashable"):
        recur(way, scheduler, [], nothing)
    assert not scheduler.tasks


async def test_a_coroutine_is_refused_with_the_right_form_and_closed(scheduler: Scheduler, way: str) -> None:
    coroutine = value(7)
    first = "period" if way == "every" else "times"
    with pytest.raises(TypeError, match=rf"schedule_{way}\({first}, 'id', func, \*args\)"):
        recur(way, scheduler, "id", coroutine)
    assert is_closed(coroutine)
    coroutine = value(7)
    with pytest.raises(TypeError, match="runs only once"):
        recur(way, scheduler, "id", coroutine, 1)
    assert is_closed(coroutine)
    assert not scheduler.tasks


async def test_a_coroutine_that_was_started_is_refused_and_left_alone(scheduler: Scheduler, way: str) -> None:
    async def work() -> str:
        with pytest.raises(ValueError, match="already started"):
            recur(way, scheduler, "id", running)
        return "went on"

    running = work()
    assert await running == "went on"


async def test_a_scheduler_that_does_not_run_takes_no_recurring_task(way: str) -> None:
    scheduler = Scheduler("test")
    closed: list[bool] = []
    generator = by_generator(closed, 1)
    with pytest.raises(RuntimeError, match="not running"):
        recur(way, scheduler, "id", nothing)
    with pytest.raises(RuntimeError, match="not running"):
        scheduler.schedule_each(generator, "id", nothing)
    assert generator.gi_frame is None


async def test_an_id_that_cannot_be_printed_ends_the_task(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ZeroDivisionError

    task = recur(way, scheduler, Unprintable(), nothing)
    await virtual_clock.advance(10)
    assert task.status is FAILED
    assert not scheduler.tasks
    assert len(errors(caplog)) == 1


# What is kept


async def test_nothing_is_kept_of_a_task_that_has_ended(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the scheduler nor, in reference cycles, by the task itself."""
    monkeypatch.setattr(logging.getLogger("anysched.test"), "disabled", True)  # pytest keeps records with tracebacks

    class Marker:
        pass

    async def work(marker: Marker) -> None:
        await anyio.sleep(0)

    async def failing(marker: Marker) -> None:
        raise ValueError

    def times(marker: Marker, *, fails: bool = False) -> Iterator[datetime]:
        now = VirtualClock.current().now()
        yield now + timedelta(seconds=1)
        yield now + timedelta(seconds=2)
        if fails:
            raise ValueError

    gc.collect()
    gc.disable()
    try:
        markers = []
        for kind in range(5):
            marker = Marker()
            markers.append(weakref.ref(marker))
            match kind:
                case 0:
                    task = scheduler.schedule_each(times(marker), "id", work, marker)
                case 1:
                    task = scheduler.schedule_each(times(marker, fails=True), "id", work, marker)
                case 2:
                    task = scheduler.schedule_each(times(marker), "id", failing, marker)
                case 3:
                    task = scheduler.schedule_every(1, "id", work, marker)
                    await anyio.sleep(2.5)
                    task.cancel()
                case _:
                    task = scheduler.schedule_every(1, "id", work, marker)
                    task.cancel()
            del marker
            await task.wait()
            await scheduler.schedule("other", nothing)  # asleep, the dispatcher knows for what
            await settle(5)
            if task.status is not FAILED:  # the traceback of an exception refers to what raised it
                assert markers[-1]() is None, kind
            handle = weakref.ref(task)
            del task
            await settle(5)
            if kind == 1:
                gc.collect()  # this once, the traceback refers to what calls the iterator: the task
            assert handle() is None, kind
            assert markers[-1]() is None, kind
    finally:
        gc.enable()


async def test_nothing_adds_up_with_the_runs(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    recur(way, scheduler, "id", nothing)
    await virtual_clock.advance(105)
    gc.collect()
    before = len(gc.get_objects())
    await virtual_clock.advance(1_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 30


def test_a_task_that_does_not_recur_is_no_larger_for_it() -> None:
    assert "__dict__" not in dir(ScheduledTask)
    assert len(ScheduledTask.__slots__) == 12
