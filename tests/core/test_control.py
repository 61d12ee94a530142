"""Features beyond scheduling: hosting, leaving running tasks, pausing, times of other libraries, and more."""

import asyncio
import logging
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from anysched import CurrentRun, Scheduler, current_run
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from recurrence import START, Runs, at, recur
from support import Gate, fail, forever, is_closed, nothing, records, settle, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


# Hosting from synchronous code


def test_start_hosts_the_scheduler_until_it_is_closed() -> None:
    results: list[str] = []

    class Bot:
        def __init__(self) -> None:
            self.scheduler = Scheduler("bot")
            self.cog = self.scheduler.child("cog")

        def setup(self) -> None:
            self.scheduler.start()
            self.cog.schedule("now", self.work, "at once")

        async def work(self, text: str) -> None:
            results.append(text)

    async def main() -> None:
        bot = Bot()
        asyncio.get_running_loop().call_soon(bot.setup)
        await until(lambda: results)
        pending = bot.cog.schedule_later(HOUR, "later", nothing())
        running = bot.scheduler.schedule("running", forever)
        await settle()
        before = len(asyncio.all_tasks())
        assert await asyncio.create_task(bot.scheduler.close()) == [pending, running]
        assert bot.scheduler.state == "closed"
        assert len(asyncio.all_tasks()) == before - 3  # the host, the dispatcher and the task
        with pytest.raises(RuntimeError, match="only once"):
            bot.scheduler.start()

    asyncio.run(main())
    assert results == ["at once"]


def test_what_start_refuses() -> None:
    scheduler = Scheduler("test")
    with pytest.raises(RuntimeError, match="needs a running asyncio event loop"):
        scheduler.start()

    async def on_trio() -> None:
        with pytest.raises(RuntimeError, match=r"nursery\.start\(scheduler\.run\)"):
            scheduler.start()

    anyio.run(on_trio, backend="trio")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="is a child"):
            scheduler.child("child").start()
        scheduler.start()
        with pytest.raises(RuntimeError, match="only once"):
            scheduler.start()
        with pytest.raises(RuntimeError, match="only once"):
            await scheduler.__aenter__()
        assert await scheduler.schedule("id", value(1)) == 1
        with pytest.raises(RuntimeError, match="only once"):
            await scheduler.run()
        await scheduler.close()
        assert await scheduler.close() == []

    asyncio.run(main())


def test_a_started_scheduler_ends_with_its_event_loop() -> None:
    scheduler, unborn = Scheduler("test"), Scheduler("unborn")
    coroutine, other = nothing(), nothing()
    gate = Gate()

    async def main() -> None:
        scheduler.start()
        scheduler.schedule_later(HOUR, "pending", coroutine)
        scheduler.schedule("id", gate)
        await gate.started.wait()
        unborn.start()
        unborn.schedule("id", other)
        for task in asyncio.all_tasks():
            if task.get_name() == "anysched unborn":
                task.cancel()

    asyncio.run(main())
    assert gate.ended
    assert is_closed(coroutine)
    assert is_closed(other)
    assert {scheduler.state, unborn.state} == {"closed"}


def test_a_scheduler_started_in_a_fixture_of_unittest() -> None:
    """Set-up and tear-down may be in one task or in two, depending on the Python."""

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.scheduler = Scheduler("test")
            self.scheduler.start()

        async def asyncTearDown(self) -> None:
            await self.scheduler.close()

        async def test_it(self) -> None:
            assert await self.scheduler.schedule("id", value(5)) == 5
            self.scheduler.schedule_later(HOUR, "pending", nothing())

    result = unittest.TestResult()
    Case("test_it").run(result)
    assert result.wasSuccessful(), result.errors


# Leaving running tasks


