"""A lane: one scheduler's tasks on their way to a start. One at a time for each ID, and so many at once in all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any

from .clock import LONGEST_DELAY, datetime_from_ns
from .dispatcher import Dispatcher
from .task import ScheduledTask, Status, current_scheduled_task
from .timer_queue import TimerQueue

__all__ = ["Lane"]


class Lane:
    """The owner of the tasks of one scheduler.

    Args:
        name: The name of the scheduler.
        limit: How many tasks may run at once, if there is a limit.
        cancel: Called to cancel a task.
        free: Called when a task that ran has ended, to free its ID.
        report: Called to log the failure of a task.

    Attributes:
        closing: Whether no more tasks are to start.
        dispatcher: Who starts the tasks, once the scheduler runs.
        formers: The tasks that run on although their ID has been freed or taken over.
        running: How many tasks run.
        started: How many tasks have started since entry; each run of a recurring task counts, here and below.
        finished: How many tasks have returned since entry.
        failed: How many have failed since entry.
        cancelled: How many have been cancelled since entry, before their start or after.
    """

    def __init__(
        self,
        name: str,
        limit: int | None,
        cancel: Callable[[ScheduledTask[Any]], None],
        free: Callable[[ScheduledTask[Any]], None],
        report: Callable[[ScheduledTask[Any], BaseException], None],
    ) -> None:
        self.name = name
        self.limit = limit
        self.cancel = cancel
        self.free = free
        self.report = report
        self.dispatcher: Dispatcher | None = None
        self.closing = False
        self.running = 0
        self.started = 0
        self.finished = 0
        self.failed = 0
        self.cancelled = 0
        self.formers: dict[Hashable, ScheduledTask[Any]] = {}
        # Due, and waiting for the former task under its ID; due, and waiting for a slot; in possession of one.
        self._blocked: dict[Hashable, ScheduledTask[Any]] = {}
        self._waiting: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self._slots: set[ScheduledTask[Any]] = set()

    # Asked by a task

    def now(self) -> tuple[float, int]:
        """Read the monotonic and the wall clock."""
        assert self.dispatcher is not None
        return self.dispatcher.now()

    def due(self, when: float) -> datetime:
        """Express a due time as a `datetime`: by the present clocks, if it is monotonic."""
        if isinstance(when, float):
            now, now_ns = self.now()
            when = now_ns + round(min(when - now, LONGEST_DELAY) * 1e6) * 1_000  # what a datetime can express
        return datetime_from_ns(when)

    def check_wait(self, task: ScheduledTask[Any]) -> None:
        """Refuse to wait for a task that waits for the caller, and from another thread."""
        assert self.dispatcher is not None
        self.dispatcher.check_thread()
        caller = current_scheduled_task()
        if caller is None or caller._run is None:
            return
        follows = task._status is Status.PENDING and self.formers.get(task._task_id) is caller
        if (follows or task is caller) and caller._run.is_caller():
            relation = "itself" if task is caller else "its own successor, which starts when it has ended"
            raise RuntimeError(f"the task {caller.name!r} would wait forever for {relation}")

    # Asked by the dispatcher

    def admit(self, task: ScheduledTask[Any]) -> bool:
        """Tell whether a task that is due may start; if not, it waits here and is handed back when it may."""
        if self.closing:
            return False  # about to be dropped
        if task._task_id in self.formers:
            self._blocked[task._task_id] = task
            return False
        if self.limit is not None and task not in self._slots:
            if len(self._slots) >= self.limit:
                self._wait(task)
                return False
            self._slots.add(task)
        return True

    def begun(self, task: ScheduledTask[Any]) -> None:
        """Take note of the first step of a task."""
        self.running += 1
        self.started += 1

    def ended(self, task: ScheduledTask[Any], failure: BaseException | None) -> None:
        """Take note of the end of a task that ran."""
        self.run_ended(task, task._status)
        self.free(task)
        if failure is not None:
            self.report(task, failure)

    # Asked by a task that recurs

    def holds(self, task: ScheduledTask[Any]) -> bool:
        """Tell whether a task that runs still holds its ID, and may be pending once more."""
        return not self.closing and self.formers.get(task._task_id) is not task

    def add(self, task: ScheduledTask[Any], when: float) -> None:
        """Take a pending task that waits nowhere."""
        assert self.dispatcher is not None
        self.dispatcher.add(task, when)

    def run_ended(self, task: ScheduledTask[Any], status: Status) -> None:
        """Take note of what came of a run, and let on who waited for its end."""
        self.running -= 1
        if status is Status.FINISHED:
            self.finished += 1
        elif status is Status.FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        if self.formers.get(task._task_id) is task:
            del self.formers[task._task_id]
            successor = self._blocked.pop(task._task_id, None)
            if successor is not None:
                self._wait(successor)
        self._free_slot(task)

    # Asked by the scheduler

    def drop(self, task: ScheduledTask[Any]) -> None:
        """Let go of a task that has not started; it never will."""
        if task._turn:
            self.withdraw(task)
        else:
            task.leave_queue()  # not due yet: there is nothing else to give back
        self.cancelled += 1
        task._drop(Status.CANCELLED, None)

    def withdraw(self, task: ScheduledTask[Any]) -> None:
        """Take a task that has not started from wherever it waits."""
        task.leave_queue()
        task._turn = 0
        task._run = None
        if self._blocked.get(task._task_id) is task:
            del self._blocked[task._task_id]
        self._free_slot(task)

    def _wait(self, task: ScheduledTask[Any]) -> None:
        """Let a task that is due wait for a slot, or start as soon as the dispatcher comes to it."""
        if self.limit is None:
            self._resume(task)
        else:
            self._waiting.push(task, task._turn, task._turn)

    def _free_slot(self, task: ScheduledTask[Any]) -> None:
        if task in self._slots:
            self._slots.remove(task)
            self._waiting.surface(sys.maxsize)
            if self._waiting.first() is not None:
                successor = self._waiting.pop()
                self._slots.add(successor)
                self._resume(successor)

    def _resume(self, task: ScheduledTask[Any]) -> None:
        assert self.dispatcher is not None
        self.dispatcher.resume(task)
