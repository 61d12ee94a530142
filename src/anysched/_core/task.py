"""The handle of a scheduled task: its state, its outcome, and waiting for it. It does not know the scheduler."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Hashable
from contextvars import Context, ContextVar
from datetime import datetime
from enum import Enum
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from .coroutines import Target, close_unstarted, make_coroutine
from .logs import format_id, format_name
from .timer_queue import Timer

__all__ = ["Owner", "Run", "ScheduledTask", "Status", "current_scheduled_task"]

T_co = TypeVar("T_co", covariant=True)


class Owner(Protocol):
    """What a task asks of the registry that holds it."""

    @property
    def name(self) -> str:
        """The prefix of the task's name."""
        ...

    def cancel(self, task: ScheduledTask[Any], /) -> None:
        """Cancel a task that has not ended."""
        ...

    @property
    def instruments(self) -> RunObserver | None:
        """What is told of runs that start, if anything is."""
        ...

    def due(self, when: float, /) -> datetime:
        """Return a due time as a `datetime`."""
        ...

    def check_wait(self, task: ScheduledTask[Any], /) -> None:
        """Raise `RuntimeError` if the caller would wait for a task that waits for the caller."""
        ...


class RunObserver(Protocol):
    """What is told of runs that start."""

    def run_started(self, task: ScheduledTask[Any], when: float, /) -> None:
        """Called when a run starts, with the time at which it was due."""
        ...


class Run(Protocol):
    """One start of a task, from the moment at which it is handed to the event loop."""

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
    """Where a task is in its life. The names are those of `anyio.TaskHandle.Status`, and ``RUNNING``."""

    PENDING = "pending"
    """It has not started."""
    RUNNING = "running"
    """Its coroutine runs."""
    CANCELLING = "cancelling"
    """Its coroutine runs, and has been cancelled."""
    FINISHED = "finished"
    """Its coroutine returned."""
    FAILED = "failed"
    """Its coroutine raised an exception."""
    CANCELLED = "cancelled"
    """It was cancelled, before it started or while it ran."""

    def __eq__(self, other: object) -> bool:
        """Return whether this is the same status, also where the other one is anyio's.

        Code that is written for anyio's handles would otherwise find them unequal without a word.
        """
        if isinstance(other, anyio.TaskHandle.Status):
            return self.name == other.name
        return self is other

    __hash__ = Enum.__hash__  # by the name, as anyio's


_Status: TypeAlias = Status


