"""A history of runs and failures in bounded memory.

`History` is an instrument::

    history = History()
    async with Scheduler("jobs", instruments=[history]) as scheduler:
        ...
        for run in history.failures:
            print(run.started, run.task_id, run.failure)
"""

from __future__ import annotations

import sys
import traceback
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import CodeType
from typing import Any, Literal, TypeAlias, cast, final

from . import ScheduledTask
from .abc import FinishedRun, Instrument, StartedRun

__all__ = ["History", "Location", "MinuteRecord", "RunRecord", "RunStatus"]

RunStatus: TypeAlias = Literal["running", "finished", "failed", "cancelled"]
"""The status of a run."""

MAX_LOCATIONS = 100_000
"""The maximum number of unfinished tasks whose locations are kept."""

MAX_FAILURE_LENGTH = 500
MAX_TRACEBACK_LENGTH = 8_000
MAX_TRACEBACK_ENTRIES = 40

_PACKAGE = __name__.partition(".")[0]
_Status = ScheduledTask.Status


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the source code.

    Attributes:
        file: The path of the file.
        line: The number of the line.
        function: The qualified name of the function.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return ``file:line in function``."""
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of a task.

    Attributes:
        scheduler: The name of the scheduler.
        task_id: The ID.
        number: The number of the run, counted from 1; 0 for a task that failed without a run.
        due: When it was due (aware UTC).
        started: When it started (aware UTC).
        ended: When it ended (aware UTC); `None` while it runs.
        lateness: How many seconds after its due time it started.
        seconds: How long it took; `None` while it runs.
        status: ``"running"``, ``"finished"``, ``"failed"`` or ``"cancelled"``.
        failure: The type and the message of the exception, if it raised one.
        traceback: The exception with its traceback, as Python prints it.
        location: Where the task was scheduled, if known.
    """

    scheduler: str
    task_id: Hashable
    number: int
    due: datetime
    started: datetime
    ended: datetime | None
    lateness: float
    seconds: float | None
    status: RunStatus
    failure: str | None
    traceback: str | None
    location: Location | None


@dataclass(slots=True)
class MinuteRecord:
    """The counts of one minute.

    Attributes:
        start: When the minute began (aware UTC).
        started: How many runs started.
        finished: How many runs returned.
        failed: How many runs and tasks failed.
        cancelled: How many runs were cancelled.
        total_lateness: The sum of the lateness of the runs that started, in seconds.
        max_lateness: The maximum lateness, in seconds.
        total_seconds: The sum of the durations of the runs that ended, in seconds.
        max_seconds: The maximum duration, in seconds.
    """

    start: datetime
    started: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    total_lateness: float = 0.0
    max_lateness: float = 0.0
    total_seconds: float = 0.0
    max_seconds: float = 0.0


