"""Recurring tasks, in virtual time: how runs and whole recurrences end."""

import asyncio
import inspect
import logging
from typing import Any

import anyio
import pytest

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched.testing import VirtualClock
from anysched.testing import virtual_anyio_backend as anyio_backend  # noqa: F401
from recurrence import (
    CANCELLED,
    FAILED,
    FINISHED,
    HOUR,
    PENDING,
    Listed,
    Runs,
    at,
    by_generator,
    recur,
)
from support import errors, fail, message_of, nothing, records, value

pytestmark = pytest.mark.anyio


# Failures


async def test_a_run_that_fails_is_logged_and_the_next_one_takes_place(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    task = recur(way, scheduler, "id", fail, ValueError("x"))
    await virtual_clock.advance(35)
    records = errors(caplog)
    assert [message_of(record) for record in records] == ["Error in task 'id'!"] * 3
    assert all(record.exc_info and isinstance(record.exc_info[1], ValueError) for record in records)
    assert (task.status, task.run_count) == (PENDING, 3)
    with pytest.raises(anyio.TaskNotFinished):
        task.exception  # noqa: B018
    statistics = scheduler.statistics()
    assert (statistics.started, statistics.failed, statistics.running, statistics.pending) == (3, 3, 0, 1)


async def test_a_failure_of_the_last_run_is_not_that_of_the_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule_at_times(at(1, 2), "id", fail, ValueError("x"))
    assert await task is None  # type: ignore[func-returns-value]
    assert task.status is FINISHED
    assert len(errors(caplog)) == 2


async def test_a_function_that_returns_no_coroutine_fails_in_each_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    recur(way, scheduler, "id", lambda: 5)
    await virtual_clock.advance(25)
    assert len(errors(caplog)) == 2


async def test_a_log_handler_may_cancel_the_task_whose_failure_it_logs(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Canceller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            scheduler.cancel("id")

    monkeypatch.setattr(logging.getLogger("anysched.test"), "handlers", [Canceller()])
    task = recur(way, scheduler, "id", fail, ValueError("x"))
    await virtual_clock.advance(25)
    assert (task.status, task.run_count) == (CANCELLED, 1)
    assert scheduler.statistics().running == 0


async def test_a_stray_cancellation_ends_only_its_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, anyio_backend_name: str, way: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no stray cancellations")

    async def work() -> None:
        raise asyncio.CancelledError

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert (task.status, task.run_count) == (PENDING, 2)
    assert scheduler.statistics().cancelled == 2


async def test_a_native_cancellation_before_the_first_step_ends_only_its_run(
    scheduler: Scheduler, virtual_clock: VirtualClock, anyio_backend_name: str, starter: str
) -> None:
    if anyio_backend_name != "asyncio" or starter == "group":
        pytest.skip("for native tasks of asyncio")
    runs = Runs()
    task = scheduler.schedule_every(10, "id", runs)

    async def cancel_the_run() -> None:
        (victim,) = [native for native in asyncio.all_tasks() if native.get_name() == "test_id"]
        victim.cancel()

    scheduler.schedule_later(20 - 1e-7, "first", cancel_the_run)
    await virtual_clock.advance(35)
    assert runs.starts == [10, 30]
    assert (task.run_count, task.status) == (3, PENDING)
    assert scheduler.statistics().cancelled == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["run", "times", "search"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_to_end_the_process_propagate(backend: Any, where: str, error: type[BaseException]) -> None:
    tasks: list[ScheduledTask[None]] = []

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            if where == "run":
                tasks.append(scheduler.schedule_at_times(at(1, 2), "id", fail, error("x")))
            else:
                past = at(*range(-1_000, -500)) if where == "search" else []
                tasks.append(scheduler.schedule_at_times(Listed(*past, *at(-400), error("x")), "id", nothing))
            await anyio.sleep(1_000)

    name, options = VirtualClock().backend(backend)
    with pytest.raises(BaseException) as info:
        anyio.run(main, backend=name, backend_options=options)
    raised = info.value
    while isinstance(raised, BaseExceptionGroup):
        (raised,) = raised.exceptions
    assert type(raised) is error
    assert tasks[0].status is FAILED
    assert isinstance(tasks[0].exception, error)
    assert tasks[0].run_count == 1


# Ending


async def test_a_pending_task_is_dropped(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    runs = Runs()
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(15)
    assert scheduler.cancel("id")
    assert task.status is CANCELLED
    with pytest.raises(anyio.TaskCancelled):
        await task
    await virtual_clock.advance(60)
    assert runs.starts == [10]
    await scheduler.join()


@pytest.mark.parametrize("by", ["id", "handle", "all"])
async def test_a_running_task_is_cancelled_and_does_not_recur(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, by: str
) -> None:
    runs = Runs(5)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    match by:
        case "id":
            scheduler.cancel("id")
        case "handle":
            task.cancel()
        case _:
            scheduler.cancel_all()
    assert "id" not in scheduler
    with pytest.raises(anyio.TaskCancelled):
        await task
    await virtual_clock.advance(60)
    assert runs.starts == [10]
    assert scheduler.statistics().cancelled == 1


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_from_inside_it_ends_with_the_outcome_of_that_run(
    scheduler: Scheduler, way: str, child: bool, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[float] = []

    async def cancel() -> None:
        scheduler.cancel("id")

    async def work() -> str:
        if task.run_count == 2:
            async with anyio.create_task_group() as tg:
                if child:
                    tg.start_soon(cancel)
                else:
                    scheduler.cancel("id")
            assert "id" not in scheduler
            await anyio.sleep(100)
            ended.append(anyio.current_time())
            if fails:
                raise ValueError("x")
        return "dropped"

    task = recur(way, scheduler, "id", work)
    await task.wait()
    assert ended == [120]
    assert task.run_count == 2
    if fails:
        assert str(task.exception) == "x"
        assert len(errors(caplog)) == 1
    else:
        assert task.return_value is None
    await scheduler.join()


async def test_replaced_by_another_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    runs = Runs(5)
    task = recur(way, scheduler, "id", runs)
    await virtual_clock.advance(12)
    assert await scheduler.schedule("id", value, 7, on_conflict="replace") == 7
    assert task.status is CANCELLED
    assert anyio.current_time() == 12
    await virtual_clock.advance(50)
    assert runs.starts == [10]


async def test_followed_by_another_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    task = recur(way, scheduler, "id", Runs(5))
    await virtual_clock.advance(12)
    other = Runs()
    other_task = recur(way, scheduler, "id", other, on_conflict="follow")
    assert other_task is not task
    assert await task is None  # type: ignore[func-returns-value]
    assert anyio.current_time() == 15
    await virtual_clock.advance(20)
    assert other.starts == [22, 32]


async def test_a_recurring_task_takes_over_from_inside(scheduler: Scheduler, way: str) -> None:
    """A task may change its own period."""
    starts: list[float] = []

    async def work(period: float) -> None:
        starts.append(anyio.current_time())
        if len(starts) == 2:
            scheduler.schedule_every(50, "id", work, 50, on_conflict="replace")
            await anyio.sleep(7)
        if len(starts) == 4:
            scheduler.cancel("id")

    await recur(way, scheduler, "id", work, 10)
    await scheduler.join()
    assert starts == [10, 20, 70, 120]


async def test_keep_returns_the_handle_of_the_holder(scheduler: Scheduler, way: str) -> None:
    closed: list[bool] = []
    task = recur(way, scheduler, "id", nothing)
    assert recur(way, scheduler, "id", nothing) is task
    generator = by_generator(closed, 1)
    assert scheduler.schedule_at_times(generator, "id", nothing) is task
    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED
    one = scheduler.schedule_later(5, "one", nothing)
    assert recur(way, scheduler, "one", nothing) is one
    with pytest.raises(DuplicateTaskError):
        recur(way, scheduler, "one", nothing, on_conflict="error")


async def test_a_run_that_schedules_its_own_id_again_is_warned(
    scheduler: Scheduler, virtual_clock: VirtualClock, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        scheduler.schedule("id", nothing)

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert task.run_count == 2
    assert [record.levelname for record in records(caplog)] == ["WARNING"] * 2


async def test_a_run_cannot_wait_for_its_task(scheduler: Scheduler, virtual_clock: VirtualClock, way: str) -> None:
    refused: list[str] = []

    async def work() -> None:
        for wait in (task.wait, scheduler.join, scheduler.close):
            with pytest.raises(RuntimeError, match=r"awaits itself|wait forever"):
                await wait()
            refused.append(wait.__name__)

    task = recur(way, scheduler, "id", work)
    await virtual_clock.advance(25)
    assert refused == ["wait", "join", "close"] * 2


async def test_close_lets_a_run_finish_and_drops_what_is_pending(virtual_clock: VirtualClock, way: str) -> None:
    async with Scheduler("test") as scheduler:
        runs = Runs(5)
        finishing = recur(way, scheduler, "finishing", runs)
        late = recur(way, scheduler, "late", Runs(500))
        await virtual_clock.advance(5)
        pending = recur(way, scheduler, "pending", Runs())
        await virtual_clock.advance(7)
        assert await scheduler.close(grace=20) == [pending, late]
        assert anyio.current_time() == 32
    assert (finishing.status, finishing.run_count) == (FINISHED, 1)
    assert await finishing is None  # type: ignore[func-returns-value]
    assert (pending.status, pending.due) == (CANCELLED, *at(15))
    assert late.status is CANCELLED
    assert runs.starts == [10]


async def test_leaving_cancels_all(virtual_clock: VirtualClock, way: str) -> None:
    async with Scheduler("test") as scheduler:
        child = scheduler.child("child")
        tasks = [recur(way, scheduler, 0, Runs(500)), recur(way, child, 1, Runs(500)), recur(way, scheduler, 2, Runs())]
        await virtual_clock.advance(15)
    assert [task.status for task in tasks] == [CANCELLED] * 3
    assert not scheduler.tasks


@pytest.mark.parametrize("pending", [False, True])
async def test_a_scope_that_is_cancelled_around_the_scheduler(
    virtual_clock: VirtualClock, way: str, pending: bool
) -> None:
    with anyio.CancelScope() as scope:
        async with Scheduler("test") as scheduler:
            task = recur(way, scheduler, "id", Runs() if pending else Runs(500))
            await virtual_clock.advance(15)
            scope.cancel()
            await anyio.sleep(HOUR)
    assert (task.status, task.run_count) == (CANCELLED, 1)
