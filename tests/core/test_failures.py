"""Failures stay inside: the exception of a task is logged once, and the others continue."""

import asyncio
import logging
import subprocess
import sys
from textwrap import dedent
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from anysched._core import dispatcher as dispatcher_module
from support import (
    Gate,
    dispatcher_of,
    errors,
    fail,
    forever,
    group_starter,
    is_closed,
    nothing,
    outcome,
    settle,
    value,
)

pytestmark = pytest.mark.anyio


class Quit(BaseException):
    """Neither an `Exception` nor a request to end the process."""


async def others_go_on(scheduler: Scheduler, sibling: ScheduledTask[Any]) -> None:
    await settle()
    assert sibling.status.name == "RUNNING"
    assert await scheduler.schedule("after", value, 1) == 1


@pytest.mark.parametrize(
    "error", [ValueError("x"), Quit("x"), ExceptionGroup("g", [ValueError()]), BaseExceptionGroup("g", [Quit()])]
)
@pytest.mark.parametrize("as_function", [False, True])
async def test_a_failure_is_logged_once_with_traceback_and_id(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, error: BaseException, as_function: bool
) -> None:
    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", fail, error) if as_function else scheduler.schedule("id", fail(error))
    assert await outcome(task) == "FAILED"
    assert "id" not in scheduler
    (record,) = errors(caplog)
    assert record.name == "anysched.test"
    assert "'id'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.exc_info[2] is not None
    assert (record.scheduler, record.task_id) == ("test", "id")  # type: ignore[attr-defined]
    await others_go_on(scheduler, sibling)
    assert len(errors(caplog)) == 1


