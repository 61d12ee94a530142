"""Recurring tasks, in virtual time: when they run. Every moment is exact."""

import gc
import inspect
import logging
import math
import random
import sys
import weakref
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest

from anysched import Scheduler, current_scheduled_task
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from recurrence import (
    CANCELLED,
    DAY,
    FAILED,
    HOUR,
    PENDING,
    RUNNING,
    START,
    Runs,
    at,
    by_generator,
    recur,
)
from support import is_closed, nothing, records, settle, timeline_of, value

pytestmark = pytest.mark.anyio


# One ID, one handle


async def test_the_task_is_pending_between_the_runs_and_running_during_one(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(4, 4)
    task = recur(way, scheduler, "id", runs)
    assert (task.status, task.due, task.run_count) == (PENDING, *at(10), 0)
    await virtual_clock.advance(12)
    assert (task.status, task.due, task.run_count) == (RUNNING, None, 1)
    await virtual_clock.advance(4)
    assert (task.status, task.due, task.run_count) == (PENDING, *at(20), 1)
    with pytest.raises(anyio.TaskNotFinished):
        task.return_value  # noqa: B018
    await virtual_clock.advance(20)
    assert runs.starts == [10, 20, 30]
    assert scheduler.tasks["id"] is task
    assert task.name == "test_id"
    scheduler.cancel("id")
    assert (task.status, task.due, task.run_count) == (CANCELLED, *at(40), 3)


async def test_a_task_that_does_not_recur_has_one_run(scheduler: Scheduler) -> None:
    task = scheduler.schedule_later(1, "id", nothing)
    dropped = scheduler.schedule_later(1, "dropped", nothing)
    assert task.run_count == 0
    scheduler.cancel("dropped")
    await task
    assert (task.run_count, dropped.run_count) == (1, 0)


async def test_a_run_knows_its_task(scheduler: Scheduler, way: str) -> None:
    seen: list[Any] = []

    async def work() -> None:
        task = current_scheduled_task()
        assert task is not None
        seen.append((task, task.run_count))
        if len(seen) == 3:
            task.cancel()

    task = recur(way, scheduler, "id", work)
    assert await task is None  # type: ignore[func-returns-value]
    assert seen == [(task, 1), (task, 2), (task, 3)]


async def test_arguments_are_passed_to_each_run(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    seen: list[int] = []

    async def work(first: int, second: int) -> None:
        seen.extend([first, second])

    recur(way, scheduler, "id", work, 1, 2)
    await virtual_clock.advance(25)
    assert seen == [1, 2, 1, 2]


async def test_what_a_run_returns_is_dropped(scheduler: Scheduler) -> None:
    task = scheduler.schedule_at_times(at(1, 2), "id", value, 7)
    assert await task is None  # type: ignore[func-returns-value]
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


async def test_the_times_are_asked_in_a_copy_of_the_context_of_the_call(scheduler: Scheduler) -> None:
    variable = ContextVar("variable", default="default")
    variable.set("of the call")
    seen: list[str] = []
    seen_by_runs: list[str] = []

    def times() -> Iterator[datetime]:
        yield START
        for time in [*[START] * 99, *at(1, 2, 3)]:
            seen.append(variable.get())
            variable.set("of the times")
            yield time
            variable.set("of the times")

    async def work() -> None:
        seen_by_runs.append(variable.get())
        variable.set("of a run")

    await scheduler.schedule_at_times(times(), "id", work)
    assert seen_by_runs == ["of the call"] * 4
    assert set(seen) <= {"of the call", "of the times"}
    assert len(seen) == 102


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
    """Neither by the duration of the runs, nor by rounding: a float cannot express a tenth of a second."""
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
    [("latest", [10, 45, 50, 60]), ("all", [10, 45, 45, 45, 50, 60])],
)
async def test_a_long_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs(35)
    recur(way, scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(65)
    assert runs.starts == starts


@pytest.mark.parametrize("missed", ["latest", "all"])
async def test_what_is_caught_up_is_due_now(virtual_clock: VirtualClock, way: str, missed: Any) -> None:
    """Tasks that became due before the run ended start first."""
    async with Scheduler("test", max_running=1) as scheduler:
        runs = Runs(25, 0)
        task = recur(way, scheduler, "id", runs, missed=missed)
        scheduler.schedule_later(34, "between", anyio.sleep, 3)
        await virtual_clock.advance(36)
        assert [task.due] == at(35)
        await virtual_clock.advance(2)
        assert runs.starts[:2] == [10, 38]


async def test_runs_that_are_always_too_long_follow_one_another(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(*[25] * 10)
    recur(way, scheduler, "id", runs)
    await virtual_clock.advance(100)
    assert runs.starts == [10, 35, 60, 85]


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("latest", [10, 35, 40]), ("all", [10, 35, 35, 40])],
)
async def test_a_blocked_event_loop(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    recur(way, scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(15)
    timeline_of(virtual_clock).jump(35.0)
    await virtual_clock.settle()
    await virtual_clock.advance(10)
    assert runs.starts == starts


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("latest", [35, 40]), ("all", [35, 35, 35, 40])],
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
    [("latest", [10, 15, 20]), ("all", [10, *[15] * 360, 20])],
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
    scheduler.schedule_at_times([START + timedelta(hours=n) for n in (1, 2)], "id", runs)
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


@pytest.mark.parametrize("period", [1e12, timedelta.max, pytest.param(10**300, id="huge")])
async def test_a_period_that_nobody_lives_to_see(scheduler: Scheduler, period: Any) -> None:
    runs = Runs()
    task = scheduler.schedule_every(period, "id", runs, first=1)
    await anyio.sleep(2)
    assert runs.starts == [1]
    assert task.due == datetime.max.replace(tzinfo=UTC)


# Jitter


@pytest.mark.parametrize("missed", ["latest", "all"])
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
    """A time is missed if it would have been due with the offset of the previous run."""
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
    task = scheduler.schedule_at_times(at(1, 2, 3), "id", runs, jitter=timedelta(hours=1), missed="all")
    assert task.due is not None
    await task
    assert len(runs.starts) == 3
    assert runs.starts[0] > 1
    first = START + timedelta(days=1)
    task = scheduler.schedule_every(DAY, "id", runs, first=first, jitter=HOUR)
    assert task.due is not None
    assert first < task.due < first + timedelta(hours=1)


# Rescheduling


@pytest.mark.parametrize(
    ("to", "missed", "starts"),
    [
        (3, "latest", [3, 10, 20, 30, 40]),
        (3, "all", [3, 10, 20, 30, 40]),
        (12, "latest", [12, 20, 30, 40]),
        (25, "latest", [25, 30, 40]),
        (25, "all", [25, 25, 30, 40]),
    ],
)
@pytest.mark.parametrize("by", ["later", "at"])
async def test_rescheduling_moves_the_next_run_only(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, by: str, to: float, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    task = recur(way, scheduler, "id", runs, missed=missed)
    assert scheduler.reschedule_later(to, "id") if by == "later" else scheduler.reschedule_at(at(to)[0], "id")
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
    assert runs.starts == [3, 15, 25, 35]


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
        (0, {}, ValueError, "period must be at least 1 microsecond"),
        (-1, {}, ValueError, "period must be at least 1 microsecond"),
        (timedelta(0), {}, ValueError, "period must be at least 1 microsecond"),
        (1e-9, {}, ValueError, "period must be at least 1 microsecond, not 1e-09"),
        (math.inf, {}, ValueError, "period must be a finite number"),
        (math.nan, {}, ValueError, "period must be a finite number"),
        ("10", {}, TypeError, "period must be a number of seconds or a timedelta, not str"),
        (None, {}, TypeError, "period must be"),
        (10, {"first": "now"}, TypeError, "first must be"),
        (10, {"first": math.nan}, ValueError, "first must be"),
        (10, {"first": START.date()}, TypeError, "first must be"),
        (10, {"missed": "some"}, ValueError, 'missed must be "latest", "all" or "skip", not \'some\''),
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
            scheduler.schedule_at_times(generator, "id", nothing, **options)
        assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED
    assert not scheduler.tasks


@pytest.mark.parametrize("times", [7, None, START, "0 9 * * *"])
async def test_what_lists_no_times_is_refused(scheduler: Scheduler, times: Any) -> None:
    with pytest.raises(
        TypeError, match=r"iterable of datetimes, not .*; for a cron expression, pass anysched.cron.Cron"
    ):
        scheduler.schedule_at_times(times, "id", nothing)
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
    with pytest.raises(
        TypeError, match=r"the function and its arguments instead, as in \(\.\.\., 'id', func, \*args\)"
    ):
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
        return "continued"

    running = work()
    assert await running == "continued"


async def test_a_scheduler_that_does_not_run_takes_no_recurring_task(way: str) -> None:
    scheduler = Scheduler("test")
    closed: list[bool] = []
    generator = by_generator(closed, 1)
    with pytest.raises(RuntimeError, match="not running"):
        recur(way, scheduler, "id", nothing)
    with pytest.raises(RuntimeError, match="not running"):
        scheduler.schedule_at_times(generator, "id", nothing)
    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED


async def test_an_id_that_cannot_be_printed_runs_as_any_other(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ZeroDivisionError

    task = recur(way, scheduler, Unprintable(), nothing)
    await virtual_clock.advance(1000)
    assert task.run_count > 0
    assert task.status is PENDING
    assert task.name == "test_<Unprintable whose str failed>"


# References that are kept


@pytest.mark.slow
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
                    task = scheduler.schedule_at_times(times(marker), "id", work, marker)
                case 1:
                    task = scheduler.schedule_at_times(times(marker, fails=True), "id", work, marker)
                case 2:
                    task = scheduler.schedule_at_times(times(marker), "id", failing, marker)
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
            if task.status is CANCELLED:  # dropped: the handle has the function
                assert task.args == (markers[-1](),)
            elif task.status is not FAILED:  # the traceback of an exception refers to what raised it
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


@pytest.mark.slow
async def test_nothing_adds_up_with_the_runs(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    recur(way, scheduler, "id", nothing)
    await virtual_clock.advance(105)
    gc.collect()
    before = len(gc.get_objects())
    await virtual_clock.advance(1_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 30


async def test_a_task_that_does_not_recur_is_no_larger_for_it(scheduler: Scheduler, way: str) -> None:
    once = scheduler.schedule_later(HOUR, "once", nothing)
    assert not hasattr(once, "__dict__")
    assert sys.getsizeof(once) < sys.getsizeof(recur(way, scheduler, "id", nothing))


# missed="skip"


@pytest.mark.parametrize(("duration", "starts"), [(35, [10, 45, 50, 60]), (30, [10, 40, 50, 60])])
async def test_skip_leaves_out_what_is_a_period_late(
    scheduler: Scheduler,
    virtual_clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
    duration: float,
    starts: list[float],
) -> None:
    caplog.set_level(logging.INFO)
    runs = Runs(duration)
    scheduler.schedule_every(10, "id", runs, missed="skip")
    await virtual_clock.advance(65)
    assert runs.starts == starts
    assert [record.getMessage() for record in records(caplog)] == ["Skipped 2 missed runs of task 'id'."]


async def test_skip_leaves_out_times_that_are_a_minute_late(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runs = Runs(200)
    scheduler.schedule_at_times(at(*range(10, 300, 40)), "id", runs, missed="skip")  # 10, 50, 90, 130, 170, 210, ...
    await virtual_clock.advance(260)
    assert runs.starts == [10, 210, 210, 250]
    assert [record.getMessage() for record in records(caplog)] == ["Skipped 3 missed runs of task 'id'."]


@pytest.mark.parametrize("wait", [59, 61])
async def test_skip_leaves_out_a_run_that_waits_for_a_slot_for_too_long(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, wait: float
) -> None:
    caplog.set_level(logging.INFO)
    async with Scheduler("test", max_running=1) as scheduler:
        scheduler.schedule("in the way", anyio.sleep, 10 + wait)
        runs, later = Runs(), Runs()
        scheduler.schedule_at_times(at(10, 500), "id", runs, missed="skip")
        scheduler.schedule_later(20, "next in the queue", later)
        await virtual_clock.advance(600)
        assert runs.starts == ([69, 500] if wait == 59 else [500])
        assert later.starts == [10 + wait]
        assert len(records(caplog, logging.INFO)) == (wait == 61)


async def test_skip_leaves_out_what_is_past_at_the_call(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs, others = Runs(), Runs()
    scheduler.schedule_at_times(at(-3600, -61, 5), "times", runs, missed="skip")
    scheduler.schedule_every(HOUR, "every", others, first=START - timedelta(minutes=50), missed="skip")
    await virtual_clock.advance(HOUR)
    assert (runs.starts, others.starts) == ([5], [600])


async def test_skip_sleeps_through_a_suspend(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    task = scheduler.schedule_at_times(at(*range(100, 10_000, 100)), "id", runs, missed="skip")
    await virtual_clock.advance(50)
    virtual_clock.suspend(3_010)
    await virtual_clock.advance(100)  # it was 00:51:00 at once, and the time of 00:50:00 was a minute late
    assert runs.starts == [90]
    assert task.run_count == 1


@pytest.mark.parametrize("kind", ["every", "every end", "times", "function"])
async def test_a_run_that_was_brought_forward_and_is_skipped_does_not_replace_the_next(
    virtual_clock: VirtualClock, kind: str
) -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        runs = Runs()
        scheduler.schedule("in the way", anyio.sleep, 200)
        if kind.startswith("every"):
            measured_from: Any = "end" if kind == "every end" else "start"
            task = scheduler.schedule_every(600, "id", runs, missed="skip", measured_from=measured_from)
        else:
            times = at(600, 1200)
            listed: Any = times if kind == "times" else lambda now: [time for time in times if time > now]
            task = scheduler.schedule_at_times(listed, "id", runs, missed="skip")
        task.reschedule_later(10)
        await virtual_clock.advance(1300)
        # After a pause that is measured from the end there is no other time that it could take the place of.
        assert runs.starts == ([800] if kind == "every end" else [600, 1200])
