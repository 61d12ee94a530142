"""What users implement, and the library calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from anysched._core.task import ScheduledTask, Status

__all__ = ["Clock", "FinishedRun", "Instrument", "StartedRun"]


class Clock(Protocol):
    """Where a scheduler reads time.

    In real time this is the event loop's clock and the machine's; in tests, `anysched.testing.VirtualClock`.
    """

    @property
    def monotonic(self) -> Callable[[], float]:
        """Reads the monotonic clock of the event loop, in seconds."""
        ...

    @property
    def time_ns(self) -> Callable[[], int]:
        """Reads the wall clock, in nanoseconds of UTC since 1970."""
        ...

    @property
    def recheck_interval(self) -> float:
        """The longest time between two readings of the wall clock while a task waits for it, in seconds."""
        ...

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Call ``stepped`` whenever the wall clock has been set, if this clock notices.

        It is called in the thread of the event loop, between the steps of its tasks or in one of them.

        Returns:
            A function that ends the subscription.
        """
        ...


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run of a task that has started.

    Attributes:
        due: When it was due (aware UTC). A run that catches up on a time that was missed is due when it is scheduled.
        started: When it started, by the wall clock of the scheduler (aware UTC).
        lateness: How many seconds lie between the two, by the clock on which the task was due. It is negative for a
            start that was early by less than the resolution of the clock.
    """

    due: datetime
    started: datetime
    lateness: float


@dataclass(frozen=True, slots=True)
class FinishedRun(StartedRun):
    """A run of a task that has ended.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``CANCELLED``.
        failure: The exception that it raised, if any. A run that was cancelled has one if it raised an exception group
            in which the cancellation is mixed with others.
        seconds: How long it took, by the monotonic clock.
    """

    status: Status
    failure: BaseException | None
    seconds: float


class Instrument:
    """The base class of instruments, whose methods are called when something happens to a task.

    In the manner of `trio.abc.Instrument`: each method does nothing, and a subclass overrides those that it needs. Pass
    an instance to `anysched.Scheduler`, `anysched.Scheduler.child` or `anysched.Scheduler.add_instrument`. It is then
    called for the tasks of this scheduler and of its children, also of children that are made later.

    The methods are called synchronously on the event loop's thread, so they must be quick. `run_started` and
    `run_finished` are called in the context of the run: a context variable that is set in `run_started` is seen by the
    coroutine. The methods may call those of the scheduler.

    An instrument that raises an exception is logged at ERROR and removed; the task is not affected.
    (`KeyboardInterrupt` and `SystemExit` propagate.)
    """

    __slots__ = ()

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task was scheduled, before the call returns its handle."""

    def task_kept(self, task: ScheduledTask[Any], /) -> None:
        """Called when a scheduling call found the ID held, and has dropped what was handed over.

        Args:
            task: The task that holds the ID.
        """

    def task_rescheduled(self, task: ScheduledTask[Any], /) -> None:
        """Called when the due time of a pending task was changed, see `anysched.Scheduler.reschedule_later`."""

    def task_paused(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task was paused."""

    def task_resumed(self, task: ScheduledTask[Any], /) -> None:
        """Called when a paused task was resumed."""

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        """Called when a run starts, in its context, before its coroutine is made.

        A start that the event loop refuses, or cancels before its first step, is not a run.
        """

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        """Called when a run has ended, in its context; the task still has the status that it had during the run.

        It is only called for a run whose start was reported to this instrument.
        """

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task has ended, with or without a run; its status is final and its ID is free.

        A task that recurs ends once, after the last of its runs.
        """