async def test_a_function_that_raises_instead_of_returning_a_coroutine(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Any:
        raise ZeroDivisionError

    task = scheduler.schedule("id", make)
    assert await outcome(task) == "FAILED"
    assert isinstance(task.exception, ZeroDivisionError)
    assert len(errors(caplog)) == 1


async def test_an_error_in_the_cleanup_of_a_cancelled_task_is_logged(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """Under anyio it would escape as a nested exception group."""

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    await settle()
    scheduler.cancel("id")
    assert await outcome(task) == "FAILED"
    assert str(task.exception) == "cleanup"
    assert len(errors(caplog)) == 1
    await others_go_on(scheduler, sibling)


async def test_an_error_in_a_cleanup_on_leaving_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async with Scheduler("test") as scheduler:
        task = scheduler.schedule("id", work)
        await settle()
    assert task.status.name == "FAILED"
    assert len(errors(caplog)) == 1


async def test_a_group_of_a_failure_and_a_cancellation_is_split(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            raise BaseExceptionGroup("mixed", [ValueError("failure"), cancelled]) from None

    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    await settle()
    scheduler.cancel("id")
    assert await outcome(task) == "CANCELLED"
    (record,) = errors(caplog)
    assert record.exc_info is not None
    failure = record.exc_info[1]
    assert isinstance(failure, ExceptionGroup)
    assert [str(error) for error in failure.exceptions] == ["failure"]
    await others_go_on(scheduler, sibling)


async def test_a_group_of_cancellations_is_a_cancellation(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            raise BaseExceptionGroup("cancelled", [cancelled]) from None

    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    await settle()
    task.cancel()
    assert await outcome(task) == "CANCELLED"
    assert not errors(caplog)
    await others_go_on(scheduler, sibling)


async def awaits_cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("work", [awaits_cancelled_future, cancels_itself, raises_cancelled])
async def test_a_stray_cancellation_ends_its_task_and_nothing_else(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, anyio_backend_name: str, work: Any
) -> None:
    """On asyncio, it would silently cancel the whole task group."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no stray cancellations")
    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    assert await outcome(task) == "CANCELLED"
    assert "id" not in scheduler
    assert not errors(caplog)
    await others_go_on(scheduler, sibling)


async def test_a_stray_cancellation_together_with_one_that_was_asked_for(
    scheduler: Scheduler, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no stray cancellations")
    hosts: list[asyncio.Task[Any]] = []

    async def work() -> None:
        host = asyncio.current_task()
        assert host is not None
        hosts.append(host)
        await anyio.sleep_forever()

    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    await settle()
    hosts[0].cancel()
    scheduler.cancel("id")
    assert await outcome(task) == "CANCELLED"
    await others_go_on(scheduler, sibling)


async def test_an_exception_in_the_body_leaves_as_itself(scheduler: Scheduler) -> None:
    gate = Gate()
    for error in (ValueError("x"), Quit("x"), ExceptionGroup("g", [ValueError()])):
        with pytest.raises(type(error)) as info:
            async with Scheduler("inner") as inner:
                inner.schedule("id", gate)
                await gate.started.wait()
                raise error
        assert info.value is error
        assert info.value.__context__ is None
    assert gate.cancelled


async def test_a_failing_task_does_not_leave_with_the_body(caplog: pytest.LogCaptureFixture) -> None:
    async with Scheduler("test") as scheduler:
        await scheduler.schedule("id", fail, ValueError("x")).wait()
    assert len(errors(caplog)) == 1


# Requests to end the process. They affect the whole event loop, so each test has its own.


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(3)", "BaseExceptionGroup('g', [SystemExit(3)])"])
def test_requests_to_end_the_process_propagate(backend: str, error: str) -> None:
    program = f"""
        import anyio
        from anysched import Scheduler

        async def work():
            raise {error}

        async def main():
            async with Scheduler("test") as scheduler:
                sibling = scheduler.schedule("sibling", anyio.sleep_forever)
                scheduler.schedule_later(3600, "pending", anyio.sleep(1))
                scheduler.schedule("id", work)
                await anyio.sleep(5)
                print("not reached")

        try:
            anyio.run(main, backend={backend!r})
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error, = error.exceptions
                if {backend!r} == "trio":
                    print("group")
            print(type(error).__name__)
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.stdout.split() == [error.partition("(")[0].replace("BaseExceptionGroup", "SystemExit")]
    assert "never awaited" not in run.stderr


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_several_requests_to_end_the_process_leave_as_a_group(backend: str) -> None:
    async def work() -> None:
        raise Quit

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            dispatcher = dispatcher_of(scheduler)

            async def break_out() -> None:
                raise BaseExceptionGroup("g", [Quit(1), BaseExceptionGroup("h", [Quit(2)])])

            dispatcher._group.start_soon(break_out)
            await anyio.sleep(5)

    with pytest.raises(BaseExceptionGroup) as info:
        anyio.run(main, backend=backend)
    assert len(info.value.exceptions) == 2


def test_a_loop_that_is_shut_down_under_the_scheduler_leaves_nothing_unawaited() -> None:
    """When the main task has ended, asyncio cancels the remaining tasks, including those before their first step."""
    coroutines = [nothing() for _ in range(200)]
    tasks: list[ScheduledTask[None]] = []

    async def main() -> None:
        scheduler = Scheduler("test")
        host = asyncio.create_task(scheduler.run())
        await asyncio.sleep(0)
        tasks.extend(scheduler.schedule(number, coroutine) for number, coroutine in enumerate(coroutines))
        while not any(task._run is not None for task in tasks):
            await asyncio.sleep(0)
        assert not host.done()

    asyncio.run(main())
    assert {task.status.name for task in tasks} <= {"CANCELLED", "FINISHED"}
    assert all(is_closed(coroutine) for coroutine in coroutines)


def test_a_loop_that_is_shut_down_before_the_dispatcher_started() -> None:
    async def main() -> None:
        scheduler = Scheduler("test")
        host = asyncio.create_task(scheduler.run())
        await asyncio.sleep(0)
        scheduler.schedule("id", nothing())
        assert not host.done()

    asyncio.run(main())


async def cancels_itself_last() -> None:
    cancel_native_task()


async def cancels_itself_and_fails() -> None:
    cancel_native_task()
    raise ValueError("failed as well")


def cancel_native_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(("work", "status"), [(cancels_itself_last, "CANCELLED"), (cancels_itself_and_fails, "FAILED")])
async def test_a_native_cancellation_that_has_not_arrived_at_the_end(
    scheduler: Scheduler, anyio_backend_name: str, work: Any, status: str
) -> None:
    """It is found through a private attribute of asyncio's tasks: this fails when the attribute goes."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellations")
    sibling = scheduler.schedule("sibling", forever)
    assert await outcome(scheduler.schedule("id", work)) == status
    await others_go_on(scheduler, sibling)


async def test_the_dispatcher_does_not_mind_a_native_cancellation(
    scheduler: Scheduler, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellations")
    sibling = scheduler.schedule("sibling", forever)
    await settle()
    (dispatcher,) = [task for task in asyncio.all_tasks() if task.get_name() == "anysched dispatcher"]
    dispatcher.cancel()
    await others_go_on(scheduler, sibling)


async def test_a_native_cancellation_before_the_first_step_means_that_it_never_runs(
    scheduler: Scheduler, anyio_backend_name: str, starter: str
) -> None:
    if anyio_backend_name != "asyncio" or starter == "group":
        pytest.skip("for native tasks of asyncio")
    gate = Gate()
    sibling = scheduler.schedule("sibling", forever)
    scheduler.schedule("first", cancel_the_victim)
    assert await outcome(scheduler.schedule("victim", gate())) == "CANCELLED"
    assert not gate.started.is_set()
    assert "victim" not in scheduler
    await others_go_on(scheduler, sibling)


async def cancel_the_victim() -> None:
    (victim,) = [task for task in asyncio.all_tasks() if task.get_name() == "test_victim"]
    victim.cancel()


def test_in_the_way_of_anyio_a_native_cancellation_before_the_first_step_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """anyio's task group then silently cancels itself and its body."""
    monkeypatch.setattr(dispatcher_module, "starter_for", group_starter)

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("first", cancel_the_victim)
            scheduler.schedule("victim", forever())
            await asyncio.sleep(10)

    with pytest.raises(RuntimeError, match="was stopped: one of its tasks was cancelled"):
        asyncio.run(main())


async def test_generator_exit_is_nothing_special(scheduler: Scheduler) -> None:
    sibling = scheduler.schedule("sibling", forever)
    assert await outcome(scheduler.schedule("id", fail, GeneratorExit())) == "CANCELLED"
    await others_go_on(scheduler, sibling)


@pytest.mark.parametrize("shown", [True, False])
async def test_a_log_filter_that_raises_is_no_reason_to_end(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(logging, "raiseExceptions", shown)
    logger = logging.getLogger("anysched.test")
    logger.addFilter(refuse)
    try:
        sibling = scheduler.schedule("sibling", forever)
        assert await outcome(scheduler.schedule("id", fail, ValueError())) == "FAILED"
        await others_go_on(scheduler, sibling)
    finally:
        logger.removeFilter(refuse)
    assert ("ZeroDivisionError" in capsys.readouterr().err) is shown
