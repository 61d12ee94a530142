"""Starting tasks: natively, and in anyio's own way where that is not possible. What tasks can see is the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from anysched import Scheduler, _dispatcher
from anysched._backend import Backend
from anysched._run import TaskRun
from anysched._starter import GroupStarter, Starter, starter_for
from anysched._starter_asyncio import AsyncioStarter
from anysched._starter_trio import TrioStarter
from support import Gate, is_closed, nothing, outcome, settle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[starter_for, lambda group, _: GroupStarter(group)], ids=["native", "group"])
async def scheduler(
    anyio_backend: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr(_dispatcher, "starter_for", request.param)
    async with Scheduler("test") as scheduler:
        yield scheduler


def starter_of(scheduler: Scheduler) -> Starter:
    assert scheduler._dispatcher is not None
    return scheduler._dispatcher._starter


@pytest.fixture
def by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatcher, "starter_for", starter_for)


async def test_tasks_are_started_natively(by_choice: None, anyio_backend_name: str) -> None:
    """It takes private parts of anyio: this fails when they change. All goes on then, in anyio's own way."""
    async with Scheduler("test") as scheduler:
        assert isinstance(starter_of(scheduler), TrioStarter if anyio_backend_name == "trio" else AsyncioStarter)


def remove_the_states(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("anysched._starter_asyncio._private", SimpleNamespace())


def change_the_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("anysched._starter_asyncio.TaskState", lambda: None)


def remove_the_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "anysched._starter_asyncio", None)


def set_a_factory(patch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))


@pytest.mark.parametrize("change", [remove_the_states, change_the_state, remove_the_module, set_a_factory])
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


@pytest.mark.parametrize("starter", [starter_for, lambda group, _: GroupStarter(group)], ids=["native", "group"])
async def test_a_deadline_around_the_scheduler_is_seen_in_its_tasks(
    monkeypatch: pytest.MonkeyPatch, starter: Callable[[TaskGroup, Backend], Starter]
) -> None:
    monkeypatch.setattr(_dispatcher, "starter_for", starter)

    async def look() -> float:
        return anyio.current_effective_deadline()

    with anyio.CancelScope(deadline=anyio.current_time() + 1000) as scope:
        async with Scheduler("test") as scheduler:
            assert await scheduler.schedule("id", look) == scope.deadline


@pytest.mark.parametrize("starter", [starter_for, lambda group, _: GroupStarter(group)], ids=["native", "group"])
async def test_a_cancellation_around_the_scheduler_reaches_its_tasks_at_every_level(
    monkeypatch: pytest.MonkeyPatch, starter: Callable[[TaskGroup, Backend], Starter]
) -> None:
    monkeypatch.setattr(_dispatcher, "starter_for", starter)
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
    """asyncio cancels what still runs, once, and waits for its end: for the dispatcher's, too."""
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
