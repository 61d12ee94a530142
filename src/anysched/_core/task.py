"""The handle of a scheduled task: its state, its outcome, and waiting for it. It does not depend on the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Generator, Hashable, Iterable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any, Final, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from anysched._moments import Moment

from .coroutines import COROUTINE_TYPE, Target, close_unstarted, is_coroutine, make_coroutine
from .guard import Guard
from .texts import format_name, format_value
from .timer_queue import Timer, TimerQueue

__all__ = [
    "CANCELLED",
    "CANCELLING",
    "FAILED",
    "FINISHED",
    "PENDING",
    "RUNNING",
    "CurrentRun",
    "Owner",
    "Run",
    "RunningPolicy",
    "ScheduledTask",
    "Status",
    "current_run",
    "current_scheduled_task",
    "due_times",
    "owner_of",
    "queue_by_index",
]

T_co = TypeVar("T_co", covariant=True)


class Owner(Protocol):
    """The interface of a registry to the tasks that it holds."""

    @property
    def name(self) -> str:
        """The prefix of the task's name."""
        ...

    def check_thread(self) -> None:
        """Raise `RuntimeError` if called from another thread than the event loop's."""
        ...

    def cancel(self, task: ScheduledTask[Any], /, running: RunningPolicy = "cancel") -> None:
        """Cancel a task that has not ended."""
        ...

    def reschedule_later(self, task: ScheduledTask[Any], delay: float | timedelta, /) -> bool:
        """Change the due time of a pending task; return whether it was pending."""
        ...

    def reschedule_at(self, task: ScheduledTask[Any], time: datetime | Moment, /) -> bool:
        """Change the due time of a pending task; return whether it was pending."""
        ...

    def pause(self, task: ScheduledTask[Any], /) -> bool:
        """Pause a task; return whether that was possible."""
        ...

    def resume(self, task: ScheduledTask[Any], /) -> bool:
        """Resume a task; return whether it was paused."""
        ...

    @property
    def family(self) -> Family:
        """The state that the registry shares with others."""
        ...

    @property
    def guard(self) -> Guard:
        """The guard of the operations."""
        ...

    @property
    def instruments(self) -> RunObserver | None:
        """The observer that is called when runs start, if there is one."""
        ...

    def due(self, when: float, /) -> datetime:
        """Return a due time as a `datetime`."""
        ...

    def begin_wait(self, task: ScheduledTask[Any], /) -> ScheduledTask[Any] | None:
        """Called before the caller waits for a task. Return the task to pass to `end_wait`, if any.

        Raises:
            RuntimeError: if the caller would wait for a task that waits for the caller.
        """
        ...

    def end_wait(self, task: ScheduledTask[Any], waiting: ScheduledTask[Any], /) -> None:
        """Called after the caller has waited for a task."""
        ...

    def needs(self, task: ScheduledTask[Any], /) -> list[Collection[ScheduledTask[Any]]]:
        """Return what a pending task waits for: one task of each collection must end before it can start."""
        ...

    def awaits_slot(self, task: ScheduledTask[Any], /) -> bool:
        """Return whether a task is pending and needs a slot while all are taken."""
        ...


class Family(Protocol):
    """The state that the registries of a scheduler and its children share.

    Attributes:
        instruments_version: 0 if there are no instruments.
    """

    instruments_version: int


class RunObserver(Protocol):
    """An object that is called when runs start."""

    def run_started(self, task: ScheduledTask[Any], when: float, /) -> None:
        """Called when a run starts, with the time at which it was due."""
        ...


RunningPolicy = Literal["cancel", "leave"]
"""What to do if a cancelled task is running; see `Scheduler.cancel`."""

PAUSED = -1
"""The dispatch index of a paused task."""


class Run(Protocol):
    """One run of a task, from the moment when it is handed to the event loop."""

    due: float | None
    """The due time of the run: a float on the monotonic clock or an int on the wall clock; set at the start."""

    missed: int
    """How many other due times it covers."""

    @property
    def task(self) -> ScheduledTask[Any] | None:
        """The task, until the run has ended."""
        ...

    def cancel(self) -> None:
        """Cancel the run."""
        ...

    def contains_current_task(self) -> bool:
        """Return whether this is called in the run's native task, or in a task of a task group opened inside it."""
        ...


