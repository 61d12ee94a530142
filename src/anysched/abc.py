"""Abstract base classes and protocols that users implement, and the values that are passed to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from anysched._core.task import ScheduledTask, Status

__all__ = ["Clock", "FinishedRun", "Instrument", "StartedRun"]


class Clock(Protocol):
    """The clocks that a scheduler reads.

    In real time these are the event loop's clock and the machine's; in tests, `anysched.testing.VirtualClock`.
    """

    @property
    def monotonic(self) -> Callable[[], float]:
        """A function that returns the time of the event loop's monotonic clock, in seconds."""
        ...

    @property
    def time_ns(self) -> Callable[[], int]:
        """A function that returns the time of the wall clock, in nanoseconds of UTC since 1970."""
        ...

    @property
    def recheck_interval(self) -> float:
        """The longest time between two readings of the wall clock while a task waits for it, in seconds."""
        ...

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Call ``stepped`` whenever the wall clock has been set, within half a minute, if this clock notices.

        It is called in the thread of the event loop, between the steps of its tasks or in one of them.

        Returns:
            A function that ends the subscription.
        """
        ...


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run of a task that has started.

    Attributes:
        due: When it was due (aware UTC). A run that catches up on a missed time is due when it is scheduled.
        started: When it started, by the wall clock of the scheduler (aware UTC).
        lateness: The number of seconds between the two, by the clock on which the task was due. It is negative if the
            start was early by less than the resolution of the clock.
    """

    due: datetime
    started: datetime
    lateness: float


@dataclass(frozen=True, slots=True)
class FinishedRun(StartedRun):
    """A run of a task that has ended.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``CANCELLED``.
        failure: The exception that it raised, if any. A cancelled run has one if it raised an exception group
            that contains other exceptions besides the cancellation.
        seconds: How long it took, by the monotonic clock.
    """

    status: Status
    failure: BaseException | None
    seconds: float


class Instrument:
    """The base class of instruments, whose methods are called when something happens to a task.

    Like `trio.abc.Instrument`, its methods do nothing, and a subclass overrides those that it needs. Pass
    an instance to `anysched.Scheduler`, `anysched.Scheduler.child` or `anysched.Scheduler.add_instrument`. It is then
    called for the tasks of this scheduler and of its children, including children that are created later.

    The methods are called synchronously in the event loop's thread, so they must be quick. `run_started` and
    `run_finished` are called in the context of the run: a context variable that is set in `run_started` is visible to
    the coroutine. The methods may call the scheduler's methods.

    If a method raises an exception, it is logged at ERROR and the instrument is removed; the task is not affected.
    (`KeyboardInterrupt` and `SystemExit` propagate.)
    """

    __slots__ = ()

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task was scheduled, before the call returns its handle."""

    def task_kept(self, task: ScheduledTask[Any], /) -> None:
        """Called when a scheduling call has found the ID held and discarded the new function or coroutine.

        Args:
            task: The task that holds the ID.
        """

    def task_rescheduled(self, task: ScheduledTask[Any], /) -> None:
        """Called when the due time of a pending task was changed; see `anysched.Scheduler.reschedule_later`."""

    def task_paused(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task was paused."""

    def task_resumed(self, task: ScheduledTask[Any], /) -> None:
        """Called when a paused task was resumed."""

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        """Called when a run starts, in its context, before its coroutine is created.

        It is not called if the event loop refuses to start the task, or cancels it before its first step.
        """

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        """Called when a run has ended, in its context; the task still has the status that it had during the run.

        It is called only if `run_started` of this instrument was called for the run.
        """

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task has ended, with or without a run; its status is final and its ID is free.

        A recurring task ends once, after its last run.
        """
