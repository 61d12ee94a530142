"""Requests to end the process that are raised while a scheduler is left: by instruments, and by signal handlers."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from anysched._core.failures import exit_exception
from anysched.abc import Instrument
from support import Gate, errors, forever, is_closed, nothing, until

HOUR = 3600.0


class Quit(KeyboardInterrupt):
    """A request to end the process that pytest does not handle itself."""


class Exit(SystemExit):
    """The other kind of request."""


class RaisesAtEnds(Instrument):
    """Raises a new exception whenever a task ends, but for one."""

    def __init__(self, failure: Callable[[], BaseException], spared: object = None) -> None:
        self._failure = failure
        self._spared = spared

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        if task.task_id != self._spared:
            raise self._failure()


def leaves(error: BaseException | None) -> list[BaseException]:
    """Yield the exceptions in a group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [] if error is None else [error]


@contextmanager
def caught() -> Iterator[list[BaseException]]:
    """Return the exception of a block."""
    found: list[BaseException] = []
    try:
        yield found
    except BaseException as error:
        found += leaves(error)


async def unwind(ended: list[int]) -> None:
    """Take a while to end when cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
        ended.append(1)


async def by_the_end(scheduler: Scheduler) -> None:
    """Leave the block at its end."""


async def by_an_exception(scheduler: Scheduler) -> None:
    """Leave the block by an exception."""
    raise ValueError("body")


async def by_a_cancellation(scheduler: Scheduler) -> None:
    """Leave the block because a scope around it is cancelled."""
    SCOPES[-1].cancel()
    await anyio.sleep_forever()


async def by_close(scheduler: Scheduler) -> None:
    """Close the scheduler inside the block."""
    await scheduler.close()


async def by_a_task(scheduler: Scheduler) -> None:
    """Leave the block because a task ends, and its end raises."""
    scheduler.schedule("first", nothing)
    await anyio.sleep_forever()


SCOPES: list[anyio.CancelScope] = []
WAYS = [by_the_end, by_an_exception, by_a_cancellation, by_close, by_a_task]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", [Quit, Exit])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_task_is_dropped_or_awaited_and_each_request_comes_out(
    backend: str, kind: type[BaseException], leave: Callable[[Scheduler], Any]
) -> None:
    """This holds even if an instrument raises at the end of each run."""
    ended: list[int] = []
    tasks: list[ScheduledTask[Any]] = []
    coroutines = [nothing() for _ in range(3)]
    # A second request that leaves a task would end asyncio's event loop, which is shutting down after the first.
    spared = "running" if leave is by_a_task else None
    scheduler = Scheduler("test", instruments=[RaisesAtEnds(kind, spared)])
    found: list[BaseException] = []

    async def main() -> None:
        child = scheduler.child("child")
        with caught() as raised:
            with anyio.CancelScope() as scope:
                SCOPES.append(scope)
                async with scheduler:
                    running = child.schedule("running", unwind, ended)
                    await until(lambda: running.status.name == "RUNNING")
                    for number, owner in enumerate([scheduler, child, scheduler]):
                        tasks.append(owner.schedule_later(HOUR, number, coroutines[number]))
                    await leave(scheduler)
        found.extend(raised)

    with caught() as late:  # asyncio lets those out of its tasks at once
        anyio.run(main, backend=backend)
    assert ended == [1]
    assert [task.status.name for task in tasks] == ["CANCELLED"] * 3
    assert all(map(is_closed, coroutines))
    assert scheduler.state == "closed"
    assert scheduler.statistics().running == 0
    assert not scheduler.tasks
    # One for each pending task, and one for each that ran.
    requests = [error for error in {id(error): error for error in [*found, *late]}.values() if isinstance(error, kind)]
    assert len(requests) == 4
    others = [error for error in found if not isinstance(error, kind)]
    assert [str(error) for error in others] == (["body"] if leave is by_an_exception else [])
    SCOPES.clear()
    gc.collect()


@pytest.mark.parametrize("kind", [Quit, Exit])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_child_that_is_left_awaits_its_tasks(backend: str, kind: type[BaseException]) -> None:
    """The requests leave its own block; the parent continues."""
    ended: list[int] = []
    found: list[BaseException] = []

    async def main() -> str:
        async with Scheduler("test") as scheduler:
            child = scheduler.child("child", instruments=[RaisesAtEnds(kind, "running")])
            with caught() as raised:
                async with child:
                    child.schedule_later(HOUR, 1, nothing)
                    child.schedule_later(HOUR, 2, nothing)
                    running = child.schedule("running", unwind, ended)
                    await until(lambda: running.status.name == "RUNNING")
            found.extend(raised)
            assert child.state == "closed"
            assert not child.tasks
            assert ended == [1]
            return scheduler.state

    assert anyio.run(main, backend=backend) == "running"
    assert [type(error) for error in found] == [kind, kind]


@pytest.mark.parametrize("kind", [Quit, Exit])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_that_is_raised_when_the_dispatcher_has_stopped_comes_out(
    backend: str, kind: type[BaseException]
) -> None:
    """The dispatcher drops pending tasks as soon as a scope around it is cancelled, while the body still runs."""
    found: list[BaseException] = []

    async def main() -> None:
        with caught() as raised:
            with anyio.CancelScope() as scope:
                async with Scheduler("test", instruments=[RaisesAtEnds(kind)]) as scheduler:
                    tasks = [scheduler.schedule_later(HOUR, number, nothing) for number in range(2)]
                    scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await until(lambda: all(task.status.name == "CANCELLED" for task in tasks))
        found.extend(raised)

    anyio.run(main, backend=backend)
    assert [type(error) for error in found] == [kind, kind]


@pytest.mark.parametrize("kind", [Quit, Exit])
def test_a_host_that_is_cancelled_before_its_first_step_drops_everything(kind: type[BaseException]) -> None:
    tasks: list[ScheduledTask[Any]] = []
    scheduler = Scheduler("test", instruments=[RaisesAtEnds(kind)])

    async def main() -> None:
        scheduler.start()
        tasks.extend(scheduler.schedule_later(HOUR, number, nothing()) for number in range(2))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await anyio.sleep_forever()

    with caught() as raised:
        asyncio.run(main())
    assert [type(error) for error in raised] == [kind]
    assert [task.status.name for task in tasks] == ["CANCELLED"] * 2
    assert scheduler.state == "closed"


@pytest.mark.parametrize("kind", [Quit, Exit])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_an_interruption_has_left_is_ended_with_the_dispatcher(backend: str, kind: type[BaseException]) -> None:
    """At least one task is left, as after a `KeyboardInterrupt` that came before the step that drops it."""
    tasks: list[ScheduledTask[Any]] = []
    found: list[BaseException] = []

    async def main() -> None:
        with caught() as raised:
            async with Scheduler("test", instruments=[RaisesAtEnds(kind)]) as scheduler:
                tasks.extend(scheduler.schedule_later(HOUR, number, nothing()) for number in range(2))

                async def interrupted(*_: Any) -> None:
                    raise kind

                scheduler._drop_pending = interrupted  # type: ignore[assignment, method-assign]
        found.extend(raised)

    anyio.run(main, backend=backend)
    assert [task.status.name for task in tasks] == ["CANCELLED"] * 2
    assert [type(error) for error in found] == [kind] * 3


class Foreign:
    """A coroutine that is not native, such as one from Cython, and fails when it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __await__(self) -> Generator[Any, Any, None]:
        yield

    def send(self, value: Any, /) -> Any:
        raise StopIteration

    def throw(self, *args: Any) -> Any:
        raise StopIteration

    def close(self) -> None:
        self.closed += 1
        raise ValueError("closing")


