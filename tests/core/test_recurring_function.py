"""Times as a function of the current time: clocks that are wrong for a while, and repeated calls."""

import logging
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import anyio
import pytest

from anysched import Scheduler, current_run
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from recurrence import START, Runs
from support import records

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Grid:
    """A function of the current time that returns each multiple of a period, from a moment on."""

    def __init__(self, period: timedelta, limit: int = 10**9) -> None:
        self.period = period
        self.limit = limit
        self.asked: list[datetime] = []
        self.listed = 0

    def __call__(self, now: datetime) -> Iterator[datetime]:
        assert now.tzinfo is UTC
        self.asked.append(now)
        count = (now - START) // self.period
        for number in range(self.limit):
            self.listed += 1
            yield START + (count + 1 + number) * self.period


class WallRuns:
    """Records the wall-clock times of its runs."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.starts: list[timedelta] = []

    async def __call__(self) -> None:
        self.starts.append(self.clock.now() - START)


async def test_the_times_of_a_function(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs, grid = WallRuns(virtual_clock), Grid(MINUTE)
    task = scheduler.schedule_at_times(grid, "id", runs)
    assert task.due == START + MINUTE
    await virtual_clock.advance(5 * MINUTE)
    assert runs.starts == [MINUTE * number for number in range(1, 6)]
    assert grid.asked == [START]


@pytest.mark.parametrize("notify", [True, False])
@pytest.mark.parametrize("missed", ["latest", "skip"])
async def test_a_clock_that_was_ahead_for_a_while_silences_nothing(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any, notify: bool
) -> None:
    runs, grid = WallRuns(virtual_clock), Grid(MINUTE)
    scheduler.schedule_at_times(grid, "id", runs, missed=missed)
    await virtual_clock.advance(2.5 * 60)
    virtual_clock.step_wall(30 * DAY, notify=notify)
    await virtual_clock.advance(5 * MINUTE)
    virtual_clock.step_wall(-30 * DAY, notify=notify)
    before = len(runs.starts)
    await virtual_clock.advance(10 * MINUTE)
    assert 9 <= len(runs.starts) - before <= 11
    assert all(start < DAY for start in runs.starts[before + 1 :])


async def test_no_time_is_run_twice_when_the_clock_is_set_back(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs, grid = WallRuns(virtual_clock), Grid(HOUR)
    scheduler.schedule_at_times(grid, "id", runs)
    await virtual_clock.advance(3.5 * 3600)
    assert runs.starts == [HOUR, 2 * HOUR, 3 * HOUR]
    virtual_clock.step_wall(-2 * HOUR)
    await virtual_clock.advance(3 * HOUR)
    assert runs.starts == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]


async def test_years_that_the_clock_jumps_over_are_not_listed_one_by_one(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs, grid = WallRuns(virtual_clock), Grid(MINUTE)
    scheduler.schedule_at_times(grid, "id", runs)
    await virtual_clock.advance(90)
    virtual_clock.step_wall(7 * 365 * DAY)
    await virtual_clock.advance(3 * MINUTE)
    assert len(runs.starts) == 5
    assert grid.listed < 100


@pytest.mark.parametrize("missed", ["latest", "skip", "all"])
async def test_a_jump_during_a_run(scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any) -> None:
    grid = Grid(HOUR)
    starts: list[timedelta] = []

    async def work() -> None:
        starts.append(virtual_clock.now() - START)
        if len(starts) == 1:
            virtual_clock.step_wall(10 * HOUR)

    scheduler.schedule_at_times(grid, "id", work, missed=missed)
    await virtual_clock.advance(2 * HOUR)
    late = timedelta(hours=11)
    expected = {
        "latest": [HOUR, late, 12 * HOUR],
        "skip": [HOUR, late, 12 * HOUR],
        "all": [HOUR, *[late] * 10, 12 * HOUR],
    }[missed]
    assert starts == expected


async def test_a_rescheduled_run_stays_where_it_was_put_when_the_clock_is_set_back(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs, grid = WallRuns(virtual_clock), Grid(HOUR)
    task = scheduler.schedule_at_times(grid, "id", runs)
    await virtual_clock.advance(1.5 * 3600)
    scheduler.reschedule_at(START + 10 * HOUR, "id")
    virtual_clock.step_wall(-HOUR)
    await virtual_clock.advance(60)
    assert task.due == START + 10 * HOUR


async def test_many_functions_are_asked_again_in_slices(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    grids = [Grid(HOUR) for _ in range(50)]
    tasks = [scheduler.schedule_at_times(grid, number, Runs()) for number, grid in enumerate(grids)]
    scheduler.cancel(3)
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(1)
    assert [len(grid.asked) for grid in grids] == [2] * 3 + [1] + [2] * 46
    assert tasks[0].due == START - DAY + HOUR


async def test_a_function_that_fails_when_it_is_asked_again(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Grid):
        def __call__(self, now: datetime) -> Iterator[datetime]:
            if self.asked:
                raise ZeroDivisionError
            return super().__call__(now)

    task = scheduler.schedule_at_times(Failing(HOUR), "id", Runs())
    virtual_clock.step_wall(-HOUR)
    await virtual_clock.advance(1)
    assert task.due == START + HOUR
    assert [record.levelno for record in records(caplog)] == [logging.ERROR]


@pytest.mark.parametrize("result", [None, "text", 5])
async def test_what_a_function_must_return(scheduler: Scheduler, result: Any) -> None:
    with pytest.raises(TypeError, match="times must return an iterable of datetimes"):
        scheduler.schedule_at_times(lambda _: result, "id", Runs())
    assert "id" not in scheduler


async def test_a_function_without_times_and_one_that_ends(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    nothing_due = scheduler.schedule_at_times(lambda _: [], "none", Runs())
    assert nothing_due.status.name == "FINISHED"
    runs = Runs()
    task = scheduler.schedule_at_times(Grid(HOUR, limit=2), "two", runs)
    await virtual_clock.advance(5 * HOUR)
    assert task.status.name == "FINISHED"
    assert runs.starts == [3600, 7200]


async def test_a_function_that_has_nothing_left_when_the_clock_is_set_back(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    answers: list[Iterable[datetime]] = [[START + HOUR], []]
    task = scheduler.schedule_at_times(lambda _: answers.pop(0), "id", Runs())
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(1)
    assert task.due == START + HOUR


@pytest.mark.parametrize(
    ("period", "jump", "expected"),
    [
        (HOUR, timedelta(minutes=10), [60, 120, 180]),  # nothing is missed
        (HOUR, timedelta(minutes=70), [60, 130, 180]),  # one
        (timedelta(minutes=1), timedelta(minutes=70), [1, 71, 72]),
        (DAY, 10 * DAY, [1440, 11 * 1440, 12 * 1440]),
        (40 * DAY, 90 * DAY, [40 * 1440, 130 * 1440, 160 * 1440]),
    ],
)
async def test_after_a_jump_during_a_run_the_latest_is_caught_up(
    scheduler: Scheduler, virtual_clock: VirtualClock, period: timedelta, jump: timedelta, expected: list[int]
) -> None:
    starts: list[timedelta] = []

    async def work() -> None:
        starts.append(virtual_clock.now() - START)
        if len(starts) == 1:
            virtual_clock.step_wall(jump)

    scheduler.schedule_at_times(Grid(period), "id", work)
    await virtual_clock.advance(period * 3)
    assert starts[:3] == [timedelta(minutes=minutes) for minutes in expected]


async def test_a_function_that_lists_the_past_is_not_searched_for_ever(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    answers: list[Iterable[datetime]] = [[START + HOUR], (START - 9 * DAY + MINUTE * number for number in range(10**6))]
    task = scheduler.schedule_at_times(lambda _: answers.pop(0), "id", Runs())
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(1)
    assert task.due == START + HOUR


async def test_a_task_that_is_cancelled_meanwhile_is_not_asked_again(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    class Cancelling(Grid):
        def __call__(self, now: datetime) -> Iterator[datetime]:
            if self.asked:
                scheduler.cancel(0)
            return super().__call__(now)

    grids = [Grid(HOUR), *[Cancelling(HOUR) for _ in range(3)]]
    for number, grid in enumerate(grids):
        scheduler.schedule_at_times(grid, number, Runs())
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(1)
    assert [len(grid.asked) for grid in grids] == [1, 2, 2, 2]


async def test_a_run_that_was_brought_forward_after_a_jump_does_not_replace_the_next(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(Grid(HOUR), "id", runs)
    virtual_clock.step_wall(0.5 * HOUR, notify=False)
    scheduler.reschedule_later(0, "id")
    await virtual_clock.advance(2 * HOUR)
    assert runs.starts == [0.5 * HOUR, HOUR, 2 * HOUR]


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
@pytest.mark.parametrize("seconds", [0, 5, 15, 25, 29])
async def test_no_time_is_lost_until_a_clock_that_was_set_back_is_found_out(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any, seconds: int
) -> None:
    """Unannounced, that takes up to half a minute; the times in that period are run late by no more than that."""
    runs = WallRuns(virtual_clock)
    virtual_clock.step_wall(HOUR)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs, missed=missed)
    await virtual_clock.advance(40 + seconds)
    virtual_clock.step_wall(-HOUR, notify=False)
    await virtual_clock.advance(5 * MINUTE)
    late = seconds >= 20  # a minute later than otherwise
    expected = [MINUTE * number for number in range(1 + late, 6 + late)]
    found = [start for start in runs.starts if start < HOUR]
    assert len(found) == len(expected)
    assert all(0 <= (start - time).total_seconds() <= 30 for start, time in zip(found, expected, strict=True))


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
@pytest.mark.parametrize("notify", [True, False])
async def test_a_clock_that_is_set_back_during_a_run_silences_nothing(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any, notify: bool
) -> None:
    starts: list[timedelta] = []

    async def work() -> None:
        starts.append(virtual_clock.now() - START)
        if len(starts) == 3:
            virtual_clock.step_wall(-DAY, notify=notify)

    virtual_clock.step_wall(DAY)
    scheduler.schedule_at_times(Grid(MINUTE), "id", work, missed=missed)
    await virtual_clock.advance(6 * MINUTE)
    assert starts == [*[DAY + MINUTE * number for number in (1, 2, 3)], *[MINUTE * number for number in (4, 5, 6)]]


async def test_what_a_clock_has_shown_wrongly_during_a_run_is_caught_up(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    """The clock was ahead, and a long run hides when that ended."""
    runs = Runs(1, 150)
    virtual_clock.step_wall(DAY)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs)
    await virtual_clock.advance(2 * MINUTE)
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(4 * MINUTE)
    assert runs.starts == [60, 120, 270, 300, 360]


async def test_after_a_jump_during_a_run_that_was_late_the_latest_is_caught_up(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    starts: list[timedelta] = []

    async def work() -> None:
        starts.append(virtual_clock.now() - START)
        if len(starts) == 1:
            virtual_clock.step_wall(HOUR)

    scheduler.schedule_at_times(Grid(MINUTE), "id", work)
    scheduler.pause("id")
    await virtual_clock.advance(10.5 * 60)
    scheduler.resume("id")
    await virtual_clock.advance(1)
    assert starts == [10.5 * MINUTE, HOUR + 10.5 * MINUTE]


@pytest.mark.parametrize("duration", [0, 0.3])
async def test_what_all_has_run_after_a_jump_is_not_run_again_and_the_rest_is(
    scheduler: Scheduler, virtual_clock: VirtualClock, duration: float
) -> None:
    """The clock is set back to before them; some have not been run by then if the runs take their time."""
    served: list[datetime] = []

    async def work() -> None:
        served.append(current_run().due)
        await anyio.sleep(duration)

    scheduler.schedule_at_times(Grid(MINUTE), "id", work, missed="all")
    await virtual_clock.advance(90)
    virtual_clock.step_wall(10 * MINUTE)
    await virtual_clock.advance(1)
    virtual_clock.step_wall(-10 * MINUTE)
    await virtual_clock.advance(15 * MINUTE)
    assert served == [START + MINUTE * number for number in range(1, 17)]


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
async def test_a_time_that_the_clock_has_jumped_over_by_seconds_is_run_once(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any
) -> None:
    """It is due then, and comes again when the clock is put right."""
    served: list[datetime] = []

    async def work() -> None:
        served.append(current_run().due)

    scheduler.schedule_at_times(Grid(MINUTE), "id", work, missed=missed)
    await virtual_clock.advance(50)
    virtual_clock.step_wall(20)
    await virtual_clock.advance(5)
    virtual_clock.step_wall(-20)
    await virtual_clock.advance(3 * MINUTE)
    assert served == [START + MINUTE * number for number in (1, 2, 3)]


async def test_many_times_that_the_clock_has_jumped_over_are_remembered_as_one_period(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    served: list[datetime] = []

    async def work() -> None:
        served.append(current_run().due)

    second = timedelta(seconds=1)
    scheduler.schedule_at_times(Grid(second), "id", work, missed="skip")
    await virtual_clock.advance(10.5)
    for _ in range(5):
        virtual_clock.step_wall(50)
        await virtual_clock.advance(1)
    virtual_clock.step_wall(-250)
    await virtual_clock.advance(300)
    assert served == [START + second * number for number in range(1, 316)]


async def test_a_period_that_was_lived_is_left_out_at_once(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    """However many times lie in it."""
    runs, grid = WallRuns(virtual_clock), Grid(timedelta(seconds=1))
    scheduler.schedule_at_times(grid, "id", runs)
    await virtual_clock.advance(HOUR)
    virtual_clock.step_wall(HOUR)
    await virtual_clock.advance(0)
    virtual_clock.step_wall(-1.5 * HOUR)
    listed, count = grid.listed, len(runs.starts)
    await virtual_clock.advance(0.5 * HOUR + timedelta(seconds=5))
    assert grid.listed - listed < 50
    # The first that was jumped over is the one that the run after the jump has served.
    assert runs.starts[count:] == [HOUR + timedelta(seconds=number) for number in range(2, 6)]


async def test_a_function_that_does_not_look_at_now_is_left_out_step_by_step(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(lambda _: (START + MINUTE * number for number in range(1, 500)), "id", runs)
    await virtual_clock.advance(200 * MINUTE)
    virtual_clock.step_wall(-HOUR)
    await virtual_clock.advance(62 * MINUTE)
    assert runs.starts == [MINUTE * number for number in range(1, 203)]


# Iterables


async def test_an_iterable_that_cannot_be_asked_again_is_a_warning(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()
    scheduler.schedule_at_times(Grid(HOUR)(START), "id", runs)
    await virtual_clock.advance(HOUR)
    virtual_clock.step_wall(-30 * timedelta(seconds=1))
    await virtual_clock.advance(31)
    assert not records(caplog, logging.WARNING)
    virtual_clock.step_wall(10 * HOUR)
    await virtual_clock.advance(MINUTE)
    virtual_clock.step_wall(-10 * HOUR)
    await virtual_clock.advance(MINUTE)
    (record,) = records(caplog, logging.WARNING)
    assert "The clock was set back" in record.getMessage()
    assert "'id'" in record.getMessage()


async def test_times_out_of_order_are_a_warning_once(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()
    offsets = [1, 3, 2, 3, 4, 1, 5]
    scheduler.schedule_at_times([START + offset * HOUR for offset in offsets], "id", runs)
    await virtual_clock.advance(6 * HOUR)
    assert runs.starts == [3600, 3 * 3600, 4 * 3600, 5 * 3600]
    (record,) = records(caplog, logging.WARNING)
    assert "The times of task 'id' are not in order" in record.getMessage()


async def test_the_same_time_twice_is_no_warning(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.schedule_at_times([START + HOUR, START + HOUR, START + 2 * HOUR], "id", Runs())
    await virtual_clock.advance(3 * HOUR)
    assert not records(caplog, logging.WARNING)


# Brought forward


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
async def test_a_run_now_does_not_replace_the_regular_one(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any
) -> None:
    """The nightly job runs at 17:00, and at night as well."""
    runs = WallRuns(virtual_clock)
    night = 10 * HOUR
    task = scheduler.schedule_at_times((START + night + day * DAY for day in range(9)), "id", runs, missed=missed)
    await virtual_clock.advance(HOUR)
    assert scheduler.reschedule_later(0, "id")
    await virtual_clock.advance(1)
    assert task.due == START + night
    await virtual_clock.advance(2 * DAY)
    assert runs.starts == [HOUR, night, night + DAY]


# The clock is set back while the task does not wait for its time


@pytest.mark.parametrize("recheck_interval", [math.inf, 30], ids=["told", "found out"])
@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
@pytest.mark.parametrize("how", ["paused", "running", "rescheduled"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_comes_after_the_clock_was_set_back_is_run(
    backend: Literal["asyncio", "trio"], how: str, missed: Any, recheck_interval: float
) -> None:
    """Nothing was run at 2:00, which comes twice, and the clock had not come to 3:00 before it was set back."""
    clock = VirtualClock(START, recheck_interval=recheck_interval)
    starts: list[timedelta] = []

    async def work() -> None:
        starts.append(clock.now() - START)
        if how == "running" and len(starts) == 1:
            await anyio.sleep(2.5 * HOUR.total_seconds())

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            task = scheduler.schedule_at_times(Grid(HOUR), "id", work, missed=missed)
            if how == "paused":
                assert task.pause()
            elif how == "rescheduled":
                assert task.reschedule_later(3.5 * HOUR)
            await clock.advance(2 * HOUR + MINUTE)
            clock.step_wall(-2 * HOUR, notify=recheck_interval == math.inf)
            await clock.advance(MINUTE)
            task.resume()
            await clock.advance(4.5 * HOUR)

    name, options = clock.backend(backend)
    anyio.run(main, backend=name, backend_options=options)
    expected = [HOUR * number for number in range(1, 5)]
    if how == "rescheduled":
        expected[0] *= 1.5
    assert starts == expected


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
async def test_a_task_that_waits_for_a_slot_is_not_due_any_more_when_the_clock_is_set_back(
    scheduler: Scheduler, virtual_clock: VirtualClock, missed: Any
) -> None:
    runs = WallRuns(virtual_clock)
    limited = scheduler.child("limited", max_running=1)
    limited.schedule("other", anyio.sleep, 1.5 * HOUR.total_seconds())
    limited.schedule_at_times(Grid(HOUR), "id", runs, missed=missed)
    await virtual_clock.advance(HOUR + 0.5 * MINUTE)
    virtual_clock.step_wall(-HOUR)
    await virtual_clock.advance(2.5 * HOUR)
    assert runs.starts == [HOUR, 2 * HOUR]


async def test_times_that_the_clock_has_not_shown_are_not_missed(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    """The clock was not read for long before it was set back."""
    runs = WallRuns(virtual_clock)
    await virtual_clock.advance(MINUTE)
    scheduler.schedule_at_times(Grid(HOUR), "id", runs)
    await virtual_clock.advance(49 * MINUTE)
    virtual_clock.step_wall(-165 * MINUTE)
    await virtual_clock.advance(3 * HOUR)
    assert runs.starts == [-HOUR, 0 * HOUR, HOUR]


async def test_a_time_that_was_skipped_after_a_jump_is_run_when_it_comes(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs, missed="skip")
    virtual_clock.step_wall(2.5 * MINUTE)
    await virtual_clock.advance(MINUTE)
    virtual_clock.step_wall(-3 * MINUTE)
    await virtual_clock.advance(5 * MINUTE)
    assert runs.starts == [2.5 * MINUTE, *[MINUTE * number for number in (3, 1, 4, 5)]]


async def test_a_time_at_which_a_period_begins_is_not_in_it(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    """It is a minute ago, and therefore skipped."""
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs, missed="skip")
    virtual_clock.step_wall(5 * MINUTE)
    await virtual_clock.advance(1)
    virtual_clock.step_wall(-MINUTE - timedelta(seconds=2))
    await virtual_clock.advance(3 * MINUTE)
    assert runs.starts == [MINUTE * number for number in (5, 4, 6)]


@pytest.mark.parametrize("how", ["cancel", "reschedule"])
async def test_a_function_that_cancels_or_reschedules_its_task_when_it_is_asked_again(
    scheduler: Scheduler, virtual_clock: VirtualClock, how: str
) -> None:
    class Own(Grid):
        def __call__(self, now: datetime) -> Iterator[datetime]:
            if self.asked and how == "cancel":
                scheduler.cancel("id")
            elif self.asked:
                scheduler.reschedule_later(5 * HOUR, "id")
            return super().__call__(now)

    runs = WallRuns(virtual_clock)
    task = scheduler.schedule_at_times(Own(HOUR), "id", runs)
    virtual_clock.step_wall(-DAY)
    await virtual_clock.advance(4 * HOUR)
    assert runs.starts == []
    assert task.status.name == ("CANCELLED" if how == "cancel" else "PENDING")


async def test_a_time_that_comes_before_a_step_is_announced_is_run_late(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    """It was due after 15 seconds, and the step is found out after 30."""
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs)
    await virtual_clock.advance(1)
    virtual_clock.step_wall(-5.25 * MINUTE - timedelta(seconds=1), notify=False)
    await virtual_clock.advance(1.5 * MINUTE)
    assert runs.starts == [-4.75 * MINUTE, -4 * MINUTE]


async def test_a_time_that_the_clock_was_set_to_is_run_once(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    """The clock was set to just this time."""
    runs = WallRuns(virtual_clock)
    scheduler.schedule_at_times(Grid(MINUTE), "id", runs)
    await virtual_clock.advance(1)
    virtual_clock.step_wall(59)
    await virtual_clock.advance(1)
    virtual_clock.step_wall(-30)
    await virtual_clock.advance(2.5 * MINUTE)
    assert runs.starts == [MINUTE * number for number in (1, 2, 3)]
