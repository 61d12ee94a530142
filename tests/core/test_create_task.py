"""`create_task`, which uses the event loop's own function and logs the exception of the task."""

import asyncio
import gc
import subprocess
import sys
from textwrap import dedent
from typing import Any

import anyio
import pytest

from anysched import create_task
from anysched.testing import VirtualClock
from support import Gate, errors, fail, forever, is_closed, nothing, records, settle, value

pytestmark = pytest.mark.anyio


@pytest.fixture
def on_asyncio(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("for asyncio")


# On asyncio


async def test_it_returns_the_asyncio_task_with_its_result(on_asyncio: None) -> None:
    task = create_task(value(7), name="seven")
    assert isinstance(task, asyncio.Task)
    assert task.get_name() == "seven"
    assert await task == 7


async def test_its_exception_is_logged_and_stays_its_own(on_asyncio: None, caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("x")
    task = create_task(fail(error), name="failing")
    with pytest.raises(ValueError, match="x"):
        await task
    assert task.exception() is error
    await settle(3)
    (record,) = records(caplog)
    assert errors(caplog) == [record]
    assert (record.name, record.levelname) == ("anysched", "ERROR")
    assert "failing" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_suppressed_exceptions_are_not_logged(on_asyncio: None, caplog: pytest.LogCaptureFixture) -> None:
    for error in (KeyError("x"), LookupError("x")):
        task = create_task(fail(error), suppressed_exceptions=(LookupError,))
        with pytest.raises(LookupError):
            await task
    task = create_task(forever())
    await settle(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle(3)
    assert not records(caplog)
    assert not errors(caplog)


def test_a_task_that_nobody_refers_to_runs_on() -> None:
    done: list[float] = []

    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(5, lambda f: f.set_result(None), future)
        del future
        await asyncio.sleep(10)
        done.append(anyio.current_time())

    async def main() -> None:
        create_task(work())
        await settle(3)
        gc.collect()
        await anyio.sleep(20)

    name, options = VirtualClock().backend("asyncio")
    anyio.run(main, backend=name, backend_options=options)
    assert done == [10]


def test_an_event_loop_can_be_given() -> None:
    loop = asyncio.new_event_loop()
    try:
        task = create_task(value(7), event_loop=loop, name="given")
        assert loop.run_until_complete(task) == 7
        assert task.get_name() == "given"
    finally:
        loop.close()


def test_without_an_event_loop_it_is_refused() -> None:
    coroutine = nothing()
    with pytest.raises(RuntimeError, match="pass task_group="):
        create_task(coroutine)
    assert is_closed(coroutine)


async def test_on_trio_without_a_task_group_it_is_refused(anyio_backend_name: str) -> None:
    if anyio_backend_name != "trio":
        pytest.skip("for trio")
    coroutine = nothing()
    with pytest.raises(RuntimeError, match=r"on trio, .* pass task_group="):
        create_task(coroutine)
    assert is_closed(coroutine)


# Anywhere


@pytest.mark.parametrize("work", [None, 42, nothing, "x"])
async def test_what_is_no_coroutine_is_refused(anyio_backend: Any, work: Any) -> None:
    async with anyio.create_task_group() as tg:
        with pytest.raises(TypeError, match="expected a coroutine"):
            create_task(work, task_group=tg)


@pytest.mark.parametrize(
    "arguments", [{"suppressed_exceptions": 1}, {"suppressed_exceptions": [ValueError]}, {"colour": "red"}]
)
@pytest.mark.parametrize("in_group", [False, True])
async def test_bad_arguments_close_the_coroutine(anyio_backend_name: str, arguments: Any, in_group: bool) -> None:
    if anyio_backend_name == "trio" and not in_group:
        pytest.skip("for asyncio")
    async with anyio.create_task_group() as tg:
        coroutine = nothing()
        with pytest.raises(TypeError):
            create_task(coroutine, task_group=tg if in_group else None, **arguments)
        assert is_closed(coroutine)


async def test_a_started_coroutine_is_refused_and_left_alone(anyio_backend: Any) -> None:
    class Suspend:
        def __await__(self) -> Any:
            yield

    async def two_steps() -> None:
        await Suspend()

    coroutine = two_steps()
    coroutine.send(None)
    async with anyio.create_task_group() as tg:
        with pytest.raises(ValueError, match="already started"):
            create_task(coroutine, task_group=tg)
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_a_loop_and_a_group_are_refused(on_asyncio: None) -> None:
    async with anyio.create_task_group() as tg:
        coroutine = nothing()
        with pytest.raises(TypeError, match="not both"):
            create_task(coroutine, event_loop=asyncio.get_running_loop(), task_group=tg)  # type: ignore[call-overload]
        assert is_closed(coroutine)


async def test_a_group_that_is_over_refuses_and_the_coroutine_is_closed(anyio_backend: Any) -> None:
    async with anyio.create_task_group() as tg:
        pass
    coroutine = nothing()
    with pytest.raises(RuntimeError, match="not active"):
        create_task(coroutine, task_group=tg)
    assert is_closed(coroutine)


# In a task group


async def test_in_a_group_it_returns_anyios_handle(anyio_backend: Any) -> None:
    async with anyio.create_task_group() as tg:
        handle = create_task(value(7), task_group=tg)
        assert isinstance(handle, anyio.TaskHandle)
        assert handle.name == "value"
        assert await handle == 7
        assert create_task(nothing(), task_group=tg, name="named").name == "named"


async def test_in_a_group_a_failure_is_logged_and_does_not_cancel_the_group(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The handle shows it, through a private attribute of anyio; this fails if the attribute is removed."""
    error = ValueError("x")
    async with anyio.create_task_group() as tg:
        handle = create_task(fail(error), task_group=tg, name="failing")
        with pytest.raises(anyio.TaskFailed) as info:
            await handle
        assert info.value.__cause__ is error
        assert handle.exception is error
        assert handle.status is anyio.TaskHandle.Status.FAILED
        assert not tg.cancel_scope.cancel_called
        await create_task(fail(KeyError()), task_group=tg, suppressed_exceptions=(LookupError,)).wait()
    (record,) = records(caplog)
    assert errors(caplog) == [record]
    assert (record.name, record.levelname) == ("anysched", "ERROR")
    assert "failing" in record.getMessage()


async def test_in_a_group_a_cancellation_is_a_cancellation(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tg:
        gate = Gate()
        handle = create_task(gate(), task_group=tg)
        await gate.started.wait()
        handle.cancel()
        with pytest.raises(anyio.TaskCancelled):
            await handle
        assert gate.cancelled
        assert not tg.cancel_scope.cancel_called
        last = create_task(forever(), task_group=tg)
        await settle(3)
        tg.cancel_scope.cancel()
    assert last.status is anyio.TaskHandle.Status.CANCELLED
    assert not records(caplog)
    assert not errors(caplog)


async def test_in_a_group_a_stray_cancellation_does_not_cancel_the_group(on_asyncio: None) -> None:
    async def stray() -> None:
        raise asyncio.CancelledError

    async with anyio.create_task_group() as tg:
        handle = create_task(stray(), task_group=tg)
        await handle.wait()
        assert handle.status is anyio.TaskHandle.Status.CANCELLED
        assert not tg.cancel_scope.cancel_called


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_group_a_request_to_end_the_process_propagates(backend: str) -> None:
    program = f"""
        import anyio, anysched

        async def work():
            raise SystemExit(3)

        async def main():
            async with anyio.create_task_group() as tg:
                anysched.create_task(work(), task_group=tg)

        try:
            anyio.run(main, backend={backend!r})
        except* SystemExit:
            print("propagated")
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.stdout == "propagated\n"


def test_in_a_group_of_a_loop_that_is_shut_down_before_the_first_step() -> None:
    coroutine = nothing()

    async def main() -> None:
        async def host() -> None:
            async with anyio.create_task_group() as tg:
                create_task(coroutine, task_group=tg)
                await anyio.sleep_forever()

        host_task = asyncio.create_task(host())
        await asyncio.sleep(0)
        assert not host_task.done()

    asyncio.run(main())
    gc.collect()
    assert is_closed(coroutine)


@pytest.mark.parametrize("group", [asyncio.TaskGroup(), object()])
async def test_what_is_no_anyio_task_group_is_refused(anyio_backend: Any, group: Any) -> None:
    coroutine = nothing()
    with pytest.raises(TypeError, match="task_group must be an anyio task group"):
        create_task(coroutine, task_group=group)
    assert is_closed(coroutine)


@pytest.mark.parametrize("fails", [False, True])
async def test_in_a_group_a_native_cancellation_that_has_not_arrived_at_the_end(
    on_asyncio: None, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if fails:
            raise ValueError

    async with anyio.create_task_group() as tg:
        handle = create_task(work(), task_group=tg)
        await handle.wait()
        assert handle.status is (anyio.TaskHandle.Status.FAILED if fails else anyio.TaskHandle.Status.CANCELLED)
        assert not tg.cancel_scope.cancel_called
    assert len(records(caplog)) == len(errors(caplog)) == fails
