"""The registry of a scheduler: the holders of IDs, predecessors, slots, and the one function in which tasks end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from datetime import datetime, timedelta
from functools import partial
from threading import get_ident
from typing import Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import anyio

from anysched._moments import Moment
from anysched.abc import Clock, Instrument

from .clock import MAX_DELAY, SystemClock, datetime_from_ns, due_after, due_at
from .coroutines import COROUTINE_TYPE
from .dispatcher import Dispatcher
from .guard import Guard
from .instruments import Instruments, checked, combined
from .logs import SchedulerLog
from .run import TaskRun
from .task import (
    CANCELLED,
    FAILED,
    FINISHED,
    PENDING,
    RUNNING,
    RunningPolicy,
    ScheduledTask,
    Status,
    current_scheduled_task,
    owner_of,
    queue_by_index,
)
from .timer_queue import TimerQueue
from .waits import WaitGraph

__all__ = ["SchedulerState", "TaskRegistry", "cancel_runs"]

WhenT = TypeVar("WhenT")

SchedulerState: TypeAlias = Literal["new", "running", "closing", "closed"]
"""The state of a scheduler; see `Scheduler.state`."""


ENDS_PER_TASK = 15
ENDS_AT_LEAST = 1_000
"""The tables release memory after this many tasks have ended, relative to those that hold an ID, and at least."""


class Family:
    """The state that a root scheduler and its descendants share.

    A child is registered here only while it holds tasks, so that idle children cost nothing, even when the root closes.

    Attributes:
        dispatcher: The dispatcher that starts the tasks, from entry on.
        busy: The registries with tasks that hold an ID or run.
        hosts: The events for which hosted children wait, by registry; set when the child is closed.
        instruments_version: How often the instruments of a member have changed; 0 if there are none. Checking this
            number is several times as fast as asking a member.
        dropped: The pending tasks that were dropped because the dispatcher stopped, each with its registry, for
            `Scheduler.close`.
        raised: The requests to end the process that instruments raised in the meantime, for the exit of the root.
        guard: Defers calls that come while the state is being changed.
        has_limits: Whether a member limits its running tasks; only then can deadlocks by waiting for slots be found.
        waits: Which task waits for which.
    """

    def __init__(self) -> None:
        self.dispatcher: Dispatcher | None = None
        self.busy: dict[TaskRegistry, None] = {}
        self.hosts: dict[TaskRegistry, anyio.Event] = {}
        self.instruments_version = 0
        self.dropped: list[tuple[TaskRegistry, ScheduledTask[Any]]] = []
        self.raised: list[BaseException] = []
        self.guard = Guard()
        self.has_limits = False
        self.waits = WaitGraph()
        self._members = 0

    def next_number(self) -> int:
        """Return the place of a new member among the others."""
        self._members += 1
        return self._members


class TaskRegistry:
    """Holds the tasks of one scheduler: at most one for each ID, of which at most ``max_running`` run at once.

    Args:
        name: The name of the scheduler.
        max_running: How many tasks may run at once, if there is a limit.
        cancel: Called to cancel a task by its handle.
        suppressed_exceptions: Exceptions of tasks that are not logged, in addition to those of the parent.
        parent: The registry of the parent, for a child.

    Attributes:
        family: The state that it shares with its parent and children.
        guard: The guard of the family.
        scheduler: The scheduler of this registry.
        tasks: The tasks that hold an ID, by ID.
        predecessors: The tasks that are still running although their ID has been released or taken over.
        collected: While `Scheduler.close` waits, the tasks that were scheduled in the meantime, and dropped.
        timers: The pending tasks that are due on the monotonic clock and have not fallen due: the dispatcher's.
        wall_timers: Those on the wall clock.
        started: How many tasks have started since entry; each run of a recurring task counts, here and below.
        finished: How many tasks have returned since entry.
        failed: How many have failed since entry.
        cancelled: How many have been cancelled since entry, before their start or after.
    """

    # Python finds up to about thirty attributes of an object by their index. With more, reading one takes longer, and
    # so does each call of a method. Tests replace methods of an object, for which it needs its `__dict__`.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_blocked",
        "_call_sites",
        "_cancel",
        "_ended",
        "_idle",
        "_instruments",
        "_instruments_version",
        "_number",
        "_own_instruments",
        "_running",
        "_slot_queue",
        "_slots",
        "_state",
        "_suppressed",
        "_tasks_copy",
        "cancelled",
        "collected",
        "failed",
        "family",
        "finished",
        "guard",
        "log",
        "max_running",
        "name",
        "parent",
        "predecessors",
        "scheduler",
        "started",
        "suppressed_exceptions",
        "tasks",
        "timers",
        "wall_timers",
    )

    def __init__(
        self,
        name: str,
        max_running: int | None,
        cancel: Callable[[ScheduledTask[Any], RunningPolicy], None],
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
        parent: TaskRegistry | None = None,
    ) -> None:
        self.name = name
        self._cancel = cancel
        self.max_running = max_running
        self.parent = parent
        self.log: SchedulerLog = SchedulerLog(name, None if parent is None else parent.log)
        self.family: Family = Family() if parent is None else parent.family
        self.guard: Guard = self.family.guard
        self.family.has_limits |= max_running is not None
        inherited = () if parent is None else parent.suppressed_exceptions
        self.suppressed_exceptions: tuple[type[BaseException], ...] = (*inherited, *suppressed_exceptions)
        # The suppressed exceptions of individual tasks. Few have any.
        self._suppressed: WeakKeyDictionary[ScheduledTask[Any], tuple[type[BaseException], ...]] = WeakKeyDictionary()
        # Where tasks were scheduled, in debug mode only.
        self._call_sites: WeakKeyDictionary[ScheduledTask[Any], str] | None = None
        self.scheduler: Any = None
        self._own_instruments: list[Instrument] = []
        self._instruments: Instruments | None = None
        self._instruments_version = 0
        self.timers: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self.wall_timers: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self.started = 0
        self.finished = 0
        self.failed = 0
        self.cancelled = 0
        self.tasks: dict[Hashable, ScheduledTask[Any]] = {}
        # A copy of it while it releases memory.
        self._tasks_copy: dict[Hashable, ScheduledTask[Any]] | None = None
        self.predecessors: dict[Hashable, ScheduledTask[Any]] = {}
        self.collected: list[ScheduledTask[Any]] | None = None
        self._number = self.family.next_number()
        # `None` for a child until it closes: it has the state of its parent.
        self._state: SchedulerState | None = "new" if parent is None else None
        # The tasks that run, in the order of their starts.
        self._running: dict[ScheduledTask[Any], None] = {}
        # Due tasks that wait for their predecessor; due tasks that wait for a slot; tasks that have a slot.
        self._blocked: dict[Hashable, ScheduledTask[Any]] = {}
        self._slot_queue: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self._slots: set[ScheduledTask[Any]] = set()
        self._idle: anyio.Event | None = None
        # How many tasks have ended since the tables last released memory.
        self._ended = 0

    # Instruments

    @property
    def instruments(self) -> Instruments | None:
        """The instruments of the scheduler and its ancestors; `None` if there are none."""
        version = self.family.instruments_version
        if version != self._instruments_version:
            self._instruments_version = version
            inherited = None if self.parent is None else self.parent.instruments
            found = combined(() if inherited is None else inherited.instruments, self._own_instruments)
            previous = self._instruments
            self._instruments = Instruments(found, self.now, self._on_instrument_error, previous) if found else None
        return self._instruments

    def notify(self, hook: str, task: ScheduledTask[Any]) -> None:
        """Call the method named ``hook`` of each instrument."""
        instruments = self.instruments
        if instruments is not None:
            instruments.notify(hook, task)

    def add_instruments(self, instruments: Iterable[Instrument]) -> None:
        """Add instruments to those of the scheduler.

        Raises:
            TypeError: if one is not an `Instrument`, or one of its methods is a coroutine function.
        """
        found = combined(self._own_instruments, checked(instruments))
        if len(found) > len(self._own_instruments):
            self._own_instruments = found
            self.family.instruments_version += 1

    def discard_instrument(self, instrument: Instrument) -> bool:
        """Remove an instrument of the scheduler; return whether it was one."""
        remaining = [other for other in self._own_instruments if other is not instrument]
        found = len(remaining) < len(self._own_instruments)
        if found:
            self._own_instruments = remaining
            self.family.instruments_version += 1
        return found

    def _on_instrument_error(self, instrument: Instrument, failure: BaseException) -> None:
        """Remove an instrument that has raised an exception from the scheduler and those above it, and log it."""
        registry: TaskRegistry | None = self
        while registry is not None:
            registry.discard_instrument(instrument)
            registry = registry.parent
        self.log_instrument_failure(instrument, failure)

    # Lifecycle

    @property
    def state(self) -> SchedulerState:
        """The state of the scheduler. Tasks are accepted and started while it is ``"running"``."""
        registry, state = self, self._state
        while state is None:
            assert registry.parent is not None
            registry = registry.parent
            state = registry._state
        return state

    @state.setter
    def state(self, state: SchedulerState) -> None:
        self._state = state

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher that starts the tasks, from entry on."""
        return self.family.dispatcher

    @property
    def collector(self) -> list[ScheduledTask[Any]] | None:
        """The list for tasks that are scheduled while the scheduler or an ancestor is being closed."""
        registry: TaskRegistry | None = self
        while registry is not None and registry.collected is None:
            registry = registry.parent
        return None if registry is None else registry.collected

    def is_within(self, other: TaskRegistry) -> bool:
        """Return whether this is the other registry or the registry of a descendant."""
        registry: TaskRegistry | None = self
        while registry is not None and registry is not other:
            registry = registry.parent
        return registry is not None

    def busy_members(self) -> list[TaskRegistry]:
        """Return this registry and those of its descendants that have tasks, in the order of their creation."""
        busy = [registry for registry in list(self.family.busy) if registry.is_within(self)]
        return sorted(busy, key=lambda registry: registry._number)

    # Called by handles

    def due(self, when: float) -> datetime:
        """Return a due time as a `datetime`; a monotonic one is converted by the current clocks."""
        if isinstance(when, float):
            now, now_ns = self.now()
            when = now_ns + round(min(when - now, MAX_DELAY) * 1e6) * 1_000  # in the range and resolution of datetime
        return datetime_from_ns(when)

    def cancel(self, task: ScheduledTask[Any], running: RunningPolicy = "cancel") -> None:
        """Cancel a task that has not ended."""
        self._cancel(task, running)

    def begin_wait(self, task: ScheduledTask[Any]) -> ScheduledTask[Any] | None:
        """Raise `RuntimeError` for a wait that would be a deadlock, or from another thread.

        Returns:
            The task in whose run the caller is, if there are limits, to be passed to `end_wait`.
        """
        self.check_thread()
        if self.is_caller(task):
            raise RuntimeError(f"deadlock: task {task.name!r} awaits itself")
        predecessor = self.predecessors.get(task.task_id) if task.status is PENDING else None
        if predecessor is not None and self.is_caller(predecessor):
            raise RuntimeError(
                f"deadlock: task {task.name!r} awaits its successor, which cannot start until the first has ended"
            )
        self.guard.held = True
        try:
            return self._note_wait(task)
        finally:
            self.guard.release()

    def end_wait(self, task: ScheduledTask[Any], waiting: ScheduledTask[Any]) -> None:
        """Called when the run of a task no longer waits for another task."""
        self.family.waits.remove(waiting, task)

    def _note_wait(self, task: ScheduledTask[Any]) -> ScheduledTask[Any] | None:
        """Record a wait; raise `RuntimeError` if the slots for it are taken, however indirectly, by waiting tasks."""
        if not self.family.has_limits:
            return None
        waiting = current_scheduled_task()
        if waiting is None or owner_of(waiting).family is not self.family or not self.is_caller(waiting):
            # The caller may be in a task of another scheduler that was started inside one of these.
            waiting = next(filter(self.is_caller, self._slots), None)
            if waiting is None:
                return None
        waits = self.family.waits
        waits.add(waiting, task)
        stuck = waits.deadlock(waiting)
        pending = next((each for each in stuck if owner_of(each).awaits_slot(each)), None)
        if pending is None:
            return waiting
        waits.remove(waiting, task)
        which = "which" if pending is task else f"and task {pending.name!r}"
        raise RuntimeError(
            f"deadlock: task {waiting.name!r} awaits {task.name!r}, {which} needs one of the slots of {pending.scheduler_name!r} "
            "(max_running), and these are taken by tasks that wait for a slot themselves; schedule the tasks that others "
            "wait for in a scheduler with its own limit: scheduler.child(...)"
        )

    def needs(self, task: ScheduledTask[Any]) -> list[Collection[ScheduledTask[Any]]]:
        """Return what a pending task waits for: one task of each collection must end before it can start."""
        predecessor = self.predecessors.get(task.task_id)
        found: list[Collection[ScheduledTask[Any]]] = [] if predecessor is None else [[predecessor]]
        if self.awaits_slot(task):
            found.append(self._slots)
        return found

    def awaits_slot(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a task is pending and needs a slot while all are taken."""
        return (
            task.status is PENDING
            and self.max_running is not None
            and len(self._slots) >= self.max_running
            and task not in self._slots
        )

    def check_thread(self) -> None:
        """Raise `RuntimeError` if called from another thread than the event loop's."""
        dispatcher = self.family.dispatcher
        if dispatcher is not None and dispatcher.thread != get_ident():
            dispatcher.check_thread()

    def reschedule_later(self, task: ScheduledTask[Any], delay: float | timedelta) -> bool:
        """Change the due time of a pending task; return whether it was pending."""
        return self.reschedule_if_pending(due_after, delay, task)

    def reschedule_at(self, task: ScheduledTask[Any], time: datetime | Moment) -> bool:
        """Change the due time of a pending task; return whether it was pending."""
        return self.reschedule_if_pending(due_at, time, task)

    def reschedule_if_pending(
        self, due: Callable[[Clock, WhenT], float], moment: WhenT, task: ScheduledTask[Any] | None
    ) -> bool:
        """Change the due time of a task if it is pending; return whether it was. The task may be `None`."""
        dispatcher = self.family.dispatcher
        if dispatcher is not None and dispatcher.thread != get_ident():
            dispatcher.check_thread()
        when = due(SystemClock(time.monotonic) if dispatcher is None else dispatcher.clock, moment)
        guard = self.guard
        if guard.held:
            may_be_changed = self.state == "running" and task is not None and self._is_changeable(task)
            if may_be_changed:
                self.defer(partial(self.reschedule_if_pending, _known_due, when, task))
            return may_be_changed
        guard.held = True
        state = self._state or self.state  # as in `Scheduler._schedule`
        if state != "running" or task is None or task._status is not PENDING:
            guard.release()
            return False
        try:
            self.reschedule(task, when)
        finally:
            guard.held = False
            if guard.deferred:
                guard.complete()
        if self.log.is_enabled_for(logging.DEBUG):
            self.log.log(logging.DEBUG, "Rescheduled task %s.", task.task_id)
        if self.family.instruments_version:
            self.notify("task_rescheduled", task)
        return True

    def pause(self, task: ScheduledTask[Any]) -> bool:
        """Pause a task that is pending or will be after its run; return whether it was paused by this call."""
        self.check_thread()
        guard = self.guard
        if guard.held:
            may_be_changed = not task.paused and (self._is_changeable(task) or task.recurs)
            self.defer(partial(self.pause, task))
            return may_be_changed
        guard.held = True
        try:
            if self.tasks.get(task.task_id) is not task or task.paused:
                return False
            if task.status is PENDING:
                self.unqueue(task)
            elif not self.may_recur(task) or not task.recurs:
                return False
            task._pause()
        finally:
            guard.release()
        self._report_change("Paused task %s.", "task_paused", task)
        return True

    def resume(self, task: ScheduledTask[Any]) -> bool:
        """Resume a task; return whether it was paused. If it became due in the meantime, it is due now."""
        self.check_thread()
        guard = self.guard
        if guard.held:
            self.defer(partial(self.resume, task))
            return task.paused
        guard.held = True
        try:
            if not task.paused:
                return False
            when = task._unpause()
            if when is not None:
                self.add(task, when)
        finally:
            guard.release()
        self._report_change("Resumed task %s.", "task_resumed", task)
        return True

    # Calls in the middle of an operation

    def defer(self, step: Callable[[], object]) -> None:
        """Complete a call when the operation that it has interrupted has ended."""
        self.guard.deferred.append(step)
        assert self.dispatcher is not None
        self.dispatcher.wake()  # if a `KeyboardInterrupt` has ended that one too early

    def holder(self, task_id: Hashable) -> ScheduledTask[Any] | None:
        """Return the holder of an ID, also in the middle of an operation."""
        tasks = self.tasks if self._tasks_copy is None else self._tasks_copy
        holder = tasks.get(task_id)
        expected: ScheduledTask[Any] | None = self.guard.holders.get((self, task_id), holder)
        return holder if expected is not None and _has_ended(expected) else expected

    def holders(self) -> list[ScheduledTask[Any]]:
        """Return the holders of all IDs, also in the middle of an operation."""
        tasks = self.tasks if self._tasks_copy is None else self._tasks_copy
        deferred = self.guard.holders.items() if self.guard.held else ()
        return [*tasks.values(), *(task for (registry, _), task in deferred if registry is self and task is not None)]

    def _is_changeable(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a task is pending and is not being started, in the middle of an operation."""
        return task.status is PENDING and self.is_run_of(task, None)

    def _report_change(self, message: str, hook: str, task: ScheduledTask[Any]) -> None:
        self.log.log(logging.DEBUG, message, task.task_id)
        if self.family.instruments_version:
            self.notify(hook, task)

    # Called by the dispatcher

    def try_admit(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a due task may start. If not, it waits here and is requeued when it may."""
        if self.state != "running":
            return False  # about to be dropped
        if self.predecessors:
            task_id = task.task_id
            try:
                if task_id in self.predecessors:
                    self._blocked[task_id] = task
                    return False
            except Exception as failure:  # of the hash or the comparison of the ID
                self.task_started(task)
                self.finish(task, FAILED, failure, failure, ran=True)
                return False
        if self.max_running is not None and task not in self._slots:
            if len(self._slots) >= self.max_running:
                self._queue_for_slot(task)
                return False
            self._slots.add(task)
        return True

    def start_refused(self, task: ScheduledTask[Any], failure: Exception) -> None:
        """Called when the event loop has refused to start a task."""
        self.guard.held = True
        if self.is_run_of(task, None):  # a signal handler has cancelled, paused or rescheduled it in the meantime
            self.guard.release()
            return
        self.task_started(task)
        self.finish(task, FAILED, failure, failure, ran=True)

    # Called by runs

    def accepts(self, task: ScheduledTask[Any], run: TaskRun) -> bool:
        """Return whether a run is still the current run of its task, which may start."""
        return self.is_run_of(task, run) and self.state == "running"

    @staticmethod
    def is_run_of(task: ScheduledTask[Any], run: TaskRun | None) -> bool:
        """Return whether a run is the current run of a task; with `None`, whether it has none."""
        return task._run is run

    def task_started(self, task: ScheduledTask[Any]) -> None:
        """Called when a task starts, before its first step."""
        self._running[task] = None
        self.started += 1

    def run_finished(
        self, task: ScheduledTask[Any], status: Status, outcome: object, failure: BaseException | None
    ) -> None:
        """Called when a run has ended: a recurring task becomes pending again, other tasks end."""
        try:
            if self.family.instruments_version and self.instruments is not None:
                raised = outcome if isinstance(outcome, BaseException) and status is FAILED else failure
                self.instruments.run_finished(task, status, raised)
        finally:  # an instrument may raise a `KeyboardInterrupt`
            self.guard.held = True
            fatal = status is FAILED and failure is None
            found = None if fatal or not task.recurs or not self.may_recur(task) else task._find_next(status)
            if found is None or not self.may_recur(task):  # searching for the next time may have cancelled the task
                self.finish(task, status, outcome, failure, ran=True)
            else:
                self._end_run(task, status)
                task._advance(found, failure)

    def native_task_ended(self, task: ScheduledTask[Any], run: TaskRun, *, cancelled: bool) -> None:
        """Called when the native task of a run has ended, possibly before its first step."""
        self.guard.held = True
        is_current, is_pending = self.is_run_of(task, run), task.status is PENDING
        if is_current and not is_pending:
            self.finish(task, CANCELLED, ran=True)  # a `KeyboardInterrupt` came before the run could end
        self.guard.release()
        if is_current and is_pending and cancelled:
            assert self.dispatcher is not None
            stray = not self.dispatcher.is_stopping()
            task._start_cancelled()
            if stray:
                self.log_stray_cancellation(task, None)

    # Called by recurring tasks

    def now(self) -> tuple[float, int]:
        """Read the monotonic and the wall clock."""
        assert self.dispatcher is not None
        return self.dispatcher.now()

    @property
    def is_closing(self) -> bool:
        """Whether no more tasks will start, and pending tasks are being dropped."""
        return self.state != "running"

    def may_recur(self, task: ScheduledTask[Any]) -> bool:
        """Return whether a running task still holds its ID and may become pending again."""
        return self.state == "running" and not (self.predecessors and self._is_predecessor(task))

    def _is_predecessor(self, task: ScheduledTask[Any]) -> bool:
        try:
            return self.predecessors.get(task.task_id) is task
        except Exception:  # as in `remove`
            return any(other is task for other in self.predecessors.values())

    def add(self, task: ScheduledTask[Any], when: float) -> None:
        """Queue a pending task that is not queued, unless it is paused."""
        assert self.dispatcher is not None
        self.dispatcher.add(task, when, self)

    def reschedule(self, task: ScheduledTask[Any], when: float) -> None:
        """Change the due time of a pending task."""
        dispatcher = self.family.dispatcher
        assert dispatcher is not None
        if task._dispatch_index > 0:
            self.unqueue(task)
        dispatcher.reschedule(task, when, self)

    def follow_clock(self, task: ScheduledTask[Any]) -> None:
        """Call a recurring task when the wall clock is set back, unless it has ended."""
        assert self.dispatcher is not None
        self.dispatcher.clock_followers[task] = None
        if task.status is CANCELLED:  # while it was scheduled
            self.unfollow_clock(task)

    def unfollow_clock(self, task: ScheduledTask[Any]) -> None:
        """Stop calling a recurring task when the wall clock is set back."""
        assert self.dispatcher is not None
        self.dispatcher.clock_followers.pop(task, None)

    # Called by the scheduler

    def suppress(self, task: ScheduledTask[Any], exceptions: tuple[type[BaseException], ...]) -> None:
        """Do not log these exceptions of a task."""
        self._suppressed[task] = exceptions

    def set_call_site(self, task: ScheduledTask[Any], call_site: str) -> None:
        """Set where a task was scheduled, to be logged if it fails."""
        if self._call_sites is None:
            self._call_sites = WeakKeyDictionary()
        self._call_sites[task] = call_site

    def hold(self, task_id: Hashable, task: ScheduledTask[Any], holder: ScheduledTask[Any] | None) -> None:
        """Add a new task to the end of the table of IDs. The previous holder must be displaced afterwards."""
        tasks = self.tasks
        if holder is None:
            tasks[task_id] = task
        else:
            # The ID must not look free in between.
            self.guard.holders[self, task_id] = task
            del tasks[task_id]
            tasks[task_id] = task
            del self.guard.holders[self, task_id]
        if len(tasks) == 1:
            self.family.busy[self] = None

    def remove(self, task: ScheduledTask[Any]) -> bool:
        """Remove a task from the table of IDs; return whether it was there. It must be displaced or finished afterwards."""
        task_id = task.task_id
        try:
            found = self.tasks.get(task_id) is task
            if found:
                del self.tasks[task_id]
        except Exception as failure:  # the hash or the comparison of the ID now fails
            found = _remove_by_identity(self.tasks, task)
            if found:
                self.guard.deferred.append(partial(self.log_failure, task, failure))
        return found

    def displace(self, holder: ScheduledTask[Any], cancel_running: bool) -> None:
        """Displace a task that has lost its ID; called in an operation, which this may end.

        Args:
            holder: The task. A pending one is dropped.
            cancel_running: Whether to cancel a running task, unless it is the caller. Otherwise it is left to finish.
        """
        if holder._status is PENDING:
            if holder._dispatch_index > 0:
                self.unqueue(holder)
            else:
                holder._leave_queue()  # a task that is not due has nothing else to give back
            self.finish(holder, CANCELLED)
        else:
            _insert(self.predecessors, holder.task_id, holder)
            if cancel_running:
                self.cancel_run(holder)

    def release_id(self, holder: ScheduledTask[Any]) -> None:
        """Release the ID of a task, unless it has ended; a pending one is dropped, a running one finishes."""
        self.guard.held = True
        try:
            if not _has_ended(holder):
                self.remove(holder)
                self.displace(holder, False)
        finally:
            self.guard.release()

    def cancel_run(self, task: ScheduledTask[Any]) -> None:
        """Cancel a running task, unless it is the caller."""
        if not self.is_caller(task):
            cancel_runs([task])
            assert self.dispatcher is not None
            self.dispatcher.backend.wake()

    def is_caller(self, task: ScheduledTask[Any]) -> bool:
        """Return whether this is called in the run of a task, or in a task of a task group opened inside it."""
        return task._contains_caller()

    def drop_unscheduled(self, task: ScheduledTask[Any]) -> None:
        """End a task that was made but not entered in the tables and queues."""
        self.finish(task, CANCELLED)

    def unqueue(self, task: ScheduledTask[Any]) -> None:
        """Remove a task that has not started from whichever queue it is in, and free its slot."""
        task._leave_queue()
        task._set_not_due()
        if self._blocked:
            _remove(self._blocked, task)
        self.free_slot(task)

    def calling_task(self) -> ScheduledTask[Any] | None:
        """Return the task of this registry inside whose run this is called, if any."""
        return next(filter(self.is_caller, list(self._running)), None)

    def running_tasks(self) -> list[ScheduledTask[Any]]:
        """Return the tasks that run and have not been cancelled, in the order in which they have started."""
        return [task for task in list(self._running) if task.status is RUNNING]

    @property
    def running(self) -> int:
        """How many tasks are running."""
        return len(self._running)

    @property
    def pending(self) -> int:
        """How many tasks hold an ID and have not started."""
        return len(self.tasks) + len(self.predecessors) - len(self._running)

    def next_due(self) -> datetime | None:
        """Return when the next pending task that is not paused is due (aware UTC)."""
        if self.guard.held:  # the queues are being changed, by a call that a signal handler has interrupted
            pending = [task.due for task in list(self.tasks.values()) if task.status is PENDING and not task.paused]
            return min((due for due in pending if due is not None), default=None)
        self.guard.held = True
        try:
            return self._next_due()
        finally:
            self.guard.release()

    def _next_due(self) -> datetime | None:
        first = [next(iter(self._blocked.values()), None)]
        for queue in (self._slot_queue, self.timers, self.wall_timers):
            queue.prune_top(sys.maxsize)
            first.append(queue.peek())
        return min((due for task in first if task is not None and (due := task.due) is not None), default=None)

    async def wait_idle(self) -> None:
        """Wait until no ID is held, and no task is unwinding."""
        while True:
            idle = self._idle
            if idle is None:
                idle = self._idle = anyio.Event()  # first, since a signal handler may end the last task
            if not self.tasks and not self.predecessors:
                break
            await idle.wait()
        self.family.busy.pop(self, None)  # which a `KeyboardInterrupt` may have prevented
        if self.tasks or self.predecessors:
            self.family.busy[self] = None  # a signal handler has scheduled a task

    def abandon(self) -> list[BaseException]:
        """End the remaining tasks when the dispatcher has ended. Only an untimely `KeyboardInterrupt` leaves any.

        Returns:
            The exceptions that were raised, such as requests of instruments to end the process.
        """
        raised: list[BaseException] = []
        for task in [*self.predecessors.values(), *self.tasks.values()]:
            try:
                _remove(self.predecessors, task)
                self.remove(task)
                self.finish(task, CANCELLED, ran=task.status is not PENDING)
            except BaseException as failure:
                raised.append(failure)  # the others must end as well
        self.family.busy.pop(self, None)
        return raised

    # Ending tasks

    def finish(
        self,
        task: ScheduledTask[Any],
        status: Status,
        outcome: object = None,
        failure: BaseException | None = None,
        ran: bool = False,
    ) -> None:
        """End a task. This is the only function in which tasks end. It ends the operation of the caller.

        The task returned, failed, or was cancelled while it ran; or it was dropped before its start, as on closing; or
        the event loop refused to start it; or it has no more due times, or finding the next one failed.

        Args:
            task: The task, which must not be in a queue. If it is cancelled before it ran, it must no longer
                hold its ID.
            status: Its final status.
            outcome: Its return value, or its exception.
            failure: The exception, if it must be logged.
            ran: Whether the task is ended by the end of a run.
        """
        # Update the tables first: if a `KeyboardInterrupt` comes in between, this is called again, and no caller waits
        # forever.
        guard = self.guard
        guard.held = True
        tasks = self.tasks
        if status is CANCELLED and not ran:
            self.cancelled += 1  # it has already lost its ID
        else:
            if ran:
                self._end_run(task, status)
            self.remove(task)
        unclosed = task._complete(status, outcome)
        self._ended += 1
        if self._ended > ENDS_PER_TASK * len(tasks) + ENDS_AT_LEAST:
            self._release_memory()
        if not tasks and not self.predecessors:
            self.family.busy.pop(self, None)
            assert self.family.dispatcher is not None
            self.family.dispatcher.release(self)
            if self._idle is not None:
                self._idle.set()
                self._idle = None
        try:
            guard.held = False
            if guard.deferred:
                guard.complete()
            if failure is not None:
                self.log_failure(task, failure)
            if self.family.instruments_version and self.instruments is not None:
                self.instruments.task_finished(task)
        finally:
            try:  # also if a log handler or an instrument has raised a request to end the process
                if type(unclosed) is COROUTINE_TYPE:
                    if not unclosed.cr_suspended and not unclosed.cr_running:  # as `close_unstarted`, without a call
                        unclosed.close()
                elif unclosed is not None:
                    unclosed()
            except Exception as error:  # of a coroutine that is not native, which may do anything
                self.log_failure(task, error)

    def _release_memory(self) -> None:
        """Make the tables shrink, since dictionaries and sets do not shrink by themselves."""
        self._ended = 0
        self._tasks_copy = tasks = dict(self.tasks)
        self.tasks.clear()  # in place: `Scheduler.tasks` is a view of it
        self.tasks.update(tasks)
        self._tasks_copy = None
        self.predecessors = dict(self.predecessors)
        self._blocked = dict(self._blocked)
        self._slots = set(self._slots)
        self._running = dict(self._running)

    def _end_run(self, task: ScheduledTask[Any], status: Status) -> None:
        """Count a run that has ended, and admit the tasks that waited for its end."""
        self._running.pop(task, None)
        if status is FINISHED:
            self.finished += 1
        elif status is FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        if self.predecessors and _remove(self.predecessors, task) and self._blocked:
            self._unblock_successor(task.task_id)
        if self._slots:
            self.free_slot(task)

    def _unblock_successor(self, task_id: Hashable) -> None:
        try:
            successor = self._blocked.pop(task_id, None)
            successors = [] if successor is None else [successor]
        except Exception:  # as in `remove`: which one it is, is not known, so they all try again
            successors = list(self._blocked.values())
            self._blocked.clear()
        for each in successors:
            self._queue_for_slot(each)

    # Slots

    def _queue_for_slot(self, task: ScheduledTask[Any]) -> None:
        """Queue a due task for a slot; without a limit, requeue it with the dispatcher."""
        if self.max_running is None:
            self._requeue(task)
        else:
            queue_by_index(task, self._slot_queue)

    def free_slot(self, task: ScheduledTask[Any]) -> None:
        """Give the slot of a task, if it has one, to the next task that waits for one."""
        if task in self._slots:
            self._slots.remove(task)
            # The tasks were added in their order: no more stale entries than half a segment come to the top at once.
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
        """Log the failure of a task, unless the exception is suppressed."""
        if isinstance(failure, (*self.suppressed_exceptions, *self._suppressed.get(task, ()))):
            return
        self._log_end(logging.ERROR, "Error in task %s!", task, failure)

    def log_stray_cancellation(self, task: ScheduledTask[Any], cancellation: BaseException | None) -> None:
        """Log that a task was cancelled neither by the scheduler nor by a scope around it."""
        message = "Task %s was cancelled, but not through its scheduler; it may have awaited something cancelled."
        self._log_end(logging.WARNING, message, task, cancellation)

    def _log_end(self, level: int, message: str, task: ScheduledTask[Any], failure: BaseException | None) -> None:
        call_site = None if self._call_sites is None else self._call_sites.get(task)
        self.log.log(level, message, task.task_id, failure=failure, scheduled_at=call_site)

    def log_instrument_failure(self, instrument: Instrument, failure: BaseException) -> None:
        """Log the failure of an instrument."""
        self.log.log_failure("Error in instrument %s, which has been removed!", instrument, failure)

    def warn(self, task: ScheduledTask[Any], message: str) -> None:
        """Log a message about a task at WARNING."""
        self.log.log(logging.WARNING, message, task.task_id)

    def log_skipped(self, task: ScheduledTask[Any], count: int) -> None:
        """Log that missed runs were skipped."""
        runs = f"{count} missed run{'s' if count > 1 else ''}"
        self.log.log(logging.INFO, "Skipped %s of task %s.", task.task_id, runs)


def _remove(table: dict[Hashable, ScheduledTask[Any]], task: ScheduledTask[Any]) -> bool:
    """Remove a task from a table by ID, also if the hash or the comparison of the ID now raises an exception."""
    task_id = task.task_id
    try:
        if table.get(task_id) is not task:
            return False
        del table[task_id]
        return True
    except Exception:
        return _remove_by_identity(table, task)


def _remove_by_identity(table: dict[Hashable, ScheduledTask[Any]], task: ScheduledTask[Any]) -> bool:
    later: list[tuple[Hashable, ScheduledTask[Any]]] = []
    found = False
    while table and not found:
        task_id, other = table.popitem()  # this does not hash the ID
        found = other is task
        if not found:
            later.append((task_id, other))
    for task_id, other in reversed(later):
        _insert(table, task_id, other)
    return found


def _known_due(_clock: Clock, when: float) -> float:
    return when


def _has_ended(task: ScheduledTask[Any]) -> bool:
    return task.status in (FINISHED, FAILED, CANCELLED)


def _insert(table: dict[Hashable, ScheduledTask[Any]], task_id: Hashable, task: ScheduledTask[Any]) -> None:
    """Add a task to a table; if its ID can no longer be hashed, under the task itself, so that it is not lost."""
    try:
        table[task_id] = task
    except Exception:
        table[task] = task


def cancel_runs(tasks: Iterable[ScheduledTask[Any]]) -> None:
    """Cancel running tasks that have not been cancelled; they keep their IDs until they have ended."""
    for task in tasks:
        task._cancel_run()