@final
class History(Instrument):
    """Records the last runs and failures, and counts per minute, in bounded memory.

    Long texts of failures are shortened in the middle to a few thousand characters. Only the IDs of the tasks are
    kept, not the tasks, their results or their exceptions.

    Args:
        max_runs: How many ended runs to keep.
        max_failures: How many failures to keep, however many runs succeed after them.
        max_minutes: How many minutes to keep, counting only those in which something happened; a day by default.

    Raises:
        TypeError: if a limit is not an integer.
        ValueError: if a limit is less than one.
    """

    def __init__(self, *, max_runs: int = 1_000, max_failures: int = 200, max_minutes: int = 1_440) -> None:
        for name, limit in (("max_runs", max_runs), ("max_failures", max_failures), ("max_minutes", max_minutes)):
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise TypeError(f"{name} must be an integer, not {type(limit).__name__}")
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, not {limit}")
        self._runs: deque[RunRecord] = deque(maxlen=max_runs)
        self._failures: deque[RunRecord] = deque(maxlen=max_failures)
        self._running: dict[ScheduledTask[Any], StartedRun] = {}
        self._max_minutes = max_minutes
        self._minutes: dict[datetime, MinuteRecord] = {}
        # Not a plain dict, which finds its first key more slowly the more keys were removed before.
        self._locations: OrderedDict[ScheduledTask[Any], Location] = OrderedDict()
        # The task whose run has failed last, and the identity of the failure, which must not be kept alive.
        self._failed_run: tuple[ScheduledTask[Any], int] | None = None

    @property
    def runs(self) -> list[RunRecord]:
        """The last runs that have ended, in the order of their ends."""
        return list(self._runs)

    @property
    def failures(self) -> list[RunRecord]:
        """The last failures, in the order in which they occurred.

        These are the runs that raised an exception, and the tasks that failed without a run, because the event loop
        refused to start them or because finding their next due time failed.
        """
        return list(self._failures)

    @property
    def running(self) -> list[RunRecord]:
        """The runs that have started but not ended, in the order of their starts."""
        return [self._record(task, run) for task, run in self._running.items()]

    @property
    def minutes(self) -> list[MinuteRecord]:
        """The minutes in which runs started or ended, in order."""
        return sorted(self._minutes.values(), key=lambda minute: minute.start)

    def runs_of(self, scheduler: str, task_id: Hashable) -> list[RunRecord]:
        """Return the recorded runs of an ID, including the current one, in the order of their starts.

        Args:
            scheduler: The name of the scheduler.
            task_id: The ID.
        """
        found = {
            id(run): run
            for runs in (self._failures, self._runs)
            for run in runs
            if run.task_id == task_id and run.scheduler == scheduler
        }
        running = [run for run in self.running if run.task_id == task_id and run.scheduler == scheduler]
        return sorted([*found.values(), *running], key=lambda run: run.started)

    def location(self, task: ScheduledTask[Any]) -> Location | None:
        """Return where a task that has not ended was scheduled, or `None` if unknown.

        It is known for the last 100,000 tasks that were scheduled since the history was added to the scheduler.
        """
        return self._locations.get(task)

    # Called by the scheduler

    def task_scheduled(self, task: ScheduledTask[Any], /) -> None:
        """Record where the task was scheduled."""
        frame = sys._getframe(1)
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
            frame = frame.f_back
        self._locations[task] = _location(frame.f_code, frame.f_lineno)
        if len(self._locations) > MAX_LOCATIONS:
            self._locations.popitem(last=False)

    def run_started(self, task: ScheduledTask[Any], run: StartedRun, /) -> None:
        """Count the start."""
        self._running[task] = run
        minute = self._minute(run.started)
        minute.started += 1
        minute.total_lateness += run.lateness
        minute.max_lateness = max(minute.max_lateness, run.lateness)

    def run_finished(self, task: ScheduledTask[Any], run: FinishedRun, /) -> None:
        """Record the run."""
        self._running.pop(task, None)
        self._failed_run = None if run.failure is None else (task, id(run.failure))
        record = self._record(task, run)
        assert record.ended is not None
        self._runs.append(record)
        if run.failure is not None:
            self._failures.append(record)
        minute = self._minute(record.ended)
        if run.status is _Status.FINISHED:
            minute.finished += 1
        elif run.status is _Status.FAILED:
            minute.failed += 1
        else:
            minute.cancelled += 1
        minute.total_seconds += run.seconds
        minute.max_seconds = max(minute.max_seconds, run.seconds)

    def task_finished(self, task: ScheduledTask[Any], /) -> None:
        """Record a task that failed without a run, and discard its location."""
        recorded: int | None = None
        if self._failed_run is not None and self._failed_run[0] is task:
            recorded = self._failed_run[1]
            self._failed_run = None
        if task.status is _Status.FAILED and task.exception is not None and id(task.exception) != recorded:
            now = task.due or datetime.now(UTC)
            failed = FinishedRun(now, now, 0.0, _Status.FAILED, task.exception, 0.0)
            self._failures.append(self._record(task, failed, number=0))
            self._minute(now).failed += 1
        self._locations.pop(task, None)

    def _record(self, task: ScheduledTask[Any], run: StartedRun, number: int | None = None) -> RunRecord:
        ended: datetime | None = None
        seconds: float | None = None
        status: RunStatus = "running"
        failure: str | None = None
        trace: str | None = None
        if isinstance(run, FinishedRun):
            seconds = run.seconds
            ended = run.started + timedelta(seconds=seconds)
            status = cast("RunStatus", run.status.value)
            if run.failure is not None:
                failure, trace = _describe(run.failure)
        return RunRecord(
            task.scheduler_name,
            task.task_id,
            task.run_count if number is None else number,
            run.due,
            run.started,
            ended,
            run.lateness,
            seconds,
            status,
            failure,
            trace,
            self._locations.get(task),
        )

    def _minute(self, moment: datetime) -> MinuteRecord:
        """Return the record of a minute. If there are too many records, remove the oldest."""
        start = moment.replace(second=0, microsecond=0)
        minute = self._minutes.get(start)
        if minute is None:
            minute = self._minutes[start] = MinuteRecord(start)
            if len(self._minutes) > self._max_minutes:
                del self._minutes[next(iter(self._minutes))]
        return minute


@lru_cache(maxsize=1_000)
def _location(code: CodeType, line: int) -> Location:
    return Location(code.co_filename, line, code.co_qualname)


def _describe(failure: BaseException) -> tuple[str, str]:
    """Return the message of an exception, and the exception with its traceback, both of limited length."""
    try:
        message = "".join(traceback.format_exception_only(failure)).strip()
        trace = "".join(traceback.format_exception(failure, limit=-MAX_TRACEBACK_ENTRIES))
    except Exception:  # an exception may do anything when it is printed
        message = trace = f"{type(failure).__qualname__} (which cannot be printed)"
    return _shorten(message, MAX_FAILURE_LENGTH), _shorten(trace, MAX_TRACEBACK_LENGTH)


def _shorten(text: str, length: int) -> str:
    """Cut out the middle of a text that is too long."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}\n...\n{text[-half:]}"
