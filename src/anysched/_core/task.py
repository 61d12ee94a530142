"""The handle of a scheduled task: its state, its outcome, and waiting for it. It knows no scheduler."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Hashable
from contextvars import Context, ContextVar
from datetime import datetime
from enum import Enum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast, final

import anyio
from anyio.lowlevel import checkpoint

from .coroutines import Work, close_unstarted, make_coroutine
from .timer_queue import Timer

__all__ = ["Owner", "Run", "ScheduledTask", "current_scheduled_task", "is_fatal", "sole_exception", "split_failure"]

T_co = TypeVar("T_co", covariant=True)


class Owner(Protocol):
    """What a task asks of whoever scheduled it."""

    @property
    def name(self) -> str:
        """The prefix of the task's name."""
        ...

    def cancel(self, task: ScheduledTask[Any], /) -> None:
        """Cancel a task that has not ended."""
        ...

    def now(self) -> tuple[float, int]:
        """Read the monotonic and the wall clock."""
        ...

    def due(self, when: float, /) -> datetime:
        """Express a due time as a `datetime`."""
        ...

    def check_wait(self, task: ScheduledTask[Any], /) -> None:
        """Raise `RuntimeError` if the caller would wait for a task that waits for the caller."""
        ...

    closing: bool
    """Whether no more tasks are to start: those that are pending are being dropped."""

    def admit(self, task: ScheduledTask[Any], /) -> bool:
        """Tell whether a task that is due may start; one that may not is handed back when it may."""
        ...

    def begun(self, task: ScheduledTask[Any], /) -> None:
        """Take note that a task starts."""
        ...

    def ended(self, task: ScheduledTask[Any], failure: BaseException | None, /) -> None:
        """Take note that a task that was started has ended, and of its failure, if any."""
        ...

    # The following are asked by a task that recurs.

    def holds(self, task: ScheduledTask[Any], /) -> bool:
        """Tell whether a task that runs still holds its ID, and may be pending once more."""
        ...

    def add(self, task: ScheduledTask[Any], when: float, /) -> None:
        """Take a pending task that waits nowhere."""
        ...

    def run_ended(self, task: ScheduledTask[Any], status: Status, /) -> None:
        """Take note of what came of a run, whether the task has ended with it or not."""
        ...

    def free(self, task: ScheduledTask[Any], /) -> None:
        """Free the ID of a task that has ended, if it still holds it."""
        ...

    def report(self, task: ScheduledTask[Any], failure: BaseException, /) -> None:
        """Log a failure."""
        ...


class Run(Protocol):
    """One start of a task, from the moment at which it is handed to the event loop."""

    def cancel(self) -> None:
        """Cancel what runs."""
        ...

    def is_caller(self) -> bool:
        """Tell whether the caller is this run, or a child task of it."""
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


