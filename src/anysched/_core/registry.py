"""The registry of one scheduler: who holds which ID, who waits for whom, what runs, and the one way to an end."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, TypeAlias

import anyio

from .clock import MAX_DELAY, datetime_from_ns
from .dispatcher import Dispatcher
from .instruments import Instrument, Instruments
from .run import TaskRun
from .task import ScheduledTask, Status, current_scheduled_task, running_caller
from .timer_queue import TimerQueue

__all__ = ["SchedulerState", "TaskRegistry", "cancel_runs"]

SchedulerState: TypeAlias = Literal["new", "running", "closing", "closed"]
"""Where a scheduler is in its life; see `Scheduler.state`."""


class TaskRegistry:
    """Holds the tasks of one scheduler: at most one for each ID, and so many running at once.

    Args:
        name: The name of the scheduler.
        max_running: How many tasks may run at once, if there is a limit.
        cancel: Called to cancel a task by its handle.

    Attributes:
        state: Where the scheduler is in its life. Tasks are accepted and started while it is running.
        dispatcher: Who starts the tasks, from entry on.
        instruments: What is told what happens to the tasks; `None` if there is nothing to tell.
        tasks: The tasks that hold an ID, by ID.
        predecessors: The tasks that run on although their ID has been released or taken over.
        running: How many tasks run.
        started: How many tasks have started since entry; each run of a recurring task counts, here and below.
        finished: How many tasks have returned since entry.
        failed: How many have failed since entry.
        cancelled: How many have been cancelled since entry, before their start or after.
    """

    def __init__(self, name: str, max_running: int | None, cancel: Callable[[ScheduledTask[Any]], None]) -> None:
        self.name = name
        self.log = logging.getLogger(f"anysched.{name}")
        self.cancel = cancel
        self.max_running = max_running
        self.state: SchedulerState = "new"
        self.dispatcher: Dispatcher | None = None
        self.instruments: Instruments | None = None
        self.running = 0
        self.started = 0
        self.finished = 0
        self.failed = 0
        self.cancelled = 0
        self.tasks: dict[Hashable, ScheduledTask[Any]] = {}
        self.predecessors: dict[Hashable, ScheduledTask[Any]] = {}
        # Due, and waiting for the predecessor under their ID; due, and waiting for a slot; in possession of one.
        self._blocked: dict[Hashable, ScheduledTask[Any]] = {}
        self._slot_queue: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self._slots: set[ScheduledTask[Any]] = set()
        self._idle: anyio.Event | None = None

    # Asked by a handle

    def due(self, when: float) -> datetime:
        """Return a due time as a `datetime`: by the present clocks, if it is monotonic."""
        if isinstance(when, float):
            now, now_ns = self.now()
            when = now_ns + round(min(when - now, MAX_DELAY) * 1e6) * 1_000  # what a datetime can express
        return datetime_from_ns(when)

    def check_wait(self, task: ScheduledTask[Any]) -> None:
        """Refuse to wait for a task that waits for the caller, and from another thread."""
        assert self.dispatcher is not None
        self.dispatcher.check_thread()
        caller = running_caller()
        if caller is task:
            raise RuntimeError(f"deadlock: task {task.name!r} awaits itself")
        if caller is not None and task.status is Status.PENDING and self.predecessors.get(task.task_id) is caller:
            raise RuntimeError(
                f"deadlock: task {caller.name!r} awaits its successor, which cannot start until {caller.name!r} has ended"
            )

    # Asked by the dispatcher

    def try_admit(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a task that is due may start. If not, it waits here, and is handed back when it may."""
        if self.state != "running":
            return False  # about to be dropped
        task_id = task.task_id
        if task_id in self.predecessors:
            self._blocked[task_id] = task
            return False
        if self.max_running is not None and task not in self._slots:
            if len(self._slots) >= self.max_running:
                self._queue_for_slot(task)
                return False
            self._slots.add(task)
        return True

    def start_refused(self, task: ScheduledTask[Any], failure: Exception) -> None:
        """Called when the event loop has refused to start a task."""
        self.task_started(task)
        self.finish(task, Status.FAILED, failure, failure, ran=True)

    # Asked by a run

    def accepts(self, task: ScheduledTask[Any], run: TaskRun) -> bool:
        """Return whether a run is still that of a task which may start."""
        return task._run is run and self.state == "running"

    def task_started(self, task: ScheduledTask[Any]) -> None:
        """Called when a task starts, before its first step."""
        self.running += 1
        self.started += 1

    def run_finished(
        self, task: ScheduledTask[Any], status: Status, outcome: object, failure: BaseException | None
    ) -> None:
        """Called when a run has ended: the task becomes pending again, if it recurs, or ends."""
        try:
            if self.instruments is not None:
                self.instruments.run_finished(task, status, outcome)
        finally:  # an instrument may raise a `KeyboardInterrupt`
            fatal = status is Status.FAILED and failure is None
            found = None if fatal or not self.may_recur(task) else task._find_next()
            if found is None or not self.may_recur(task):  # searching for the next time may have cancelled the task
                self.finish(task, status, outcome, failure, ran=True)
            else:
                self._end_run(task, status)
                task._advance(found, failure)

    def native_task_cancelled(self, task: ScheduledTask[Any], run: TaskRun) -> None:
        """Called when the native task of a run was cancelled, possibly before its first step."""
        if task._run is run and task.status is Status.PENDING:
            task._start_cancelled()

    # Asked by a task that recurs

    def now(self) -> tuple[float, int]:
        """Read the monotonic and the wall clock."""
        assert self.dispatcher is not None
        return self.dispatcher.now()

    @property
    def is_closing(self) -> bool:
        """Whether no more tasks will start: pending ones are being dropped."""
        return self.state != "running"

    def may_recur(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a task that runs still holds its ID, and may be pending again."""
        return self.state == "running" and self.predecessors.get(task.task_id) is not task

    def add(self, task: ScheduledTask[Any], when: float) -> None:
        """Queue a pending task that is not queued."""
        assert self.dispatcher is not None
        self.dispatcher.add(task, when)

    # Asked by the scheduler

    def displace(self, holder: ScheduledTask[Any], *, cancel_running: bool) -> None:
        """Displace a task that has lost its ID.

        Args:
            holder: The task. A pending one is dropped.
            cancel_running: Whether to cancel a running one, unless it is the caller; if not, it runs on to its end.
        """
        if holder._status is Status.PENDING:
            self.drop(holder)
        else:
            self.predecessors[holder.task_id] = holder
            if cancel_running and current_scheduled_task() is not holder:
                cancel_runs([holder])

    def release_id(self, holder: ScheduledTask[Any]) -> None:
        """Release the ID of a task; a pending one is dropped, a running one finishes."""
        del self.tasks[holder.task_id]
        self.displace(holder, cancel_running=False)

    def drop(self, task: ScheduledTask[Any]) -> None:
        """End a task that has not started; it never will."""
        if not self.unqueue_due(task):
            task._leave_queue()
        self.finish(task, Status.CANCELLED)

    def unqueue_due(self, task: ScheduledTask[Any]) -> bool:
        """Remove a task from its queue if it is due. One that is not has nothing else to give back."""
        if not task._dispatch_index:
            return False
        self.unqueue(task)
        return True

    def unqueue(self, task: ScheduledTask[Any]) -> None:
        """Remove a task that has not started from whichever queue it is in."""
        task._leave_queue()
        task._set_not_due()
        if self._blocked.get(task.task_id) is task:
            del self._blocked[task.task_id]
        self.free_slot(task)

    def runs(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a task is one of this scheduler's, holding its ID or running on without it."""
        return any(table.get(task.task_id) is task for table in (self.tasks, self.predecessors))

    def running_tasks(self) -> list[ScheduledTask[Any]]:
        """Return the tasks that run and have not been cancelled."""
        return [
            task
            for tasks in (self.predecessors, self.tasks)
            for task in tasks.values()
            if task.status is Status.RUNNING
        ]

    async def wait_idle(self) -> None:
        """Wait until no ID is held, and no task is unwinding."""
        while self.tasks or self.predecessors:
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    # The end

    def finish(
        self,
        task: ScheduledTask[Any],
        status: Status,
        outcome: object = None,
        failure: BaseException | None = None,
        *,
        ran: bool = False,
    ) -> None:
        """End a task. Every way in which a task ends leads here, and only here.

        It returned, failed, or was cancelled while it ran; it was dropped before its start, also on closing; the event
        loop refused to start it; it has no more due times, or asking for the next one failed.

        Args:
            task: The task, which is in no queue.
            status: Its final status.
            outcome: Its return value, or its exception.
            failure: The exception, if it is to be logged.
            ran: Whether a run ends with it.
        """
        target = task._complete(status, outcome)
        if ran:
            self._end_run(task, status)
        elif status is Status.CANCELLED:
            self.cancelled += 1
        task_id = task.task_id
        if self.tasks.get(task_id) is task:
            del self.tasks[task_id]
        if self._idle is not None and not self.tasks and not self.predecessors:
            self._idle.set()
            self._idle = None
        if failure is not None:
            self.log_failure(task, failure)
        try:
            if self.instruments is not None:
                self.instruments.notify("task_finished", task)
        finally:
            task._close(target)

    def _end_run(self, task: ScheduledTask[Any], status: Status) -> None:
        """Count a run that has ended, and admit what waited for its end."""
        self.running -= 1
        if status is Status.FINISHED:
            self.finished += 1
        elif status is Status.FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        task_id = task.task_id
        if self.predecessors.get(task_id) is task:
            del self.predecessors[task_id]
            successor = self._blocked.pop(task_id, None)
            if successor is not None:
                self._queue_for_slot(successor)
        self.free_slot(task)

    # Slots

    def _queue_for_slot(self, task: ScheduledTask[Any]) -> None:
        """Let a task that is due wait for a slot, or start as soon as the dispatcher comes to it."""
        if self.max_running is None:
            self._requeue(task)
        else:
            index = task._dispatch_index
            self._slot_queue.push(task, index, index)

    def free_slot(self, task: ScheduledTask[Any]) -> None:
        """Give the slot of a task, if it has one, to the next that waits for one."""
        if task in self._slots:
            self._slots.remove(task)
            self._slot_queue.prune_top(sys.maxsize)
            if self._slot_queue.peek() is not None:
                successor = self._slot_queue.pop()
                self._slots.add(successor)
                self._requeue(successor)

    def _requeue(self, task: ScheduledTask[Any]) -> None:
        assert self.dispatcher is not None
        self.dispatcher.requeue(task)

    # Logging

    def log_failure(self, task: ScheduledTask[Any], failure: BaseException) -> None:
        """Log the failure of a task."""
        task_id = task.task_id
        self._log_error("Error in task %r!", task_id, failure, self.log_fields(task_id))

    def log_instrument_failure(self, instrument: Instrument, failure: BaseException) -> None:
        """Log the failure of an instrument."""
        message = "Error in instrument %r, which has been removed!"
        self._log_error(message, instrument, failure, {"scheduler": self.name})

    def _log_error(self, message: str, subject: object, failure: BaseException, fields: dict[str, object]) -> None:
        try:
            self.log.error(message, subject, exc_info=failure, extra=fields)
        except Exception:  # in a handler or filter: no reason to end the other tasks
            if logging.raiseExceptions:
                traceback.print_exc()

    def log_skipped(self, task: ScheduledTask[Any], count: int) -> None:
        """Log that due times were missed and are not run."""
        task_id = task.task_id
        with suppress(Exception):  # a handler or filter that raises concerns no task
            self.log.info(
                "Skipped %d missed run%s of task %r.",
                count,
                "s" if count > 1 else "",
                task_id,
                extra=self.log_fields(task_id),
            )

    def log_fields(self, task_id: Hashable) -> dict[str, object]:
        """Return the attributes that each log record about a task has."""
        return {"scheduler": self.name, "task_id": task_id}


def cancel_runs(tasks: Iterable[ScheduledTask[Any]]) -> None:
    """Cancel what the tasks run, unless that was done before; they keep their IDs until they have ended."""
    for task in tasks:
        task._cancel_run()
