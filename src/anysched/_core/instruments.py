"""Instruments: the base class of what is called when something happens to a task, and the calls."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, final

from .clock import datetime_from_ns
from .failures import is_fatal
from .task import ScheduledTask, Status

__all__ = ["FinishedRun", "Instrument", "Instruments", "StartedRun", "combined"]


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


_HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))
_Run: TypeAlias = tuple[StartedRun, float, tuple[Instrument, ...]]


@final
class Instruments:
    """Calls the instruments of one scheduler: its own, and those of the schedulers whose child it is.

    Args:
        instruments: The instruments, each once.
        now: Reads the monotonic and the wall clock.
        on_error: Called when an instrument has raised an exception, to remove and to log it.
        former: What called the instruments until they changed; the runs that have started are taken over.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        now: Callable[[], tuple[float, int]],
        on_error: Callable[[Instrument, BaseException], None],
        former: Instruments | None = None,
    ) -> None:
        self.instruments = tuple(instruments)
        self._now = now
        self._on_error = on_error
        self._hooks = {
            name: tuple(instrument for instrument in self.instruments if _overrides(instrument, name))
            for name in _HOOKS
        }
        self._of_runs = self._hooks["run_started"] + self._hooks["run_finished"]
        self._runs: dict[ScheduledTask[Any], _Run] = {} if former is None else former._runs

    def notify(self, hook: str, task: ScheduledTask[Any]) -> None:
        """Call the method named ``hook`` of each instrument that overrides it."""
        for instrument in self._hooks[hook]:
            self._call(instrument, hook, task)

    def run_started(self, task: ScheduledTask[Any], when: float) -> None:
        """Called when a run starts.

        Args:
            task: The task.
            when: When it was due: a float on the monotonic clock, or an int on the wall clock.
        """
        if not self._of_runs:
            return
        now, now_ns = self._now()
        if isinstance(when, float):
            lateness = now - when
            when = now_ns - round(lateness * 1e6) * 1_000
        else:
            lateness = (now_ns - when) / 1e9
        run = StartedRun(datetime_from_ns(when), datetime_from_ns(now_ns), lateness)
        self._runs[task] = run, now, self.instruments
        for instrument in self._hooks["run_started"]:
            self._call(instrument, "run_started", task, run)

    def run_finished(self, task: ScheduledTask[Any], status: Status, outcome: object) -> None:
        """Called when a run has ended.

        Args:
            task: The task.
            status: The status of the run.
            outcome: The return value, or the exception.
        """
        entry = self._runs.pop(task, None)
        if entry is None:
            return  # it started before there were instruments
        start, then, informed = entry
        failure = outcome if isinstance(outcome, BaseException) and status is not Status.FINISHED else None
        seconds = self._now()[0] - then
        run = FinishedRun(start.due, start.started, start.lateness, status, failure, seconds)
        for instrument in self._hooks["run_finished"]:
            if informed is self.instruments or any(instrument is other for other in informed):
                self._call(instrument, "run_finished", task, run)

    def _call(self, instrument: Instrument, hook: str, *args: object) -> None:
        try:
            getattr(instrument, hook)(*args)
        except BaseException as failure:
            if is_fatal(failure):
                raise
            self._on_error(instrument, failure)


def combined(inherited: Iterable[Instrument], own: Iterable[Instrument]) -> list[Instrument]:
    """Return the instruments of a scheduler, those of its ancestors first, each once.

    They are compared by identity, because one that is a dataclass may be equal to another and not hashable.

    Raises:
        TypeError: if one is not an `Instrument`.
    """
    found: list[Instrument] = []
    for instrument in (*inherited, *own):
        if not isinstance(instrument, Instrument):
            raise TypeError(f"an instrument must be an instance of anysched.abc.Instrument, not {instrument!r}")
        if all(instrument is not other for other in found):
            found.append(instrument)
    return found


def _overrides(instrument: Instrument, hook: str) -> bool:
    """Return whether an instrument does something in a method."""
    method = getattr(instrument, hook)
    return not (isinstance(method, types.MethodType) and method.__func__ is getattr(Instrument, hook))