class ScheduledTask(Timer, Generic[T_co]):
    """A task of a `Scheduler`: the handle that every ``schedule*`` call returns.

    It has the interface of `anyio.TaskHandle` where the two overlap, and raises anyio's exceptions; `task_id` and `due`
    come on top. Any number of tasks may await it, any number of times.
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
        self, owner: Owner, task_id: Hashable, target: Target, args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._owner = owner
        self._task_id = task_id
        self._status = Status.PENDING
        # What to run and in which context, until it starts.
        self._target: Target | None = target
        self._args = args
        self._context = context
        # The dispatcher's: the due time, a float on the monotonic clock or an int on the wall clock, `None` once the
        # task has started; the place among those that are due (0: none); the present start.
        self._when: float | None = None
        self._dispatch_index = 0
        self._run: Run | None = None
        # The return value or the exception, and an event that is made when a task waits.
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
        """Where the task is in its life."""
        return self._status

    @property
    def due(self) -> datetime | None:
        """When the task is due (aware UTC); `None` once it has started; if it recurs, the next time, `None` during a run.

        A task that was dropped before it started keeps its due time, so that it can be stored and scheduled again.
        After a delay, which is elapsed time, this is what the delay comes to by the present wall clock.
        """
        when = self._when
        return None if when is None else self._owner.due(when)

    @property
    def run_count(self) -> int:
        """How often the task has been started, 0 or 1, and more only if it recurs (`Scheduler.schedule_every`)."""
        return int(self._when is None)

    @property
    def exception(self) -> BaseException | None:
        """The exception that the task raised, or `None` if it returned.

        Raises:
            anyio.TaskNotFinished: if it has not ended.
            anyio.TaskCancelled: if it was cancelled.
        """
        if self._status is Status.FAILED:
            failure: BaseException = self._outcome
            return failure
        self._check_finished()
        return None

    @property
    def return_value(self) -> T_co:
        """What the task returned.

        Raises:
            anyio.TaskNotFinished: if it has not ended.
            anyio.TaskFailed: if it raised an exception, which is the ``__cause__``.
            anyio.TaskCancelled: if it was cancelled (a subclass of `anyio.TaskFailed`).
        """
        if self._status is Status.FAILED:
            raise anyio.TaskFailed(f"the task {self.name!r} raised an exception") from self._outcome
        self._check_finished()
        value: T_co = self._outcome
        return value

    def cancel(self) -> None:
        """Cancel the task and free its ID, if it still holds it; nothing happens if it has ended.

        This is `Scheduler.cancel` for this very task, also after another one has taken over its ID. As there, a task
        that cancels itself is left to finish.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
        """
        if not self._is_done():
            self._owner.cancel(self)

    async def wait(self) -> None:
        """Wait until the task has ended, no matter how.

        Raises:
            RuntimeError: if the caller is the task itself, or a child task of it in anyio's task groups; or the former
                holder of the ID, for whose end the task waits. (Longer ways to wait for oneself are not found.)
        """
        if self._is_done():
            await checkpoint()
            return
        self._owner.check_wait(self)
        if self._finished_event is None:
            self._finished_event = anyio.Event()
        await self._finished_event.wait()

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Wait until the task has ended, and return what it returned; see `wait` and `return_value`."""
        yield from self.wait().__await__()
        return self.return_value

    def __repr__(self) -> str:
        due = self.due
        when = "" if due is None else f" due={due.isoformat()}"
        task_id = format_id(self._task_id)
        status, count = self._status.value, self.run_count
        return f"<ScheduledTask {status} name={self.name!r} task_id={task_id}{when} run_count={count}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: there is one handle for each task."""
        raise TypeError("a ScheduledTask cannot be copied or pickled; store its task_id and due, and schedule it again")

    def _is_done(self) -> bool:
        # By identity: to compare or hash members of an enumeration is slow.
        status = self._status
        return status is Status.FINISHED or status is Status.FAILED or status is Status.CANCELLED

    def _check_finished(self) -> None:
        if self._status is Status.PENDING or self._status is Status.RUNNING:
            raise anyio.TaskNotFinished(f"the task {self.name!r} has not ended yet")
        if self._status is not Status.FINISHED:
            raise anyio.TaskCancelled(f"the task {self.name!r} was cancelled") from self._outcome

    # The changes of state: called by the dispatcher, the run and the registry. No other module writes these fields.

    def _prepare(self) -> bool:
        """Return whether the task can start now. If not, it has requeued itself."""
        return True

    def _set_due(self, when: float | None) -> None:
        """Set the due time: a float on the monotonic clock, an int on the wall clock, `None` if there is none."""
        self._when = when

    def _set_dispatch_index(self, index: int) -> None:
        """Set the task's place among those that are due; 0 if it is not due."""
        self._dispatch_index = index

    def _set_not_due(self) -> None:
        """Undo that the task was due, or handed to the event loop."""
        self._dispatch_index = 0
        self._run = None

    def _set_run(self, run: Run) -> None:
        """Set the run with which the task was handed to the event loop."""
        self._run = run

    def _start(self) -> Coroutine[Any, Any, T_co]:
        """Enter the status RUNNING, and return the coroutine to await."""
        target, args, when = self._target, self._args, self._when
        assert target is not None
        assert when is not None
        self._clear_target()
        self._when = None
        self._status = Status.RUNNING
        _current.set(self._run)
        instruments = self._owner.instruments
        if instruments is not None:
            try:
                instruments.run_started(self, when)
            except BaseException:  # a request to end the process
                close_unstarted(target)
                raise
        return make_coroutine(target, args)

    def _start_cancelled(self) -> None:
        """Called when the event loop has cancelled a start before its first step."""
        self.cancel()

    def _contains_caller(self) -> bool:
        """Return whether this is called in the task's run, or in a task of a task group opened inside it."""
        return self._run is not None and self._run.contains_current_task()

    def _cancel_run(self) -> None:
        """Cancel the running coroutine, unless that was done before."""
        if self._status is Status.RUNNING:
            assert self._run is not None
            self._status = Status.CANCELLING
            self._run.cancel()

    def _find_next(self) -> object:
        """Return when the task is due again after a run, for `_advance`; `None` if it does not recur."""
        return None

    def _advance(self, found: Any, failure: BaseException | None) -> None:
        """Wait for the next run. Only a task that recurs is asked."""
        raise NotImplementedError

    def _clock_set_back(self) -> None:
        """Called when the wall clock was set back. Only a task that recurs is called."""
        raise NotImplementedError

    def _rearm(self, target: Target, args: tuple[Any, ...], context: Context) -> None:
        """Return to the status PENDING, as before the first run."""
        self._target, self._args, self._context = target, args, context
        self._status = Status.PENDING
        self._run = None
        self._dispatch_index = 0

    def _complete(self, status: _Status, outcome: object) -> Target | None:
        """Enter the final status, and wake those who wait for it. Return the target, which the caller must close."""
        target = self._target
        self._clear_target()
        self._status = status
        self._outcome = outcome
        self._run = None
        if self._finished_event is not None:
            self._finished_event.set()
            self._finished_event = None
        return target

    def _close(self, target: Target | None) -> None:
        """Close what will never run: the last thing to do, because it may run finalizers."""
        if target is not None:
            close_unstarted(target)

    def _clear_target(self) -> None:
        """Release what is only needed until the start."""
        self._target = self._context = None
        self._args = ()
        self._dispatch_index = 0


# The run and not the task: a context may outlive the task, and must keep nothing of its outcome.
_current: ContextVar[Run | None] = ContextVar("anysched_current_run", default=None)


def current_scheduled_task() -> ScheduledTask[Any] | None:
    """Return the scheduled task in which the caller runs, or `None`.

    It is found through the context, so that it is also found from the task's child tasks. Once the run has ended, it is
    no longer returned.
    """
    run = _current.get()
    return None if run is None else run.task