class Status(Enum):
    """The status of a task. The names are those of `anyio.TaskHandle.Status` plus ``RUNNING``."""

    PENDING = "pending"
    """It has not started."""
    RUNNING = "running"
    """Its coroutine is running."""
    CANCELLING = "cancelling"
    """Its coroutine is running and has been cancelled."""
    FINISHED = "finished"
    """Its coroutine returned."""
    FAILED = "failed"
    """Its coroutine raised an exception."""
    CANCELLED = "cancelled"
    """It was cancelled, before it started or while it ran."""

    def __eq__(self, other: object) -> bool:
        """Return whether this is the same status; a status of anyio with the same name is equal.

        Otherwise, comparisons in code that is written for anyio's handles would silently be false.
        """
        if isinstance(other, anyio.TaskHandle.Status):
            return self.name == other.name
        return self is other

    __hash__ = Enum.__hash__  # by the name, as anyio's


# Looking up a member in its class takes as long as a function call, so the fast paths use these.
PENDING: Final = Status.PENDING
RUNNING: Final = Status.RUNNING
CANCELLING: Final = Status.CANCELLING
FINISHED: Final = Status.FINISHED
FAILED: Final = Status.FAILED
CANCELLED: Final = Status.CANCELLED

_Status: TypeAlias = Status


