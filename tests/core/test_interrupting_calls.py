"""Calls of signal handlers and finalizers between any two instructions of the scheduler."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import anyio
import pytest

import anysched
from anysched import DuplicateTaskError, ScheduledTask, Scheduler
from anysched.abc import Instrument
from support import Gate, dispatcher_of, is_closed, nothing, records, settle, value

SOURCE = str(Path(anysched.__file__).parent)
HOUR = 3600.0


class Work:
    """The scheduled tasks, and how often each ran."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.limited = scheduler.child("limited", max_running=1)
        self.tasks: list[tuple[ScheduledTask[Any], list[int]]] = []

    def make(self, steps: int = 0) -> tuple[Callable[[], Coroutine[Any, Any, None]], list[int]]:
        """Return a function that takes a number of steps, and the list of its starts."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(1)
            await settle(steps)

        return work, runs

    def add(self, call: Callable[[Callable[[], Coroutine[Any, Any, None]]], ScheduledTask[Any]], steps: int = 0) -> Any:
        """Schedule something by a function that takes the function to run."""
        work, runs = self.make(steps)
        task = call(work)
        if task.function is work:  # otherwise the holder was kept
            self.tasks.append((task, runs))
        return task

    def check(self) -> None:
        """Check that each task that is due ran once or was cancelled, and that nothing else is left."""
        for task, runs in self.tasks:
            due = task.due
            if task.status.name == "PENDING":
                assert task.paused or (due is not None and due > datetime.now(UTC) + timedelta(minutes=10)), task
                assert len(runs) == task.run_count
            elif not task.recurs:
                assert task.status.name in ("FINISHED", "CANCELLED"), task
                assert len(runs) <= 1
                assert task.status.name == "CANCELLED" or runs == [1], task
        for scheduler in (self.scheduler, self.limited):
            registry = scheduler._registry
            assert registry.running == 0
            assert not registry._slots
            assert not registry._blocked
            pending = [task for task in scheduler.tasks.values() if not task.paused]
            assert len(registry.timers) + len(registry.wall_timers) == len(pending)
            assert registry.pending == len(scheduler.tasks)
            assert (registry in registry.family.busy) == bool(scheduler.tasks)
        guard = self.scheduler._registry.guard
        assert not guard.held
        assert not guard.deferred
        assert not guard.holders


# Interrupted scripts


async def schedules(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule("x", func))
    work.add(lambda func: work.scheduler.schedule_later(HOUR, "y", func))
    await settle(6)


async def at_a_time(work: Work) -> None:
    now = datetime.now(UTC)
    work.add(lambda func: work.scheduler.schedule_at(now, "x", func))
    work.add(lambda func: work.scheduler.schedule_at(now + timedelta(hours=1), "y", func))
    await settle(6)


async def cancels(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule_later(HOUR, "x", func))
    work.add(lambda func: work.scheduler.schedule_later(HOUR, "y", func)).cancel()
    work.scheduler.cancel("x")
    await settle(3)


async def reschedules(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule_later(HOUR, "x", func))
    work.scheduler.reschedule_later(2 * HOUR, "x")
    work.scheduler.reschedule_later(0, "x")
    await settle(6)


async def pauses(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule_later(HOUR, "x", func))
    work.scheduler.pause("x")
    work.scheduler.statistics()
    work.scheduler.resume("x")
    await settle(3)


async def takes_over(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule("x", func), steps=6)
    await settle(4)
    work.add(lambda func: work.scheduler.schedule("x", func, on_conflict="follow"))
    work.add(lambda func: work.scheduler.schedule("x", func, on_conflict="replace"))
    await settle(12)


async def waits_for_slots(work: Work) -> None:
    for name in ("x", "y", "z"):
        work.add(lambda func, name=name: work.limited.schedule(name, func), steps=2)  # type: ignore[misc]
    await settle(3)
    work.limited.cancel("z")
    await settle(16)


async def recurs(work: Work) -> None:
    task = work.add(lambda func: work.scheduler.schedule_every(HOUR, "x", func, first=0))
    await settle(6)
    task.reschedule_later(0)
    await settle(6)


async def recurs_at_times(work: Work) -> None:
    def times(now: datetime) -> list[datetime]:
        return [now + timedelta(hours=1), now + timedelta(hours=2)]

    work.add(lambda func: work.scheduler.schedule_at_times(times, "x", func))
    work.scheduler.reschedule_later(0, "x")
    await settle(6)
    work.add(lambda func: work.scheduler.schedule_at_times([], "y", func))


async def waits(work: Work) -> None:
    waited: list[object] = []

    async def wait(condition: Callable[[], Awaitable[object]]) -> None:
        await condition()
        waited.append(condition)

    task = work.add(lambda func: work.limited.schedule("x", func))
    async with anyio.create_task_group() as group:
        group.start_soon(wait, task.wait)
        group.start_soon(wait, work.limited.join)
        await settle(16)
        assert task.status.name == "PENDING" or any(task.wait == each for each in waited)
        assert work.limited.tasks or len(waited) == 2
        group.cancel_scope.cancel()


async def tidies(work: Work) -> None:
    for number in range(24):
        work.add(lambda func, number=number: work.scheduler.schedule_later(HOUR, number, func))  # type: ignore[misc]
    for number in range(0, 24, 2):
        work.scheduler.cancel(number)
    for number in range(1, 24, 2):
        work.scheduler.reschedule_later(2 * HOUR, number)
    work.scheduler.cancel_all()
    await settle(3)


INTERRUPTED = [
    schedules, at_a_time, cancels, reschedules, pauses, takes_over, waits_for_slots, recurs, recurs_at_times, waits, tidies,
]  # fmt: skip


# Interrupting calls


def schedule(work: Work) -> None:
    task = work.add(lambda func: work.scheduler.schedule("new", func))
    assert work.scheduler.tasks.get("new") in (task, None)
    assert "new" in work.scheduler


def schedule_same(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule("x", func))
    work.add(lambda func: work.limited.schedule_later(HOUR, "x", func))


def replace(work: Work) -> None:
    task = work.add(lambda func: work.scheduler.schedule("x", func, on_conflict="replace"))
    assert work.scheduler.reschedule_later(0, "x") == (task.status.name == "PENDING")
    work.add(lambda func: work.limited.schedule("y", func, on_conflict="follow"))


def cancel(work: Work) -> None:
    for name in ("x", "y", "z"):
        for scheduler in (work.scheduler, work.limited):
            if name in scheduler:
                assert scheduler.cancel(name)
                assert name not in scheduler
                work.add(lambda func, name=name, each=scheduler: each.schedule_later(HOUR, name, func))  # type: ignore[misc]


def cancel_all(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule("new", func))
    work.scheduler.cancel_all()
    assert "new" not in work.scheduler
    work.limited.cancel_all()


def cancel_handles(work: Work) -> None:
    for task, _ in work.tasks:
        task.cancel()


def reschedule(work: Work) -> None:
    work.scheduler.reschedule_later(HOUR, "x")
    work.limited.reschedule_later(HOUR, "y")
    work.scheduler.reschedule_at(datetime.now(UTC) + timedelta(hours=1), "y")


def reschedule_now(work: Work) -> None:
    for scheduler in (work.scheduler, work.limited):
        for name in ("x", "y", "z", 5):
            scheduler.reschedule_later(0, name)


def pause(work: Work) -> None:
    for scheduler in (work.scheduler, work.limited):
        scheduler.statistics()
        if scheduler.pause("x"):
            scheduler.resume("x")
        scheduler.pause("y")


def recur(work: Work) -> None:
    work.add(lambda func: work.scheduler.schedule_every(HOUR, "new", func, first=0, on_conflict="replace"))
    work.add(lambda func: work.limited.schedule_at_times([], "new", func))


INTERRUPTING = [
    schedule, schedule_same, replace, cancel, cancel_all, cancel_handles, reschedule, reschedule_now, pause, recur,
]  # fmt: skip


class CallAt:
    """Calls a function before the n-th instruction of the package."""

    def __init__(self, instruction: int, call: Callable[[], None]) -> None:
        self.count = 0
        self.where = ""
        self.failures: list[BaseException] = []
        self._instruction = instruction
        self._call = call

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.count += 1
            if self.count == self._instruction:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
                try:
                    self._call()
                except BaseException as failure:
                    self.failures.append(failure)
        return self.trace


async def interrupted(
    script: Callable[[Work], Awaitable[None]], call: Callable[[Work], None], instruction: int
) -> CallAt:
    """Run a script with a call before one of its instructions, and check the outcome."""
    async with Scheduler("test") as scheduler:
        work = Work(scheduler)
        await settle(3)
        at = CallAt(instruction, lambda: call(work))
        before = sys.gettrace()
        sys.settrace(at.trace)
        try:
            await script(work)
        finally:
            sys.settrace(before)
        await settle(30)
        assert at.failures == [], at.where
        assert scheduler.state == "running", at.where
        try:
            work.check()
        except AssertionError as error:
            error.add_note(f"{script.__name__} was interrupted by {call.__name__} at {at.where}")
            raise
        await scheduler.close()
        for task, runs in work.tasks:
            assert task.status.name in ("FINISHED", "CANCELLED"), at.where
            assert task.recurs or len(runs) <= 1
    return at


def interrupt_all(backend: str, script: Any, call: Any, step: int, offset: int) -> int:
    """Run a script repeatedly with a call at each `step`-th instruction."""

    async def main() -> int:
        count = (await interrupted(script, call, 0)).count
        for instruction in range(1 + offset, count + 1, step):
            await interrupted(script, call, instruction)
        return count

    return anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("call", INTERRUPTING)
@pytest.mark.parametrize("script", INTERRUPTED)
def test_a_call_between_two_instructions(
    backend: str, script: Any, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A sample of the instructions; `nox -s instructions` leaves out none."""
    step = int(os.environ.get("INTERRUPTED_EACH", "997"))
    # Other instructions for each pair.
    offset = (INTERRUPTED.index(script) * 31 + INTERRUPTING.index(call) * 17) % step
    interrupt_all(backend, script, call, step, offset)
    gc.collect()
    assert records(caplog, logging.ERROR) == []


