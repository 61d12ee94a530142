"""What "inside of a task" means, and what a context keeps alive."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import anyio
import pytest
import trio
from anyio import to_thread
from anyio.abc import TaskGroup

from anysched import ScheduledTask, Scheduler, current_scheduled_task
from anysched._core.backends.current import current_backend
from support import Gate, forever, nothing, settle, until

pytestmark = pytest.mark.anyio

HOUR = 3600.0

Call = Callable[[Scheduler], object]


def cancel(scheduler: Scheduler) -> object:
    return scheduler.cancel("id")


def replace(scheduler: Scheduler) -> object:
    return scheduler.schedule("id", nothing, on_conflict="replace")


def cancel_by_handle(scheduler: Scheduler) -> object:
    scheduler.tasks["id"].cancel()
    return None


CALLS = pytest.mark.parametrize("call", [cancel, replace, cancel_by_handle])


class Job:
    """A task that runs until it is cancelled, after a call has been made from elsewhere."""

    def __init__(self, scheduler: Scheduler, call: Call, how: str, outer: TaskGroup) -> None:
        self.scheduler = scheduler
        self.call = call
        self.how = how
        self.outer = outer
        self.called = anyio.Event()
        self.found: list[bool] = []
        self.references: list[Any] = []

    def make_call(self) -> None:
        assert current_scheduled_task() is self.scheduler.tasks["id"]  # the context is that of the task
        self.found.append(self.scheduler.tasks["id"].is_current())
        self.call(self.scheduler)
        self.called.set()

    async def make_call_in_a_task(self) -> None:
        self.make_call()

    async def run(self) -> str:
        match self.how:
            case "callback":
                asyncio.get_running_loop().call_soon(self.make_call)
            case "native task":
                self.references.append(asyncio.create_task(self.make_call_in_a_task()))
            case "outer group":
                self.outer.start_soon(self.make_call_in_a_task)
            case "inner group":
                async with anyio.create_task_group() as tg:
                    tg.start_soon(self.make_call_in_a_task)
                    await self.called.wait()
                    await settle()
                return "finished"
            case "nested groups":
                async with anyio.create_task_group() as tg:
                    with anyio.CancelScope():
                        async with anyio.create_task_group() as inner:
                            inner.start_soon(self.deeper)
                return "finished"
            case _:
                with anyio.CancelScope():
                    self.make_call()
                await settle()
                return "finished"
        await self.called.wait()
        await anyio.sleep(HOUR)
        return "not cancelled"

    async def deeper(self) -> None:
        with anyio.CancelScope():
            async with anyio.create_task_group() as tg:
                tg.start_soon(self.make_call_in_a_task)
                await self.called.wait()
                await settle()


@CALLS
@pytest.mark.parametrize("how", ["callback", "native task", "outer group"])
async def test_what_inherits_the_context_of_a_task_is_not_inside_of_it(
    scheduler: Scheduler, call: Call, how: str, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio" and how != "outer group":
        pytest.skip("for asyncio")
    async with anyio.create_task_group() as outer:
        job = Job(scheduler, call, how, outer)
        task = scheduler.schedule("id", job.run)
        await task.wait()
    assert task.status.name == "CANCELLED"
    assert job.found == [False]


@CALLS
@pytest.mark.parametrize("how", ["itself", "inner group", "nested groups"])
async def test_a_task_and_the_groups_opened_in_it_are_inside(scheduler: Scheduler, call: Call, how: str) -> None:
    async with anyio.create_task_group() as outer:
        job = Job(scheduler, call, how, outer)
        task = scheduler.schedule("id", job.run)
        assert await task == "finished"
    assert job.found == [True]


async def test_a_task_is_current_in_any_context(scheduler: Scheduler) -> None:
    """It may be changed in the task, by a run of another scheduler or by the program."""
    found: list[bool] = []

    async def look() -> None:
        found.extend(context.run(task.is_current) for context in (copy_context(), Context()))
        found.append(other.is_current())
        found.append(await to_thread.run_sync(refused, task.is_current))

    def refused(call: Callable[[], object]) -> bool:
        with pytest.raises(RuntimeError, match="belongs to the thread"):
            call()
        return True

    other = scheduler.schedule("other", forever)
    task = scheduler.schedule("id", look)
    assert not task.is_current()
    await task.wait()
    assert found == [True, True, False, True]
    assert not task.is_current()
    other.cancel()


@CALLS
async def test_a_child_that_another_task_has_started_in_a_group_of_the_run_is_inside(
    scheduler: Scheduler, call: Call
) -> None:
    groups: list[TaskGroup] = []
    done = anyio.Event()

    async def work() -> str:
        async with anyio.create_task_group() as tg:
            groups.append(tg)
            await done.wait()
            await settle()
        return "finished"

    async def act() -> None:
        assert current_scheduled_task() is None
        call(scheduler)
        done.set()

    task = scheduler.schedule("id", work)
    await until(lambda: groups)
    groups[0].start_soon(act)
    assert await task == "finished"


@CALLS
async def test_the_tasks_of_a_scheduler_opened_in_a_run_are_inside(scheduler: Scheduler, call: Call) -> None:
    async def act() -> None:
        call(scheduler)

    async def work() -> str:
        async with Scheduler("inner") as inner:
            await inner.schedule("id", act)
            await settle()
        return "finished"

    task = scheduler.schedule("id", work)
    assert await task == "finished"


async def test_a_watchdog_stops_the_job_that_has_armed_it(scheduler: Scheduler, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("for asyncio")

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.001, scheduler.cancel, "id")
        await anyio.sleep(HOUR)

    task = scheduler.schedule("id", work)
    await task.wait()
    assert task.status.name == "CANCELLED"


async def test_keep_from_a_callback_is_not_a_warning(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("for asyncio")
    gate = Gate()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(lambda: scheduler.schedule("id", nothing()))
        await gate()

    task = scheduler.schedule("id", work)
    await gate.started.wait()
    await settle()
    gate.open.set()
    await task
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_task_of_the_outer_group_may_wait_for_the_job_that_has_started_it(scheduler: Scheduler) -> None:
    results: list[str] = []

    async def work() -> str:
        outer.start_soon(wait)
        await settle()
        return "result"

    async def wait() -> None:
        results.append(await scheduler.tasks["id"])
        await scheduler.join()
        results.append("joined")

    async with anyio.create_task_group() as outer:
        assert await scheduler.schedule("id", work) == "result"
    assert results == ["result", "joined"]


async def test_the_ancestors_of_what_runs(anyio_backend: Any) -> None:
    backend = current_backend()
    first, *others = backend.ancestors()
    assert first is backend.current_task()
    if anyio_backend[0] == "asyncio":
        plain = await asyncio.create_task(ancestors_of_a_native_task())
        assert plain == 1
    else:
        assert others
    seen: list[int] = []
    if anyio_backend[0] == "asyncio":
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(list(backend.ancestors()))))
    else:
        trio.lowlevel.add_instrument(Counting(backend.ancestors, seen))
    await settle()
    assert seen[0] == 0


async def ancestors_of_a_native_task() -> int:
    return len(list(current_backend().ancestors()))


class Counting(trio.abc.Instrument):
    """Asks while no task runs."""

    def __init__(self, ancestors: Callable[[], Any], seen: list[int]) -> None:
        self.ancestors = ancestors
        self.seen = seen

    def before_io_wait(self, timeout: float) -> None:
        self.seen.append(len(list(self.ancestors())))


# What a context keeps


class Payload:
    """A large object to which a result or a failure refers."""


@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("how", ["returns", "fails"])
async def test_a_pending_task_keeps_nothing_of_the_outcome_of_the_task_that_scheduled_it(
    scheduler: Scheduler, how: str, recurring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("anysched.test"), "disabled", True)  # pytest keeps records with tracebacks
    payloads: list[weakref.ref[Payload]] = []

    async def handler(number: int) -> Payload:
        payload = Payload()
        payloads.append(weakref.ref(payload))
        if recurring:
            scheduler.schedule_every(HOUR, ("reminder", number), nothing)
        else:
            scheduler.schedule_later(HOUR, ("reminder", number), nothing())
        if how == "fails":
            raise ValueError(payload)
        return payload

    for number in range(20):
        await scheduler.schedule("handler", handler, number).wait()
    await settle()
    gc.collect()
    assert len(scheduler.tasks) == 20
    assert [payload() for payload in payloads] == [None] * 20


async def test_a_context_that_outlives_a_task_does_not_keep_its_handle(scheduler: Scheduler) -> None:
    contexts: list[Context] = []

    async def work() -> str:
        contexts.append(copy_context())
        assert contexts[0].run(current_scheduled_task) is scheduler.tasks["id"]
        return "result"

    task: ScheduledTask[str] | None = scheduler.schedule("id", work)
    assert task is not None
    await task
    reference = weakref.ref(task)
    assert contexts[0].run(current_scheduled_task) is None
    task = None
    await settle()
    gc.collect()
    assert reference() is None


async def test_after_a_run_of_a_recurring_task_its_context_is_in_none(scheduler: Scheduler) -> None:
    seen: list[Any] = []

    async def work() -> None:
        context = copy_context()
        seen.append(lambda: context.run(current_scheduled_task))
        assert seen[-1]() is not None

    scheduler.schedule_every(HOUR, "id", work, first=0)
    await until(lambda: seen)
    await settle()
    assert "id" in scheduler
    assert seen[0]() is None
