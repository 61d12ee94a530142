"""Leaving a scheduler, for any reason: the exception of the block, and nothing left behind."""

import asyncio
import gc
import io
import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import Context
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import pytest

from anysched import ScheduledTask, Scheduler
from support import Gate, fail, forever, is_closed, nothing, records, settle, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture(params=["root", "child"])
async def fresh(request: pytest.FixtureRequest, scheduler: Scheduler) -> Scheduler:
    """A scheduler that has not been entered."""
    return Scheduler("fresh") if request.param == "root" else scheduler.child("fresh")


# The exception of the body


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), KeyboardInterrupt(), ExceptionGroup("g", [OSError()])])
@pytest.mark.parametrize("when", ["in the body", "while leaving"])
async def test_the_exception_of_the_body_outlives_a_cancellation(
    fresh: Scheduler, error: BaseException, when: str
) -> None:
    gate = Gate(stubborn=True)
    caught: BaseException | None = None
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            with anyio.CancelScope(shield=True):
                await until(lambda: gate.cancelled)
                if when == "while leaving":
                    scope.cancel()
                await settle()
                gate.open.set()

        async with anyio.create_task_group() as tg:
            try:
                async with fresh:
                    with anyio.CancelScope(shield=True):
                        fresh.schedule("id", gate)
                        await gate.started.wait()
                    tg.start_soon(cancel)
                    if when == "in the body":
                        scope.cancel()
                    raise error
            except BaseException as exception:
                caught = exception
    assert caught is error
    assert gate.ended


async def test_the_exception_of_the_body_outlives_a_cancellation_before_it(fresh: Scheduler) -> None:
    error = KeyError("x")
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(KeyError) as info:
            async with fresh:
                fresh.schedule("id", nothing())
                raise error
    assert info.value is error


