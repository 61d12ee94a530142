"""The calls of pydis_core, with its signatures, and bad input to them."""

import inspect
import logging
import math
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, cast

import anyio
import pytest
from anyio import TaskFailed, to_thread

from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from support import Gate, dispatcher_of, errors, fail, forever, is_closed, nothing, records, settle, until, value

pytestmark = pytest.mark.anyio

HOUR = 3600.0


def schedule_by(name: str, scheduler: Scheduler, task_id: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
    """Schedule with each of the three methods, an hour ahead if there is a time."""
    match name:
        case "schedule":
            return scheduler.schedule(task_id, work, *args, **kwargs)
        case "schedule_later":
            return scheduler.schedule_later(HOUR, task_id, work, *args, **kwargs)
        case _:
            return scheduler.schedule_at(datetime.now(UTC) + timedelta(hours=1), task_id, work, *args, **kwargs)


METHODS = ["schedule", "schedule_later", "schedule_at"]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    return partial(schedule_by, request.param)


def test_parameters_are_the_seeds() -> None:
    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(Scheduler)[:1] == ["name"]
    assert names(Scheduler.schedule)[:3] == ["self", "task_id", "coroutine"]
    assert names(Scheduler.schedule_later)[:4] == ["self", "delay", "task_id", "coroutine"]
    assert names(Scheduler.schedule_at)[:4] == ["self", "time", "task_id", "coroutine"]
    assert names(Scheduler.schedule_every)[:4] == ["self", "period", "task_id", "func"]
    assert names(Scheduler.schedule_at_times)[:4] == ["self", "times", "task_id", "func"]
    assert names(Scheduler.cancel)[:2] == ["self", "task_id"]
    assert names(Scheduler.cancel_all)[:1] == ["self"]


async def test_parameters_can_be_passed_as_keywords(scheduler: Scheduler) -> None:
    first = scheduler.schedule(task_id=1, coroutine=value(1))
    second = scheduler.schedule_later(delay=0, task_id=2, coroutine=value(2))
    third = scheduler.schedule_at(time=datetime(2020, 1, 1, tzinfo=UTC), task_id=3, coroutine=value(3))
    assert [await first, await second, await third] == [1, 2, 3]
    scheduler.schedule(4, forever)
    assert scheduler.cancel(task_id=4)


def test_construction_needs_no_event_loop() -> None:
    scheduler = Scheduler("anywhere")
    assert scheduler.name == "anywhere"
    assert "x" not in scheduler
    assert repr(scheduler) == "<Scheduler 'anywhere' new, 0 tasks>"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": 1}, TypeError),
        ({"name": "x", "max_running": 1.5}, TypeError),
        ({"name": "x", "max_running": True}, TypeError),
        ({"name": "x", "max_running": 0}, ValueError),
    ],
)
def test_construction_refuses_bad_arguments(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Scheduler(**arguments)


async def test_schedule_starts_soon_but_not_inside_the_call(scheduler: Scheduler) -> None:
    ran: list[str] = []

    async def work() -> None:
        ran.append("work")

    task = scheduler.schedule("id", work())
    assert not ran
    assert "id" in scheduler
    await task
    assert ran == ["work"]
    assert "id" not in scheduler


async def test_recurring_tasks_run_in_real_time_too(scheduler: Scheduler) -> None:
    runs: list[str] = []

    async def work(name: str) -> None:
        runs.append(name)
        if runs.count(name) == 3:
            scheduler.cancel(name)

    begin = datetime.now(UTC)
    every = scheduler.schedule_every(0.005, "every", work, "every")
    each = scheduler.schedule_at_times(
        (begin + timedelta(milliseconds=5 * n) for n in range(1, 1000)), "each", work, "each"
    )
    await every
    await each
    assert sorted(runs) == ["each"] * 3 + ["every"] * 3
    assert datetime.now(UTC) >= begin + timedelta(milliseconds=10)


async def test_the_id_is_held_from_the_call_to_the_end(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate())
    assert "id" in scheduler
    assert scheduler.tasks["id"] is task
    await gate.started.wait()
    assert "id" in scheduler
    gate.open.set()
    await task.wait()
    assert "id" not in scheduler
    assert not scheduler.tasks


async def test_tasks_is_a_live_read_only_mapping(scheduler: Scheduler) -> None:
    tasks = scheduler.tasks
    task = scheduler.schedule_later(HOUR, ("a", 1), nothing)
    assert dict(tasks) == {("a", 1): task}
    with pytest.raises(TypeError):
        tasks["x"] = task  # type: ignore[index]
    scheduler.cancel_all()
    assert not tasks


@pytest.mark.parametrize("delay", [0, -1, -1e9, timedelta(0), timedelta(days=-1), Decimal(0), Fraction(-1, 3)])
async def test_a_delay_of_zero_or_less_means_now(scheduler: Scheduler, delay: Any) -> None:
    assert await scheduler.schedule_later(delay, "id", value(7)) == 7


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1),
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
async def test_a_time_in_the_past_means_now(scheduler: Scheduler, time: datetime) -> None:
    assert await scheduler.schedule_at(time, "id", value(7)) == 7


