"""Starting tasks natively, or with anyio's own function if that is not possible. Tasks see no difference."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextvars import Context, ContextVar
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from anysched import ScheduledTask, Scheduler
from anysched._core import dispatcher as dispatcher_module
from anysched._core.backends import Backend
from anysched._core.backends.asyncio import AsyncioStarter
from anysched._core.backends.group import GroupStarter
from anysched._core.backends.starter import Starter, starter_for
from anysched._core.backends.trio import TrioStarter
from anysched._core.run import TaskRun
from anysched.abc import Instrument
from support import Gate, dispatcher_of, errors, group_starter, is_closed, message_of, nothing, outcome, records, settle

pytestmark = pytest.mark.anyio

Way = Callable[[TaskGroup, Backend], Starter]
BOTH: dict[str, Way] = {"native": starter_for, "group": group_starter}
WAYS = pytest.mark.parametrize("way", BOTH.values(), ids=BOTH)


@pytest.fixture(params=list(BOTH.values()), ids=list(BOTH))
async def scheduler(
    anyio_backend: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr(dispatcher_module, "starter_for", request.param)
    async with Scheduler("test") as scheduler:
        yield scheduler


def starter_of(scheduler: Scheduler) -> Starter:
    return dispatcher_of(scheduler).starter


@pytest.fixture
def by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "starter_for", starter_for)


async def test_tasks_are_started_natively(by_choice: None, anyio_backend_name: str) -> None:
    """It uses private parts of anyio; this fails when they change. Tasks are then started with anyio's own function."""
    async with Scheduler("test") as scheduler:
        assert isinstance(starter_of(scheduler), TrioStarter if anyio_backend_name == "trio" else AsyncioStarter)


def remove_the_states(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("anysched._core.backends.asyncio._private", SimpleNamespace())


def change_the_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("anysched._core.backends.asyncio.TaskState", lambda: None)


def remove_the_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "anysched._core.backends.asyncio", None)