# Each call in the middle of an operation


unhashable: Any = []


@contextmanager
def operation(scheduler: Scheduler) -> Iterator[None]:
    """Be in the middle of an operation, in which nothing may change."""
    guard = scheduler._registry.guard
    guard.held = True
    before = dict(scheduler.tasks)
    yield
    assert dict(scheduler.tasks) == before
    guard.release()
    assert not guard.held
    assert not guard.deferred
    assert not guard.holders


@pytest.mark.anyio
async def test_scheduling_in_the_middle_of_an_operation(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "anysched")
    held = scheduler.schedule_later(HOUR, "held", nothing)
    unused = nothing()
    with operation(scheduler):
        new = scheduler.schedule("new", value(1))
        assert scheduler.schedule("new", value(2)) is new
        assert scheduler.schedule("held", unused) is held
        with pytest.raises(DuplicateTaskError):
            scheduler.schedule("new", nothing, on_conflict="error")
        with pytest.raises(TypeError, match="unhashable"):
            scheduler.schedule(unhashable, nothing)
        with pytest.raises(TypeError, match="handle"):
            scheduler.schedule(new, nothing)
        last = scheduler.schedule("held", value(3), on_conflict="replace")
        assert scheduler.schedule("held", value(3)) is last
        empty = scheduler.schedule_at_times([], "empty", nothing)
        assert is_closed(unused)
    assert (await new, await last) == (1, 3)
    assert [task.status.name for task in (held, empty)] == ["CANCELLED", "FINISHED"]