@pytest.mark.parametrize("how", ["cancel", "cancel_all", "handle"])
async def test_cancelling_can_leave_what_runs(scheduler: Scheduler, how: str, virtual_clock: VirtualClock) -> None:
    gate = Gate()
    running = scheduler.schedule("running", gate)
    coroutine = nothing()
    pending = scheduler.schedule_later(HOUR, "pending", coroutine)
    await gate.started.wait()
    match how:
        case "cancel":
            assert scheduler.cancel("running", running="leave")
            assert scheduler.cancel("pending", running="leave")
        case "cancel_all":
            scheduler.cancel_all(running="leave")
        case _:
            running.cancel(running="leave")
            pending.cancel(running="leave")
    assert not scheduler.tasks
    assert is_closed(coroutine)
    successor = scheduler.schedule("running", value(2))
    running.cancel(running="leave")  # again, now that another one has the ID
    await settle()
    assert successor.status.name == "PENDING"
    gate.open.set()
    assert await running == "through"
    assert await successor == 2


async def test_a_recurring_task_that_is_left_ends_with_its_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(4)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    scheduler.cancel("id", running="leave")
    await task.wait()
    assert (task.status.name, task.last_status) == ("FINISHED", task.status)
    await virtual_clock.advance(60)
    assert len(runs.starts) == 1


async def test_what_to_do_with_what_runs_must_be_known(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    task = scheduler.schedule("id", forever)
    wrong: Any = "kill"
    await settle()
    for call in (lambda: scheduler.cancel("id", running=wrong), lambda: scheduler.cancel_all(running=wrong)):
        with pytest.raises(ValueError, match='"cancel" or "leave"'):
            call()
    with pytest.raises(ValueError, match='"cancel" or "leave"'):
        task.cancel(running=wrong)
    scheduler.cancel("id", running="leave")
    with pytest.raises(ValueError, match='"cancel" or "leave"'):
        task.cancel(running=wrong)
    assert task.status.name == "RUNNING"


# Other libraries' times


def number(value: object) -> str:
    return type(value).__name__


@dataclass
class Arrow:
    """As `arrow.Arrow`."""

    datetime: datetime


@dataclass
class Instant:
    """Like the times of whenever."""

    moment: Any

    def to_stdlib(self) -> Any:
        return self.moment


@dataclass
class Stamp:
    """Like the times of many libraries."""

    moment: datetime

    def timestamp(self) -> float:
        return self.moment.timestamp()


class Type:
    """As `numpy.dtype`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class NumPy:
    """As ``numpy.datetime64`` and ``numpy.timedelta64``."""

    def __init__(self, kind: str, item: Any) -> None:
        self.dtype = Type(kind)
        self._item = item

    def astype(self, unit: str) -> Any:
        assert unit == {"M": "datetime64[us]", "m": "timedelta64[us]"}[self.dtype.kind]
        return self

    def item(self) -> Any:
        return self._item

    def __float__(self) -> float:
        if self._item is None:
            raise TypeError
        return 1500.0


MOMENT = START + timedelta(seconds=5.25)


@pytest.mark.parametrize(
    "time", [Arrow(MOMENT), Instant(MOMENT), Stamp(MOMENT), NumPy("M", MOMENT.replace(tzinfo=None))], ids=number
)
async def test_moments_of_other_libraries(scheduler: Scheduler, virtual_clock: VirtualClock, time: Any) -> None:
    task = scheduler.schedule_at(time, "id", nothing)
    assert task.due == MOMENT
    assert scheduler.reschedule_at(time, "id")
    assert task.reschedule_at(time)
    assert scheduler.schedule_at_times([time], "times", nothing).due == MOMENT
    assert scheduler.schedule_at_times(lambda _: [time], "function", nothing).due == MOMENT
    every = scheduler.schedule_every(60, "every", nothing, first=time)
    assert every.due == MOMENT
    await virtual_clock.advance(6)
    assert (every.run_count, every.due) == (1, MOMENT + timedelta(seconds=60))


class NaT(datetime):
    """Like pandas' `NaT`, which is a `datetime` and not equal to itself."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "time", [NaT(2020, 1, 1), NumPy("M", None), Stamp, datetime, Instant(None), "2026-01-01", 5, None], ids=number
)
async def test_what_is_not_a_moment_is_refused(scheduler: Scheduler, time: Any) -> None:
    coroutine = nothing()
    with pytest.raises(TypeError, match="time must be a datetime"):
        scheduler.schedule_at(time, "id", coroutine)
    assert is_closed(coroutine)
    if time is not None and not isinstance(time, int):
        with pytest.raises((TypeError, ValueError), match="must be"):
            scheduler.schedule_every(60, "id", nothing, first=time)