@pytest.mark.anyio
@pytest.mark.parametrize("drop", ["cancel", "replace", "leave", "close"])
async def test_a_coroutine_that_fails_when_it_is_closed_is_logged_and_disturbs_nothing(
    drop: str, caplog: pytest.LogCaptureFixture
) -> None:
    foreign: list[Any] = [Foreign(), Foreign()]
    gate = Gate()
    async with Scheduler("test") as scheduler:
        running = scheduler.schedule("running", gate)
        await gate.started.wait()
        tasks = [scheduler.schedule_later(HOUR, number, coroutine) for number, coroutine in enumerate(foreign)]
        for number in range(2):
            if drop == "cancel":
                assert scheduler.cancel(number)
            elif drop == "replace":
                scheduler.schedule_later(HOUR, number, nothing, on_conflict="replace")
        if drop == "close":
            assert await scheduler.close() == [*tasks, running]
    assert gate.ended
    assert [coroutine.closed for coroutine in foreign] == [1, 1]
    assert [record.__dict__["task_id"] for record in errors(caplog)] == [0, 1]


def test_an_exception_that_is_raised_several_times_is_one() -> None:
    one, two, three, four = Quit(1), Quit(2), ValueError(3), Quit(4)
    group = BaseExceptionGroup("nested", [BaseExceptionGroup("inner", [one, four]), two])
    assert exit_exception(None, [one, one], GeneratorExit) is one
    assert exit_exception(None, [one, BaseExceptionGroup("nested", [one])], GeneratorExit) is one
    assert exit_exception(one, [one], GeneratorExit) is None
    found = exit_exception(three, [one, two, group], GeneratorExit)
    assert isinstance(found, BaseExceptionGroup)
    assert found.exceptions == (three, one, two, four)
    assert exit_exception(None, [group, one, two, four], GeneratorExit) is group


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_worker_threads_do_not_keep_a_process_that_a_task_has_ended(backend: str) -> None:
    """They are idle, and would wait for more work; a last one is used after the scheduler."""
    program = f"""
        import anyio
        from anyio import to_thread
        from anysched import Scheduler

        async def work():
            raise SystemExit(3)

        async def main():
            try:
                async with Scheduler("test") as scheduler:
                    await to_thread.run_sync(print, "first")
                    scheduler.schedule("id", work)
                    await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(print, "last", limiter=anyio.CapacityLimiter(1))

        anyio.run(main, backend={backend!r})
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 3, run.stderr
    assert run.stdout.split() == ["first", "last"]


class Unclosable(Coroutine[Any, Any, None]):
    """A coroutine of a foreign type, whose `close` raises an exception."""

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError

    def send(self, value: object) -> None:
        raise NotImplementedError

    def throw(self, *args: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise ValueError("cannot be closed")


@pytest.mark.anyio
async def test_a_coroutine_that_cannot_be_closed_keeps_no_other_task_from_being_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_later(HOUR, "unclosable", Unclosable())
        other = scheduler.schedule_later(HOUR, "other", nothing)
    assert other.status.name == "CANCELLED"
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "cannot be closed"


class Changing:
    """An ID that can be hashed for a while only."""

    hashable = True

    def __hash__(self) -> int:
        if not self.hashable:
            raise ValueError("changed")
        return 1


@pytest.mark.anyio
async def test_an_id_that_can_no_longer_be_hashed_is_logged_and_the_others_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changing = Changing()
    with caught() as found:
        async with Scheduler("test") as scheduler:
            scheduler.schedule_later(HOUR, changing, nothing)
            other = scheduler.schedule_later(HOUR, "other", nothing)
            changing.hashable = False
    assert {str(error) for error in found} <= {"changed"}
    assert other.status.name == "CANCELLED"
    assert any(record.exc_info is not None and "changed" in str(record.exc_info[1]) for record in errors(caplog))


@pytest.mark.anyio
async def test_a_coroutine_is_closed_if_the_log_of_its_id_raises_a_request() -> None:
    """The log handler is called after the operation, before the coroutine is closed."""
    changing, coroutine = Changing(), nothing()

    def raise_quit(_record: logging.LogRecord) -> bool:
        raise Quit

    async with Scheduler("test") as scheduler:
        task = scheduler.schedule_later(HOUR, changing, coroutine)
        changing.hashable = False
        logger = logging.getLogger("anysched.test")
        logger.addFilter(raise_quit)
        try:
            with pytest.raises(Quit):
                task.cancel()
        finally:
            logger.removeFilter(raise_quit)
        assert is_closed(coroutine)
        assert task.status.name == "CANCELLED"
        assert not scheduler.tasks


def test_an_id_that_can_no_longer_be_hashed_is_freed_while_the_event_loop_does_not_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changing, scheduler, coroutine = Changing(), Scheduler("test"), nothing()

    async def enter() -> None:
        scheduler.start()
        await asyncio.sleep(0)

    async def schedule() -> ScheduledTask[Any]:
        return scheduler.schedule_later(HOUR, changing, coroutine)

    with asyncio.Runner() as runner:
        runner.run(enter())
        task = runner.run(schedule())
        changing.hashable = False
        task.cancel()
        assert not scheduler.tasks
        assert is_closed(coroutine)
        runner.run(scheduler.close())
    assert len(errors(caplog)) == 1


@pytest.mark.anyio
async def test_an_id_that_can_no_longer_be_hashed_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    changing = Changing()
    async with Scheduler("test") as scheduler:
        task = scheduler.schedule(changing, forever)
        await until(lambda: task.status.name == "RUNNING")
        changing.hashable = False
        task.cancel()
        await task.wait()
    assert len(errors(caplog)) == 1
