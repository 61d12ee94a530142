"""Two tasks with the same ID: policies, one at a time, and calls from inside a task."""

import asyncio
import logging
from typing import Any

import anyio
import pytest

from anysched import DuplicateTaskError, ScheduledTask, Scheduler, current_scheduled_task
from support import Gate, forever, is_closed, message_of, nothing, records, settle, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


async def running(scheduler: Scheduler, task_id: Any, gate: Gate, **kwargs: Any) -> ScheduledTask[Any]:
    task = scheduler.schedule(task_id, gate, **kwargs)
    await gate.started.wait()
    return task


# keep


async def test_keep_is_the_default_and_keeps_the_holder(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anysched")
    holder = scheduler.schedule_later(HOUR, "id", nothing)
    caplog.clear()
    coroutines = [nothing(), nothing(), nothing()]
    assert scheduler.schedule("id", coroutines[0]) is holder
    assert scheduler.schedule_later(0, "id", coroutines[1]) is holder
    assert scheduler.schedule("id", coroutines[2], on_conflict="keep") is holder
    assert all(is_closed(coroutine) for coroutine in coroutines)
    assert {record.levelname for record in records(caplog)} == {"DEBUG"}
    assert len(records(caplog)) == 3
    await settle()
    assert scheduler.tasks["id"] is holder


# replace, follow, error


@pytest.mark.parametrize("policy", ["replace", "follow"])
async def test_a_pending_holder_is_dropped(scheduler: Scheduler, policy: Any) -> None:
    coroutine = nothing()
    old = scheduler.schedule_later(HOUR, "id", coroutine)
    new = scheduler.schedule("id", value(1), on_conflict=policy)
    assert new is not old
    assert scheduler.tasks["id"] is new
    assert is_closed(coroutine)
    assert old.status.name == "CANCELLED"
    with pytest.raises(anyio.TaskCancelled):
        await old
    assert await new == 1


async def test_replace_cancels_a_running_holder(scheduler: Scheduler) -> None:
    gate = Gate()
    old = await running(scheduler, "id", gate)
    new = scheduler.schedule("id", value(1), on_conflict="replace")
    assert old.status.name == "CANCELLING"
    assert await new == 1
    assert gate.cancelled
    assert old.status.name == "CANCELLED"


async def test_follow_lets_a_running_holder_finish(scheduler: Scheduler) -> None:
    gate = Gate()
    old = await running(scheduler, "id", gate)
    new = scheduler.schedule("id", value(1), on_conflict="follow")
    await settle()
    assert (old.status.name, new.status.name) == ("RUNNING", "PENDING")
    gate.open.set()
    assert await new == 1
    assert await old == "through"
    assert not gate.cancelled


@pytest.mark.parametrize("run", [False, True])
async def test_error_refuses(scheduler: Scheduler, run: bool) -> None:
    gate = Gate()
    holder = await running(scheduler, "id", gate) if run else scheduler.schedule_later(HOUR, "id", gate)
    coroutine = nothing()
    with pytest.raises(DuplicateTaskError):
        scheduler.schedule_later(HOUR, "id", coroutine, on_conflict="error")
    assert is_closed(coroutine)
    assert scheduler.tasks["id"] is holder
    assert not gate.cancelled


async def test_without_a_conflict_all_policies_are_alike(scheduler: Scheduler) -> None:
    policies: list[Any] = ["keep", "replace", "follow", "error"]
    tasks = [scheduler.schedule(policy, value, policy, on_conflict=policy) for policy in policies]
    assert [await task for task in tasks] == policies


# One at a time


@pytest.mark.parametrize("way", ["replace", "follow", "cancel", "handle"])
async def test_a_successor_starts_when_the_former_task_has_ended(scheduler: Scheduler, way: str) -> None:
    gate = Gate(stubborn=True)
    predecessor = await running(scheduler, "id", gate)
    log: list[bool] = []

    async def successor() -> None:
        log.append(gate.ended)

    if way == "cancel":
        scheduler.cancel("id")
    elif way == "handle":
        predecessor.cancel()
    policy: Any = "error" if way in ("cancel", "handle") else way
    task = scheduler.schedule("id", successor, on_conflict=policy)
    await settle()
    assert not log
    assert task.status.name == "PENDING"
    assert task.due is not None
    other = scheduler.schedule("other", value(1))
    assert await other == 1
    gate.open.set()
    await task
    assert log == [True]
    await predecessor.wait()


async def test_of_many_successors_the_last_one_runs(scheduler: Scheduler) -> None:
    gate = Gate(stubborn=True)
    await running(scheduler, "id", gate)
    coroutines = [value(number) for number in range(5)]
    tasks = []
    for coroutine in coroutines:
        tasks.append(scheduler.schedule("id", coroutine, on_conflict="replace"))
        await settle()
    gate.open.set()
    assert await tasks[-1] == 4
    assert [task.status.name for task in tasks[:-1]] == ["CANCELLED"] * 4
    assert all(is_closed(coroutine) for coroutine in coroutines)


async def test_a_waiting_successor_can_be_cancelled_and_moved(scheduler: Scheduler) -> None:
    gate = Gate(stubborn=True)
    await running(scheduler, "id", gate)
    cancelled = scheduler.schedule("id", nothing(), on_conflict="replace")
    await settle()
    cancelled.cancel()
    moved = scheduler.schedule("id", value(1))
    await settle()
    assert scheduler.reschedule_later(HOUR, "id")
    gate.open.set()
    await settle()
    assert moved.status.name == "PENDING"
    assert scheduler.reschedule_later(0, "id")
    assert await moved == 1


async def test_a_former_task_can_be_cancelled_by_its_handle(scheduler: Scheduler) -> None:
    gate = Gate()
    predecessor = await running(scheduler, "id", gate)
    successor = scheduler.schedule("id", value(1), on_conflict="follow")
    predecessor.cancel()
    assert await successor == 1
    assert gate.cancelled
    assert predecessor.status.name == "CANCELLED"
    predecessor.cancel()
    successor.cancel()
    assert await successor == 1


# From inside


async def test_current_scheduled_task(scheduler: Scheduler) -> None:
    assert current_scheduled_task() is None
    seen: list[Any] = []

    async def look() -> None:
        seen.append(current_scheduled_task())

    async def work() -> None:
        await look()
        async with anyio.create_task_group() as tg:
            tg.start_soon(look)

    task = scheduler.schedule("id", work)
    await task
    assert seen == [task, task]
    assert current_scheduled_task() is None


async def test_a_task_that_has_ended_is_not_the_current_one(scheduler: Scheduler) -> None:
    seen: list[Any] = []
    go = anyio.Event()

    async def child() -> None:
        await go.wait()
        seen.append(current_scheduled_task())

    async with anyio.create_task_group() as tg:

        async def work() -> None:
            tg.start_soon(child)

        await scheduler.schedule("id", work)
        go.set()
    assert seen == [None]


@pytest.mark.parametrize("call", ["cancel", "cancel_all", "handle"])
@pytest.mark.parametrize("child", [False, True])
async def test_a_task_that_cancels_itself_is_left_to_finish(scheduler: Scheduler, call: str, child: bool) -> None:
    """Level cancellation would stop it at its next checkpoint."""

    async def cancel() -> None:
        match call:
            case "cancel":
                assert scheduler.cancel("id") is True
            case "cancel_all":
                scheduler.cancel_all()
            case _:
                scheduler.tasks["id"].cancel()

    async def work() -> str:
        if child:
            async with anyio.create_task_group() as tg:
                tg.start_soon(cancel)
        else:
            await cancel()
        assert "id" not in scheduler
        await settle(3)
        return "done"

    task = scheduler.schedule("id", work)
    other = scheduler.schedule("other", forever)
    await settle(3)
    assert await task == "done"
    assert other.status.name == ("CANCELLED" if call == "cancel_all" else "RUNNING")


async def test_a_task_cannot_be_cancelled_from_inside_after_it_lost_its_id(scheduler: Scheduler) -> None:
    async def work() -> str:
        me = current_scheduled_task()
        assert me is not None
        scheduler.schedule("id", value(2), on_conflict="follow")
        me.cancel()
        await settle(3)
        return "done"

    assert await scheduler.schedule("id", work) == "done"


async def test_cancel_from_the_former_task_cancels_the_present_holder(scheduler: Scheduler) -> None:
    """What counts is whether the caller is the holder, not whether the IDs are equal."""
    coroutine = nothing()

    async def work() -> str:
        scheduler.cancel("id")
        scheduler.schedule("id", coroutine)
        scheduler.cancel("id")
        await settle(3)
        return "done"

    assert await scheduler.schedule("id", work) == "done"
    assert is_closed(coroutine)


@pytest.mark.parametrize("policy", ["replace", "follow"])
async def test_a_task_that_reschedules_itself_runs_to_its_end_first(scheduler: Scheduler, policy: Any) -> None:
    log: list[str] = []

    async def tick(left: int) -> None:
        log.append(f"start {left}")
        if left:
            scheduler.schedule("tick", tick, left - 1, on_conflict=policy)
        await settle(3)
        log.append(f"end {left}")

    scheduler.schedule("tick", tick, 2)
    await scheduler.join()
    assert log == ["start 2", "end 2", "start 1", "end 1", "start 0", "end 0"]


async def test_keep_from_inside_closes_the_coroutine_and_warns(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    coroutine = nothing()

    async def work() -> None:
        assert scheduler.schedule_later(1, "id", coroutine) is current_scheduled_task()

    await scheduler.schedule("id", work)
    assert is_closed(coroutine)
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    assert 'on_conflict="follow"' in record.getMessage()
    assert (record.scheduler, record.task_id) == ("test", "id")  # type: ignore[attr-defined]


async def test_error_from_inside_is_an_error(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        scheduler.schedule("id", nothing(), on_conflict="error")

    task = scheduler.schedule("id", work)
    await task.wait()
    assert isinstance(task.exception, DuplicateTaskError)
    assert [message_of(record) for record in records(caplog)] == ["Error in task 'id'!"]


# Waiting for oneself


@pytest.mark.parametrize("child", [False, True])
async def test_waiting_for_ones_own_successor_is_refused(scheduler: Scheduler, child: bool) -> None:
    refused: list[str] = []

    async def wait(successor: ScheduledTask[Any]) -> None:
        try:
            await successor
        except RuntimeError as error:
            refused.append(str(error))

    async def work() -> None:
        successor = scheduler.schedule("id", value(2), on_conflict="follow")
        if child:
            async with anyio.create_task_group() as tg:
                tg.start_soon(wait, successor)
        else:
            await wait(successor)

    await scheduler.schedule("id", work)
    await scheduler.join()
    assert len(refused) == 1
    assert "awaits its successor" in refused[0]


async def test_waiting_for_oneself_is_refused(scheduler: Scheduler) -> None:
    async def work() -> None:
        me = current_scheduled_task()
        assert me is not None
        with pytest.raises(RuntimeError, match=r"deadlock: .* awaits itself"):
            await me.wait()

    await scheduler.schedule("id", work)


async def test_a_task_started_elsewhere_may_wait_for_the_task_that_started_it(scheduler: Scheduler) -> None:
    """It has the task's context, but the task does not wait for it."""
    results: list[Any] = []

    async def watch(task: ScheduledTask[Any]) -> None:
        results.append(await task)

    async with anyio.create_task_group() as tg:

        async def work() -> str:
            me = current_scheduled_task()
            assert me is not None
            tg.start_soon(watch, me)
            tg.start_soon(watch, scheduler.schedule("id", value("next"), on_conflict="follow"))
            await settle()
            return "done"

        scheduler.schedule("id", work)
        await until(lambda: len(results) == 2)
    assert sorted(results) == ["done", "next"]


async def test_tasks_may_wait_for_other_tasks(scheduler: Scheduler) -> None:
    async def work() -> int:
        result: int = await scheduler.schedule("other", value, 7)
        return result

    assert await scheduler.schedule("id", work) == 7


async def test_cancel_from_a_callback_of_the_event_loop(scheduler: Scheduler, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no callbacks")
    loop = asyncio.get_running_loop()
    done = anyio.Event()
    tasks: list[ScheduledTask[int]] = []

    def callback() -> None:
        scheduler.schedule_later(HOUR, "pending", nothing)
        scheduler.cancel("pending")
        tasks.append(scheduler.schedule("id", value, 7))
        done.set()

    loop.call_soon(callback)
    await done.wait()
    assert await tasks[0] == 7


@pytest.mark.parametrize("policy", ["replace", "follow"])
async def test_a_finalizer_may_want_the_id_that_is_being_taken_over(scheduler: Scheduler, policy: Any) -> None:
    running: list[int] = []

    class Wanting:
        def __del__(self) -> None:
            scheduler.schedule("id", work, 2)

    async def work(number: Any) -> None:
        running.append(number)

    scheduler.schedule_later(HOUR, "id", work(Wanting()))
    task = scheduler.schedule("id", work, 1, on_conflict=policy)
    assert scheduler.tasks["id"] is task
    await scheduler.join()
    assert running == [1]


@pytest.mark.parametrize("policy", ["keep", "replace", "follow", "error"])
async def test_a_coroutine_that_is_scheduled_already_is_refused_and_stays(scheduler: Scheduler, policy: Any) -> None:
    coroutine = value(7)
    task = scheduler.schedule("id", coroutine)
    with pytest.raises(ValueError, match="already scheduled as 'id'"):
        scheduler.schedule("id", coroutine, on_conflict=policy)
    assert await task == 7


async def test_a_task_that_took_over_an_id_goes_to_the_end_of_the_table(scheduler: Scheduler) -> None:
    for task_id in "abc":
        scheduler.schedule_later(HOUR, task_id, nothing)
    scheduler.schedule_later(HOUR, "a", nothing, on_conflict="replace")
    assert list(scheduler.tasks) == ["b", "c", "a"]
