"""Long operations in virtual time, where nothing waits and every moment is exact."""

import gc
import math
import random
import weakref
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from anysched._core import dispatcher as dispatcher_module
from anysched._core.clock import wake_time
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from support import Gate, forever, is_closed, nothing, outcome, settle, timeline_of, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0
START = datetime(2025, 1, 1, tzinfo=UTC)


async def now() -> float:
    """Return the time of the event loop, which begins with 0."""
    return anyio.current_time()


# Delays and times


@pytest.mark.parametrize("delay", [5e-6, 0.02, 0.1, 1, HOUR, 1e7, 1e9, timedelta(days=3, microseconds=7)])
async def test_schedule_later_waits(scheduler: Scheduler, delay: Any) -> None:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    assert await scheduler.schedule_later(delay, "id", now) == seconds


@pytest.mark.parametrize(
    "time",
    [
        START + timedelta(microseconds=1),
        START + timedelta(milliseconds=20),
        datetime(2025, 7, 1),
        datetime(2025, 7, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        datetime(2100, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
async def test_schedule_at_waits(scheduler: Scheduler, virtual_clock: VirtualClock, time: datetime) -> None:
    expected = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    task = scheduler.schedule_at(time, "id", value(7))
    assert task.due == expected
    assert await task == 7
    assert virtual_clock.now() == expected


@pytest.mark.parametrize(
    "delay",
    [
        5,
        5.0,
        timedelta(seconds=5),
        Decimal(5),
        Fraction(5),
        True,
        1e12,
        pytest.param(10**300, id="huge"),
        timedelta.max,
    ],
)
async def test_a_delay_is_a_number_of_seconds_or_a_timedelta(scheduler: Scheduler, delay: Any) -> None:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    task = scheduler.schedule_later(delay, "id", nothing)
    try:
        expected = START + timedelta(seconds=seconds)
    except OverflowError:
        expected = datetime.max.replace(tzinfo=UTC)
    assert task.due == expected


async def test_a_naive_time_is_utc(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    aware = virtual_clock.now() + timedelta(days=1)
    naive = scheduler.schedule_at(aware.replace(tzinfo=None), "naive", now)
    zone = scheduler.schedule_at(aware.astimezone(timezone(timedelta(hours=5))), "zone", now)
    assert naive.due == zone.due == aware
    assert await naive == await zone == 24 * HOUR


# Rescheduling


async def test_rescheduling_keeps_the_coroutine_and_the_handle(scheduler: Scheduler) -> None:
    task = scheduler.schedule_later(HOUR, "id", now())
    assert scheduler.reschedule_later(2 * HOUR, "id")
    assert scheduler.tasks["id"] is task
    assert task.due == START + timedelta(hours=2)
    assert scheduler.reschedule_at(datetime(2100, 1, 1, tzinfo=UTC), "id")
    assert task.due == datetime(2100, 1, 1, tzinfo=UTC)
    assert scheduler.reschedule_at(datetime(2101, 1, 1), "id")
    assert task.due == datetime(2101, 1, 1, tzinfo=UTC)
    assert scheduler.reschedule_later(timedelta(milliseconds=1), "id")
    assert await task == 0.001


async def test_rescheduling_to_a_later_time_is_kept(scheduler: Scheduler) -> None:
    task = scheduler.schedule_later(5, "id", now)
    scheduler.reschedule_later(30, "id")
    assert await task == 30


async def test_an_earlier_task_wakes_the_scheduler(scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
    late = scheduler.schedule_later(HOUR, "late", now)
    late_too = scheduler.schedule_at(START + timedelta(hours=2), "late too", now)
    await settle()
    assert await scheduler.schedule_later(1, "soon", now) == 1
    await settle()
    assert await scheduler.schedule_at(START + timedelta(seconds=3), "soon", now) == 3
    await settle()
    scheduler.reschedule_later(2, "late")
    assert await late == 5
    await settle()
    scheduler.reschedule_at(virtual_clock.now() + timedelta(seconds=2), "late too")
    assert await late_too == 7


async def test_a_successor_that_falls_due_after_the_end_does_not_wait(scheduler: Scheduler) -> None:
    gate = Gate(stubborn=True)
    scheduler.schedule("id", gate)
    await gate.started.wait()
    task = scheduler.schedule_later(10, "id", now, on_conflict="replace")
    gate.open.set()
    assert await task == 10


async def test_a_successor_that_falls_due_before_the_end_waits_for_it(scheduler: Scheduler) -> None:
    gate = Gate(stubborn=True)
    scheduler.schedule("id", gate)
    await gate.started.wait()
    task = scheduler.schedule_later(10, "id", now, on_conflict="replace")
    await anyio.sleep(60)
    gate.open.set()
    assert await task == 60


# Order


class Recorder:
    """Records the order and the moments of first steps."""

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.moments: list[float] = []

    async def __call__(self, mark: Any) -> None:
        self.order.append(mark)
        self.moments.append(anyio.current_time())


def block(clock: VirtualClock, seconds: float) -> None:
    """Let time pass while no task can run, as if the caller computed for so long."""
    timeline_of(clock).jump(clock.monotonic() + seconds)


async def test_tasks_start_in_due_order_each_in_its_moment(scheduler: Scheduler) -> None:
    record = Recorder()
    delays = list(range(200))
    random.Random(1).shuffle(delays)
    for delay in delays:
        scheduler.schedule_later(delay / 64, delay, record, delay)
    await scheduler.join()
    assert record.order == list(range(200))
    assert record.moments == [delay / 64 for delay in range(200)]


async def test_tasks_that_fall_due_while_the_event_loop_is_held_up_start_in_due_order(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    record = Recorder()
    delays = list(range(200))
    random.Random(1).shuffle(delays)
    for delay in delays:
        scheduler.schedule_later(delay / 64, delay, record, delay)
    block(virtual_clock, 10)
    await scheduler.join()
    assert record.order == list(range(200))
    assert record.moments == [10] * 200


@pytest.mark.parametrize("held_up", [0, 60])
async def test_the_two_clocks_are_compared(scheduler: Scheduler, virtual_clock: VirtualClock, held_up: float) -> None:
    record = Recorder()
    for number in range(20):
        if number % 2:
            scheduler.schedule_later(number + 5, number, record, number)
        else:
            scheduler.schedule_at(START + timedelta(seconds=number + 5), number, record, number)
    block(virtual_clock, held_up)
    await scheduler.join()
    assert record.order == list(range(20))
    assert record.moments == [held_up or number + 5 for number in range(20)]


async def test_a_task_that_is_due_before_starts_before_one_scheduled_now(
    scheduler: Scheduler, virtual_clock: VirtualClock
) -> None:
    record = Recorder()
    scheduler.schedule_later(1e-4, "before", record, "before")
    block(virtual_clock, 1e-3)
    scheduler.schedule("now", record, "now")
    await scheduler.join()
    assert record.order == ["before", "now"]


async def test_tasks_that_waited_for_a_slot_start_in_due_order() -> None:
    record = Recorder()
    async with Scheduler("test", max_running=2) as scheduler:
        gates = Gate(), Gate()
        for gate in gates:
            scheduler.schedule(gate, gate)
        delays = list(range(50))
        random.Random(2).shuffle(delays)
        for delay in delays:
            scheduler.schedule_later(delay, delay, record, delay)
        await anyio.sleep(100)
        assert not record.order
        for gate in gates:
            gate.open.set()
        await scheduler.join()
    assert record.order == list(range(50))
    assert record.moments == [100] * 50


# Waiting, and waiting no longer


async def test_two_callers_of_one_id_await_one_result(scheduler: Scheduler) -> None:
    calls: list[int] = []

    async def fetch() -> float:
        calls.append(1)
        await anyio.sleep(3)
        return anyio.current_time()

    results: list[float] = []

    async def caller() -> None:
        results.append(await scheduler.schedule("page", fetch))

    async with anyio.create_task_group() as tg:
        for _ in range(5):
            tg.start_soon(caller)
            await anyio.sleep(0.5)
    assert results == [3] * 5
    assert calls == [1]


async def test_waiting_can_be_cancelled_without_harm(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    with anyio.move_on_after(5) as scope:
        await task
    assert scope.cancelled_caught
    assert await now() == 5
    await settle(3)
    assert task.status is ScheduledTask.Status.RUNNING
    gate.open.set()
    assert await outcome(task) == "FINISHED"


async def test_join_waits_until_nothing_is_held_and_nothing_unwinds(scheduler: Scheduler) -> None:
    gate, stubborn = Gate(), Gate(stubborn=True)
    scheduler.schedule("id", gate)
    scheduler.schedule("stubborn", stubborn)
    pending = scheduler.schedule_later(10, "pending", now)
    joined: list[float] = []

    async def join() -> None:
        await scheduler.join()
        joined.append(anyio.current_time())

    async with anyio.create_task_group() as tg:
        for _ in range(2):
            tg.start_soon(join)
        await stubborn.started.wait()
        await anyio.sleep(20)
        assert await pending == 10
        scheduler.cancel("stubborn")
        gate.open.set()
        await settle()
        assert not scheduler.tasks
        await anyio.sleep(10)
        assert not joined
        stubborn.open.set()
    assert joined == [30, 30]


async def test_a_child_that_is_let_go_is_let_go(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    task = child.schedule("id", nothing)
    await task
    reference = weakref.ref(child)
    del child, task
    await settle()
    gc.collect()
    assert reference() is None
    kept = scheduler.child("kept").schedule_later(10, "id", now)
    gc.collect()
    assert await kept == 10


# Leaving and closing


async def test_leaving_with_an_hour_to_wait_takes_no_time() -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_later(HOUR, "id", nothing())
        await settle()
    assert await now() == 0


async def takes_its_time(ended: list[float]) -> None:
    """Run until cancelled, and for another ten seconds."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)
        ended.append(anyio.current_time())


async def test_leaving_waits_for_a_task_that_takes_its_time() -> None:
    ended: list[float] = []
    async with Scheduler("test") as scheduler:
        scheduler.schedule("held", takes_its_time, ended)
        scheduler.schedule("unwinding", takes_its_time, ended)
        await settle()
        scheduler.cancel("unwinding")
        await anyio.sleep(5)
    assert ended == [10, 15]
    assert await now() == 15


async def test_leaving_a_child_under_a_timeout_waits_for_a_task_that_takes_its_time(scheduler: Scheduler) -> None:
    ended: list[float] = []
    with anyio.move_on_after(5):
        async with scheduler.child("child") as child:
            child.schedule("id", takes_its_time, ended)
            await anyio.sleep_forever()
    assert ended == [15]
    assert await now() == 15


async def test_close_drops_the_pending_and_lets_the_running_finish_in_the_grace(scheduler: Scheduler) -> None:
    coroutine = nothing()
    quick, stuck, stubborn, cancelled = Gate(), Gate(), Gate(stubborn=True), Gate()
    tasks = {name: scheduler.schedule(name, gate) for name, gate in
             {"quick": quick, "stuck": stuck, "stubborn": stubborn, "cancelled": cancelled}.items()}  # fmt: skip
    pending = scheduler.schedule_at(datetime(2100, 1, 1), "pending", coroutine)
    due = scheduler.child("child").schedule_later(HOUR, "child's", nothing)
    await settle()
    scheduler.cancel("cancelled")
    unfinished: list[ScheduledTask[Any]] = []

    async def close() -> None:
        unfinished.extend(await scheduler.close(grace=50))

    async with anyio.create_task_group() as tg:
        tg.start_soon(close)
        await settle()
        assert is_closed(coroutine)
        with pytest.raises(RuntimeError, match="closing"):
            scheduler.schedule("late", nothing())
        await anyio.sleep(49.999)
        assert tasks["quick"].status.name == "RUNNING"
        quick.open.set()
        await settle()
        assert not stuck.cancelled
        assert not stubborn.cancelled
        await anyio.sleep(0.002)
        assert stuck.cancelled
        assert stubborn.cancelled
        assert not unfinished
        stubborn.open.set()
    assert unfinished == [pending, due, tasks["stuck"], tasks["stubborn"]]
    assert pending.due == datetime(2100, 1, 1, tzinfo=UTC)
    assert tasks["quick"].status.name == "FINISHED"
    assert await scheduler.close() == []


async def test_a_grace_ends_in_its_moment(scheduler: Scheduler) -> None:
    task = scheduler.schedule("id", forever)
    await settle()
    assert await scheduler.close(grace=timedelta(days=1)) == [task]
    assert await now() == 24 * HOUR


async def test_close_returns_when_the_last_task_has_ended(scheduler: Scheduler) -> None:
    scheduler.schedule("id", anyio.sleep, 10)
    await settle()
    assert await scheduler.close(grace=HOUR) == []
    assert await now() == 10


async def test_close_with_all_the_time_in_the_world(scheduler: Scheduler) -> None:
    scheduler.schedule("id", anyio.sleep, 1e8)
    await settle()
    assert await scheduler.close(grace=math.inf) == []
    assert await now() == 1e8


async def test_close_that_is_cancelled_cancels_the_rest_at_once(scheduler: Scheduler) -> None:
    gate = Gate()
    scheduler.schedule("id", gate)
    await gate.started.wait()
    with anyio.move_on_after(5) as scope:
        await scheduler.close(grace=HOUR)
    assert scope.cancelled_caught
    await settle()
    assert gate.cancelled
    assert await now() == 5
    assert await scheduler.close() == []


async def test_run_returns_although_close_was_cancelled() -> None:
    gate = Gate(stubborn=True)
    scheduler = Scheduler("test")
    async with anyio.create_task_group() as tg:
        await tg.start(scheduler.run)
        scheduler.schedule("id", gate)
        await gate.started.wait()
        with anyio.move_on_after(5) as scope:
            await scheduler.close(grace=HOUR)
        assert scope.cancelled_caught
        gate.open.set()
    assert gate.cancelled
    assert await now() == 5


# Context


variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_a_task_runs_in_a_copy_of_the_context_of_the_call(scheduler: Scheduler) -> None:
    """Not in the dispatcher's."""

    async def work() -> str:
        seen = variable.get()
        variable.set("changed by the task")
        return seen

    variable.set("at the call")
    tasks = [scheduler.schedule(1, work()), scheduler.schedule_later(HOUR, 2, work)]
    variable.set("after the call")
    assert [await task for task in tasks] == ["at the call"] * 2
    assert variable.get() == "after the call"


async def test_the_context_is_copied_at_the_call(scheduler: Scheduler) -> None:
    context = copy_context()
    context.run(variable.set, "at the call")

    async def look() -> str:
        return variable.get()

    task = scheduler.schedule_later(HOUR, "id", look, context=context)
    context.run(variable.set, "later")
    assert await task == "at the call"


# Unannounced steps of the wall clock: the scheduler reads the clock again every 30 seconds, as in real life


class TestRecheck:
    @pytest.fixture(scope="class", params=["asyncio", "trio"])
    @classmethod
    def anyio_backend(cls, request: pytest.FixtureRequest) -> Any:
        return VirtualClock(START, recheck_interval=30).backend(request.param)

    @pytest.fixture
    def wakes(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """When the dispatcher went to sleep again."""
        wakes: list[float] = []

        def counting(clock: Any, now: float, *args: Any) -> float:
            wakes.append(now)
            return wake_time(clock, now, *args)

        monkeypatch.setattr(dispatcher_module, "wake_time", counting)
        return wakes

    async def test_nothing_starts_early_after_a_backward_step(
        self, scheduler: Scheduler, virtual_clock: VirtualClock
    ) -> None:
        task = scheduler.schedule_at(START + timedelta(seconds=10), "id", now)
        later = scheduler.schedule_later(10, "later", now)
        virtual_clock.step_wall(-HOUR, notify=False)
        assert await later == 10
        await anyio.sleep(HOUR - 1)
        assert task.status.name == "PENDING"
        assert await task == HOUR + 10
        assert virtual_clock.now() == START + timedelta(seconds=10)

    async def test_a_forward_step_is_found_by_the_next_recheck(
        self, scheduler: Scheduler, virtual_clock: VirtualClock
    ) -> None:
        task = scheduler.schedule_at(START + timedelta(hours=1), "id", now)
        later = scheduler.schedule_later(HOUR, "later", now)
        await anyio.sleep(45)
        virtual_clock.step_wall(HOUR, notify=False)
        assert await task == 60
        assert later.status.name == "PENDING"
        assert await later == HOUR

    async def test_a_suspend_is_found_by_the_next_recheck(
        self, scheduler: Scheduler, virtual_clock: VirtualClock
    ) -> None:
        task = scheduler.schedule_at(START + timedelta(hours=1), "id", now)
        await anyio.sleep(45)
        virtual_clock.suspend(HOUR - 50, notify=False)
        assert await task == 60

    async def test_any_wake_reads_both_clocks(self, scheduler: Scheduler, virtual_clock: VirtualClock) -> None:
        task = scheduler.schedule_at(START + timedelta(hours=1), "id", now)
        await anyio.sleep(40)
        virtual_clock.step_wall(HOUR, notify=False)
        await settle()
        assert task.status.name == "PENDING"
        await scheduler.schedule("other", nothing)
        assert await task == 40

    async def test_without_a_wall_entry_there_are_no_rechecks(self, scheduler: Scheduler, wakes: list[float]) -> None:
        scheduler.schedule_later(HOUR, "id", nothing)
        scheduler.schedule_at(START + timedelta(hours=1), "at", nothing)
        await anyio.sleep(75)
        scheduler.cancel("at")
        await anyio.sleep(HOUR - 100)
        assert sorted(set(wakes)) == [0, 30, 60, 90]

    async def test_a_wall_entry_wakes_a_loop_that_would_sleep_past_the_recheck(
        self, scheduler: Scheduler, virtual_clock: VirtualClock
    ) -> None:
        scheduler.schedule_later(HOUR, "later", nothing)
        await anyio.sleep(100)
        task = scheduler.schedule_at(START + timedelta(hours=1), "id", now)
        await settle()
        virtual_clock.step_wall(HOUR, notify=False)
        assert await task == 130