async def test_a_duration_of_numpy_has_its_unit(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    duration: Any = NumPy("m", timedelta(seconds=1.5))
    no_time: Any = NumPy("m", None)
    task = scheduler.schedule_later(duration, "id", nothing)
    assert [task.due] == at(1.5)
    with pytest.raises(ValueError, match="finite"):
        scheduler.schedule_later(no_time, "other", nothing)


# Pausing


async def test_a_paused_task_keeps_everything_and_does_not_start(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule_later(10, "id", value(7))
    assert not task.paused
    assert scheduler.pause("id")
    assert not scheduler.pause("id")
    assert (task.paused, task.status.name, task.due) == (True, "PENDING", at(10)[0])
    assert scheduler.statistics().pending == 1
    assert scheduler.statistics().next_due is None
    await virtual_clock.advance(60)
    assert "id" in scheduler
    assert scheduler.resume("id")
    assert not scheduler.resume("id")
    assert await task == 7
    for method in (scheduler.pause, scheduler.resume):
        assert not method("id")
    assert not records(caplog, logging.INFO)


async def test_a_task_resumed_in_time_is_as_if_it_had_not_been_paused(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    runs = Runs()
    task = scheduler.schedule_later(10, "id", runs)
    assert task.pause()
    await virtual_clock.advance(5)
    assert task.resume()
    await task
    assert runs.starts == [10]


@pytest.mark.parametrize(
    ("missed", "starts"),
    [("latest", [10, 35, 40, 50]), ("all", [10, 35, 35, 40, 50]), ("skip", [10, 35, 40, 50])],
)
async def test_what_a_paused_task_has_missed_goes_by_its_policy(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, missed: Any, starts: list[float]
) -> None:
    runs = Runs()
    task = recur(way, scheduler, "id", runs, missed=missed)
    await virtual_clock.advance(15)
    assert task.pause()
    await virtual_clock.advance(20)
    assert task.resume()
    await virtual_clock.advance(20)
    assert runs.starts[:1] == [10]
    if missed == "skip" and way == "each":
        starts = [10, 35, 35, 40, 50]  # neither is a minute late; with a period, that is the limit if it is shorter
    assert runs.starts == starts


async def test_a_recurring_task_can_be_paused_during_a_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    runs = Runs(4)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    assert scheduler.pause("id")
    assert not scheduler.pause("id")
    await virtual_clock.advance(30)
    assert runs.starts == [10]
    assert (task.status.name, task.paused, task.due) == ("PENDING", True, at(20)[0])
    assert task.resume()
    await virtual_clock.advance(1)
    assert runs.starts == [10, 42]


async def test_a_run_can_be_resumed_before_it_ends(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    runs = Runs(4)
    task = scheduler.schedule_every(10, "id", runs)
    await virtual_clock.advance(12)
    assert task.pause()
    assert task.resume()
    await virtual_clock.advance(20)
    assert runs.starts == [10, 20, 30]


async def test_a_task_that_runs_once_cannot_be_paused_while_it_runs(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    task = scheduler.schedule("id", forever)
    await settle()
    assert not task.pause()
    scheduler.cancel("id")
    assert not task.pause()
    assert not task.resume()


async def test_a_paused_task_can_be_rescheduled_and_cancelled(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    task = scheduler.schedule_later(10, "id", value(1))
    task.pause()
    assert task.reschedule_later(20)
    assert [task.due] == at(20)
    await virtual_clock.advance(60)
    assert task.status.name == "PENDING"
    assert task.reschedule_at(START + timedelta(seconds=90))
    assert task.resume()
    assert [task.due] == at(90)
    other = scheduler.schedule("other", nothing())
    other.pause()
    scheduler.cancel("other")
    assert await task == 1
    assert other.status.name == "CANCELLED"


async def test_a_task_that_waits_for_a_slot_can_be_paused(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        gate = Gate()
        scheduler.schedule("first", gate)
        paused, third = scheduler.schedule("paused", value(2)), scheduler.schedule("third", value(3))
        await settle()
        assert paused.pause()
        gate.open.set()
        assert await third == 3
        assert paused.status.name == "PENDING"
        paused.resume()
        assert await paused == 2


async def test_a_blocked_successor_can_be_paused(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    gate = Gate()
    first = scheduler.schedule("id", gate)
    await gate.started.wait()
    successor = scheduler.schedule("id", value(2), on_conflict="follow")
    await settle()
    assert successor.pause()
    gate.open.set()
    await first
    await settle()
    assert successor.status.name == "PENDING"
    assert successor.resume()
    assert await successor == 2


# A pause between runs


@pytest.mark.parametrize("outcome", ["returns", "fails"])
async def test_a_period_measured_from_the_end(scheduler: Scheduler, virtual_clock: VirtualClock, outcome: str) -> None:
    starts: list[float] = []

    async def work() -> None:
        starts.append(anyio.current_time())
        await anyio.sleep(7)
        if outcome == "fails":
            raise ValueError

    task = scheduler.schedule_every(10, "id", work, first=0, measured_from="end")
    await virtual_clock.advance(60)
    assert starts == [0, 17, 34, 51]
    scheduler.cancel("id")
    await task.wait()
    assert task.status.name == "CANCELLED"


async def test_a_run_that_is_cancelled_is_followed_by_a_pause(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    starts: list[float] = []

    async def work() -> None:
        starts.append(anyio.current_time())
        with anyio.move_on_after(3):
            await anyio.sleep(100)

    scheduler.schedule_every(10, "id", work, measured_from="end", jitter=0)
    scheduler.reschedule_later(1, "id")
    await virtual_clock.advance(30)
    assert starts == [1, 14, 27]


async def test_what_the_period_is_measured_from_must_be_known(scheduler: Scheduler) -> None:
    wrong: Any = "middle"
    with pytest.raises(ValueError, match='"start" or "end"'):
        scheduler.schedule_every(10, "id", nothing, measured_from=wrong)


async def test_a_run_after_a_pause_stands_for_itself(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    seen: list[CurrentRun] = []

    async def work() -> None:
        seen.append(current_run())
        await anyio.sleep(25)

    scheduler.schedule_every(10, "id", work, measured_from="end")
    await virtual_clock.advance(100)
    assert [(run.due, run.missed) for run in seen] == [(time, 0) for time in at(10, 45, 80)]


# Exceptions that are not logged, and the task's own exception


async def test_suppressed_exceptions_are_not_logged(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Scheduler("test", suppressed_exceptions=(KeyError,)) as scheduler:
        child = scheduler.child("child", suppressed_exceptions=(OSError,))
        await scheduler.schedule(1, fail, KeyError()).wait()
        await child.schedule(1, fail, KeyError()).wait()
        await child.schedule(1, fail, FileNotFoundError()).wait()
        await child.schedule(1, fail, ValueError(), suppressed_exceptions=(ValueError, TypeError)).wait()
        every = scheduler.schedule_every(5, 2, fail, ZeroDivisionError(), suppressed_exceptions=(ArithmeticError,))
        once = scheduler.schedule_at_times(
            [virtual_clock.now()], 3, fail, ZeroDivisionError(), suppressed_exceptions=(ArithmeticError,)
        )
        await virtual_clock.advance(11)
        assert not records(caplog, logging.INFO)
        assert (every.run_count, once.status.name) == (2, "FINISHED")
        await scheduler.schedule(1, fail, OSError()).wait()
        await scheduler.schedule(1, fail, ValueError()).wait()
        assert len(records(caplog, logging.ERROR)) == 2


@pytest.mark.parametrize("wrong", [KeyError, [KeyError], (KeyError, 5), (KeyError()), (int,)])
async def test_suppressed_exceptions_must_be_types(scheduler: Scheduler, wrong: Any) -> None:
    coroutine = nothing()
    calls: list[Callable[[], object]] = [
        lambda: Scheduler("x", suppressed_exceptions=wrong),
        lambda: scheduler.child("x", suppressed_exceptions=wrong),
        lambda: scheduler.schedule("id", coroutine, suppressed_exceptions=wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="suppressed_exceptions must be a tuple"):
            call()
    assert is_closed(coroutine)


async def test_result_raises_the_own_exception_of_the_task(scheduler: Scheduler) -> None:
    error = KeyError("x")
    task = scheduler.schedule("id", fail, error)
    with pytest.raises(KeyError) as info:
        await task.result()
    assert info.value is error
    assert await scheduler.schedule("id", value(3)).result() == 3
    dropped = scheduler.schedule("id", nothing())
    dropped.cancel()
    with pytest.raises(anyio.TaskCancelled):
        await dropped.result()


# The handle


async def test_the_handle_knows_the_function_until_the_start_and_after_a_drop(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    task = scheduler.schedule_later(5, "id", value, 1)
    coroutine = scheduler.schedule_later(5, "coroutine", value(1))
    dropped = scheduler.schedule_later(5, "dropped", value, 2)
    every = scheduler.schedule_every(5, "every", value, 3)
    assert (task.function, task.args) == (value, (1,))
    assert (coroutine.function, coroutine.args) == (None, ())
    assert (every.function, every.args) == (value, (3,))
    assert (task.recurs, every.recurs) == (False, True)
    dropped.cancel()
    assert (dropped.function, dropped.args) == (value, (2,))
    await virtual_clock.advance(6)
    assert (task.function, task.args) == (None, ())
    assert (every.function, every.args) == (value, (3,))
    every.cancel()
    assert (every.function, every.args) == (value, (3,))
    assert dropped.function is not None
    scheduler.schedule("dropped", dropped.function, *dropped.args)


async def test_the_verbs_of_a_handle_are_for_its_own_task(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    gate = Gate()
    predecessor = scheduler.schedule("id", gate)
    await gate.started.wait()
    holder = scheduler.schedule_later(10, "id", nothing, on_conflict="follow")
    assert not predecessor.reschedule_later(1)
    assert not predecessor.reschedule_at(START)
    assert not predecessor.pause()
    assert [holder.due] == at(10)
    assert holder.reschedule_later(timedelta(seconds=20))
    assert [holder.due] == at(20)
    predecessor.cancel()
    assert "id" in scheduler


async def test_the_handle_tells_of_the_last_run(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    results = ["FINISHED", "FAILED"]

    async def work() -> None:
        if results.pop(0) == "FAILED":
            raise ValueError

    task = recur(way, scheduler, "id", work)
    once = scheduler.schedule("once", nothing)
    await once
    assert (once.last_started, once.last_status) == (None, None)
    assert (task.last_started, task.last_status) == (None, None)
    await virtual_clock.advance(11)
    assert (task.last_started, task.last_status) == (*at(10), task.Status.FINISHED)
    await virtual_clock.advance(10)
    assert (task.last_started, task.last_status) == (*at(20), task.Status.FAILED)
    assert [task.due] == at(30)


# The due times that a run covers


async def test_current_run_tells_what_it_stands_for(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str
) -> None:
    seen: list[CurrentRun] = []
    durations = [0, 35, 0, 0]

    async def work() -> None:
        seen.append(current_run())
        await anyio.sleep(durations.pop(0))

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(12)
    scheduler.reschedule_later(0, "id")
    await virtual_clock.advance(40)
    assert [(run.due, run.missed) for run in seen] == [
        (at(10)[0], 0),
        (at(12)[0], 0),  # brought forward
        (at(40)[0], 2),
        (at(50)[0], 0),
    ]
    assert {run.task for run in seen} == {task}
    assert {run.task_id for run in seen} == {"id"}


async def test_current_run_in_and_out_of_a_task(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    async def work() -> CurrentRun:
        run = current_run()
        async with anyio.create_task_group() as tg:
            tg.start_soon(check, run)
        return run

    async def check(run: CurrentRun) -> None:
        assert current_run() == run

    run = await scheduler.schedule_later(5, "id", work)
    assert [run.due] == at(5)
    with pytest.raises(RuntimeError, match="outside of a scheduled task"):
        current_run()


# Deadlocks under a limit


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_tasks_that_wait_for_tasks_that_need_their_slots_are_refused(
    limit: int, virtual_clock: VirtualClock
) -> None:
    async with Scheduler("test", max_running=limit) as scheduler:
        errors: list[str] = []

        async def parent(number: int) -> None:
            child = scheduler.schedule(("child", number), nothing)
            await settle()
            try:
                await child
            except RuntimeError as error:
                errors.append(str(error))

        for number in range(limit):
            scheduler.schedule(number, parent, number)
        await scheduler.join()
        assert len(errors) == 1
        assert "deadlock" in errors[0]
        assert "scheduler.child(...)" in errors[0]
        assert scheduler.statistics().finished == 2 * limit


async def test_a_chain_of_tasks_that_wait_under_a_limit(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=2) as scheduler:

        async def work(depth: int) -> int:
            return 0 if not depth else 1 + await scheduler.schedule(depth - 1, work, depth - 1)

        assert await scheduler.schedule(1, work, 1) == 1
        deep = scheduler.schedule(3, work, 3)
        await deep.wait()
        assert deep.status.name == "FAILED"


async def test_waiting_for_what_has_a_slot_or_needs_none_is_no_deadlock(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        child = scheduler.child("child", max_running=1)

        async def parent() -> int:
            async with anyio.create_task_group() as tg:
                for number in range(3):
                    tg.start_soon(child.schedule(("child", number), value(number)).wait)
            return await child.schedule("last", value(5))

        assert await scheduler.schedule("parent", parent) == 5


async def test_a_deadlock_by_way_of_a_child_is_found(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        child = scheduler.child("child")
        grandchild = child.child("child", max_running=1)

        async def root_task() -> str:
            return await child.schedule("middle", middle)

        async def middle() -> str:
            return await grandchild.schedule("deep", deep)

        async def deep() -> str:
            try:
                await scheduler.schedule("pending", nothing)
            except RuntimeError as error:
                return str(error)
            raise AssertionError

        error = await scheduler.schedule("root", root_task)
        assert "'test.child.child_deep' awaits 'test_pending', which needs one of the slots of 'test'" in error
        await scheduler.join()


async def test_a_deadlock_through_a_task_that_waits_elsewhere_is_found(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test") as scheduler:
        first, second = (scheduler.child(name, max_running=1) for name in ("first", "second"))
        errors: list[str] = []

        async def cross(own: Scheduler, other: Scheduler) -> None:
            await settle()
            task = other.schedule("pending", nothing)
            await settle()
            try:
                await task
            except RuntimeError as error:
                errors.append(str(error))

        tasks = [first.schedule("task", cross, first, second), second.schedule("task", cross, second, first)]
        for task in tasks:
            await task
        assert len(errors) == 1
        await scheduler.join()


async def test_a_deadlock_through_a_predecessor_is_found(virtual_clock: VirtualClock) -> None:
    """The awaited task has no slot yet, because its predecessor waits for the slot of the waiting task."""
    async with Scheduler("test", max_running=1) as scheduler:
        child = scheduler.child("child")
        refused: list[str] = []

        async def predecessor() -> None:
            gate.set()
            await settle()
            try:
                await scheduler.schedule("pending", nothing)
            except RuntimeError as error:
                refused.append(str(error))

        async def waits() -> None:
            await child.schedule("id", nothing, on_conflict="follow")

        gate = anyio.Event()
        child.schedule("id", predecessor)
        await gate.wait()
        await scheduler.schedule("waits", waits)
        assert len(refused) == 1
        await scheduler.join()


async def test_a_deadlock_from_a_scheduler_inside_a_task_is_found(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=1) as scheduler:

        async def outer() -> str:
            async with Scheduler("inner") as inner:
                return await inner.schedule("inner", waits)

        async def waits() -> str:
            with pytest.raises(RuntimeError, match="deadlock") as info:
                await scheduler.schedule("pending", nothing)
            return str(info.value)

        assert "'test_outer' awaits 'test_pending'" in await scheduler.schedule("outer", outer)


async def test_waits_that_can_end_are_no_deadlock(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test", max_running=2) as scheduler:
        free = scheduler.child("free")
        results: list[Any] = []

        async def waits_for_a_sleeper() -> None:
            results.append(await free.schedule_later(5, "sleeper", value(1)))

        async def waits_for_a_slot() -> None:
            results.append(await scheduler.schedule("pending", value(2)))

        async def waits_for_two() -> None:
            tasks = [free.schedule_later(1, 1, value(3)), scheduler.schedule("other", value(4))]
            async with anyio.create_task_group() as tg:
                for task in tasks:
                    tg.start_soon(task.wait)
                    tg.start_soon(task.wait)
            results.extend(task.return_value for task in tasks)

        scheduler.schedule("a", waits_for_a_sleeper)
        scheduler.schedule("b", waits_for_a_slot)
        await scheduler.join()
        assert results == [1, 2]
        await scheduler.schedule("c", waits_for_two)
        assert results == [1, 2, 3, 4]
        assert not scheduler._registry.family.waits._awaited


async def test_a_task_that_was_cancelled_while_it_waits_is_no_deadlock(
    virtual_clock: VirtualClock,
) -> None:
    async with Scheduler("test", max_running=2) as scheduler:

        async def canceller() -> str:
            waiting = scheduler.schedule("waiting", waits)
            await settle()
            pending = scheduler.schedule("pending", nothing)
            waiting.cancel()
            await pending  # which gets the slot of the one that was cancelled
            return waiting.status.name

        async def waits() -> None:
            await scheduler.tasks["canceller"]

        assert await scheduler.schedule("canceller", canceller) == "CANCELLED"


# Held up


async def test_what_holds_up_closing_is_named(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(25)

    child = scheduler.child("child")
    for number in range(7):
        child.schedule(number, stubborn)
    await settle()
    await scheduler.close()
    messages = [record.getMessage() for record in records(caplog, logging.WARNING)]
    assert len(messages) == 2
    assert "test.child_0" in messages[0]
    assert "2 more" in messages[0]


@pytest.mark.parametrize("how", ["async with", "cancelled outside", "run", "child"])
async def test_what_holds_up_leaving_is_named(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(25)

    began = anyio.current_time()
    async with anyio.create_task_group() as tg:
        root = Scheduler("test")
        if how == "run":
            await tg.start(root.run)
            root.schedule("id", stubborn)
            await settle()
            tg.cancel_scope.cancel()
        elif how == "child":
            async with root, root.child("child") as child:
                child.schedule("id", stubborn)
                await settle()
        else:
            with anyio.CancelScope() as scope:
                async with root:
                    root.schedule("id", stubborn)
                    await settle()
                    if how == "cancelled outside":
                        scope.cancel()
    assert anyio.current_time() - began == 25
    name = "test.child_id" if how == "child" else "test_id"
    assert [record.getMessage() for record in records(caplog, logging.WARNING)] == [
        f"Closing is held up by {name}."
    ] * 2