@final
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
        "_ended",
        "_outcome",
        "_owner",
        "_run",
        "_status",
        "_task_id",
        "_turn",
        "_when",
        "_work",
    )

    def __init__(
        self, owner: Owner, task_id: Hashable, work: Work, args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._owner = owner
        self._task_id = task_id
        self._status = Status.PENDING
        # What to run and in which context, until it starts.
        self._work: Work | None = work
        self._args = args
        self._context = context
        # The dispatcher's: the due time, a float on the monotonic clock or an int on the wall clock, `None` once the
        # task has started; the place among those that are due (0: none); the present start.
        self._when: float | None = None
        self._turn = 0
        self._run: Run | None = None
        # What came of it, a return value or an exception, and an event that is made when somebody waits.
        self._outcome: Any = None
        self._ended: anyio.Event | None = None

    @property
    def task_id(self) -> Hashable:
        """The ID under which it was scheduled."""
        return self._task_id

    @property
    def name(self) -> str:
        """The name of the task in the event loop, ``<scheduler>_<id>``, as in the seed."""
        return f"{self._owner.name}_{self._task_id}"

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
        if not self._is_over():
            self._owner.cancel(self)

    async def wait(self) -> None:
        """Wait until the task has ended, no matter how.

        Raises:
            RuntimeError: if the caller is the task itself, or a child task of it in anyio's task groups; or the former
                holder of the ID, for whose end the task waits. (Longer ways to wait for oneself are not found.)
        """
        if self._is_over():
            await checkpoint()
            return
        self._owner.check_wait(self)
        if self._ended is None:
            self._ended = anyio.Event()
        await self._ended.wait()

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Wait until the task has ended, and return what it returned; see `wait` and `return_value`."""
        yield from self.wait().__await__()
        return self.return_value

    def __repr__(self) -> str:
        return f"<ScheduledTask {self._status.value} name={self.name!r}>"

    def _is_over(self) -> bool:
        # By identity: to compare or hash members of an enumeration is slow.
        status = self._status
        return status is Status.FINISHED or status is Status.FAILED or status is Status.CANCELLED

    def _check_finished(self) -> None:
        if self._status is Status.PENDING or self._status is Status.RUNNING:
            raise anyio.TaskNotFinished(f"the task {self.name!r} has not ended yet")
        if self._status is not Status.FINISHED:
            raise anyio.TaskCancelled(f"the task {self.name!r} was cancelled")

    # What happens to a task in its life: called by the dispatcher and the scheduler.

    def _ready(self) -> bool:
        """Tell whether a task that is due can be started; one that cannot has seen to where it waits."""
        return True

    def _begin(self) -> Coroutine[Any, Any, T_co]:
        """Take note that the task starts, and return the coroutine to run."""
        work, args = self._work, self._args
        assert work is not None
        self._release()
        self._when = None
        self._status = Status.RUNNING
        _current.set(self)
        return make_coroutine(work, args)

    def _drop(self, status: _Status, outcome: object) -> None:
        """Take note that the task will never start, and close its coroutine."""
        work = self._work
        self._release()
        self._end(status, outcome)
        close_unstarted(work)  # the last thing to do: it may run finalizers

    def _interrupt(self) -> None:
        """Cancel the running coroutine, unless that was done before."""
        if self._status is Status.RUNNING:
            assert self._run is not None
            self._status = Status.CANCELLING
            self._run.cancel()

    def _forsake(self) -> None:
        """Take note that the event loop has cancelled a start before its first step."""
        self.cancel()

    def _end_run(self, status: _Status, outcome: object, failure: BaseException | None) -> None:
        """Take note of the end of a run: the coroutine has ended, and with it the task, unless it recurs.

        Args:
            status: What came of it.
            outcome: The return value, or the exception.
            failure: The exception, if it is to be logged.
        """
        self._end(status, outcome)
        self._owner.ended(self, failure)

    def _end(self, status: _Status, outcome: object) -> None:
        """Take note of what came of the task, and wake those who wait for it."""
        self._status = status
        self._outcome = outcome
        self._run = None
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _release(self) -> None:
        """Let go of what is only needed until the start."""
        self._work = self._context = None
        self._args = ()
        self._turn = 0


_current: ContextVar[ScheduledTask[Any]] = ContextVar("anysched_current_task")


def current_scheduled_task() -> ScheduledTask[Any] | None:
    """Return the scheduled task in which the caller runs, or `None`.

    It is found through the context, so that it is also found from the task's child tasks. Once it has ended, it is no
    longer returned.
    """
    task = _current.get(None)
    return None if task is None or task._is_over() else task


def split_failure(exception: BaseException, cancelled: type[BaseException]) -> tuple[BaseException | None, bool]:
    """Split what a task raised into its failure, if any, and whether it was cancelled.

    Args:
        exception: What was raised; an exception group may mix failures with cancellations.
        cancelled: The exception class of cancellations.
    """
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        cancellation, failure = group.split(cancelled)
        return (group, False) if cancellation is None else (failure, True)
    # The coroutine of a task is closed (`GeneratorExit`) when its event loop is gone.
    return (None, True) if isinstance(exception, (cancelled, GeneratorExit)) else (exception, False)


def is_fatal(exception: BaseException) -> bool:
    """Tell whether an exception is a request to end the process, which leaves the scheduler."""
    if isinstance(exception, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exception)
        return group.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(exception, (KeyboardInterrupt, SystemExit))


def sole_exception(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception in a group, without the group, if it is the only one; else the group."""
    only, *others = group.exceptions
    if others:
        return group
    if isinstance(only, BaseExceptionGroup):
        return sole_exception(cast("BaseExceptionGroup[BaseException]", only))
    return only
