"""Recurring tasks, in virtual time: the sources of their times."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched._core import clock as clock_module
from anysched._core import dispatcher as dispatcher_module
from anysched._core import scheduler as scheduler_module
from anysched.abc import Clock
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from recurrence import (
    CANCELLED,
    FAILED,
    FINISHED,
    HOUR,
    PENDING,
    RUNNING,
    START,
    Listed,
    Runs,
    at,
    by_generator,
)
from support import Gate, errors, fail, forever, nothing, settle, until, value

pytestmark = pytest.mark.anyio


# Each time


async def test_each_time_the_function_runs_and_after_the_last_one_the_id_is_free(scheduler: Scheduler) -> None:
    runs = Runs()
    task = scheduler.schedule_at_times(at(1, 5, 6), "id", runs)
    assert [task.due] == at(1)
    assert await task is None  # type: ignore[func-returns-value]
    assert (task.status, task.due, task.run_count) == (FINISHED, None, 3)
    assert runs.starts == [1, 5, 6]
    assert "id" not in scheduler


async def test_any_iterable_will_do(scheduler: Scheduler) -> None:
    for times in (at(1), tuple(at(2)), {START + timedelta(seconds=3): 1}, iter(at(4)), [datetime(2025, 1, 1, 0, 0, 5)]):
        await scheduler.schedule_at_times(times, "id", nothing)
    assert anyio.current_time() == 5


async def test_no_more_times_are_asked_for_than_needed(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    times = Listed(*at(10, 20, 30, 40))
    scheduler.schedule_at_times(times, "id", Runs(5, 15))
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


async def test_an_iterator_at_its_end_is_not_asked_again(scheduler: Scheduler) -> None:
    times = Listed(*at(10, 20))
    runs = Runs(15)
    await scheduler.schedule_at_times(times, "id", runs)
    assert runs.starts == [10, 25]
    assert times.asked == 3


async def test_times_in_the_past_are_caught_up_once(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs()
    times = [START + timedelta(hours=n) for n in range(-1_000, 3)]
    task = scheduler.schedule_at_times(times, "id", runs)
    assert task.due == START
    await task
    assert runs.starts == [0, HOUR, 2 * HOUR]


async def test_all_times_in_the_past(scheduler: Scheduler) -> None:
    runs = Runs()
    await scheduler.schedule_at_times([START + timedelta(hours=n) for n in range(-100, 2)], "id", runs, missed="all")
    assert runs.starts == [0] * 101 + [HOUR]


async def test_no_times_at_all(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    task = scheduler.schedule_at_times([], "id", fail, ValueError())
    assert (task.status, task.due, task.run_count) == (FINISHED, None, 0)
    assert "id" not in scheduler
    assert await task is None  # type: ignore[func-returns-value]
    await scheduler.join()
    statistics = scheduler.statistics()
    assert (statistics.pending, statistics.started, statistics.finished, statistics.cancelled) == (0, 0, 0, 0)


async def test_no_times_at_all_free_an_id_that_is_held(scheduler: Scheduler) -> None:
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    assert scheduler.schedule_at_times([], "id", nothing) is holder
    gate = Gate()
    with pytest.raises(DuplicateTaskError):
        scheduler.schedule_at_times([], "id", nothing, on_conflict="error")
    assert scheduler.schedule_at_times([], "id", nothing, on_conflict="replace").status is FINISHED
    assert holder.status is CANCELLED
    assert "id" not in scheduler
    running = scheduler.schedule("id", gate)
    await settle()
    scheduler.schedule_at_times([], "id", nothing, on_conflict="follow")
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
        scheduler.schedule_at_times([], "id", nothing, on_conflict="replace")
        await virtual_clock.settle()
        assert joined


async def test_a_time_that_does_not_advance_is_left_out(scheduler: Scheduler) -> None:
    runs = Runs()
    times = at(10, 10, 5, 20, 20, *[15] * 50, 30)
    task = scheduler.schedule_at_times(times, "id", runs)
    await task
    assert runs.starts == [10, 20, 30]


@pytest.mark.parametrize("missed", ["latest", "all"])
async def test_times_that_do_not_advance_end_the_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, missed: Any
) -> None:
    closed: list[bool] = []
    runs = Runs()
    task = scheduler.schedule_at_times(by_generator(closed, 10, 20, forever=True), "id", runs, missed=missed)
    await task.wait()
    assert (task.status, task.due, task.run_count) == (FAILED, None, 2)
    assert "id" not in scheduler
    assert runs.starts == [10, 20]
    assert closed == [True]
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception
    assert isinstance(task.exception, ValueError)
    assert str(task.exception) == (
        "times must increase: 100 consecutive values were not later than 2025-01-01T00:00:20+00:00"
    )


async def test_ninety_nine_times_that_do_not_advance_are_borne(scheduler: Scheduler) -> None:
    runs = Runs()
    await scheduler.schedule_at_times(at(1, *[0] * 99, 2, *[2] * 99, 3), "id", runs)
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
        scheduler.schedule_at_times(times() if callable(times) else times, "id", nothing, on_conflict="replace")
    assert scheduler.tasks == {"id": holder}
    assert holder.status is PENDING


@pytest.mark.parametrize("late", [ZeroDivisionError("x"), "no datetime", asyncio.CancelledError()])
async def test_what_is_raised_later_ends_the_task_as_failed(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, late: Any
) -> None:
    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule_at_times(Listed(*at(1), late), "id", nothing)
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
    task = scheduler.schedule_at_times(Listed(*at(1), ValueError("times")), "id", fail, ValueError("run"))
    await task.wait()
    assert str(task.exception) == "times"
    assert [str(record.exc_info[1]) for record in errors(caplog) if record.exc_info] == ["run", "times"]


async def test_a_generator_that_is_running_cannot_schedule_itself(scheduler: Scheduler) -> None:
    def times() -> Iterator[datetime]:
        scheduler.schedule_at_times(generator, "id", nothing)
        yield START

    generator = times()
    with pytest.raises(ValueError, match="already executing"):
        next(generator)
    assert "id" not in scheduler


# A long search for the next time, also where the clock of the event loop is coarse, as uvloop's is: due times are then
# rounded on their way into the queue.

RESOLUTION = 1e-8
"""Finer than the tests look at."""


@pytest.fixture(params=["exact", "coarse"])
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def exact_clock(clock: Clock) -> Callable[[], float]:
        return lambda: clock.monotonic() + RESOLUTION

    if request.param == "coarse":
        for module in (clock_module, dispatcher_module, scheduler_module):
            monkeypatch.setattr(module, "exact_clock", exact_clock)


COARSE_OR_NOT = pytest.mark.usefixtures("resolution")


async def count_iterations(counter: list[int]) -> None:
    """Count the iterations of the event loop."""
    while True:
        counter[0] += 1
        await checkpoint()


@COARSE_OR_NOT
async def test_many_missed_times_do_not_hold_up_the_event_loop(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    asked_per_iteration: dict[int, int] = {}
    counter = [0]

    def times(*, past: int) -> Iterator[datetime]:
        for n in range(past, 0, -1):
            asked_per_iteration[counter[0]] = asked_per_iteration.get(counter[0], 0) + 1
            yield START - timedelta(seconds=n)
        yield START + timedelta(hours=1)

    runs = Runs()
    async with anyio.create_task_group() as tg:
        tg.start_soon(count_iterations, counter)
        tasks = [scheduler.schedule_at_times(times(past=3_000), n, runs) for n in range(3)]
        while any(task.status is not PENDING or task.due != START + timedelta(hours=1) for task in tasks):
            await checkpoint()
        tg.cancel_scope.cancel()
    assert sum(asked_per_iteration.values()) == 9_000
    # Only one search continues at a time; when a run has ended, only a few times are read. (On trio, which shuffles the
    # tasks, the dispatcher may run twice between two of the counter's.)
    assert max(asked_per_iteration.values()) <= 200 + 3 * 5
    assert anyio.current_time() == 0
    await virtual_clock.advance(HOUR)
    assert runs.starts == [0, 0, 0, HOUR, HOUR, HOUR]


def long_ago(closed: list[bool], count: int = 1_000_000, *, after: float | None = None) -> Iterator[datetime]:
    """A generator that takes long to search, because most of its times are in the past."""
    try:
        yield START - timedelta(days=400)
        for n in range(count, 0, -1):
            yield START - timedelta(seconds=n)
        if after is not None:
            yield START + timedelta(seconds=after)
    finally:
        closed.append(True)


async def search(scheduler: Scheduler, times: Iterator[datetime], runs: Runs) -> ScheduledTask[None]:
    """Schedule a task, and wait until the first run has ended and the search continues."""
    task = scheduler.schedule_at_times(times, "id", runs)
    while not runs.starts or task.status is RUNNING:
        await checkpoint()
    await settle(5)
    assert (task.status, task.due) == (PENDING, START)
    return task


@pytest.mark.parametrize("how", ["cancel", "replace", "follow", "close"])
@COARSE_OR_NOT
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
        assert (task.status, task.run_count) == (CANCELLED, 1)
        assert closed == [True]
        await virtual_clock.settle()
    assert runs.starts == [0]


@COARSE_OR_NOT
async def test_a_search_needs_no_slot(virtual_clock: VirtualClock) -> None:
    closed: list[bool] = []
    async with Scheduler("test", max_running=1) as scheduler:
        task = await search(scheduler, long_ago(closed, 10_000, after=60), Runs())
        gate = Gate()
        scheduler.schedule("in the way", gate)
        await gate.started.wait()
        await virtual_clock.settle()
        assert task.due == START + timedelta(minutes=1)
        gate.open.set()


@COARSE_OR_NOT
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


@COARSE_OR_NOT
async def test_what_was_missed_when_a_task_is_rescheduled_during_a_search_is_served_by_that_run(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = Runs(20)
    task = scheduler.schedule_at_times(at(0, *(n / 100 for n in range(1, 2_000)), 100), "id", runs)
    await anyio.sleep(20)
    await until(lambda: task.status is PENDING)
    await settle(5)
    assert task.due == START + timedelta(seconds=20)
    assert scheduler.reschedule_later(30, "id")
    await task
    assert runs.starts == [0, 50, 100]


@COARSE_OR_NOT
async def test_a_search_may_find_nothing(scheduler: Scheduler) -> None:
    closed: list[bool] = []
    runs = Runs()
    task = await search(scheduler, long_ago(closed, 1_000), runs)
    await task
    # All but the first were missed before it started: this run replaced them.
    assert (task.status, runs.starts, closed) == (FINISHED, [0], [True])


@COARSE_OR_NOT
async def test_a_search_does_not_go_on_while_what_is_pending_is_dropped(scheduler: Scheduler) -> None:
    for number in range(5_000):
        scheduler.schedule_later(HOUR, number, nothing)
    task = scheduler.schedule_at_times(long_ago([], 1_000), "id", nothing)
    await until(lambda: task.status is PENDING and task.run_count)
    dropped = await scheduler.close()
    assert len(dropped) == 5_001
    assert dropped[-1] is task
    assert task.status is CANCELLED


@COARSE_OR_NOT
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
@COARSE_OR_NOT
async def test_what_lists_the_times_may_meddle(
    scheduler: Scheduler, how: str, asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of a run, and in a search."""
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
    task = scheduler.schedule_at_times(times(), "id", runs)
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


# Generators are closed


@pytest.mark.parametrize("end", ["exhausted", "cancelled", "cancelled in a run", "replaced", "closed", "failed"])
async def test_a_generator_is_closed_when_the_task_ends(virtual_clock: VirtualClock, end: str) -> None:
    closed: list[bool] = []
    async with Scheduler("test") as scheduler:
        times = by_generator(closed, 1, 2, 60, forever=end == "failed")
        runs = Runs(0, 10) if end == "cancelled in a run" else Runs()
        task = scheduler.schedule_at_times(times, "id", runs)
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

    scheduler.schedule_at_times(Rule(), "id", nothing).cancel()
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

    task = scheduler.schedule_at_times(times(), "id", Runs(0, 5))
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

    task = scheduler.schedule_at_times(times(), "id", nothing)
    await task.wait()
    assert task.status is FAILED
    assert await taken[0] == 7
