"""Entering, leaving, hosting, children, joining, closing, and slots."""

import asyncio
import gc
import logging
import math
import weakref
from contextlib import AsyncExitStack
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anysched import Scheduler, SchedulerStatistics
from support import Gate, fail, forever, is_closed, nothing, outcome, records, settle, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


# Leaving


async def test_leaving_cancels_and_awaits_everything() -> None:
    gate = Gate()
    coroutines = [nothing(), nothing(), nothing()]
    async with Scheduler("test") as scheduler:
        running = scheduler.schedule("running", gate)
        await gate.started.wait()
        pending = [
            scheduler.schedule_later(HOUR, "later", coroutines[0]),
            scheduler.schedule_at(datetime(2100, 1, 1), "at", coroutines[1]),
            scheduler.schedule("now", coroutines[2]),
        ]
    assert gate.cancelled
    assert running.status.name == "CANCELLED"
    assert {task.status.name for task in pending} == {"CANCELLED"}
    assert all(is_closed(coroutine) for coroutine in coroutines)
    assert not scheduler.tasks
    assert repr(scheduler) == "<Scheduler 'test' closed, 0 tasks>"


@pytest.mark.parametrize("shielded", [False, True])
async def test_leaving_by_a_cancellation_from_outside(shielded: bool) -> None:
    gate = Gate()
    with anyio.CancelScope() as outer:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", gate)
            await gate.started.wait()
            outer.cancel()
            with anyio.CancelScope(shield=shielded):
                await settle()
                assert shielded
                assert gate.ended
                with pytest.raises(RuntimeError, match="closing"):
                    scheduler.schedule("late", nothing())
            await anyio.sleep(1)
    assert outer.cancelled_caught
    assert gate.cancelled