class ScheduledTask(Timer, Generic[T_co]):
    """A task of a `Scheduler`: the handle that every ``schedule*`` call returns.

    It has the interface of `anyio.TaskHandle` where the two overlap, and raises anyio's exceptions. Any number of tasks
    can await it, any number of times.
    """

    Status = Status

    __slots__ = (
        "__weakref__",
        "_args",
        "_context",
        "_dispatch_index",
        "_finished_event",
        "_outcome",
        "_owner",
        "_run",
        "_status",
        "_target",
        "_task_id",
        "_when",
    )

    def __init__(
        self,
        owner: Owner,
        task_id: Hashable,
        target: Target,
        args: tuple[Any, ...],
        context: Context | None,
        when: float,
    ) -> None:
        self._owner = owner
        self._task_id = task_id
        self._status = PENDING
        # The target to run and its context, until it starts.
        self._target: Target | None = target
        self._args = args
        self._context = context
        # For the dispatcher: the due time (a float on the monotonic clock or an int on the wall clock, `None` once the
        # task has started), the place among the due tasks (0 if it is not due), and the current run.
        self._when: float | None = when
        self._dispatch_index = 0
        self._run: Run | None = None
        # The return value or the exception, and an event that is created when another task waits for this one.
        self._outcome: Any = None
        self._finished_event: anyio.Event | None = None

    @property
    def task_id(self) -> Hashable:
        """The ID under which it was scheduled."""
        return self._task_id

    @property
    def name(self) -> str:
        """The name of the task in the event loop, ``<scheduler>_<id>``, as in pydis_core."""
        return format_name(self._owner.name, self._task_id)

    @property
    def scheduler_name(self) -> str:
        """The name of the scheduler."""
        return self._owner.name

    @property
    def status(self) -> _Status:
        """The status of the task."""
        return self._status

    @property
    def due(self) -> datetime | None:
        """When the task is due (aware UTC), or `None` once it has started.

        For a recurring task, this is the time of the next run, or `None` during a run. A task that was dropped before
        it started keeps its due time, so that it can be stored and scheduled again. If the task was scheduled with a
        delay, which is elapsed time, the due time is calculated with the current wall clock.
        """
        when = self._when
        return None if when is None else self._owner.due(when)

    @property
    def run_count(self) -> int:
        """The number of starts of the task; 0 or 1, unless it is recurring (`Scheduler.schedule_every`)."""
        return int(self._when is None)

    @property
    def exception(self) -> BaseException | None:
        """The exception that the task raised, or `None` if it returned.

        Raises:
            anyio.TaskNotFinished: if it has not ended.
            anyio.TaskCancelled: if it was cancelled.
        """
        if self._status is FAILED:
            failure: BaseException = self._outcome
            return failure
        self._check_finished()
        return None

    @property
    def return_value(self) -> T_co:
        """The return value of the task.

        Raises:
            anyio.TaskNotFinished: if it has not ended.
            anyio.TaskFailed: if it raised an exception, which is the ``__cause__``.
            anyio.TaskCancelled: if it was cancelled (a subclass of `anyio.TaskFailed`).
        """
        if self._status is FAILED:
            raise anyio.TaskFailed(f"the task {self.name!r} raised an exception") from self._outcome
        self._check_finished()
        value: T_co = self._outcome
        return value

    @property
    def function(self) -> Callable[..., Coroutine[Any, Any, Any]] | None:
        """The scheduled function if the task has not started or was dropped; `None` if a coroutine was scheduled.

        The function of a recurring task is kept until the task ends.
        """
        target = self._target
        return None if target is None or is_coroutine(target) else target

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments of the function, as long as `function` is not `None`."""
        return self._args

    @property
    def recurs(self) -> bool:
        """Whether the task is recurring."""
        return False

    @property
    def paused(self) -> bool:
        """Whether the task is paused. A paused task does not start until it is resumed."""
        return self._dispatch_index == PAUSED

    @property
    def last_started(self) -> datetime | None:
        """When the last run of a recurring task started (aware UTC); `None` before the first, and for other tasks."""
        return None

    @property
    def last_status(self) -> _Status | None:
        """How the last run of a recurring task ended; `None` before the first has ended, and for other tasks."""
        return None

    def is_current(self) -> bool:
        """Return whether this is called inside the run of the task.

        This is the case in the run's native task and in the tasks of anyio's task groups that are opened inside the
        run. `current_scheduled_task` looks in the context instead, which is also copied to callbacks and to tasks that
        do not belong to the run.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
        """
        self._owner.check_thread()
        return self._contains_caller()

    def cancel(self, *, running: RunningPolicy = "cancel") -> None:
        """Cancel the task and free its ID if it still holds it; do nothing if it has ended.

        This is `Scheduler.cancel` for this particular task, even after another task has taken over its ID. As there, a
        task that cancels itself is left to finish.

        Args:
            running: What to do if the task is running, as in `Scheduler.cancel`.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            ValueError: if ``running`` is unknown.
        """
        if not self._is_done():
            self._owner.cancel(self, running)

    def reschedule_later(self, delay: float | timedelta) -> bool:
        """Make the task due after a delay from now, as `Scheduler.reschedule_later` does for the task that holds an ID.

        Args:
            delay: In seconds of elapsed time, or a `timedelta`; zero or less means now.

        Returns:
            Whether it was pending.

        Raises:
            RuntimeError, TypeError, ValueError: as `Scheduler.reschedule_later`.
        """
        return self._owner.reschedule_later(self, delay)

    def reschedule_at(self, time: datetime | Moment) -> bool:
        """Make the task due at a time of the wall clock, as `Scheduler.reschedule_at` does.

        Args:
            time: As in `Scheduler.schedule_at`.

        Returns:
            Whether it was pending.

        Raises:
            RuntimeError, TypeError: as `Scheduler.reschedule_at`.
        """
        return self._owner.reschedule_at(self, time)

    def pause(self) -> bool:
        """Pause the task, as `Scheduler.pause` does; return whether the task was paused by this call."""
        return self._owner.pause(self)

    def resume(self) -> bool:
        """Resume the task, as `Scheduler.resume` does; return whether it was paused."""
        return self._owner.resume(self)

    async def wait(self) -> None:
        """Wait until the task has ended, no matter how.

        Raises:
            RuntimeError: if this would be a deadlock: the caller is the task itself, a child task of it in anyio's task
                groups, or the previous holder of the ID, for whose end the task waits; or, with ``max_running``, the
                task or one for which it waits needs a slot, and all slots are taken by tasks that themselves wait for a
                slot. (Other long cycles are not detected.)
        """
        if self._is_done():
            await checkpoint()
            return
        finished = self._finished_event
        if finished is None:
            finished = self._finished_event = anyio.Event()
        waiting = self._owner.begin_wait(self)
        try:
            if not self._is_done():  # by a signal handler, before there was an event
                await finished.wait()
        finally:
            if waiting is not None:
                self._owner.end_wait(self, waiting)

    async def result(self) -> T_co:
        """Wait until the task has ended; return its return value, or raise its exception unchanged.

        This is what awaiting an asyncio task does. Awaiting the handle raises `anyio.TaskFailed` instead.

        Raises:
            BaseException: the exception that the task raised.
            anyio.TaskCancelled: if it was cancelled.
            RuntimeError: as `wait`.
        """
        await self.wait()
        if self._status is FAILED:
            failure: BaseException = self._outcome
            raise failure
        return self.return_value

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Wait until the task has ended, and return its return value; see `wait` and `return_value`."""
        yield from self.wait().__await__()
        return self.return_value

    def __repr__(self) -> str:
        due = self.due
        when = "" if due is None else f" due={due.isoformat()}"
        task_id = format_value(self._task_id)
        status, count = self._status.value, self.run_count
        return f"<ScheduledTask {status} name={self.name!r} task_id={task_id}{when} run_count={count}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, since there is only one handle for each task."""
        raise TypeError("a ScheduledTask cannot be copied or pickled; store its task_id and due, and schedule it again")

    def _is_done(self) -> bool:
        # By identity, because comparing or hashing members of an enumeration is slow.
        status = self._status
        return status is FINISHED or status is FAILED or status is CANCELLED

    def _check_finished(self) -> None:
        if self._status is PENDING or self._status is RUNNING:
            raise anyio.TaskNotFinished(f"the task {self.name!r} has not ended yet")
        if self._status is not FINISHED:
            raise anyio.TaskCancelled(f"the task {self.name!r} was cancelled") from self._outcome

    # State changes, called by the dispatcher, the run and the registry. No other module writes these fields.

    def _prepare(self, next_index: Callable[[], int]) -> bool:
        """Take a place among those that are due, unless the task has one. Return whether it can start now.

        If not, it has requeued itself.
        """
        if not self._dispatch_index:
            self._dispatch_index = next_index()
        return True

    def _pause(self) -> None:
        """Keep the task from being queued."""
        self._dispatch_index = PAUSED

    def _unpause(self) -> float | None:
        """Allow the task to be queued again; return its due time if it is pending."""
        self._dispatch_index = 0
        return self._when

    def _set_due(self, when: float | None) -> bool:
        """Set the due time: a float on the monotonic clock, an int on the wall clock, `None` if there is none.

        Returns:
            Whether the task can be queued, that is, whether it is not paused.
        """
        self._when = when
        return self._dispatch_index != PAUSED

    def _set_not_due(self) -> None:
        """Reset the task to not due and not handed to the event loop."""
        self._dispatch_index = min(self._dispatch_index, 0)  # it may be paused
        self._run = None

    def _set_run(self, run: Run) -> None:
        """Set the run with which the task is handed to the event loop."""
        self._run = run

    def _start(self) -> Coroutine[Any, Any, T_co]:
        """Enter the status RUNNING, which ends the operation of starting, and return the coroutine to await."""
        target, args, when, run = self._target, self._args, self._when, self._run
        assert target is not None
        assert when is not None
        assert run is not None
        run.due, run.missed = self._served_due(when)
        # They are only needed until the start.
        self._target = self._context = self._when = None
        self._args = ()
        self._dispatch_index = 0
        self._status = RUNNING
        _current.set(run)
        owner = self._owner
        guard = owner.guard
        guard.held = False
        if guard.deferred:
            guard.complete()
        if owner.family.instruments_version and owner.instruments is not None:
            try:
                owner.instruments.run_started(self, when)
            except BaseException:  # a request to end the process
                close_unstarted(target)
                raise
        return make_coroutine(target, args)

    def _served_due(self, when: float) -> tuple[float, int]:
        """Return the due time of a run, and how many other due times it covers."""
        return when, 0

    def _start_cancelled(self) -> None:
        """Called when the event loop has cancelled a start before its first step."""
        self.cancel()

    def _contains_caller(self) -> bool:
        """Return whether this is called in the task's run, or in a task of a task group opened inside it."""
        run = self._run
        return run is not None and run.contains_current_task()

    def _cancel_run(self) -> None:
        """Cancel the running coroutine, unless it has already been cancelled."""
        if self._status is RUNNING:
            assert self._run is not None
            self._status = CANCELLING
            self._run.cancel()

    def _find_next(self, status: _Status | None = None) -> object:
        """Return when the task is due again after a run with this status, for `_advance`. Only called for recurring tasks."""
        raise NotImplementedError

    def _advance(self, found: Any, failure: BaseException | None) -> None:
        """Wait for the next run. Only called for recurring tasks."""
        raise NotImplementedError

    def _clock_set_back(self, unseen: float) -> None:
        """Called when the wall clock was set back within the last ``unseen`` seconds. Only called for recurring tasks."""
        raise NotImplementedError

    def _rearm(self, target: Target, args: tuple[Any, ...], context: Context) -> None:
        """Return to the status PENDING, as before the first run."""
        self._target, self._args, self._context = target, args, context
        self._status = PENDING
        self._run = None

    def _complete(self, status: _Status, outcome: object) -> Any:
        """Enter the final status and wake the waiting tasks.

        Returns:
            A native coroutine that the caller must close if it has not started, or a function that the caller must call;
            otherwise `None`. This must be the last step, because it may run finalizers.
        """
        target = self._target
        unclosed: Any = None
        self._context = None
        self._dispatch_index = 0
        if type(target) is COROUTINE_TYPE:
            unclosed = target
            self._target = None
        elif type(target) is not FunctionType and target is not None and is_coroutine(target):
            unclosed = partial(close_unstarted, target)
            self._target = None
        # A function that was dropped is kept with its arguments: it may be scheduled again.
        self._status = status
        self._outcome = outcome
        self._run = None
        if self._finished_event is not None:
            self._finished_event.set()
            self._finished_event = None
        return unclosed


