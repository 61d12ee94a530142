"""Calls of signal handlers and finalizers between any two instructions of the scheduler."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import anysched
from anysched import ScheduledTask, Scheduler
from support import records, settle

SOURCE = str(Path(anysched.__file__).parent)
HOUR = 3600.0


class Work:
    """What is scheduled, and how often each ran."""

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


# What is interrupted


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


# What interrupts it


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
    """Run a script with a call before one of its instructions, and check what came of it."""
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
    """Run a script again and again with a call at each `step`-th instruction."""

    async def main() -> int:
        count = (await interrupted(script, call, 0)).count
        for instruction in range(1 + offset, count + 1, step):
            await interrupted(script, call, instruction)
        return count

    return anyio.run(main, backend=backend)


def check_interrupted(backend: str, script: Any, call: Any, caplog: pytest.LogCaptureFixture, step: int) -> None:
    # Other instructions for each pair.
    offset = (INTERRUPTED.index(script) * 31 + INTERRUPTING.index(call) * 17) % step
    interrupt_all(backend, script, call, step, offset)
    gc.collect()
    assert records(caplog, logging.ERROR) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("call", INTERRUPTING)
@pytest.mark.parametrize("script", INTERRUPTED)
def test_a_call_between_two_instructions(
    backend: str, script: Any, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    check_interrupted(backend, script, call, caplog, 487)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("call", INTERRUPTING)
@pytest.mark.parametrize("script", INTERRUPTED)
def test_a_call_between_any_two_instructions(
    backend: str, script: Any, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With INTERRUPTED_EACH=1, this takes hours and leaves out none; otherwise different ones for each call."""
    check_interrupted(backend, script, call, caplog, int(os.environ.get("INTERRUPTED_EACH", "53")))