@pytest.mark.anyio
@pytest.mark.parametrize("on_conflict", ["keep", "error", "replace"])
async def test_an_operation_takes_the_id_of_a_call_in_its_middle(scheduler: Scheduler, on_conflict: Any) -> None:
    registry = scheduler._registry
    registry.guard.held = True
    task = scheduler.schedule("id", value(1), on_conflict=on_conflict)
    deferred = list(registry.guard.deferred)
    registry.guard.deferred.clear()
    registry.guard.release()
    other = scheduler.schedule("id", value(2))
    deferred[0]()
    registry.guard.complete()
    lost, kept = (other, task) if on_conflict == "replace" else (task, other)
    assert lost.status.name == "CANCELLED"
    assert await kept == (1 if on_conflict == "replace" else 2)


@pytest.mark.anyio
async def test_an_operation_closes_the_scheduler_after_a_call_in_its_middle() -> None:
    async with Scheduler("test") as scheduler:
        guard = scheduler._registry.guard
        guard.held = True
        coroutine = nothing()
        task = scheduler.schedule("id", coroutine)
        scheduler._stop_accepting()
        guard.release()
        assert task.status.name == "CANCELLED"
        assert is_closed(coroutine)


@pytest.mark.anyio
async def test_scheduling_in_the_middle_of_an_operation_while_closing(scheduler: Scheduler) -> None:
    found: list[ScheduledTask[Any]] = []
    gate = Gate()

    async def work() -> None:
        await gate()
        guard = scheduler._registry.guard
        guard.held = True
        found.append(scheduler.schedule("id", nothing))
        assert found[0].status.name == "PENDING"
        guard.release()
        assert found[0].status.name == "CANCELLED"

    scheduler.schedule("work", work)
    await gate.started.wait()
    async with anyio.create_task_group() as group:

        async def close() -> None:
            found.extend(await scheduler.close(grace=HOUR))

        group.start_soon(close)
        await settle()
        gate.open.set()
    assert len(found) == 2
    assert found[0] is found[1]