def due_times(tasks: Iterable[ScheduledTask[Any]]) -> list[float | None]:
    """Return when tasks are due: a float on the monotonic clock, an int on the wall clock, `None` if one has started."""
    return [task._when for task in tasks]


def queue_by_index(task: ScheduledTask[Any], queue: TimerQueue[ScheduledTask[Any]]) -> None:
    """Add a due task to a queue in which the tasks are ordered as they became due."""
    index = task._dispatch_index
    queue.push(task, index, index)


def owner_of(task: ScheduledTask[Any]) -> Owner:
    """Return the registry that holds a task, possibly that of another scheduler."""
    return task._owner


# The run and not the task, since a context may live longer than the task and must not keep its outcome alive.
_current: ContextVar[Run | None] = ContextVar("anysched_current_run", default=None)


def current_scheduled_task() -> ScheduledTask[Any] | None:
    """Return the scheduled task in which the caller runs, or `None`.

    It is looked up in the context, so it is also found in child tasks. Once the run has ended, it is no longer
    returned.
    """
    run = _current.get()
    return None if run is None else run.task


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run of a scheduled task, as `current_run` returns it.

    Attributes:
        task: The task.
        due: The due time of the run (aware UTC), even if the run is late. For a recurring task, it is one of the
            regular due times. If the run was brought forward by rescheduling, it is the time that was set.
        missed: How many other due times a run of a recurring task covers, as far as they are known; 0 unless
            ``missed="latest"``.
    """

    task: ScheduledTask[Any]
    due: datetime
    missed: int

    @property
    def task_id(self) -> Hashable:
        """The ID of the task."""
        return self.task.task_id


def current_run() -> CurrentRun:
    """Return the run in which the caller runs; like `current_scheduled_task`, it looks in the context.

    Raises:
        RuntimeError: if the caller is not in a run of a scheduled task.
    """
    run = _current.get()
    task = None if run is None else run.task
    if run is None or task is None or run.due is None:
        raise RuntimeError("current_run() was called outside of a scheduled task")
    return CurrentRun(task, task._owner.due(run.due), run.missed)
