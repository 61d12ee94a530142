"""The dispatcher: the long-lived task group, and the loop that starts due tasks in it."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from anysched.abc import Clock

from .backends import Backend, Starter
from .backends.starter import starter_for
from .clock import CLOCK_STEP_NS, MAX_DELAY, RECHECK_INTERVAL, TOLERANCE, TOLERANCE_NS, clock_of, exact_clock, wake_time
from .coroutines import LazyCoroutine
from .guard import Guard
from .run import RunOwner, TaskRun
from .task import ScheduledTask, queue_by_index
from .timer_queue import QueueGroup, TimerQueue

__all__ = ["Dispatcher"]

_MISSING = object()

MAX_KEY = int(MAX_DELAY * 1e12)
"""Monotonic due times are ordered by integers, in picoseconds. A due time need not be finite: this is the greatest."""

MAINTENANCE_STEPS_PER_ITERATION = 500
"""How many queue entries are tidied before the dispatcher yields to the event loop."""


CALLS_PER_ITERATION = 20
"""How many tasks are called after a clock step before the dispatcher yields to the event loop."""


class TaskOwner(RunOwner, Protocol):
    """The interface of a registry to the dispatcher.

    Attributes:
        timers: The pending tasks that are due on the monotonic clock; filled by the dispatcher.
        wall_timers: The pending tasks that are due on the wall clock; filled by the dispatcher.
    """

    timers: TimerQueue[ScheduledTask[Any]]
    wall_timers: TimerQueue[ScheduledTask[Any]]

    def try_admit(self, task: ScheduledTask[Any], /) -> bool:
        """Return whether a due task may start. If not, the registry requeues it when it may."""
        ...

    def free_slot(self, task: ScheduledTask[Any], /) -> None:
        """Give the slot of a task, if it has one, to the next task; called if an admitted task does not start."""
        ...

    def is_run_of(self, task: ScheduledTask[Any], run: TaskRun, /) -> bool:
        """Return whether a run is the current run of a task."""
        ...

    def start_refused(self, task: ScheduledTask[Any], failure: Exception, /) -> None:
        """Called when the event loop has refused to start a task."""
        ...


class Dispatcher:
    """Starts tasks when they are due, in due order, in its own task group.

    It is shared by a scheduler and its children. The owner of a task decides whether it may start when it is due.

    Args:
        drop_pending: Called when no more tasks will be started, for any reason, to drop the pending tasks.
        abandon: Called when everything has ended.
        backend: The interface to the event loop.
        guard: The guard of the operations.

    Attributes:
        backend: The interface to the event loop.
        thread: The thread of the event loop.
        clock: The clock that the due times are compared with.
        is_coarse: Whether the clock of the event loop is coarse; see `exact_clock`.
        debug: Whether more is checked and reported; see `Backend.debug`.
    """

    # As in `TaskRegistry`, because there are more than thirty.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_abandon",
        "_announced",
        "_cancelled",
        "_cancelled_externally",
        "_clock_lead",
        "_clock_read",
        "_closed_at",
        "_drop_pending",
        "_group",
        "_guard",
        "_has_requeued",
        "_host_task",
        "_last_sequence",
        "_loop_ended",
        "_loop_started",
        "_next_dispatch_index",
        "_next_sequence",
        "_requeued",
        "_starts_per_iteration",
        "_timers",
        "_to_call",
        "_unseen",
        "_wake_at",
        "_wakeup",
        "_wall_timers",
        "backend",
        "clock",
        "clock_followers",
        "debug",
        "is_coarse",
        "starter",
        "thread",
    )

    def __init__(
        self,
        drop_pending: Callable[[], Coroutine[Any, Any, object]],
        abandon: Callable[[], object],
        backend: Backend,
        guard: Guard,
    ) -> None:
        self._drop_pending = drop_pending
        self._abandon = abandon
        self._guard = guard
        self.thread = threading.get_ident()
        self.backend = backend
        self.debug = backend.debug
        self._host_task = self.backend.current_task()
        self.clock: Clock = clock_of(self.backend)
        self.is_coarse: bool = self.clock.monotonic is not exact_clock(self.clock)
        self._closed_at: tuple[float, int] | None = None
        self._cancelled = self._cancelled_externally = self._loop_started = False
        self._loop_ended = anyio.Event()

        # The tasks to call when the wall clock is set back, and the calls that remain; how far, in nanoseconds, the
        # wall clock was ahead of the monotonic clock.
        self.clock_followers: dict[ScheduledTask[Any], None] = {}
        self._to_call: list[ScheduledTask[Any]] = []
        self._clock_lead = self.clock.time_ns() - int(self.clock.monotonic() * 1e9)
        # When this was read last, when the clock has announced a step since then, and how long before it was read the
        # clock may have been set back.
        self._clock_read, self._unseen = self.clock.monotonic(), 0.0
        self._announced: float | None = None

        # A number for each scheduling call, and an index for each task that becomes due.
        self._next_sequence = count(1).__next__
        self._last_sequence = 0  # when due tasks were last looked for
        self._next_dispatch_index = count(1).__next__
        self._timers: QueueGroup[ScheduledTask[Any]] = QueueGroup()
        self._wall_timers: QueueGroup[ScheduledTask[Any]] = QueueGroup()
        # Tasks that were due before, had to wait, and may start now.
        self._requeued: TimerQueue[ScheduledTask[Any]] = TimerQueue()
        self._has_requeued = False

        self._group: TaskGroup
        self.starter: Starter
        self._starts_per_iteration = 1
        # When the loop will wake, and the event that wakes it earlier. While it is awake, it must not be woken: no due
        # time is earlier than minus infinity.
        self._wake_at = -math.inf
        self._wakeup = anyio.Event()
        self._loop_task: Any = self  # until it starts: no task

    # Lifecycle

    async def enter(self) -> None:
        """Enter the task group, and start the loop in it."""
        self._host_task = self.backend.current_task()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.starter = starter_for(self._group, self.backend)
        if self.backend.keeps_order:
            self._starts_per_iteration = self.backend.starts_per_iteration
        elif self.starter.exchanges_runs:
            # Another task may run first in one iteration and last in the next, and so wait for two batches.
            self._starts_per_iteration = self.backend.starts_per_iteration // 2
        self._group.create_task(LazyCoroutine(self._loop), name="anysched dispatcher")

    def cancel(self) -> None:
        """Cancel all tasks and stop starting tasks."""
        if not self._cancelled:
            self._cancelled = True
            self._cancelled_externally = self._group.cancel_scope.cancel_called
            self._group.cancel_scope.cancel()

    def is_stopping(self) -> bool:
        """Return whether all tasks are being cancelled: by the scheduler, a scope around it, or the end of the loop."""
        host = self._host_task
        return self.starter.is_cancelled() or self.backend.is_done(host) or self.backend.is_cancelling(host)

    def is_left_elsewhere(self) -> bool:
        """Return whether the caller is not the native task that entered the scheduler."""
        return self.backend.current_task() is not self._host_task

    def is_running(self) -> bool:
        """Return whether there may be tasks that have not ended."""
        return self._loop_started and not self._loop_ended.is_set()

    async def wait_ended(self) -> None:
        """Wait until tasks are no longer started, and the started tasks have ended."""
        await self._loop_ended.wait()

    async def leave(self) -> list[BaseException]:
        """Cancel all tasks and wait for their end.

        Returns:
            The exceptions that were raised: a `KeyboardInterrupt` or `SystemExit` of tasks, a cancellation of the
            caller, or the error of the task group if it is left in a different task than the one that entered it.
        """
        self.cancel()
        raised: list[BaseException] = []
        if self.is_left_elsewhere() and not self._cancelled_externally:
            # trio's nursery would wake the task that entered it and not this one, so it must have nothing to wait for.
            with anyio.CancelScope(shield=True):
                await self.wait_ended()
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raised = [*group.exceptions]  # the fatal ones of the starter may be among them
        except BaseException as exception:
            raised = [exception]
        finally:
            self._closed_at = self.clock.monotonic(), self.clock.time_ns()
            self._abandon()
        raised[:0] = self.starter.fatal_exceptions
        if self._cancelled_externally and not raised:
            raised = [self._stopped_error()]
        return raised

    def _stopped_error(self) -> RuntimeError:
        what = (
            "one of its tasks" if self._loop_started else "its dispatcher, as when all tasks of a loop are cancelled,"
        )
        return RuntimeError(
            f"the scheduler was stopped: {what} was cancelled through the event loop before its first step"
        )

    def check_thread(self) -> None:
        """Check that this is the thread of the event loop.

        Raises:
            RuntimeError: if it is not.
        """
        if threading.get_ident() != self.thread:
            raise RuntimeError(
                "a scheduler belongs to the thread of its event loop; from a worker thread, "
                "call it through anyio.from_thread.run_sync(...)"
            )

    # The queues

    def add(self, task: ScheduledTask[Any], when: float, owner: TaskOwner) -> None:
        """Queue a task that is in no queue, unless it is paused.

        Args:
            task: The task.
            when: Its due time: a float on the monotonic clock, or an int on the wall clock.
            owner: The registry that holds it.
        """
        when = self.by_loop_time(when)
        if task._set_due(when):
            self.enqueue(task, when, owner)

    def enqueue(self, task: ScheduledTask[Any], when: float, owner: TaskOwner) -> None:
        """Queue a task with this due time, in the time of the loop, that is in no queue and not paused."""
        if isinstance(when, float):
            # As in `QueueGroup.push`, but inline to save a call.
            queue = owner.timers
            queue.push(task, int(when * 1e12) if when < MAX_DELAY else MAX_KEY, self._next_sequence())
            if task._key < queue.place:
                self._timers.relist(queue, task._key)
            if when < self._wake_at:
                self.wake()
        else:
            self._wall_timers.push(owner.wall_timers, task, when, self._next_sequence())
            self._wake_for_wall(when)

    def reschedule(self, task: ScheduledTask[Any], when: float, owner: TaskOwner) -> None:
        """Change the due time of a pending task that does not wait for a predecessor or a slot."""
        if task._segment is None or type(task._when) is not type(when):
            task._leave_queue()
            self.add(task, when, owner)
            return
        if self.is_coarse:  # asked here to save a call
            when = self.by_loop_time(when)
        task._set_due(when)
        if isinstance(when, float):
            queue = owner.timers  # as `QueueGroup.move`, without a call for it
            queue.move(task, int(when * 1e12) if when < MAX_DELAY else MAX_KEY, self._next_sequence())
            if task._key < queue.place:
                self._timers.relist(queue, task._key)
            if when < self._wake_at:
                self.wake()
        else:
            self._wall_timers.move(owner.wall_timers, task, when, self._next_sequence())
            self._wake_for_wall(when)

    def by_loop_time(self, when: float) -> float:
        """Convert a due time to the clock of the event loop, if it is coarse: a task that is already due starts now."""
        if self.is_coarse and isinstance(when, float):
            return when if when > exact_clock(self.clock)() else min(when, self.clock.monotonic())
        return when

    def requeue(self, task: ScheduledTask[Any]) -> None:
        """Queue a task again that was due, had to wait and may start now. Its dispatch index is unchanged."""
        self._next_sequence()  # see `_sleep`
        self._has_requeued = True  # first: an interruption may come in between
        queue_by_index(task, self._requeued)
        self.wake()

    def release(self, owner: TaskOwner) -> None:
        """Release the queues of a registry that holds no tasks."""
        self._timers.discard(owner.timers)
        self._wall_timers.discard(owner.wall_timers)

    @property
    def queue_entries(self) -> int:
        """The number of entries in the queues of due times, including stale entries."""
        return self._timers.entries + self._wall_timers.entries

    def now(self) -> tuple[float, int]:
        """Return the times of both clocks; after the dispatcher has been closed, the times when this happened."""
        return self._closed_at or (exact_clock(self.clock)(), self.clock.time_ns())

    # The loop

    async def _loop(self) -> None:
        self._loop_started = True
        self._loop_task = self.backend.current_task()
        unsubscribe = self.clock.subscribe(self._on_step_announced)
        try:
            async with self.starter:
                try:
                    await self._dispatch()
                finally:
                    unsubscribe()
                    if not self._cancelled:  # otherwise the caller of `cancel` drops them
                        await self._drop_pending()
        finally:
            if not self._cancelled:  # otherwise the tasks are still being dropped, in batches
                self._abandon()
            self._loop_ended.set()

    async def _dispatch(self) -> None:
        guard = self._guard
        while True:
            try:
                if guard.held or guard.deferred:
                    guard.reset()
                self._last_sequence = self._next_sequence()
                if self._start_due():
                    await checkpoint()
                else:
                    await self._sleep()
            except self.backend.cancelled_exc_class:
                # An unrequested cancellation by `asyncio.Task.cancel` must not affect the tasks, unless the task that
                # entered the scheduler has ended, which means that the event loop is shutting down.
                if anyio.current_effective_deadline() == -math.inf or self.backend.is_done(self._host_task):
                    raise

    async def _sleep(self) -> None:
        self._wakeup = anyio.Event()
        self._wake_at = math.inf  # from here on, the loop is woken for every task
        if self._next_sequence() == self._last_sequence + 1:  # otherwise a signal handler has added or moved a task
            self._wake_at = deadline = self._next_wake()
            with anyio.CancelScope(deadline=deadline):
                await self._wakeup.wait()
        self._wake_at = -math.inf

    def _next_wake(self) -> float:
        # Not in `_sleep`, which would hold on to the tasks as long as it sleeps.
        guard = self._guard
        guard.held = True
        # Again, since a signal handler may have cancelled the first.
        self._timers.prune_top(sys.maxsize)
        self._wall_timers.prune_top(sys.maxsize)
        first, first_wall = self._timers.peek(), self._wall_timers.peek()
        due = None if first is None else _when(first)
        due_ns = None if first_wall is None else int(_when(first_wall))
        guard.release()
        now, now_ns = self.now()
        wake = wake_time(self.clock, now, now_ns, due, due_ns)
        # They want to know when the clock was set, also while none of them waits for it.
        return min(wake, now + self.clock.recheck_interval) if self.clock_followers else wake

    def wake(self) -> None:
        """Make the loop look for due tasks, and complete deferred calls."""
        self._wake_at = -math.inf
        if self.backend.current_task() is self._loop_task:
            # A signal handler has interrupted the loop, perhaps in the event's own `wait`, which would miss it.
            self.backend.call_soon(self._wakeup.set)
        else:
            self._wakeup.set()
        self.backend.wake()

    def _on_step_announced(self) -> None:
        """Called when the clock announces that it was set."""
        if self._announced is None:
            self._announced = self.clock.monotonic()
        self.wake()

    def _wake_for_wall(self, when: int) -> None:
        """Wake the loop if it sleeps for too long for a task that waits for the wall clock."""
        if self._wake_at != -math.inf:
            wake = wake_time(self.clock, self.clock.monotonic(), self.clock.time_ns(), None, when)
            if wake < self._wake_at:
                self.wake()

    def _start_due(self) -> bool:
        """Start due tasks, in a batch of limited size; return whether there may be more."""
        now, now_ns = self.clock.monotonic(), self.clock.time_ns()
        if self.clock_followers and self._call_followers(now, now_ns):
            return True
        steps, starts = MAINTENANCE_STEPS_PER_ITERATION, self._starts_per_iteration
        last: Context | None = None
        guard = self._guard
        while starts:
            guard.held = True
            # This is passed for each start: queues that are empty, as they usually are, are not called.
            if self._has_requeued:
                steps = self._requeued.prune_top(steps)
            steps = self._timers.prune_top(steps)
            if self._wall_timers.listed:
                steps = self._wall_timers.prune_top(steps)
            if not steps:
                break
            task = self._pop_due(now, now_ns)
            if task is None:
                guard.release()
                return False
            if not task._prepare(self._next_dispatch_index):
                break  # it has searched for its next time, which may be slow
            owner: Any = task._owner  # a `TaskOwner`
            if owner.try_admit(task):
                context = task._context
                assert context is not None
                if not self.backend.keeps_order:
                    # Native tasks can exchange their runs if they would do these in equal contexts.
                    if last is not None and not _same_variables(last, context):
                        self.requeue(task)
                        break
                    last = context
                self._start(task, owner, context)
                starts -= 1
            steps -= 1
        guard.release()
        return True

    def _call_followers(self, now: float, now_ns: int) -> bool:
        """Call the tasks that follow the wall clock if it was set back, a few at once; return whether more follow."""
        lead = now_ns - int(now * 1e9)
        since = self._clock_read
        if self._announced is not None:
            # A clock that announces steps may not have been read for long.
            since = max(since, self._announced - RECHECK_INTERVAL)
        unseen, self._clock_read, self._announced = now - since, now, None
        if lead < self._clock_lead - CLOCK_STEP_NS:
            self._clock_lead = lead
            self._to_call = list(self.clock_followers)
            self._unseen = unseen
        else:
            self._clock_lead = max(self._clock_lead, lead)
        for _ in range(min(CALLS_PER_ITERATION, len(self._to_call))):
            task = self._to_call.pop()
            if task in self.clock_followers:
                task._clock_set_back(self._unseen)
        return bool(self._to_call)

    def _pop_due(self, now: float, now_ns: int) -> ScheduledTask[Any] | None:
        """Remove and return the first due task, or `None` if none is due."""
        if self._has_requeued:
            if self._requeued.peek() is not None:
                return self._requeued.pop()  # it became due before all tasks in the other queues
            self._has_requeued = False
        first = self._timers.peek()
        due = first is not None and now - _when(first) > -TOLERANCE
        due_wall = False
        if self._wall_timers.listed:
            first_wall = self._wall_timers.peek()
            due_wall = first_wall is not None and now_ns - _when(first_wall) > -TOLERANCE_NS
            if first is not None and first_wall is not None and due and due_wall:
                # Compare how late the tasks are. If rounding makes them indistinguishable, use the order of the calls.
                difference = now - _when(first) - (now_ns - _when(first_wall)) / 1e9
                due = first._sequence < first_wall._sequence if abs(difference) < TOLERANCE else difference > 0
        if due:
            return self._timers.pop()
        return self._wall_timers.pop() if due_wall else None

    def _start(self, task: ScheduledTask[Any], owner: TaskOwner, context: Context) -> None:
        """Hand a task to the event loop."""
        run = TaskRun(task, owner, self)
        task._set_run(run)
        guard = self._guard
        guard.held = False
        if guard.deferred:
            guard.complete()
            if not owner.is_run_of(task, run):
                return  # cancelled, paused or rescheduled since it was taken from its queue
        try:
            self.starter.start(run, task.name, context)
        except Exception as failure:  # the event loop refuses
            owner.start_refused(task, failure)


def _same_variables(first: Context, second: Context) -> bool:
    """Return whether two contexts have the same variables with the same values, which are compared by identity."""
    return len(first) == len(second) and all(
        second.get(variable, _MISSING) is value for variable, value in first.items()
    )


def _when(task: ScheduledTask[Any]) -> float:
    """Return the due time of a task in a queue."""
    when = task._when
    assert when is not None
    return when