async def test_leaving_by_a_native_cancellation(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellation")
    gate = Gate()

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", gate)
            await anyio.sleep_forever()

    task = asyncio.create_task(main())
    await gate.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.cancelled


async def test_a_task_that_is_stuck_in_a_shield_holds_up_leaving() -> None:
    gate = Gate(stubborn=True)
    left: list[bool] = []

    async def leave() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", gate)
            await gate.started.wait()
        left.append(gate.ended)

    async with anyio.create_task_group() as tg:
        tg.start_soon(leave)
        await gate.started.wait()
        await settle()
        assert not left
        gate.open.set()
    assert left == [True]


# Hosting


async def test_run_hosts_the_scheduler_in_a_task_group() -> None:
    scheduler = Scheduler("test")
    gate = Gate()
    async with anyio.create_task_group() as tg:
        await tg.start(scheduler.run)
        assert await scheduler.schedule("id", value(7)) == 7
        running = scheduler.schedule("running", gate)
        await gate.started.wait()
        tg.cancel_scope.cancel()
    assert running.status.name == "CANCELLED"
    with pytest.raises(RuntimeError, match="closed"):
        scheduler.schedule("id", nothing())


async def test_run_in_a_native_task(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("for asyncio")
    scheduler = Scheduler("test")
    host = asyncio.create_task(scheduler.run())
    await asyncio.sleep(0)
    assert await scheduler.schedule("id", value(7)) == 7
    scheduler.schedule("running", forever)
    host.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host
    assert not scheduler.tasks


async def test_run_returns_when_the_scheduler_is_closed() -> None:
    scheduler = Scheduler("test")
    async with anyio.create_task_group() as tg:
        await tg.start(scheduler.run)
        await scheduler.close()
    with pytest.raises(RuntimeError, match="only once"):
        await scheduler.run()


async def test_run_is_over_at_once_for_a_scheduler_that_was_closed_before() -> None:
    scheduler = Scheduler("test")
    assert await scheduler.close() == []
    with pytest.raises(RuntimeError, match="only once"):
        await scheduler.run()


# Children


async def test_a_child_has_ids_and_names_of_its_own(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    child = scheduler.child("cog")
    assert child.name == "test.cog"
    parents = scheduler.schedule_later(HOUR, "id", nothing)
    childs = child.schedule_later(HOUR, "id", nothing)
    assert childs.name == "test.cog_id"
    assert (scheduler.tasks["id"], child.tasks["id"]) == (parents, childs)
    child.cancel_all()
    assert "id" in scheduler
    assert "id" not in child
    child.schedule_later(HOUR, "id", nothing)
    scheduler.cancel_all()
    assert "id" in child
    await outcome(child.schedule("fails", fail, ValueError()))
    assert records(caplog)[0].name == "anysched.test.cog"


async def test_children_are_made_anywhere_and_run_with_their_parent() -> None:
    root = Scheduler("root")
    child = root.child("child")
    grandchild = child.child("grandchild")
    assert grandchild.name == "root.child.grandchild"
    for scheduler in (child, grandchild):
        with pytest.raises(RuntimeError, match="not running"):
            scheduler.schedule("id", nothing())
    async with root:
        late = child.child("late")
        for scheduler in (child, grandchild, late):
            assert await scheduler.schedule("id", value(7)) == 7
        running = [scheduler.schedule("id", forever) for scheduler in (root, child, grandchild, late)]
        pending = [scheduler.schedule_later(HOUR, 1, nothing()) for scheduler in (root, child, grandchild, late)]
        await settle()
    assert {task.status.name for task in running + pending} == {"CANCELLED"}
    for scheduler in (child, grandchild, late):
        with pytest.raises(RuntimeError, match="closed"):
            scheduler.schedule("id", nothing())
        with pytest.raises(RuntimeError, match="no more children"):
            scheduler.child("x")


async def test_a_child_closed_early_stays_closed() -> None:
    root = Scheduler("root")
    child = root.child("child")
    await child.close()
    async with root:
        with pytest.raises(RuntimeError, match="closed"):
            child.schedule("id", nothing())


async def test_a_child_can_be_left_in_another_task(scheduler: Scheduler) -> None:
    """A task group cannot do this."""
    child = scheduler.child("child")
    stack = AsyncExitStack()
    gate = Gate()

    async def enter() -> None:
        await stack.enter_async_context(child)

    async with anyio.create_task_group() as tg:
        tg.start_soon(enter)
        await settle()
        running = child.schedule("id", gate)
        child.schedule_later(HOUR, "pending", nothing())
        await gate.started.wait()
        await stack.aclose()
    assert running.status.name == "CANCELLED"
    assert not child.tasks
    assert await scheduler.schedule("id", value(7)) == 7
    with pytest.raises(RuntimeError, match="only once"):
        await child.__aenter__()


async def test_leaving_a_child_awaits_its_tasks_even_when_cancelled(scheduler: Scheduler) -> None:
    gate = Gate()
    with anyio.CancelScope() as scope:
        async with scheduler.child("child") as child:
            child.schedule("id", gate)
            await gate.started.wait()
            scope.cancel()
    assert gate.ended
    assert repr(child) == "<Scheduler 'test.child' closed, 0 tasks>"


async def test_a_child_cannot_be_entered_before_its_parent() -> None:
    child = Scheduler("root").child("child")
    with pytest.raises(RuntimeError, match="not running"):
        await child.__aenter__()


async def test_run_hosts_a_child(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    async with anyio.create_task_group() as tg:
        await tg.start(child.run)
        assert await child.schedule("id", value(7)) == 7
        await child.close()


# Joining


async def test_join_waits_for_what_is_scheduled_meanwhile(scheduler: Scheduler) -> None:
    async def work(left: int) -> None:
        if left:
            scheduler.schedule(left, work, left - 1)

    scheduler.schedule("first", work, 5)
    await scheduler.join()
    assert scheduler.statistics().finished == 6
    scheduler.schedule_later(HOUR, "id", nothing)
    async with anyio.create_task_group() as tg:
        tg.start_soon(scheduler.join)
        await settle()
        scheduler.cancel("id")
    await scheduler.join()


async def test_join_when_there_is_nothing_to_wait_for() -> None:
    scheduler = Scheduler("test")
    await scheduler.join()
    async with scheduler:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await scheduler.join()
        assert scope.cancelled_caught


@pytest.mark.parametrize("method", ["join", "close"])
async def test_a_task_cannot_wait_for_its_own_scheduler(scheduler: Scheduler, method: str) -> None:
    async def work(of: Scheduler) -> None:
        await getattr(of, method)()

    task = scheduler.schedule("id", work, scheduler)
    await task.wait()
    assert "would wait forever" in str(task.exception)
    child = scheduler.child("child")
    if method == "close":
        task = child.schedule("id", work, scheduler)
        await task.wait()
        assert "would wait forever" in str(task.exception)
    assert await outcome(scheduler.schedule("id", work, child)) == "FINISHED"


# Closing


async def test_close_without_grace_cancels_at_once(scheduler: Scheduler) -> None:
    task = scheduler.schedule("id", forever)
    await settle()
    assert await scheduler.close() == [task]


@pytest.mark.parametrize(("grace", "error"), [("x", TypeError), (None, TypeError), (math.nan, ValueError)])
async def test_close_refuses_a_bad_grace_and_changes_nothing(
    scheduler: Scheduler, grace: Any, error: type[Exception]
) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    with pytest.raises(error):
        await scheduler.close(grace)
    assert "id" in scheduler
    scheduler.schedule("other", nothing)


async def test_a_former_task_that_was_left_to_finish_has_the_grace_too(scheduler: Scheduler) -> None:
    gate = Gate()
    predecessor = scheduler.schedule("id", gate)
    await gate.started.wait()
    successor = scheduler.schedule("id", nothing, on_conflict="follow")
    async with anyio.create_task_group() as tg:
        tg.start_soon(scheduler.close, timedelta(seconds=5))
        await settle()
        gate.open.set()
    assert (predecessor.status.name, successor.status.name) == ("FINISHED", "CANCELLED")


async def test_a_task_that_finishes_although_cancelled_is_not_unfinished(scheduler: Scheduler) -> None:
    async def work() -> None:
        with anyio.move_on_after(5):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                return

    task = scheduler.schedule("id", work)
    await settle()
    assert await scheduler.close() == []
    assert task.status.name == "FINISHED"


async def test_a_closed_child_leaves_its_parent_alone(scheduler: Scheduler) -> None:
    child = scheduler.child("child")
    task = child.schedule_later(HOUR, "id", nothing)
    parents = scheduler.schedule_later(HOUR, "id", nothing)
    assert await child.close() == [task]
    assert scheduler.tasks["id"] is parents


# Slots


async def test_no_more_than_so_many_run_at_once_in_due_order() -> None:
    order: list[int] = []
    gates = [Gate() for _ in range(20)]

    async def work(number: int) -> None:
        order.append(number)
        await gates[number]()

    async with Scheduler("test", max_running=3) as scheduler:
        for number in range(20):
            scheduler.schedule(number, work, number)
        for number in range(18):
            await settle()
            assert order == list(range(number + 3))
            assert scheduler.statistics().running == 3
            assert scheduler.statistics().pending == 17 - number
            gates[number].open.set()
        gates[18].open.set()
        gates[19].open.set()
        await scheduler.join()
    assert order == list(range(20))


async def test_what_waits_for_a_slot_is_pending_and_cancellable() -> None:
    gate = Gate()
    async with Scheduler("test", max_running=1) as scheduler:
        first = scheduler.schedule("first", gate)
        coroutines = [value(number) for number in range(5)]
        tasks = [scheduler.schedule(number, coroutine) for number, coroutine in enumerate(coroutines)]
        await settle()
        assert {task.status.name for task in tasks} == {"PENDING"}
        assert all(task.due is not None for task in tasks)
        scheduler.cancel(0)
        assert scheduler.reschedule_later(HOUR, 1)
        scheduler.schedule(2, value(22), on_conflict="replace")
        assert is_closed(coroutines[0])
        assert is_closed(coroutines[2])
        gate.open.set()
        assert await tasks[3] == 3
        assert await tasks[4] == 4
        assert await scheduler.tasks.get(2, tasks[4]) in (22, 4)
        assert tasks[1].status.name == "PENDING"
        assert scheduler.reschedule_later(0, 1)
        assert await tasks[1] == 1
        assert await first == "through"


async def test_a_slot_is_given_back_however_a_task_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ZeroDivisionError

        __repr__ = object.__repr__

    async with Scheduler("test", max_running=1) as scheduler:
        scheduler.schedule("finishes", nothing)
        scheduler.schedule("fails", fail, ValueError())
        scheduler.schedule(Unprintable(), nothing())
        scheduler.schedule("runs", forever)
        last = scheduler.schedule("last", value(7))
        await until(lambda: scheduler.statistics().running)
        await settle()
        scheduler.cancel("runs")
        assert await last == 7


async def test_a_slot_is_given_back_by_a_task_that_is_dropped_before_its_first_step() -> None:
    async with Scheduler("test", max_running=2) as scheduler:

        async def killer() -> None:
            scheduler.cancel("a")
            scheduler.reschedule_later(HOUR, "b")

        # Due first: on asyncio it runs when "a" and "b" have been handed to the event loop and have their slots.
        scheduler.child("child").schedule("killer", killer)
        dropped = scheduler.schedule("a", forever)
        moved = scheduler.schedule("b", forever)
        gates = Gate(), Gate()
        for gate in gates:
            scheduler.schedule(gate, gate)
        await settle()
        assert all(gate.started.is_set() for gate in gates)
        assert (dropped.status.name, moved.status.name) == ("CANCELLED", "PENDING")


async def test_a_child_has_a_limit_of_its_own() -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        gate = Gate()
        scheduler.schedule("id", gate)
        child = scheduler.child("child", max_running=2)
        gates = [Gate() for _ in range(3)]
        for number, each in enumerate(gates):
            child.schedule(number, each)
        await settle()
        assert [each.started.is_set() for each in (gate, *gates)] == [True, True, True, False]


async def test_a_former_task_keeps_its_slot_until_it_has_ended() -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        gate = Gate(stubborn=True)
        scheduler.schedule("id", gate)
        await gate.started.wait()
        successor = scheduler.schedule("id", value(1), on_conflict="replace")
        other = scheduler.schedule("other", value(2))
        await settle()
        assert {successor.status.name, other.status.name} == {"PENDING"}
        gate.open.set()
        assert await other == 2
        assert await successor == 1


async def test_tasks_that_waited_for_a_slot_and_left_are_let_go() -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        scheduler.schedule("runs", forever)
        handles = []
        for _ in range(1000):
            handles.append(weakref.ref(scheduler.schedule("id", nothing)))
            await settle(3)
            scheduler.cancel("id")
        gc.collect()
        assert sum(handle() is not None for handle in handles) < 10


# Context


variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_context_can_be_given(scheduler: Scheduler) -> None:
    context = copy_context()
    context.run(variable.set, "given")

    async def work() -> str:
        seen = variable.get()
        variable.set("changed by the task")
        return seen

    first = scheduler.schedule(1, work(), context=context)
    second = scheduler.schedule(2, work, context=context)
    assert [await first, await second] == ["given"] * 2
    assert context[variable] == "given"
    assert await scheduler.schedule(3, work, context=Context()) == "unset"


async def test_a_context_that_is_in_use_can_be_given(scheduler: Scheduler) -> None:
    context = copy_context()
    task = context.run(lambda: scheduler.schedule(1, value(7), context=context))
    assert await task == 7


# Statistics


async def test_statistics(scheduler: Scheduler) -> None:
    assert scheduler.statistics() == SchedulerStatistics(0, 0, None, 0, 0, 0, 0)
    gate, stubborn = Gate(), Gate(stubborn=True)
    await scheduler.schedule("finishes", nothing)
    await outcome(scheduler.schedule("fails", fail, ValueError()))
    scheduler.schedule("runs", gate)
    scheduler.schedule("unwinds", stubborn)
    await settle()
    scheduler.cancel("unwinds")
    scheduler.schedule_later(2 * HOUR, "later", nothing)
    at = datetime.now(UTC) + timedelta(hours=1)
    scheduler.schedule_at(at, "at", nothing)
    scheduler.schedule_at(at, "dropped", nothing())
    scheduler.cancel("dropped")
    assert scheduler.statistics() == SchedulerStatistics(
        pending=2, running=2, next_due=at, started=4, finished=1, failed=1, cancelled=1
    )
    stubborn.open.set()
    gate.open.set()
    scheduler.cancel("at")
    await settle()
    statistics = scheduler.statistics()
    assert (statistics.pending, statistics.running, statistics.finished, statistics.cancelled) == (1, 0, 2, 3)
    assert statistics.next_due is not None
    assert statistics.next_due - at > timedelta(minutes=59)
    with pytest.raises(AttributeError):
        statistics.pending = 0  # type: ignore[misc]


async def test_debug_logging_is_not_formatted_when_off(scheduler: Scheduler) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __str__(self) -> str:
            return "printable"

    assert not logging.getLogger("anysched.test").isEnabledFor(logging.DEBUG)
    scheduler.schedule(Unprintable(), nothing())
    await scheduler.join()


# Trouble while leaving


async def test_a_finalizer_may_cancel_another_task_while_leaving() -> None:
    class Canceller:
        def __del__(self) -> None:
            scheduler.cancel("other")

    async def work(argument: Any) -> None: ...

    async with Scheduler("test") as scheduler:
        scheduler.schedule_later(HOUR, "id", work(Canceller()))
        other = scheduler.schedule_later(HOUR, "other", nothing())
    assert other.status.name == "CANCELLED"


async def test_whatever_is_raised_while_leaving_the_task_group_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(self: Scheduler, *args: Any) -> None:
        raise KeyboardInterrupt

    gate = Gate()
    coroutine = nothing()
    with pytest.raises(KeyboardInterrupt):
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", gate)
            scheduler.schedule_later(HOUR, "pending", coroutine)
            await gate.started.wait()
            monkeypatch.setattr(Scheduler, "_drop_pending", interrupted)
    assert gate.ended
    assert is_closed(coroutine)
    assert repr(scheduler) == "<Scheduler 'test' closed, 0 tasks>"


@pytest.mark.parametrize("leave", [True, False])
async def test_closing_lets_the_event_loop_through(leave: bool) -> None:
    iterations = 0
    done = anyio.Event()

    async def other() -> None:
        nonlocal iterations
        while not done.is_set():
            iterations += 1
            await checkpoint()

    async with anyio.create_task_group() as tg:
        async with Scheduler("test") as scheduler:
            tasks = [scheduler.schedule_later(HOUR, number, nothing) for number in range(5000)]
            tg.start_soon(other)
            await settle(3)
            before = iterations
            if not leave:
                assert await scheduler.close() == tasks
        done.set()
    assert iterations - before >= 5000 / 500
    assert {task.status.name for task in tasks} == {"CANCELLED"}


async def test_what_falls_due_while_closing_does_not_start() -> None:
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)

    async with Scheduler("test") as scheduler:
        child = scheduler.child("child")
        for number in range(2000):
            child.schedule_later(HOUR, number, nothing)
        for number in range(2000, 2100):
            child.schedule(number, work, number)
        unfinished = await child.close()
        await settle()
    assert not ran
    assert len(unfinished) == 2100


async def test_what_falls_due_while_it_is_dropped_does_not_start() -> None:
    """The dispatcher reaches it between two batches of dropped tasks."""
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    async with Scheduler("test") as scheduler:
        child = scheduler.child("child")
        for number in range(2000):
            child.schedule_later(HOUR, number, nothing)
        task = child.schedule_later(1e-6, "due", work)
        await child.close()
        await settle()
    assert not ran
    assert task.status.name == "CANCELLED"


async def test_a_task_cannot_enter_its_own_scheduler(scheduler: Scheduler) -> None:
    """It would wait for itself on leaving, where nothing can reach it."""
    child = scheduler.child("child")

    async def work() -> None:
        async with child:
            raise NotImplementedError

    task = child.schedule("id", work)
    await task.wait()
    assert "async with was called in the task" in str(task.exception)


async def test_close_returns_what_it_cancelled_although_its_cleanup_failed(scheduler: Scheduler) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    task = scheduler.schedule("id", work)
    await settle()
    assert await scheduler.close() == [task]
    assert task.status.name == "FAILED"


async def test_a_former_task_is_cancelled_when_the_grace_is_over(scheduler: Scheduler) -> None:
    gate = Gate()
    predecessor = scheduler.schedule("id", gate)
    await gate.started.wait()
    successor = scheduler.schedule("id", nothing, on_conflict="follow")
    assert await scheduler.close() == [successor, predecessor]
    assert gate.cancelled


@pytest.mark.parametrize("leave", [True, False])
async def test_a_child_hosted_by_a_task_of_its_parent_closes_with_it(leave: bool) -> None:
    with anyio.fail_after(5):
        async with Scheduler("test") as scheduler:
            child = scheduler.child("child")
            host = scheduler.schedule("host", child.run)
            await settle()
            task = child.schedule_later(HOUR, "id", nothing)
            if not leave:
                assert await scheduler.close(grace=math.inf) == [task]
                assert host.status.name == "FINISHED"
        assert task.status.name == "CANCELLED"


@pytest.mark.parametrize("name", [None, 5])
def test_a_child_needs_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a string"):
        Scheduler("test").child(name)


async def test_many_that_wait_for_a_slot_can_leave_before_one_gets_it() -> None:
    async with Scheduler("test", max_running=1) as scheduler:
        gate = Gate()
        scheduler.schedule("first", gate)
        tasks = [scheduler.schedule(number, value(number)) for number in range(100)]
        await settle(200)
        for number in range(40):
            scheduler.cancel(number)
        gate.open.set()
        assert await tasks[40] == 40


async def test_a_pending_task_can_change_clocks_again_and_again(scheduler: Scheduler) -> None:
    tasks = [scheduler.schedule_later(HOUR + number, number, value(number)) for number in range(50)]
    for number in range(50):
        assert scheduler.reschedule_at(datetime(2100, 1, 1), number)
    for number in range(0, 50, 2):
        assert scheduler.reschedule_later(HOUR, number)
    for number in range(50):
        assert scheduler.reschedule_at(datetime(2000, 1, 1), number)
    assert [await task for task in tasks] == list(range(50))


async def test_the_state_of_a_scheduler_is_public(anyio_backend: Any) -> None:
    scheduler = Scheduler("test")
    states = [scheduler.state]

    async def look() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            states.append(scheduler.state)

    async with scheduler:
        states.append(scheduler.state)
        scheduler.schedule("id", look)
        await settle()
    states.append(scheduler.state)
    assert states == ["new", "running", "closing", "closed"]