@pytest.mark.anyio
async def test_cancelling_in_the_middle_of_an_operation(scheduler: Scheduler) -> None:
    pending, other = (scheduler.schedule_later(HOUR, name, nothing) for name in ("pending", "other"))
    gate = Gate(stubborn=True)
    running = scheduler.schedule("running", gate)
    await gate.started.wait()
    scheduler.cancel("running", running="leave")
    with operation(scheduler):
        assert scheduler.cancel("pending")
        assert "pending" not in scheduler
        assert not scheduler.cancel("pending")
        new = scheduler.schedule("pending", value(1))
        other.cancel()
        assert "other" not in scheduler
        running.cancel()
        assert running.status.name == "RUNNING"
        with pytest.raises(TypeError):
            scheduler.cancel(unhashable)
    assert [task.status.name for task in (pending, other, running)] == ["CANCELLED", "CANCELLED", "CANCELLING"]
    assert await new == 1
    gate.open.set()
    await running.wait()
    with operation(scheduler):
        late = scheduler.schedule_later(HOUR, "late", nothing)
        scheduler.cancel_all()
        assert "late" not in scheduler
    assert late.status.name == "CANCELLED"


@pytest.mark.anyio
async def test_changing_a_task_in_the_middle_of_an_operation(scheduler: Scheduler) -> None:
    task = scheduler.schedule_at(datetime.now(UTC) + timedelta(hours=1), "id", nothing)
    paused = scheduler.schedule_later(HOUR, "paused", nothing)
    paused.pause()
    gate = Gate()
    running = scheduler.schedule("running", gate)
    await gate.started.wait()
    with operation(scheduler):
        assert scheduler.statistics().next_due == task.due
        assert task.reschedule_later(2 * HOUR)
        assert not scheduler.reschedule_later(0, "unknown")
        assert not running.reschedule_later(0)
        assert scheduler.pause("id")
        assert not running.pause()
        assert not paused.pause()
        assert scheduler.resume("paused")
        assert not scheduler.resume("id")
    due = task.due
    assert due is not None
    assert due > datetime.now(UTC) + timedelta(minutes=90)
    assert not paused.paused
    assert not task.paused  # the last call has resumed it
    gate.open.set()
    assert await running == "through"


