"""Calling the instruments of a scheduler when something happens to a task."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, final

from anysched.abc import FinishedRun, Instrument, StartedRun

from .clock import datetime_from_ns
from .failures import is_fatal
from .task import ScheduledTask, Status
from .texts import format_value

__all__ = ["Instruments", "checked", "combined"]


_HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))
_Run: TypeAlias = tuple[StartedRun, float, tuple[Instrument, ...]]


@final
class Instruments:
    """Calls the instruments of a scheduler and of its ancestors.

    Args:
        instruments: The instruments, each once.
        now: Reads the monotonic and the wall clock.
        on_error: Called when an instrument has raised an exception, to remove it and log the exception.
        previous: The predecessor of this object, whose runs are taken over.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        now: Callable[[], tuple[float, int]],
        on_error: Callable[[Instrument, BaseException], None],
        previous: Instruments | None = None,
    ) -> None:
        self.instruments = tuple(instruments)
        self._now = now
        self._on_error = on_error
        self._hooks = {
            name: tuple(instrument for instrument in self.instruments if _overrides(instrument, name))
            for name in _HOOKS
        }
        self._of_runs = self._hooks["run_started"] + self._hooks["run_finished"]
        self._runs: dict[ScheduledTask[Any], _Run] = {} if previous is None else previous._runs
        # The tasks that are being announced, each with the instruments that do not know of it yet.
        self._announced: dict[ScheduledTask[Any], Iterator[Instrument]] = (
            {} if previous is None else previous._announced
        )

    def notify(self, hook: str, task: ScheduledTask[Any]) -> None:
        """Call the method named ``hook`` of each instrument that overrides it."""
        if self._announced:  # an instrument has used the new task: the others must hear of it first
            for instrument in self._announced.get(task, ()):
                self._call(instrument, "task_scheduled", task)
        for instrument in self._hooks[hook]:
            self._call(instrument, hook, task)

    def task_scheduled(self, task: ScheduledTask[Any]) -> None:
        """Called when a task was scheduled."""
        self._announced[task] = instruments = iter(self._hooks["task_scheduled"])
        try:
            for instrument in instruments:
                self._call(instrument, "task_scheduled", task)
        finally:
            del self._announced[task]

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

    def run_finished(self, task: ScheduledTask[Any], status: Status, failure: BaseException | None) -> None:
        """Called when a run has ended.

        Args:
            task: The task.
            status: The status of the run.
            failure: The exception that it raised, other than a cancellation.
        """
        entry = self._runs.pop(task, None)
        if entry is None:
            return  # it started before instruments were added
        start, then, informed = entry
        seconds = self._now()[0] - then
        run = FinishedRun(start.due, start.started, start.lateness, status, failure, seconds)
        for instrument in self._hooks["run_finished"]:
            if informed is self.instruments or any(instrument is other for other in informed):
                self._call(instrument, "run_finished", task, run)

    def task_finished(self, task: ScheduledTask[Any]) -> None:
        """Called when a task has ended."""
        self._runs.pop(task, None)  # a `KeyboardInterrupt` may have come before the end of the run was reported
        self.notify("task_finished", task)

    def _call(self, instrument: Instrument, hook: str, *args: object) -> None:
        try:
            getattr(instrument, hook)(*args)
        except BaseException as failure:
            if is_fatal(failure):
                raise
            self._on_error(instrument, failure)


def combined(inherited: Iterable[Instrument], own: Iterable[Instrument]) -> list[Instrument]:
    """Return the instruments of a scheduler, each once, with those of its ancestors first.

    They are compared by identity, because an instrument that is a dataclass may equal another and not be hashable.
    """
    found: list[Instrument] = []
    for instrument in (*inherited, *own):
        if all(instrument is not other for other in found):
            found.append(instrument)
    return found


def checked(instruments: Iterable[Instrument]) -> list[Instrument]:
    """Return the instruments that a caller has passed.

    Raises:
        TypeError: if one is not an `Instrument`, or one of its methods is a coroutine function.
    """
    found = list(instruments)
    for instrument in found:
        if not isinstance(instrument, Instrument):
            raise TypeError(
                f"an instrument must be an instance of anysched.abc.Instrument, not {format_value(instrument)}"
            )
        for hook in _HOOKS:
            if inspect.iscoroutinefunction(getattr(instrument, hook)):
                raise TypeError(
                    f"an instrument is called synchronously: its method {hook} must not be a coroutine function"
                )
    return found


def _overrides(instrument: Instrument, hook: str) -> bool:
    """Return whether an instrument overrides a method."""
    method = getattr(instrument, hook)
    return not (isinstance(method, types.MethodType) and method.__func__ is getattr(Instrument, hook))
