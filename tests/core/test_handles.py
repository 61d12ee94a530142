"""The handle of a task, compared with anyio's."""

import copy
import gc
import inspect
import logging
import pickle
import re
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from support import Gate, fail, nothing, settle, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


def test_the_interface_is_that_of_anyios_handle() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")} | {"__await__"}

    # `coro` and `start_value` belong to tasks that run from the beginning.
    assert public(anyio.TaskHandle) - {"coro", "start_value"} <= public(ScheduledTask)
    names = {status.name for status in anyio.TaskHandle.Status}
    assert names | {"RUNNING"} == {status.name for status in ScheduledTask.Status}
    for method in ("cancel", "wait"):
        theirs, ours = (inspect.signature(getattr(cls, method)) for cls in (anyio.TaskHandle, ScheduledTask))
        added = {name for name, each in ours.parameters.items() if each.kind is each.KEYWORD_ONLY}
        assert theirs.parameters.keys() == ours.parameters.keys() - added


async def test_a_task_that_returns(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    assert re.fullmatch(r"<ScheduledTask pending name='test_id' task_id='id' due=\d.*\+00:00 run_count=0>", repr(task))
    for _ in range(2):
        with pytest.raises(anyio.TaskNotFinished):
            task.return_value  # noqa: B018
        with pytest.raises(anyio.TaskNotFinished):
            task.exception  # noqa: B018
        await gate.started.wait()
    assert (task.status, task.due) == (ScheduledTask.Status.RUNNING, None)
    gate.open.set()
    assert await task == "through"
    assert task.status is ScheduledTask.Status.FINISHED
    assert task.return_value == "through"
    assert task.exception is None
    assert repr(task) == "<ScheduledTask finished name='test_id' task_id='id' run_count=1>"
    assert await task == "through"


async def test_a_task_that_fails(scheduler: Scheduler) -> None:
    error = ValueError("x")
    task = scheduler.schedule("id", fail, error)
    with pytest.raises(anyio.TaskFailed) as info:
        await task
    assert info.value.__cause__ is error
    assert task.exception is error
    assert task.status is ScheduledTask.Status.FAILED
    with pytest.raises(anyio.TaskFailed, match="'test_id'"):
        task.return_value  # noqa: B018
    await task.wait()


async def test_a_task_that_is_cancelled(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    task.cancel()
    assert task.status.name == "CANCELLING"
    for _ in range(2):
        with pytest.raises(anyio.TaskCancelled, match="was cancelled"):
            task.return_value  # noqa: B018
        with pytest.raises(anyio.TaskCancelled):
            task.exception  # noqa: B018
        await task.wait()
    with pytest.raises(anyio.TaskCancelled):
        await task
    assert task.status is ScheduledTask.Status.CANCELLED
    task.cancel()


async def test_a_task_that_finishes_although_it_was_cancelled(scheduler: Scheduler) -> None:
    async def work() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "never mind"
        raise AssertionError

    task = scheduler.schedule("id", work)
    await settle(5)
    task.cancel()
    assert await task == "never mind"
    assert task.status is ScheduledTask.Status.FINISHED


async def test_waiting_for_what_has_ended_is_a_checkpoint(scheduler: Scheduler) -> None:
    task = scheduler.schedule("id", nothing)
    await task
    with anyio.CancelScope() as scope:
        scope.cancel()
        await task.wait()
    assert scope.cancelled_caught


async def test_due_is_aware_utc_until_the_start(scheduler: Scheduler) -> None:
    now = datetime.now(UTC)
    task = scheduler.schedule_later(HOUR, "id", nothing)
    assert task.due is not None
    assert task.due.tzinfo is UTC
    assert abs(task.due - (now + timedelta(hours=1))) < timedelta(seconds=1)
    task = scheduler.schedule_at(datetime(2100, 1, 1, microsecond=1), "at", nothing)
    assert task.due == datetime(2100, 1, 1, microsecond=1, tzinfo=UTC)
    started = scheduler.schedule("now", nothing)
    assert started.due is not None
    await started
    assert started.due is None


async def test_a_dropped_task_keeps_its_due_time() -> None:
    async with Scheduler("test") as scheduler:
        at = scheduler.schedule_at(datetime(2100, 1, 1), "at", nothing)
        later = scheduler.schedule_later(HOUR, "later", nothing)
        due = later.due
        scheduler.cancel("at")
    assert at.due == datetime(2100, 1, 1, tzinfo=UTC)
    assert later.due is not None
    assert due is not None
    assert abs(later.due - due) < timedelta(seconds=1)


def test_the_due_time_of_a_dropped_task_outlives_the_event_loop(anyio_backend: Any) -> None:
    async def main() -> tuple[ScheduledTask[None], datetime | None]:
        async with Scheduler("test") as scheduler:
            task = scheduler.schedule_later(HOUR, "later", nothing)
            return task, task.due

    name, options = anyio_backend
    task, due = anyio.run(main, backend=name, backend_options=options)
    assert task.due is not None
    assert due is not None
    assert abs(task.due - due) < timedelta(seconds=1)


async def test_nothing_is_kept_of_a_task_that_has_ended(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the scheduler nor, in reference cycles, by the task itself."""
    monkeypatch.setattr(logging.getLogger("anysched.test"), "disabled", True)  # pytest keeps records with tracebacks

    class Marker:
        pass

    async def work(marker: Marker) -> None:
        await anyio.sleep(0)

    async def failing(marker: Marker) -> None:
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        markers = []
        for kind in range(4):
            marker = Marker()
            markers.append(weakref.ref(marker))
            match kind:
                case 0:
                    task = scheduler.schedule("id", work, marker)
                case 1:
                    task = scheduler.schedule("id", work(marker))
                case 2:
                    task = scheduler.schedule("id", failing, marker)
                case _:
                    task = scheduler.schedule_later(HOUR, "id", work(marker))
                    task.cancel()
            del marker
            await task.wait()
            handle = weakref.ref(task)
            del task
            await settle(5)
            assert handle() is None, kind
        assert [marker() for marker in markers] == [None] * 4
    finally:
        gc.enable()


async def test_a_chain_of_tasks_does_not_keep_its_links(scheduler: Scheduler) -> None:
    """Each task is scheduled in the context of the previous one."""
    handles: list[weakref.ref[Any]] = []

    async def link(left: int) -> None:
        if left:
            handles.append(weakref.ref(scheduler.schedule(left - 1, link, left - 1)))

    await scheduler.schedule(20, link, 20)
    await scheduler.join()
    await settle(3)
    gc.collect()
    assert sum(handle() is not None for handle in handles) <= 1


async def test_values_pass_through(scheduler: Scheduler) -> None:
    marker = object()
    assert await scheduler.schedule("id", value, marker) is marker


def test_statuses_are_equal_to_anyios() -> None:
    for status in anyio.TaskHandle.Status:
        ours = ScheduledTask.Status[status.name]
        assert ours == status
        assert status == ours
        assert hash(ours) == hash(status)
        assert [other for other in anyio.TaskHandle.Status if ours == other] == [status]
    assert ScheduledTask.Status.RUNNING not in set(anyio.TaskHandle.Status)
    assert ScheduledTask.Status.PENDING != "pending"


async def test_a_dispatcher_that_sleeps_until_a_task_is_due_does_not_keep_it(scheduler: Scheduler) -> None:
    task = scheduler.schedule_later(HOUR, "id", nothing)
    at = scheduler.schedule_at(datetime.now(UTC) + timedelta(hours=1), "at", nothing)
    await settle()
    handles = [weakref.ref(task), weakref.ref(at)]
    scheduler.cancel_all()
    del task, at
    assert [handle() for handle in handles] == [None, None]


async def test_a_handle_and_a_scheduler_cannot_be_copied_or_pickled(scheduler: Scheduler) -> None:
    task = scheduler.schedule("id", nothing)
    for value_ in (task, scheduler):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                attempt(value_)


@pytest.mark.parametrize("method", ["schedule", "cancel", "reschedule_later", "in"])
async def test_a_handle_is_not_an_id(scheduler: Scheduler, method: str) -> None:
    task = scheduler.schedule_every(60, "id", nothing)
    coroutine = nothing()
    with pytest.raises(TypeError, match=r"pass handle\.task_id"):
        match method:
            case "schedule":
                scheduler.schedule(task, coroutine)
            case "cancel":
                scheduler.cancel(task)
            case "reschedule_later":
                scheduler.reschedule_later(1, task)
            case _:
                _ = task in scheduler
    assert "id" in scheduler
    coroutine.close()