@pytest.mark.parametrize("change", [remove_the_states, change_the_state, remove_the_module])
def test_without_what_it_takes_they_are_started_in_the_way_of_anyio(
    by_choice: None, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            change(patch)
            scheduler = Scheduler("test")
            await scheduler.__aenter__()
        assert isinstance(starter_of(scheduler), GroupStarter)
        assert await outcome(scheduler.schedule("id", nothing())) == "FINISHED"
        await scheduler.__aexit__(None, None, None)

    asyncio.run(main())


async def test_a_task_has_a_name_and_is_a_task_of_anyio(scheduler: Scheduler) -> None:
    async def look() -> tuple[str | None, bool]:
        task = anyio.get_current_task()
        return task.name, task.parent_id in {info.id for info in anyio.get_running_tasks()}

    assert await scheduler.schedule("id", look) == ("test_id", True)


@WAYS
async def test_a_deadline_around_the_scheduler_is_seen_in_its_tasks(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    monkeypatch.setattr(dispatcher_module, "starter_for", way)

    async def look() -> float:
        return anyio.current_effective_deadline()

    with anyio.CancelScope(deadline=anyio.current_time() + 1000) as scope:
        async with Scheduler("test") as scheduler:
            assert await scheduler.schedule("id", look) == scope.deadline


@WAYS
async def test_a_cancellation_around_the_scheduler_reaches_its_tasks_at_every_level(
    monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setattr(dispatcher_module, "starter_for", way)
    gates = [Gate() for _ in range(3)]
    shielded = Gate()

    async def work() -> None:
        async with anyio.create_task_group() as tg:
            for gate in gates:
                tg.start_soon(gate)
            with anyio.CancelScope(shield=True):
                await shielded()

    with anyio.CancelScope() as scope:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", work)
            await shielded.started.wait()
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await settle()
                assert [gate.cancelled for gate in gates] == [True] * 3
                assert not shielded.ended
                shielded.open.set()
    assert shielded.ended
    assert not shielded.cancelled


async def test_a_cancelled_task_is_cancelled_in_all_that_it_has_entered(scheduler: Scheduler) -> None:
    """Also in the scopes that were there before the cancellation, again at each checkpoint, and not where it is shielded."""
    gates = [Gate() for _ in range(2)]
    seen: list[str] = []

    async def work() -> None:
        with anyio.CancelScope() as outer, anyio.CancelScope():
            async with anyio.create_task_group() as tg:
                for gate in gates:
                    tg.start_soon(gate)
                with anyio.CancelScope(shield=True):
                    while not gates[0].cancelled:
                        await anyio.sleep(0)
                    seen.append("shielded")
                for _ in range(2):
                    try:
                        await anyio.sleep(0)
                    except anyio.get_cancelled_exc_class():
                        seen.append("cancelled")
                await anyio.sleep(0)
        seen.append(f"not reached, {outer.cancelled_caught}")

    sibling = scheduler.schedule("sibling", anyio.sleep_forever)
    task = scheduler.schedule("id", work)
    for gate in gates:
        await gate.started.wait()
    task.cancel()
    assert await outcome(task) == "CANCELLED"
    assert seen == ["shielded", "cancelled", "cancelled"]
    assert [gate.cancelled for gate in gates] == [True, True]
    assert sibling.status.name == "RUNNING"


async def test_a_run_can_be_cancelled_twice(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    assert task._run is not None
    task._run.cancel()
    task._run.cancel()
    assert await outcome(task) == "CANCELLED"
    assert gate.cancelled


async def test_a_task_that_is_cancelled_and_goes_on_is_as_before(scheduler: Scheduler) -> None:
    """What it enters after its cancellation is cancelled as well, and asyncio counts no requests that are left."""

    async def work() -> list[bool]:
        caught: list[bool] = []
        for _ in range(3):
            try:
                with anyio.CancelScope() as scope:
                    await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                caught.append(scope.cancelled_caught)
        return caught

    task = scheduler.schedule("id", work)
    await settle()
    task.cancel()
    assert await task.result() == [False] * 3


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_a_task_leaves_open_does_not_outlive_it(
    by_choice: None, anyio_backend_name: str, cancelled: bool
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio calls it an internal error of its nurseries")
    scopes = [anyio.CancelScope(), anyio.CancelScope()]

    async def work() -> None:
        for scope in scopes:
            scope.__enter__()
        await anyio.sleep_forever()

    async with Scheduler("test") as scheduler:
        task = scheduler.schedule("id", work)
        await settle()
        if cancelled:
            task.cancel()
        else:
            scopes[0].cancel()
        assert await outcome(task) == "FAILED"
        assert isinstance(task.exception, RuntimeError)
        group: Any = dispatcher_of(scheduler)._group.cancel_scope
        await settle()
        others = {scope._host_task for scope in group._child_scopes} | group._tasks
        assert {native.get_name() for native in others - {asyncio.current_task()}} == {"anysched dispatcher"}


async def test_whether_a_nursery_is_cancelled_is_found_without_its_private_status(anyio_backend_name: str) -> None:
    if anyio_backend_name != "trio":
        pytest.skip("for trio")
    starter = TrioStarter()  # it has no nursery before it is entered
    assert not starter.is_cancelled()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert starter.is_cancelled()


async def test_each_task_runs_in_its_context_and_under_its_name_in_order(
    scheduler: Scheduler, anyio_backend_name: str
) -> None:
    """Also where the event loop steps native tasks in any order, and these exchange what they run."""
    variable = ContextVar[int]("variable", default=-1)
    other = ContextVar[object]("other")
    seen: list[tuple[int, int, str | None]] = []

    async def work(number: int) -> None:
        seen.append((number, variable.get(), anyio.get_current_task().name))
        await anyio.sleep(0)
        assert anyio.get_current_task().name == f"test_{number}"
        assert variable.get() == number // 7

    for number in range(200):
        variable.set(number // 7)
        if number % 50 == 49:
            other.set(None)
        scheduler.schedule(number, work, number)
    await scheduler.join()
    assert seen == [(number, number // 7, f"test_{number}") for number in range(200)]


async def test_a_context_is_told_from_an_equal_one_by_identity(scheduler: Scheduler) -> None:
    """Values may be equal and not the same, and comparing them may do anything."""

    class Value:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

    variable = ContextVar[Value]("variable")
    values = [Value() for _ in range(20)]
    seen: list[Value] = []

    async def work() -> None:
        seen.append(variable.get())

    for number, each in enumerate(values):
        variable.set(each)
        scheduler.schedule(number, work)
    await scheduler.join()
    assert all(one is each for one, each in zip(seen, values, strict=True))


async def test_a_task_that_waits_for_the_next_iteration_can_be_cancelled_and_postponed(
    by_choice: None, anyio_backend_name: str
) -> None:
    """On trio, tasks in different contexts are started in different iterations."""
    variable = ContextVar[int]("variable")
    seen: list[int] = []

    async def work(number: int) -> None:
        seen.append(number)

    async with Scheduler("test", max_running=10) as scheduler:
        for number in range(4):
            variable.set(number)
            scheduler.schedule(number, work, number)
        while not seen:
            await anyio.sleep(0)
        scheduler.cancel(3)
        if 2 in scheduler.tasks:  # on asyncio, all of them have been handed over
            scheduler.reschedule_later(0, 2)
        await scheduler.join()
    assert seen[0] == 0
    assert seen in ([0, 1, 2, 3], [0, 1, 2])


async def test_an_event_loop_that_refuses_a_task(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class RefusedError(Exception):
        pass

    def refuse(self: object, run: TaskRun, name: str, context: Context | None) -> None:
        raise RefusedError

    work = nothing()
    task = scheduler.schedule("id", work)
    with monkeypatch.context() as patch:
        patch.setattr(type(starter_of(scheduler)), "start", refuse)
        assert await outcome(task) == "FAILED"
    assert is_closed(work)
    assert isinstance(task.exception, RefusedError)
    assert await outcome(scheduler.schedule("id", nothing())) == "FINISHED"


def test_what_a_loop_refuses_to_start_is_closed(by_choice: None) -> None:
    class Loop(asyncio.SelectorEventLoop):
        refuses = False

        def create_task(self, *args: Any, **options: Any) -> Any:
            if self.refuses:
                raise ZeroDivisionError
            return super().create_task(*args, **options)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        async with Scheduler("test") as scheduler:
            work = nothing()
            task = scheduler.schedule("id", work)
            loop.refuses = True
            await task.wait()
            loop.refuses = False
            assert isinstance(task.exception, ZeroDivisionError)
            assert is_closed(work)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_scheduler_that_was_never_left_does_not_keep_the_event_loop_from_shutting_down(
    by_choice: None, stubborn: bool
) -> None:
    """asyncio cancels the running tasks once and waits for their end, including the dispatcher's."""
    gate = Gate(stubborn=stubborn)

    async def main() -> Scheduler:
        scheduler = Scheduler("test")
        await scheduler.__aenter__()
        scheduler.schedule("id", gate)
        await gate.started.wait()
        asyncio.get_running_loop().call_later(0.01, gate.open.set)
        return scheduler

    scheduler = asyncio.run(main())
    assert gate.ended
    with pytest.raises(RuntimeError, match="closing"):
        scheduler.schedule("id", nothing())


@pytest.mark.parametrize("early", [True, False])
def test_a_task_factory_has_its_way(by_choice: None, early: bool) -> None:
    """This includes a factory that runs the first step at once, and one that is set while the scheduler runs."""

    class Special(asyncio.Task[Any]):
        pass

    async def work() -> type:
        await anyio.sleep(0)
        return type(asyncio.current_task())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory if early else None)
        async with Scheduler("test") as scheduler:
            loop.set_task_factory(factory)
            assert await scheduler.schedule("id", work) is Special
            assert await scheduler.schedule("id", work) is Special

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        return Special(coro, loop=loop, **options)

    asyncio.run(main())


@WAYS
async def test_an_error_in_the_dispatcher_ends_the_scheduler_and_is_seen(
    monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    def fail(task: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(dispatcher_module, "starter_for", way)
    gate = Gate()
    with pytest.raises(ZeroDivisionError):
        async with Scheduler("test") as scheduler:
            scheduler.schedule("running", gate)
            await gate.started.wait()
            monkeypatch.setattr(scheduler._registry, "try_admit", fail)
            scheduler.schedule("id", nothing)
            with anyio.fail_after(5):
                await anyio.sleep_forever()
    assert gate.cancelled


@WAYS
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_to_end_the_process_outdoes_a_cancellation(
    monkeypatch: pytest.MonkeyPatch, way: Way, backend: str
) -> None:
    monkeypatch.setattr(dispatcher_module, "starter_for", way)

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise BaseExceptionGroup("several", [SystemExit(3)])

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with Scheduler("test") as scheduler:
                task = scheduler.schedule("id", work)
                while task.status.name == "PENDING":
                    await anyio.sleep(0)
                scope.cancel()
                await anyio.sleep_forever()

    with pytest.raises((SystemExit, BaseExceptionGroup)) as info:
        anyio.run(main, backend=backend)
    assert "SystemExit" in repr(info.value)


async def test_what_a_task_entered_and_never_left_is_its_own_failure(
    by_choice: None, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio calls it an internal error of its nurseries")

    async def work() -> None:
        anyio.CancelScope().__enter__()

    async with Scheduler("test") as scheduler:
        sibling = scheduler.schedule("sibling", anyio.sleep_forever)
        task = scheduler.schedule("id", work)
        assert await outcome(task) == "FAILED"
        assert "cancel scope" in str(task.exception)
        assert [message_of(record) for record in records(caplog)] == ["Error in task 'id'!"]
        assert errors(caplog) == records(caplog)
        await settle()
        assert sibling.status.name == "RUNNING"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_start_leaves_no_garbage(by_choice: None, cancelled: bool) -> None:
    async def main() -> None:
        async with Scheduler("test") as scheduler:
            await outcome(scheduler.schedule("first", nothing))
            gc.collect()
            gc.disable()
            try:
                for number in range(50):
                    task = scheduler.schedule(number, nothing)
                    while task._run is None:
                        await asyncio.sleep(0)
                        if cancelled:
                            for native in asyncio.all_tasks():
                                if native.get_name() == f"test_{number}":
                                    native.cancel()
                    await task.wait()
                del task
                assert gc.collect() < 50
            finally:
                gc.enable()

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has no call graph")
@WAYS
async def test_a_task_is_in_the_call_graph(monkeypatch: pytest.MonkeyPatch, way: Way, anyio_backend_name: str) -> None:
    """`python -m asyncio pstree` shows a task below the task that waits for it, as with anyio's tasks.

    Started natively, this is the task that has entered the scheduler. Otherwise it is the dispatcher, whose group it is.
    """
    if anyio_backend_name == "trio":
        pytest.skip("trio has none")
    monkeypatch.setattr(dispatcher_module, "starter_for", way)
    graphs: Any = asyncio

    def parents(task: object) -> list[object]:
        return [graph.future for graph in graphs.capture_call_graph(task).awaited_by]

    natives: list[asyncio.Task[Any] | None] = []

    async def work() -> None:
        natives.append(asyncio.current_task())
        await anyio.sleep_forever()

    async with Scheduler("test") as scheduler:
        tasks = [scheduler.schedule(number, work) for number in range(3)]
        await settle()
        waiting = parents(natives[0])
        assert [parents(native) for native in natives] == [waiting] * 3
        if way is group_starter:
            [dispatcher] = waiting
            waiting = parents(dispatcher)
        assert waiting == [asyncio.current_task()]
        tasks[0].cancel()
        await tasks[0].wait()
        await settle()
        assert parents(natives[0]) == []
    assert [parents(native) for native in natives] == [[], [], []]


@WAYS
async def test_a_task_that_cleans_up_ends_once_after_a_scope_around_the_scheduler_was_cancelled(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher may notice the cancellation before the task that entered the scheduler does."""
    monkeypatch.setattr(dispatcher_module, "starter_for", way)
    ends: list[tuple[object, str]] = []

    class Ends(Instrument):
        def task_finished(self, task: ScheduledTask[Any], /) -> None:
            ends.append((task.task_id, task.status.name))

    async def clean_up() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            ends.append(("id", "cleaned up"))

    for _ in range(20):  # trio runs tasks in any order
        ends.clear()
        with anyio.CancelScope() as scope:
            async with Scheduler("test", instruments=[Ends()]) as scheduler:
                scheduler.schedule("id", clean_up)
                await settle()
                scope.cancel()
                await anyio.sleep_forever()
        assert ends == [("id", "cleaned up"), ("id", "CANCELLED")]