@pytest.mark.anyio
async def test_an_operation_that_was_ended_too_early_holds_nothing_up(scheduler: Scheduler) -> None:
    """A `KeyboardInterrupt` may do this on asyncio."""
    guard = scheduler._registry.guard
    guard.held = guard._completing = True
    assert await scheduler.schedule("id", value(1)) == 1


@pytest.mark.anyio
async def test_a_task_that_ends_or_is_scheduled_while_another_begins_to_wait(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = scheduler._registry
    begin_wait = registry.begin_wait
    task = scheduler.schedule_later(HOUR, "id", nothing)

    def interrupted(awaited: ScheduledTask[Any]) -> Any:
        awaited.cancel()
        return begin_wait(awaited)

    monkeypatch.setattr(registry, "begin_wait", interrupted)
    with anyio.fail_after(5):
        await task.wait()
    assert task.status.name == "CANCELLED"

    class Busy(dict[Any, None]):
        def pop(self, *args: Any) -> None:
            if not scheduler.tasks:
                scheduler.schedule_later(HOUR, "next", nothing)
            super().pop(*args)

    monkeypatch.setattr(registry.family, "busy", Busy(registry.family.busy))
    await registry.wait_idle()
    assert registry in registry.family.busy
    scheduler.cancel("next")


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["cancel", "reschedule"])
async def test_a_refused_start_may_have_been_revoked(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule("id", nothing)

    def refuse(*args: object) -> None:
        if change == "cancel":
            task.cancel()
        else:
            task.reschedule_later(HOUR)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(dispatcher_of(scheduler).starter, "start", refuse)
        await settle()
    assert task.status.name == ("CANCELLED" if change == "cancel" else "PENDING")
    assert records(caplog, logging.ERROR) == []


@pytest.mark.anyio
async def test_a_recurring_task_whose_start_was_revoked_and_cancelled(scheduler: Scheduler) -> None:
    task: Any = scheduler.schedule_every(HOUR, "id", nothing)
    task._start_cancelled()
    assert (task.status.name, task.run_count) == ("PENDING", 0)


@pytest.mark.anyio
async def test_a_recurring_task_that_is_cancelled_while_it_is_scheduled_is_not_called(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = scheduler._registry
    follow = registry.follow_clock

    def interrupted(task: ScheduledTask[Any]) -> None:
        task.cancel()
        follow(task)

    monkeypatch.setattr(registry, "follow_clock", interrupted)
    scheduler.schedule_at_times(lambda now: [now + timedelta(hours=1)], "id", nothing)
    assert not dispatcher_of(scheduler).clock_followers


class Calls:
    """An ID that calls a function when it is hashed."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def __hash__(self) -> int:
        while self.calls:
            self.calls.pop()()
        return 1


class AtScheduling(Instrument):
    """Makes a call when the first task is scheduled."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self.calls = list(calls)

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        while self.calls:
            self.calls.pop()()


@pytest.mark.anyio
async def test_calls_of_an_instrument_between_deferred_calls_come_after_them(scheduler: Scheduler) -> None:
    """It is called by the completion of the first of several calls and can have the handles of the others."""
    instrument = AtScheduling(
        lambda: cancelled.cancel(),
        lambda: postponed.reschedule_later(2 * HOUR),
        lambda: scheduler.schedule_later(HOUR, "last", nothing),
    )
    scheduler.add_instrument(instrument)
    guard = scheduler._registry.guard
    guard.held = True
    scheduler.schedule_later(HOUR, "first", nothing)
    cancelled = scheduler.schedule_later(HOUR, "cancelled", nothing)
    postponed = scheduler.schedule_later(HOUR, "postponed", nothing)
    guard.release()
    assert not instrument.calls
    assert not guard.held
    assert cancelled.status.name == "CANCELLED"
    assert postponed.due is not None
    assert postponed.due > scheduler.now() + timedelta(hours=1.5)
    assert list(scheduler.tasks) == ["first", "postponed", "last"]


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["schedule", "cancel", "handle", "pause"])
async def test_a_deferred_call_is_completed_when_the_operation_ends(
    scheduler: Scheduler, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "anysched")
    task_id, found = Calls(), list[ScheduledTask[Any]]()
    task = scheduler.schedule_later(HOUR, task_id, nothing)
    scheduler.cancel(task_id)
    if call != "schedule":
        task = scheduler.schedule_later(HOUR, task_id, nothing)
    task_id.calls.append(lambda: found.append(scheduler.schedule_later(HOUR, "new", nothing)))
    if call == "schedule":
        scheduler.schedule_later(HOUR, task_id, nothing)
    elif call == "cancel":
        scheduler.cancel(task_id)
    elif call == "handle":
        task.cancel()
        assert any("Unscheduled" in record.getMessage() for record in records(caplog))
    else:
        task.pause()
    assert scheduler.tasks["new"] is found[0]
    assert not scheduler._registry.guard.held
    assert len(scheduler._registry.timers) == len([task for task in scheduler.tasks.values() if not task.paused])


@pytest.mark.anyio
async def test_a_deferred_call_is_completed_when_a_run_starts(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, found = scheduler._registry, list[ScheduledTask[Any]]()
    admit, started = registry.try_admit, registry.task_started

    def admitting(task: ScheduledTask[Any]) -> bool:
        monkeypatch.setattr(registry, "try_admit", admit)
        found.append(scheduler.schedule("second", value(2)))
        return admit(task)

    def starting(task: ScheduledTask[Any]) -> None:
        monkeypatch.setattr(registry, "task_started", started)
        found.append(scheduler.schedule("third", value(3)))
        started(task)

    monkeypatch.setattr(registry, "try_admit", admitting)
    monkeypatch.setattr(registry, "task_started", starting)
    assert await scheduler.schedule("first", value(1)) == 1
    assert [await task for task in found] == [2, 3]


@pytest.mark.anyio
async def test_a_task_without_times_that_is_cancelled_while_it_is_scheduled(scheduler: Scheduler) -> None:
    class Cancels(Instrument):
        def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
            task.cancel()

    scheduler.add_instrument(Cancels())
    task = scheduler.schedule_at_times([], "id", nothing)
    assert task.status.name == "CANCELLED"
    scheduler._registry.release_id(task)
    assert not scheduler._registry.predecessors


class Racy:
    """An event in whose `wait` a signal handler is called, between looking at the flag and waiting."""

    handlers: ClassVar[list[Callable[[], object]]] = []

    def __init__(self) -> None:
        self._flag = False
        self._waiting: list[anyio.Event] = []

    def set(self) -> None:
        self._flag, before = True, self._flag
        for event in [] if before else self._waiting:
            event.set()

    async def wait(self) -> None:
        if not self._flag:
            event = original_event()
            while self.handlers:
                self.handlers.pop()()
            self._waiting.append(event)
            await event.wait()


original_event = anyio.Event


@pytest.mark.anyio
async def test_a_signal_handler_wakes_the_dispatcher_while_it_begins_to_wait(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[ScheduledTask[Any]] = []
    await settle()
    Racy.handlers[:] = [lambda: tasks.append(scheduler.schedule("id", nothing))]
    monkeypatch.setattr(anyio, "Event", Racy)
    scheduler.schedule("wakes", nothing)
    await settle()
    monkeypatch.undo()
    assert [task.status.name for task in tasks] == ["FINISHED"]


@pytest.mark.anyio
async def test_a_deferred_call_is_completed_when_a_running_task_was_cancelled(scheduler: Scheduler) -> None:
    task_id, gate = Calls(), Gate()
    task = scheduler.schedule(task_id, gate)
    await gate.started.wait()
    task_id.calls.append(lambda: scheduler.schedule("new", value(1)))
    scheduler.cancel(task_id)
    assert await scheduler.tasks["new"] == 1
    await task.wait()
    assert gate.cancelled