async def test_the_exception_of_the_body_outlives_a_native_cancellation(
    fresh: Scheduler, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellation")
    gate = Gate(stubborn=True)

    async def main() -> None:
        async with fresh:
            fresh.schedule("id", gate)
            await gate.started.wait()
            raise KeyError("x")

    task = asyncio.create_task(main())
    for _ in range(3):
        await settle()
        task.cancel()
    await settle()
    assert not task.done()
    gate.open.set()
    with pytest.raises(KeyError):
        await task
    assert gate.ended


async def test_a_native_cancellation_while_leaving_leaves_when_all_have_ended(
    fresh: Scheduler, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellation")
    gates = [Gate(stubborn=True) for _ in range(3)]

    async def main() -> None:
        async with fresh:
            for gate in gates:
                fresh.schedule(gate, gate)
                await gate.started.wait()

    task = asyncio.create_task(main())
    await settle()
    for _ in range(3):
        task.cancel()
        await settle()
    assert not task.done()
    assert "closing" in repr(fresh)
    for gate in gates:
        assert gate.cancelled
        gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(gate.ended for gate in gates)
    assert fresh.state == "closed"


@pytest.mark.parametrize("body", [None, KeyError("x"), SystemExit(4)])
@pytest.mark.parametrize("count", [1, 2])
async def test_several_exceptions_leave_as_a_group_and_a_single_one_as_itself(
    anyio_backend: Any, body: BaseException | None, count: int
) -> None:
    if anyio_backend[0] == "asyncio":
        pytest.skip("asyncio stops when SystemExit leaves a task: in a separate program, below")
    exits = [SystemExit(number) for number in range(count)]
    gates = [Gate() for _ in exits]

    async def work(gate: Gate, error: SystemExit) -> None:
        try:
            await gate()
        finally:
            raise error

    with pytest.raises(BaseException) as info:
        async with Scheduler("test") as scheduler:
            for gate, error in zip(gates, exits, strict=True):
                scheduler.schedule(gate, work, gate, error)
                await gate.started.wait()
            if body is not None:
                raise body
    expected = [*([] if body is None else [body]), *exits]
    if len(expected) == 1:
        assert info.value is expected[0]
    else:
        assert isinstance(info.value, BaseExceptionGroup)
        assert not any(isinstance(error, BaseExceptionGroup) for error in info.value.exceptions)
        assert set(info.value.exceptions) == set(expected)


# Waiting where nothing more will happen


@pytest.mark.parametrize("wait", ["join", "wait", "await"])
async def test_what_is_pending_is_dropped_when_the_dispatcher_stops(wait: str) -> None:
    """A shielded clean-up of the body, whose outer scope was cancelled, does not wait for tasks that never start."""
    coroutine = nothing()
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with Scheduler("test") as scheduler:
            task = scheduler.schedule_later(HOUR, "id", coroutine)
            children = [scheduler.child(name).schedule_later(HOUR, "id", nothing) for name in "ab"]
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    if wait == "join":
                        await scheduler.join()
                    elif wait == "wait":
                        await task.wait()
                    else:
                        with pytest.raises(anyio.TaskCancelled):
                            await task
                    await settle()
                    assert is_closed(coroutine)
                    assert "id" not in scheduler
                    # At this point, `close` still returns what was not done.
                    assert await scheduler.close() == [task, *children]
    assert scope.cancelled_caught


async def test_a_child_says_what_was_dropped_when_the_dispatcher_stopped() -> None:
    with anyio.CancelScope() as scope:
        async with Scheduler("test") as scheduler:
            first, second = scheduler.child("first"), scheduler.child("second")
            tasks = [child.schedule_later(HOUR, "id", nothing) for child in (first, second)]
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await settle()
                assert await second.close() == [tasks[1]]
                assert await first.close() == [tasks[0]]
    assert scheduler.state == "closed"


# In another task


async def test_leaving_in_another_task_cleans_up_and_says_what_to_use(anyio_backend_name: str) -> None:
    gate = Gate()
    coroutine = nothing()
    stack = AsyncExitStack()
    entered, leave = anyio.Event(), anyio.Event()
    scheduler = Scheduler("test")

    async def enter() -> None:
        await stack.enter_async_context(scheduler)
        entered.set()
        if anyio_backend_name == "trio":
            await leave.wait()  # trio lets no task end inside of a nursery that it has opened
            # It complains about remains.

    failed: list[BaseException] = []

    async def close() -> None:
        await entered.wait()
        running = scheduler.schedule("running", gate)
        scheduler.schedule_later(HOUR, "pending", coroutine)
        await gate.started.wait()
        with pytest.raises(RuntimeError, match=r"start\(\).*scheduler\.run.*child") as info:
            await stack.aclose()
        failed.append(info.value)
        assert running.status.name == "CANCELLED"
        leave.set()

    if anyio_backend_name == "trio":
        with pytest.raises(BaseException):
            async with anyio.create_task_group() as tg:
                tg.start_soon(enter)
                tg.start_soon(close)
    else:
        await asyncio.create_task(enter())
        await asyncio.create_task(close())
    assert failed
    assert gate.ended
    assert is_closed(coroutine)
    assert scheduler.state == "closed"


async def test_the_exception_of_the_body_outlives_leaving_in_another_task(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("on trio the task that entered would have to stay")
    scheduler = Scheduler("test")
    await asyncio.create_task(scheduler.__aenter__())
    error = KeyError("x")
    with pytest.raises(BaseExceptionGroup) as info:
        await scheduler.__aexit__(KeyError, error, None)
    assert info.value.exceptions[0] is error
    assert "left in another" in str(info.value.exceptions[1])


@pytest.mark.parametrize("closed", [False, True])
async def test_a_scheduler_is_left_once_and_only_after_it_was_entered(closed: bool) -> None:
    scheduler = Scheduler("test")
    with pytest.raises(RuntimeError, match="cannot be left: it has not been entered"):
        await scheduler.__aexit__(None, None, None)
    assert str(scheduler.state) == "new"
    async with scheduler:
        child = scheduler.child("child")
        with pytest.raises(RuntimeError, match=r"'test\.child' cannot be left: it has not been entered"):
            await child.__aexit__(None, None, None)
        async with child:
            if closed:
                await child.close()
        with pytest.raises(RuntimeError, match=r"'test\.child' cannot be left: it has already been left"):
            await child.__aexit__(None, None, None)
        assert await scheduler.schedule("id", value(1)) == 1
    with pytest.raises(RuntimeError, match="cannot be left: it has already been left"):
        await scheduler.__aexit__(None, None, None)
    assert scheduler.state == "closed"


async def test_leaving_in_another_thread_is_refused_and_changes_nothing(scheduler: Scheduler) -> None:
    """The tasks belong to the event loop of the first thread, for which another thread would wait forever."""
    task = scheduler.schedule_later(HOUR, "id", nothing)

    def leave() -> None:
        with pytest.raises(RuntimeError, match="thread"):
            anyio.run(scheduler.__aexit__, None, None, None)

    await anyio.to_thread.run_sync(Context().run, leave)
    assert scheduler.state == "running"
    assert scheduler.tasks["id"] is task


async def test_a_child_of_a_parent_that_does_not_run_names_the_parent() -> None:
    root = Scheduler("root")
    child = root.child("child")
    grandchild = child.child("grandchild")
    for scheduler in (child, grandchild):
        with pytest.raises(RuntimeError, match=r"'root.*is not running \(new\); enter its parent 'root' first"):
            scheduler.schedule("id", nothing())
        with pytest.raises(RuntimeError, match="enter its parent 'root' first"):
            await scheduler.__aenter__()
    async with root:
        assert await grandchild.schedule("id", value(1)) == 1
    with pytest.raises(RuntimeError, match="its parent 'root' is closed"):
        grandchild.schedule("id", nothing())


# Closing


@pytest.mark.parametrize("root", [True, False])
async def test_what_a_running_task_schedules_during_the_grace_is_dropped_and_returned(
    scheduler: Scheduler, root: bool
) -> None:
    gate = Gate()
    coroutines = [value(1), value(2)]
    child = scheduler.child("child")
    booked: list[Any] = []

    async def work() -> str:
        await gate()
        booked.append(child.schedule_later(HOUR, "next", coroutines[0]))
        booked.append(child.schedule(("at", "once"), coroutines[1]))
        booked.append(child.schedule_later(HOUR, "job", value, 3, on_conflict="follow"))
        booked.append(scheduler.schedule_every(60, "again", nothing) if root else child.schedule("x", nothing))
        kept: Any = child.schedule("job", nothing())
        assert kept is job
        with pytest.raises(ValueError, match="on_conflict"):
            child.schedule("bad", nothing(), on_conflict="no")  # type: ignore[call-overload]
        await settle()
        return "the rest of the work"

    job = child.schedule("job", work)
    await gate.started.wait()
    async with anyio.create_task_group() as tg:

        async def close() -> None:
            assert await (scheduler if root else child).close(grace=30) == booked

        tg.start_soon(close)
        await settle()
        with pytest.raises(RuntimeError, match="closing"):
            child.schedule("outside", nothing())
        gate.open.set()
    assert await job == "the rest of the work"
    assert [task.status.name for task in booked] == ["CANCELLED"] * 4
    assert all(task.due is not None for task in booked)
    assert all(is_closed(coroutine) for coroutine in coroutines)
    with pytest.raises(RuntimeError, match="closed"):
        child.schedule("id", nothing())
    statistics = child.statistics()
    assert (statistics.pending, statistics.running) == (0, 0)


async def test_what_is_returned_is_in_the_order_in_which_it_was_made(scheduler: Scheduler) -> None:
    children = [scheduler.child(f"child {number}") for number in range(20)]
    grandchild = children[3].child("grandchild")
    expected = {}
    for child in [grandchild, *children[::-1], scheduler]:
        expected[child.name] = [child.schedule_later(HOUR, number, nothing) for number in range(3)]
    order = [scheduler.name, *(child.name for child in children), grandchild.name]
    assert await scheduler.close() == [task for name in order for task in expected[name]]


@pytest.mark.parametrize(
    ("grace", "error"),
    [(-1, "negative"), (float("-inf"), "finite"), (float("nan"), "finite"), (Decimal("snan"), "finite")],
)
async def test_a_grace_that_is_none_is_refused(scheduler: Scheduler, grace: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        await scheduler.close(grace)
    assert scheduler.state == "running"


# Children cost nothing when they are idle


def names_known_to_logging() -> set[str]:
    return {name for name in logging.root.manager.loggerDict if name.startswith("anysched.family")}


@pytest.mark.slow
async def test_many_idle_children_stall_nothing_and_leave_nothing_behind() -> None:
    async with Scheduler("family") as root:
        gc.collect()
        before = len(gc.get_objects())
        for number in range(10_000):
            child = root.child(f"child {number}")
            await child.schedule("id", fail, ValueError()).wait() if number % 1000 == 0 else None
        del child
        gc.collect()
        assert len(gc.get_objects()) - before < 500
        assert names_known_to_logging() == {"anysched.family"}
        # Closing does not touch them, so it takes the same number of event loop iterations for any number of them.
        kept = [root.child(f"kept {number}") for number in range(10_000)]
        last = kept[-1].schedule_later(HOUR, "id", nothing)
        iterations = 0

        async def count() -> None:
            nonlocal iterations
            while root.state == "running" or last.status.name == "PENDING":
                iterations += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tg:
            tg.start_soon(count)
            await settle()
            iterations = 0
            assert await root.close() == [last]
        assert iterations < 10
        assert {child.state for child in kept} == {"closed"}


async def test_a_logger_that_the_program_has_made_for_a_child_is_used(caplog: pytest.LogCaptureFixture) -> None:
    root = Scheduler("logged")
    child = root.child("child").child("grandchild")
    collected: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            collected.append(record)

    async with root:
        await child.schedule("id", fail, ValueError()).wait()
        assert records(caplog)[0].name == "anysched.logged.child.grandchild"
        above = logging.getLogger("anysched.logged.child")
        handler = Collector()
        above.addHandler(handler)
        await child.schedule("id", fail, ValueError()).wait()
        assert [record.name for record in collected] == ["anysched.logged.child.grandchild"]
        own = logging.getLogger("anysched.logged.child.grandchild")
        own.setLevel(logging.CRITICAL)
        await child.schedule("id", fail, ValueError()).wait()
        assert len(collected) == 1
        above.removeHandler(handler)
        own.setLevel(logging.NOTSET)


# A log that fails


class Raising(logging.Handler):
    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        super().__init__()
        self._error = error

    def handle(self, record: logging.LogRecord) -> bool:
        raise self._error


class NotAnException(BaseException):
    pass


@pytest.mark.parametrize("error", [ZeroDivisionError, NotAnException, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("where", ["handler", "filter"])
async def test_calls_take_effect_although_a_handler_or_filter_raises(
    where: str, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("anysched.raising")
    handler = Raising(error)

    def refuse(record: logging.LogRecord) -> bool:
        raise error

    logger.setLevel(logging.DEBUG)
    if where == "handler":
        logger.addHandler(handler)
    else:
        logger.addFilter(refuse)
    try:
        async with Scheduler("raising") as scheduler:
            task = scheduler.schedule_later(HOUR, "id", nothing)
            assert scheduler.schedule("id", nothing) is task
            assert scheduler.reschedule_later(0, "id")
            await task
            assert not scheduler.cancel("id")
            assert await scheduler.schedule("id", value(5)) == 5
            await scheduler.schedule("id", fail, ValueError()).wait()
            scheduler.schedule("id", forever)
            assert scheduler.cancel("id")
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
        logger.removeFilter(refuse)
    assert error.__name__ in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_request_to_end_the_process_from_a_handler_leaks_nothing(error: type[BaseException], backend: str) -> None:
    """A recurring task fails, and the log handler raises; the coroutine of another task is closed."""
    logger, handler = logging.getLogger("anysched.test"), Raising(error)
    handler.setLevel(logging.ERROR)
    tasks: list[ScheduledTask[Any]] = []

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            tasks.append(scheduler.schedule_later(HOUR, "pending", nothing()))
            tasks.append(scheduler.schedule_every(HOUR, "fails", fail, ValueError(), first=0))
            await anyio.sleep_forever()

    logger.addHandler(handler)
    try:
        with pytest.raises(BaseException) as caught:
            anyio.run(main, backend=backend)
    finally:
        logger.removeHandler(handler)
    left: BaseException = caught.value
    while isinstance(left, BaseExceptionGroup):
        (left,) = left.exceptions
    assert isinstance(left, error)
    assert [task.status.name for task in tasks] == ["CANCELLED", "CANCELLED"]
    gc.collect()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_the_coroutine_of_a_refused_task_is_closed_although_the_log_handler_raises(
    scheduler: Scheduler, error: type[BaseException]
) -> None:
    registry = scheduler._registry
    coroutine = nothing()
    task = scheduler.schedule_later(HOUR, "id", coroutine)
    task._leave_queue()
    logger, handler = logging.getLogger("anysched.test"), Raising(error)
    logger.addHandler(handler)
    try:
        with pytest.raises(error):
            registry.finish(task, ScheduledTask.Status.FAILED, ValueError(), ValueError())
    finally:
        logger.removeHandler(handler)
    assert is_closed(coroutine)
    assert "id" not in scheduler


async def test_a_handler_may_raise_although_standard_error_is_closed(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.close()
    logger, handler = logging.getLogger("anysched.test"), Raising()
    logger.addHandler(handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            assert not scheduler.cancel("unknown")
            await scheduler.schedule("id", fail, ValueError()).wait()
    finally:
        logger.removeHandler(handler)
    assert await scheduler.schedule("id", value(1)) == 1


# Cancellations that were not requested


def cancelled_future() -> Any:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def await_cancelled_future() -> None:
    await cancelled_future()


async def await_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(HOUR))
    task.cancel()
    await task


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(0)


async def cancel_itself_at_the_end() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def raise_a_cancellation() -> None:
    raise anyio.get_cancelled_exc_class()("stray")


STRAY = [await_cancelled_future, await_cancelled_task, cancel_itself, cancel_itself_at_the_end, raise_a_cancellation]


@pytest.mark.parametrize("work", STRAY)
async def test_a_cancellation_that_nothing_asked_for_is_logged_and_is_the_cause(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, anyio_backend_name: str, work: Callable[[], Any]
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("on trio only trio makes cancellations")
    task = scheduler.schedule("stray", work)
    sibling = scheduler.schedule("sibling", forever)
    with pytest.raises(anyio.TaskCancelled) as info:
        await task
    assert isinstance(info.value.__cause__, asyncio.CancelledError)
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    assert "'stray' was cancelled" in record.getMessage()
    assert sibling.status.name == "RUNNING"
    again = scheduler.schedule_every(HOUR, "again", work, first=0)
    await until(lambda: again.run_count and again.status.name == "PENDING")
    assert [record.levelno for record in records(caplog)] == [logging.WARNING] * 2


async def test_a_stray_cancellation_on_trio(caplog: pytest.LogCaptureFixture, anyio_backend_name: str) -> None:
    if anyio_backend_name != "trio":
        pytest.skip("for trio")
    kept: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(0)
        except BaseException as exception:
            kept.append(exception)

    async def work() -> None:
        raise kept[0]

    async with Scheduler("test") as scheduler:
        with pytest.raises(anyio.TaskCancelled) as info:
            await scheduler.schedule("stray", work)
    assert info.value.__cause__ is kept[0]
    assert ["'stray' was cancelled" in record.getMessage() for record in records(caplog)] == [True]


async def test_a_cancellation_that_was_asked_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Scheduler("test") as scheduler:
        tasks = [scheduler.schedule(number, forever) for number in range(4)]
        await settle()
        scheduler.cancel(0)
        tasks[1].cancel()
        scheduler.schedule(2, forever, on_conflict="replace")
        await settle()
    with pytest.raises(anyio.TaskCancelled) as info:
        await tasks[0]
    assert info.value.__cause__ is None
    assert not records(caplog)


def test_the_end_of_an_event_loop_is_not_logged_as_a_stray_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler("test")

    async def main() -> None:
        host = asyncio.create_task(scheduler.run())
        await asyncio.sleep(0)
        scheduler.schedule("runs", forever)
        scheduler.schedule_later(HOUR, "pending", nothing())
        await settle()
        assert not host.done()

    asyncio.run(main())
    assert scheduler.state == "closed"
    assert not records(caplog)


async def test_a_native_cancellation_before_the_first_step_is_logged(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, anyio_backend_name: str, starter: str
) -> None:
    if anyio_backend_name != "asyncio" or starter == "group":
        pytest.skip("for native tasks of asyncio")
    coroutine = nothing()

    async def killer() -> None:
        for native in asyncio.all_tasks():
            if native.get_name() == "test_id":
                native.cancel()

    scheduler.schedule("killer", killer)
    task = scheduler.schedule("id", coroutine)
    await task.wait()
    assert is_closed(coroutine)
    assert [record.levelno for record in records(caplog)] == [logging.WARNING]


# A scope that is left open


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
async def test_a_task_that_leaves_scopes_open_fails_and_leaves_nothing_behind(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, count: int, anyio_backend_name: str
) -> None:
    scopes: list[anyio.CancelScope] = []

    async def work(number: int) -> None:
        for _ in range(count):
            scopes.append(anyio.CancelScope())
            scopes[-1].__enter__()
        await anyio.sleep(0)

    gc.collect()
    for number in range(50):
        task = scheduler.schedule(number, work, number)
        await task.wait()
        assert isinstance(task.exception, RuntimeError)
    del task
    caplog.clear()
    if anyio_backend_name == "asyncio":
        children = [scope for scope in scopes if scope._host_task is not None]  # type: ignore[attr-defined]
        assert not children
    assert await scheduler.schedule("next", value(1)) == 1


async def test_a_scope_that_is_left_open_and_cancelled_is_logged_once(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        scope = anyio.CancelScope()
        scope.__enter__()
        scope.cancel()
        await anyio.sleep(HOUR)

    task = scheduler.schedule("id", work)
    await task.wait()
    assert isinstance(task.exception, RuntimeError)
    assert [record.levelname for record in records(caplog)] == ["ERROR"]


@pytest.mark.parametrize("children", ["none", "forever", "failing", "stubborn"])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_task_that_leaves_task_groups_open_fails_alone(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, children: str, count: int, anyio_backend_name: str
) -> None:
    gate = Gate(stubborn=True)

    async def work() -> None:
        for _ in range(count):
            group = anyio.create_task_group()
            await group.__aenter__()
            if children == "failing":
                group.start_soon(fail, ValueError("in the group"))
            elif children == "stubborn":
                group.start_soon(gate)
            elif children == "forever":
                group.start_soon(forever)
        if children == "stubborn":
            await gate.started.wait()

    sibling = scheduler.schedule("sibling", forever)
    task = scheduler.schedule("id", work)
    await settle()
    if children == "stubborn" and anyio_backend_name == "trio":
        assert gate.cancelled
        assert task.status.name == "RUNNING"
    gate.open.set()
    with anyio.fail_after(5):
        await task.wait()
    assert isinstance(task.exception, RuntimeError)
    assert task.status.name == "FAILED"
    assert len(records(caplog, logging.ERROR)) == 1
    await settle()
    assert sibling.status.name == "RUNNING"
    assert await scheduler.schedule("next", value(1)) == 1
    if children == "failing" and anyio_backend_name == "trio":
        assert "in the group" in caplog.text
    caplog.clear()


# Other threads


async def test_calls_from_another_thread_are_refused(scheduler: Scheduler) -> None:
    for call in (partial(scheduler.child, "x"), scheduler.statistics):
        with pytest.raises(RuntimeError, match="thread"):
            await anyio.to_thread.run_sync(call)


# At the edges


async def test_cancelling_all_tasks_before_the_dispatchers_first_step_says_what_happened(
    anyio_backend_name: str,
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellation")

    async def main() -> None:
        async with Scheduler("test"):
            for native in asyncio.all_tasks():
                if native.get_name() == "anysched dispatcher":
                    native.cancel()
            await anyio.sleep(HOUR)

    with pytest.raises(RuntimeError, match="its dispatcher, as when all tasks of a loop are cancelled"):
        await asyncio.create_task(main())


async def test_closing_that_is_cancelled_natively_drops_everything(
    scheduler: Scheduler, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no native cancellation")
    child = scheduler.child("child")
    tasks = [child.schedule_later(HOUR, number, nothing) for number in range(2_000)]
    closing = asyncio.create_task(child.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert {task.status.name for task in tasks} == {"CANCELLED"}
    assert child.state == "closed"


async def test_closing_twice_at_once(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    async with anyio.create_task_group() as tg:
        tg.start_soon(scheduler.close, 30)
        tg.start_soon(scheduler.close, 30)
        await settle()
        gate.open.set()
    assert await task == "through"


async def test_a_hosted_child_that_is_closed_leaves_the_others_alone(scheduler: Scheduler) -> None:
    first, second = scheduler.child("first"), scheduler.child("second")
    async with anyio.create_task_group() as tg:
        await tg.start(first.run)
        await tg.start(second.run)
        await first.close()
        assert await second.schedule("id", value(1)) == 1
        await second.close()


async def test_an_id_that_cannot_be_compared(scheduler: Scheduler) -> None:
    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise TypeError("odd")

    scheduler.schedule_later(HOUR, Odd(), nothing)
    coroutine = nothing()
    with pytest.raises(TypeError, match="odd"):
        scheduler.schedule(Odd(), coroutine)
    assert is_closed(coroutine)
    for call in (scheduler.cancel, scheduler.pause):
        with pytest.raises(TypeError, match="odd"):
            call(Odd())


async def test_a_run_whose_end_was_interrupted_is_ended_with_its_native_task(scheduler: Scheduler) -> None:
    """A `KeyboardInterrupt` may come between any two steps of ending a task."""
    registry = scheduler._registry
    running, pending = scheduler.schedule("running", forever), scheduler.schedule_later(HOUR, "pending", nothing)
    await settle()
    run: Any = running._run
    pending._set_run(run)
    registry.native_task_ended(pending, run, cancelled=False)
    assert pending.status.name == "PENDING"
    registry.native_task_ended(running, run, cancelled=False)
    assert (running.status.name, "running" in scheduler) == ("CANCELLED", False)
    run.cancel()
    await settle()
    run.cancel()  # it has ended


async def test_a_task_cancelled_before_its_first_step_while_all_stop_is_not_logged(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = scheduler._registry
    pending = scheduler.schedule_later(HOUR, "pending", nothing)
    run: Any = object()
    pending._set_run(run)
    dispatcher = registry.dispatcher
    assert dispatcher is not None
    monkeypatch.setattr(dispatcher, "is_stopping", lambda: True)
    registry.native_task_ended(pending, run, cancelled=True)
    assert pending.status.name == "CANCELLED"
    assert not records(caplog)