# Accepted and refused arguments


async def test_functions_are_called_when_the_task_starts(scheduler: Scheduler) -> None:
    called: list[int] = []

    def make(number: int) -> Any:
        called.append(number)
        return value(number)

    class WithCall:
        async def __call__(self, number: int) -> int:
            return number

    tasks = [
        scheduler.schedule(1, value, 1),
        scheduler.schedule(2, make, 2),
        scheduler.schedule(3, partial(value, 3)),
        scheduler.schedule(4, lambda: value(4)),
        scheduler.schedule(5, WithCall(), 5),
        scheduler.schedule(6, WithCall().__call__, 6),
    ]
    assert not called
    assert [await task for task in tasks] == [1, 2, 3, 4, 5, 6]
    assert called == [2]


class Foreign:
    """A coroutine that is not native, such as one from Cython."""

    def __init__(self) -> None:
        self.closed = False

    def send(self, value: None) -> Any:
        raise StopIteration(42)

    def throw(self, *args: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True

    def __await__(self) -> Any:
        return 42
        yield


async def test_coroutines_of_other_kinds_are_accepted(scheduler: Scheduler) -> None:
    assert await scheduler.schedule("id", Foreign()) == 42
    foreign = Foreign()
    scheduler.schedule_later(HOUR, "id", foreign)
    scheduler.cancel("id")
    assert foreign.closed


async def generator() -> Any:
    yield


def plain_generator() -> Any:
    yield


@pytest.mark.parametrize("work", [None, 42, "x", object(), anyio.Event, generator, plain_generator, 1.5])
async def test_what_is_no_coroutine_or_function_is_refused(scheduler: Scheduler, method: Any, work: Any) -> None:
    with pytest.raises(TypeError, match="expected a coroutine or a coroutine function"):
        method(scheduler, "id", work)
    assert "id" not in scheduler


async def test_async_generators_and_futures_are_refused(scheduler: Scheduler, method: Any) -> None:
    iterator = generator()
    with pytest.raises(TypeError):
        method(scheduler, "id", iterator)
    await iterator.aclose()


async def test_arguments_for_a_coroutine_are_refused(scheduler: Scheduler, method: Any) -> None:
    coroutine = value(1)
    with pytest.raises(TypeError, match="a coroutine takes no arguments"):
        method(scheduler, "id", coroutine, 2)
    assert is_closed(coroutine)
    assert "id" not in scheduler


async def test_a_function_that_returns_no_coroutine_fails_as_a_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule("id", cast("Any", int.__add__), 40, 2)
    await task.wait()
    assert isinstance(task.exception, TypeError)
    assert "returned 42" in str(task.exception)
    assert len(records(caplog)) == len(errors(caplog)) == 1


async def test_a_started_coroutine_is_refused_and_left_alone(scheduler: Scheduler, method: Any) -> None:
    coroutine = two_steps()
    coroutine.send(None)
    with pytest.raises(ValueError, match="already started"):
        method(scheduler, "id", coroutine)
    assert "id" not in scheduler
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
    with pytest.raises(StopIteration):
        coroutine.send(None)
    with pytest.raises(ValueError, match="already started"):
        method(scheduler, "id", coroutine)


class Suspend:
    def __await__(self) -> Any:
        yield


async def two_steps() -> None:
    await Suspend()


async def test_a_coroutine_that_was_started_after_it_was_scheduled_is_not_closed(scheduler: Scheduler) -> None:
    coroutine = two_steps()
    task = scheduler.schedule_later(HOUR, "id", coroutine)
    coroutine.send(None)
    assert scheduler.cancel("id")
    assert task.status.name == "CANCELLED"
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_a_running_coroutine_is_refused(scheduler: Scheduler) -> None:
    refused: list[BaseException] = []

    async def work() -> None:
        try:
            scheduler.schedule("other", coroutine)
        except ValueError as error:
            refused.append(error)

    coroutine = work()
    await coroutine
    assert len(refused) == 1


@pytest.mark.parametrize("delay", [None, "5", b"5", 1j, [], datetime(2030, 1, 1, tzinfo=UTC)])
async def test_a_delay_that_is_no_number_is_refused(scheduler: Scheduler, delay: Any) -> None:
    coroutine = value(1)
    with pytest.raises(TypeError, match="delay must be a number of seconds or a timedelta"):
        scheduler.schedule_later(delay, "id", coroutine)
    assert is_closed(coroutine)
    scheduler.schedule_later(HOUR, "held", nothing)
    with pytest.raises(TypeError, match="delay must be"):
        scheduler.reschedule_later(delay, "held")


@pytest.mark.parametrize(
    "delay",
    [
        math.nan,
        math.inf,
        -math.inf,
        pytest.param(10**400, id="huge"),
        Decimal("inf"),
        Decimal("nan"),
        Decimal("snan"),
        pytest.param(10**5000, id="too long to be shown"),
    ],
)
async def test_a_delay_that_is_not_finite_is_refused(scheduler: Scheduler, delay: Any) -> None:
    coroutine = value(1)
    with pytest.raises(ValueError, match="finite"):
        scheduler.schedule_later(delay, "id", coroutine)
    assert is_closed(coroutine)
    assert "id" not in scheduler


@pytest.mark.parametrize("time", [None, 5, "2030-01-01", date(2030, 1, 1), timedelta(1)])
async def test_a_time_that_is_no_datetime_is_refused(scheduler: Scheduler, time: Any) -> None:
    coroutine = value(1)
    with pytest.raises(TypeError, match="time must be a datetime"):
        scheduler.schedule_at(time, "id", coroutine)
    assert is_closed(coroutine)
    assert "id" not in scheduler
    scheduler.schedule_later(HOUR, "held", nothing)
    with pytest.raises(TypeError, match="time must be a datetime"):
        scheduler.reschedule_at(time, "held")


async def test_an_unhashable_id_is_refused(scheduler: Scheduler, method: Any) -> None:
    coroutine = value(1)
    with pytest.raises(TypeError, match=r"unhashable, a list.* use a string"):
        method(scheduler, [], coroutine)
    assert is_closed(coroutine)
    with pytest.raises(TypeError, match=r"unhashable, a list.* use a string"):
        scheduler.cancel([])  # type: ignore[arg-type]
    unhashable: Any = []
    with pytest.raises(TypeError, match=r"unhashable, a list.* use a string"):
        scheduler.__contains__(unhashable)


async def test_an_unknown_policy_is_refused_whether_or_not_there_is_a_conflict(
    scheduler: Scheduler, method: Any
) -> None:
    for _ in range(2):
        coroutine = value(1)
        with pytest.raises(ValueError, match="on_conflict must be one of"):
            method(scheduler, "id", coroutine, on_conflict="drop")
        assert is_closed(coroutine)
        scheduler.schedule_later(HOUR, "id", nothing)


async def test_a_context_that_is_none_is_refused(scheduler: Scheduler, method: Any) -> None:
    coroutine = value(1)
    with pytest.raises(TypeError, match="context must be"):
        method(scheduler, "id", coroutine, context={})
    assert is_closed(coroutine)
    assert "id" not in scheduler


# Not running


async def test_scheduling_before_and_after_is_refused(method: Any) -> None:
    scheduler = Scheduler("test")
    coroutine = value(1)
    with pytest.raises(RuntimeError, match=r"'test' is not running \(new\).*enter it first"):
        method(scheduler, "id", coroutine)
    assert is_closed(coroutine)
    async with scheduler:
        pass
    coroutine = value(1)
    with pytest.raises(RuntimeError, match=r"not running \(closed\).*create a new one"):
        method(scheduler, "id", coroutine)
    assert is_closed(coroutine)
    assert not scheduler.reschedule_later(1, "id")
    assert not scheduler.cancel("id")
    scheduler.cancel_all()


async def test_scheduling_while_leaving_is_refused() -> None:
    refused: list[BaseException] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                scheduler.schedule("late", nothing())
            except RuntimeError as error:
                refused.append(error)

    async with Scheduler("test") as scheduler:
        scheduler.schedule("id", work)
        await settle()
    assert "closing" in str(refused[0])


async def test_a_scheduler_is_entered_once() -> None:
    scheduler = Scheduler("test")
    async with scheduler:
        with pytest.raises(RuntimeError, match="only once"):
            await scheduler.__aenter__()
    with pytest.raises(RuntimeError, match="only once"):
        await scheduler.__aenter__()


@pytest.mark.parametrize("context", [Context(), None], ids=["empty", "inherited"])
async def test_calls_from_another_thread_are_refused_and_change_nothing(
    scheduler: Scheduler, context: Context | None
) -> None:
    """Also from a thread that inherits the context and so knows the event loop, as all threads do in a free-threaded Python."""
    task = scheduler.schedule_later(HOUR, "held", nothing)
    errors: list[BaseException] = []
    coroutine = value(1)

    async def wait() -> None:
        await task.wait()

    def call_all() -> None:
        calls: list[Any] = [
            lambda: scheduler.schedule("id", coroutine),
            lambda: scheduler.schedule_later(1, "id", nothing),
            lambda: scheduler.schedule_at(datetime.now(UTC), "id", nothing),
            lambda: scheduler.reschedule_later(1, "held"),
            lambda: scheduler.reschedule_at(datetime.now(UTC), "held"),
            lambda: scheduler.cancel("held"),
            lambda: scheduler.cancel("unknown"),
            scheduler.cancel_all,
            task.cancel,
            *(partial(method, name) for method in (scheduler.pause, scheduler.resume) for name in ("held", "unknown")),
            scheduler.busy_descendants,
            partial(scheduler.seconds_until_due, [task]),
            lambda: Context().run(lambda: anyio.run(scheduler.__aexit__, None, None, None)),
            lambda: Context().run(lambda: anyio.run(scheduler.join)),
            lambda: Context().run(lambda: anyio.run(scheduler.close)),
            lambda: Context().run(lambda: anyio.run(wait)),
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    thread = threading.Thread(target=(context or copy_context()).run, args=(call_all,))
    thread.start()
    await to_thread.run_sync(thread.join)
    assert len(errors) == 19
    assert all("anyio.from_thread.run_sync" in str(error) for error in errors)
    assert dict(scheduler.tasks) == {"held": task}
    assert is_closed(coroutine)


async def test_from_a_worker_thread_calls_go_through_anyio(scheduler: Scheduler) -> None:
    def in_thread() -> Any:
        return anyio.from_thread.run_sync(scheduler.schedule, "id", value, 7)

    assert await (await to_thread.run_sync(in_thread)) == 7


# Cancelling


async def test_cancel_closes_a_pending_coroutine(scheduler: Scheduler, method: Any) -> None:
    coroutine = value(1)
    task = method(scheduler, "id", coroutine)
    assert scheduler.cancel("id") is True
    assert "id" not in scheduler
    assert is_closed(coroutine)
    assert task.status.name == "CANCELLED"


async def test_cancel_of_a_pending_function_calls_nothing(scheduler: Scheduler, method: Any) -> None:
    called: list[int] = []
    method(scheduler, "id", called.append, 1)
    scheduler.cancel("id")
    await settle()
    assert not called


async def test_cancel_interrupts_a_running_task_and_frees_its_id_at_once(scheduler: Scheduler) -> None:
    gate = Gate()
    task = scheduler.schedule("id", gate)
    await gate.started.wait()
    assert scheduler.cancel("id") is True
    assert "id" not in scheduler
    assert task.status.name == "CANCELLING"
    await task.wait()
    assert gate.cancelled
    assert task.status.name == "CANCELLED"


async def test_cancel_of_an_unknown_id_warns(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    assert scheduler.cancel("unknown") is False
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    assert record.name == "anysched.test"
    assert "'unknown'" in record.getMessage()
    assert (record.scheduler, record.task_id) == ("test", "unknown")  # type: ignore[attr-defined]


async def test_cancel_all_cancels_the_pending_and_the_running(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.cancel_all()
    assert not records(caplog)
    assert not errors(caplog)
    gate = Gate()
    coroutine = nothing()
    running = scheduler.schedule("running", gate)
    await gate.started.wait()
    pending = scheduler.schedule_later(HOUR, "pending", coroutine)
    scheduler.cancel_all()
    assert not scheduler.tasks
    assert is_closed(coroutine)
    await running.wait()
    assert gate.cancelled
    assert [running.status.name, pending.status.name] == ["CANCELLED", "CANCELLED"]
    assert not records(caplog)
    assert not errors(caplog)


async def test_nothing_is_logged_when_nothing_is_held(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anysched")
    scheduler.cancel_all()
    assert not records(caplog)
    assert not errors(caplog)


async def test_cancelled_between_the_start_and_the_first_step_it_never_runs(scheduler: Scheduler) -> None:
    """anyio would let it run to its first checkpoint."""
    ran: list[str] = []

    async def victim() -> None:
        ran.append("victim")

    async def killer() -> None:
        ran.append("killer")
        for name in ("replace", "cancel", "handle", "move"):
            assert scheduler.tasks[name].status.name == "PENDING"
        scheduler.schedule("replace", value, 1, on_conflict="replace")
        scheduler.cancel("cancel")
        scheduler.tasks["handle"].cancel()
        assert scheduler.reschedule_later(HOUR, "move")

    # On asyncio these are handed to the event loop in one slice: the killer runs when the others are on their way.
    scheduler.schedule("killer", killer)
    coroutines = [victim() for _ in range(4)]
    for name, coroutine in zip(("replace", "cancel", "handle", "move"), coroutines, strict=True):
        scheduler.schedule(name, coroutine)
    await settle()
    assert ran == ["killer"]
    assert [is_closed(coroutine) for coroutine in coroutines] == [True, True, True, False]
    assert list(scheduler.tasks) == ["move"]
    assert scheduler.reschedule_later(0, "move")
    await scheduler.join()
    assert ran == ["killer", "victim"]


async def test_cancelled_from_outside_of_the_scheduler_before_the_first_step_it_never_runs() -> None:
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)

    tasks: list[ScheduledTask[None]] = []
    with anyio.CancelScope() as outer:
        async with Scheduler("test") as scheduler:

            async def first() -> None:
                outer.cancel()

            tasks.append(scheduler.schedule("first", first))
            coroutines = [work(number) for number in range(100)]
            tasks += [scheduler.schedule(number, coroutine) for number, coroutine in enumerate(coroutines)]
            with anyio.CancelScope(shield=True):
                await settle()
            with pytest.raises(RuntimeError, match="closing"):
                scheduler.schedule("late", nothing())
    assert not ran
    assert all(is_closed(coroutine) for coroutine in coroutines)
    assert {task.status.name for task in tasks[1:]} == {"CANCELLED"}


# Rescheduling


async def test_only_pending_tasks_are_moved(scheduler: Scheduler) -> None:
    assert not scheduler.reschedule_later(1, "unknown")
    assert not scheduler.reschedule_at(datetime.now(UTC), "unknown")
    gate = Gate()
    scheduler.schedule("id", gate)
    await gate.started.wait()
    assert not scheduler.reschedule_later(1, "id")
    assert "id" in scheduler


# Names and errors


async def test_names(scheduler: Scheduler) -> None:
    async def own_name() -> Any:
        return anyio.get_current_task().name

    task = scheduler.schedule(("a", 1), own_name)
    assert task.name == "test_('a', 1)"
    assert await task == task.name
    assert scheduler.name == "test"


async def test_an_id_that_cannot_be_printed_runs_as_any_other(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ZeroDivisionError

        __repr__ = __str__

    caplog.set_level(logging.DEBUG, "anysched")
    task_id = Unprintable()
    assert await scheduler.schedule(task_id, value(1)) == 1
    failed = scheduler.schedule(task_id, fail, ValueError())
    with pytest.raises(TaskFailed, match="<Unprintable whose str failed>"):
        await failed
    scheduler.cancel(task_id)
    assert "<Unprintable whose repr failed>" in records(caplog, logging.ERROR)[0].getMessage()
    assert "Unprintable" in repr(failed)


class WithoutRepr:
    """A value that cannot be shown in a message."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class UnhashableWithoutRepr(WithoutRepr):
    __hash__ = None  # type: ignore[assignment]


class NotStarted(WithoutRepr):
    """A coroutine without a representation, which has started or not."""

    def __init__(self, *, started: bool) -> None:
        self.cr_suspended = started
        self.closed = False

    def __await__(self) -> Any:
        yield

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *args: Any) -> Any:
        raise StopIteration

    def close(self) -> None:
        self.closed = True


Coroutine.register(NotStarted)


@pytest.mark.parametrize("method", ["schedule", "later", "at", "every", "times", "cancel", "close"])
async def test_bad_input_that_cannot_be_shown_is_refused_all_the_same(scheduler: Scheduler, method: str) -> None:
    odd: Any = WithoutRepr()
    scheduler.schedule_later(HOUR, odd, nothing)
    unhashable: Any = UnhashableWithoutRepr()
    started, fresh = [cast("Any", NotStarted(started=started)) for started in (True, False)]
    calls: dict[str, list[Callable[[], Any]]] = {
        "schedule": [
            lambda: scheduler.schedule(unhashable, nothing),
            lambda: scheduler.schedule(odd, nothing, on_conflict=odd),
            lambda: scheduler.schedule(odd, nothing, suppressed_exceptions=odd),
            lambda: scheduler.schedule("id", odd),
            lambda: scheduler.schedule("id", started),
            lambda: scheduler.schedule("id", fresh, 1),
            lambda: Scheduler(odd),
            lambda: scheduler.add_instrument(odd),
        ],
        "later": [lambda: scheduler.schedule_later(odd, "id", nothing)],
        "at": [lambda: scheduler.schedule_at(odd, "id", nothing)],
        "every": [
            lambda: scheduler.schedule_every(odd, "id", nothing),
            lambda: scheduler.schedule_every(5, "id", nothing, missed=odd),
            lambda: scheduler.schedule_every(5, "id", nothing, jitter=odd),
            lambda: scheduler.schedule_every(5, "id", nothing, measured_from=odd),
            lambda: scheduler.schedule_every(5, odd, fresh),
        ],
        "times": [lambda: scheduler.schedule_at_times(odd, "id", nothing)],
        "cancel": [lambda: scheduler.cancel(odd, running=odd), lambda: scheduler.cancel(unhashable)],
        "close": [lambda: scheduler.close(odd).send(None)],
    }
    for call in calls[method]:
        with pytest.raises((TypeError, ValueError), match="whose repr failed"):
            call()
    assert list(scheduler.tasks) == [odd]
    with pytest.raises(DuplicateTaskError, match="whose repr failed"):
        scheduler.schedule(odd, nothing, on_conflict="error")


async def test_an_id_that_cannot_be_compared_with_one_whose_task_is_ending(scheduler: Scheduler) -> None:
    """It would otherwise be found out when the task is due, and end the dispatcher."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    gate = Gate(stubborn=True)
    first = scheduler.schedule(Odd(), gate)
    await gate.started.wait()
    first.cancel()
    coroutine = nothing()
    with pytest.raises(ZeroDivisionError):
        scheduler.schedule(Odd(), coroutine)
    assert is_closed(coroutine)
    gate.open.set()
    await first.wait()
    assert await scheduler.schedule(Odd(), value(1)) == 1


class Unsteady:
    """An ID whose hash fails later."""

    steady = True

    def __hash__(self) -> int:
        if not self.steady:
            raise ZeroDivisionError
        return 1


@pytest.mark.parametrize("max_running", [None, 1])
async def test_an_id_whose_hash_fails_later_concerns_only_its_task(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, max_running: int | None
) -> None:
    child = scheduler.child("child", max_running=max_running)
    one, two, three = Unsteady(), Unsteady(), Unsteady()
    gate = Gate()
    before = child.schedule_later(HOUR, "before", value(1))
    tasks = [child.schedule(one, gate), child.schedule_every(HOUR, two, nothing, first=0)]
    later, after = child.schedule_later(HOUR, three, nothing), child.schedule_later(HOUR, "after", value(2))
    await gate.started.wait()
    for task_id in (one, two, three):
        task_id.steady = False
    gate.open.set()
    assert await tasks[0] == "through"
    await until(lambda: tasks[1].run_count)
    for task in (tasks[1], later):
        task.cancel()
        assert task.status.name == "CANCELLED"
    assert list(child.tasks.values()) == [before, after]
    for task in (before, after):
        task.reschedule_later(0)
    assert (await before, await after) == (1, 2)
    with anyio.fail_after(5):
        await child.join()
    assert child.statistics().pending == 0
    assert {type(record.exc_info[1]) for record in errors(caplog) if record.exc_info} == {ZeroDivisionError}


@pytest.mark.parametrize("max_running", [None, 2])
async def test_a_predecessor_whose_hash_fails_later_is_succeeded(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture, max_running: int | None
) -> None:
    child = scheduler.child("child", max_running=max_running)
    unsteady, ending = Unsteady(), Gate(stubborn=True)
    other = child.schedule("other", ending)
    running = child.schedule_every(HOUR, unsteady, gate := Gate(stubborn=True), first=0)
    await gate.started.wait()
    child.schedule(unsteady, nothing, on_conflict="replace")
    await ending.started.wait()
    child.schedule("other", value(1), on_conflict="replace")
    await settle()
    unsteady.steady = False
    gate.open.set()
    await running.wait()
    ending.open.set()
    await other.wait()
    with anyio.fail_after(5):
        await child.join()
    assert not child._registry.predecessors
    assert not child._registry._blocked
    assert errors(caplog)


async def test_an_id_whose_hash_fails_when_a_running_task_loses_it(scheduler: Scheduler) -> None:
    unsteady, gate = Unsteady(), Gate()
    task = scheduler.schedule(unsteady, gate)
    await gate.started.wait()
    unsteady.steady = False
    task.cancel()
    with anyio.fail_after(5):
        await task.wait()
    assert task.status.name == "CANCELLED"
    assert not scheduler.tasks
    assert not scheduler._registry.predecessors


async def test_an_id_cannot_forge_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Forger:
        def __repr__(self) -> str:
            return "x\nERROR:root:forged\u2028\x1b[2J"

    caplog.set_level(logging.DEBUG, "anysched")
    async with Scheduler("test\nforged") as scheduler:
        for task_id in (Forger(), "y\nforged", ("z\r",)):
            await scheduler.schedule(task_id, fail, ValueError()).wait()
        scheduler.cancel(Forger())
    assert len(records(caplog)) == 7
    for record in records(caplog):
        assert record.getMessage().isprintable()
        assert record.name == r"anysched.test\nforged"
    assert records(caplog)[0].__dict__["scheduler"] == "test\nforged"


async def test_a_duplicate_error_tells_what_and_where(scheduler: Scheduler) -> None:
    scheduler.schedule_later(HOUR, "id", nothing)
    coroutine = value(1)
    with pytest.raises(DuplicateTaskError) as info:
        scheduler.schedule("id", coroutine, on_conflict="error")
    assert (info.value.scheduler, info.value.task_id) == ("test", "id")
    assert "'id'" in str(info.value)
    assert isinstance(info.value, ValueError)
    assert is_closed(coroutine)
    assert "id" in scheduler
    with suppress(DuplicateTaskError):
        raise info.value


async def test_debug_records_carry_the_scheduler_and_the_id(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "anysched")
    scheduler.schedule_later(HOUR, "id", nothing)
    scheduler.schedule("id", nothing())
    scheduler.reschedule_later(HOUR, "id")
    scheduler.cancel("id")
    assert [record.getMessage().split()[0] for record in records(caplog)] == [
        "Scheduled", "Did", "Rescheduled", "Unscheduled",
    ]  # fmt: skip
    assert {record.levelname for record in records(caplog)} == {"DEBUG"}
    assert {(record.scheduler, record.task_id) for record in records(caplog)} == {("test", "id")}  # type: ignore[attr-defined]


def test_bad_input_is_refused_also_when_there_is_nothing_to_reschedule() -> None:
    scheduler = Scheduler("test")
    with pytest.raises(TypeError, match="delay must be"):
        scheduler.reschedule_later("x", "id")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="time must be"):
        scheduler.reschedule_at(5, "id")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        scheduler.reschedule_later(5, [])  # type: ignore[arg-type]


async def test_a_bad_grace_is_called_a_grace(scheduler: Scheduler) -> None:
    with pytest.raises(TypeError, match="grace must be"):
        await scheduler.close("x")  # type: ignore[arg-type]


# What cannot be run, and signal handlers


@pytest.mark.parametrize("first", ["runs", "cancelled", "running"])
async def test_a_coroutine_given_to_two_ids_fails_under_the_second_and_says_so(
    scheduler: Scheduler, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    async def work() -> None:
        if first == "running":
            await gate()

    coroutine = work()
    one = scheduler.schedule(1, coroutine)
    two = scheduler.schedule(2, coroutine)
    if first == "cancelled":
        one.cancel()
    await two.wait()
    assert isinstance(two.exception, RuntimeError)
    assert "a coroutine runs once, under one ID" in str(two.exception)
    gate.open.set()
    await one.wait()
    assert len(records(caplog, logging.ERROR)) == 1


async def test_generator_functions_are_refused_with_advice(scheduler: Scheduler) -> None:
    async def asynchronous() -> Any:
        yield

    def plain() -> Any:
        yield

    class Iterated:
        async def __call__(self) -> Any:
            yield

    class Plain:
        def method(self) -> Any:
            yield

        __call__ = method

    functions: list[Any] = [
        asynchronous, plain, partial(asynchronous), partial(partial(plain)), Iterated(), partial(Iterated()), Plain(), Plain().method,
    ]  # fmt: skip
    for function in functions:
        with pytest.raises(TypeError, match="iterate over it in a coroutine function"):
            scheduler.schedule("id", function)


@pytest.mark.parametrize("name", ["", 5])
def test_a_name_is_a_string_that_is_not_empty(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="name must"):
        Scheduler(name)
    with pytest.raises((TypeError, ValueError), match="name must"):
        Scheduler("test").child(name)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals")
@pytest.mark.parametrize("what", ["schedule", "cancel", "reschedule"])
async def test_calls_from_a_signal_handler_take_effect_at_once(scheduler: Scheduler, what: str) -> None:
    """The event loop sleeps when the signal comes, for an hour."""
    done = anyio.Event()

    async def work() -> None:
        done.set()

    async def waits() -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            done.set()

    def handle(number: int, frame: object) -> None:
        match what:
            case "schedule":
                scheduler.schedule("id", work)
            case "cancel":
                scheduler.cancel("id")
            case _:
                scheduler.reschedule_later(0, "id")

    if what == "cancel":
        scheduler.schedule("id", waits)
    elif what == "reschedule":
        scheduler.schedule_later(HOUR, "id", work)
    await settle()
    previous = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with anyio.fail_after(5):
            await done.wait()
    finally:
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("step", ["_start_due", "_next_wake"])
@pytest.mark.parametrize("call", ["schedule", "reschedule", "cancel"])
async def test_a_signal_handler_may_be_called_while_the_dispatcher_goes_to_sleep(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, step: str, call: str
) -> None:
    dispatcher = dispatcher_of(scheduler)
    limited = scheduler.child("limited", max_running=1)
    blocker = limited.schedule("blocker", forever)
    waiting = limited.schedule("waiting", nothing)
    later = scheduler.schedule_later(HOUR, "later", nothing)
    await settle()
    original = getattr(dispatcher, step)
    awaited: list[ScheduledTask[Any]] = []

    def interrupted() -> Any:
        result = original()
        if result is not True:
            monkeypatch.setattr(dispatcher, step, original)
            if call == "schedule":
                awaited.append(scheduler.schedule("id", nothing))
            elif call == "reschedule":
                later.reschedule_later(0)
                awaited.append(later)
            else:
                blocker.cancel()
                awaited.append(waiting)
        return result

    monkeypatch.setattr(dispatcher, step, interrupted)
    scheduler.schedule("wakes", nothing)
    await until(lambda: awaited)
    with anyio.fail_after(5):
        await awaited[0].wait()


@pytest.mark.parametrize("call", ["cancel", "pause", "reschedule"])
async def test_a_signal_handler_may_revoke_a_start(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It is called after the task was taken from its queue, and before it is passed to the event loop."""
    limited = scheduler.child("limited", max_running=1)
    registry = limited._registry
    admit = registry.try_admit

    def interrupted(task: ScheduledTask[Any]) -> bool:
        admitted = admit(task)
        monkeypatch.setattr(registry, "try_admit", admit)
        match call:
            case "cancel":
                task.cancel()
            case "pause":
                task.pause()
            case _:
                task.reschedule_later(HOUR)
        return admitted

    monkeypatch.setattr(registry, "try_admit", interrupted)
    first, second = limited.schedule("first", nothing), limited.schedule("second", value(2))
    assert await second == 2
    assert first.status.name == ("CANCELLED" if call == "cancel" else "PENDING")
    assert first.run_count == 0 or call == "cancel"
    if call == "pause":
        first.resume()
    elif call == "reschedule":
        first.reschedule_later(0)
    await first.wait()
    assert await limited.schedule("third", value(3)) == 3
