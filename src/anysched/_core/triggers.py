"""The due times of a recurring task: periods of elapsed time, or times from an iterator. No calendar arithmetic."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Literal, cast, get_args

from anysched._moments import Moment, moment_from

from .clock import CLOCK_STEP_NS, TOLERANCE, TOLERANCE_NS, datetime_from_ns, ns_from_datetime, seconds_from_delay
from .texts import format_value

__all__ = [
    "TIMES_PER_ITERATION",
    "TIMES_PER_RUN",
    "FunctionTrigger",
    "IntervalTrigger",
    "IterableTrigger",
    "MissedPolicy",
    "SearchResult",
    "Trigger",
]

MeasuredFrom = Literal["start", "end"]
"""What the period of `Scheduler.schedule_every` is measured from."""

MissedPolicy = Literal["latest", "all", "skip"]
"""What to do about the runs that a recurring task has missed; see `Scheduler.schedule_every`."""

SKIP_AFTER = 60.0
"""With ``missed="skip"``, how late a run may start, in seconds, before it is skipped."""

MIN_PERIOD = 1e-6
"""The shortest period, in seconds: the resolution of `timedelta`."""

TIMES_PER_ITERATION = 100
"""How many times are read from an iterator during a search before yielding to the event loop."""

TIMES_PER_RUN = 5
"""How many times are read when a run has ended. Usually one suffices, but many runs may end in one iteration."""

SECOND_NS = 1_000_000_000

FALLBACK_NS = 60 * SECOND_NS
"""How far the wall clock may be behind the times that were already run, in nanoseconds, before this is logged."""

MAX_PERIODS = 100
"""How many periods between two clock steps are remembered, so that no time in them is run twice."""

MAX_STALLS = 100
"""How many consecutive times of an iterator may fail to increase. Each costs a step, and none of them is run."""


class SearchResult(Enum):
    """The result of the search for the next due time, if there is none."""

    UNFINISHED = "unfinished"
    """The search must be continued in another iteration of the event loop."""
    EXHAUSTED = "exhausted"
    """There are no more due times."""


class Trigger(ABC):
    """The due times of a recurring task. The methods take the current times of both clocks.

    Args:
        missed: What to do about missed times.
        jitter: The maximum delay of each run, in seconds.

    Attributes:
        empty: Whether there are no due times at all; known after `first_due`.
        skip_after: How late a run may start, in seconds; infinity unless missed times are skipped.
        skipped: How many due times have been skipped and not been logged yet.
        served: The due time of the current run, on either clock; `None` if the run was brought forward.
        missed: How many other due times the current run covers, as far as they are known.
        warning: A message to log, with ``%s`` for the ID.
        due: The due time of the next run, unless the task is rescheduled; `None` if it is not known.
        follows_clock: Whether `clock_set_back` does anything.
    """

    empty: bool = False
    skip_after: float
    skipped: int
    served: float | None
    missed: int
    warning: str | None
    due: float | None
    follows_clock: bool

    # Arguments are checked in `first_due`, since the iterable must be closed even if another argument is refused.
    def __init__(self, missed: MissedPolicy, jitter: float | timedelta) -> None:
        self._missed = missed
        self._jitter = jitter
        self._coalesce: bool = True
        self._skip: bool = False
        self.skip_after = math.inf
        self.skipped = 0
        self.served = None
        self.missed = 0
        self.warning = None
        self.due = None
        self.follows_clock = False
        self._max_jitter: float = 0.0
        self._offset: float = 0.0

    @abstractmethod
    def first_due(self, now: float, now_ns: int, /) -> float:
        """Check the arguments, and return the first due time: a float on the monotonic clock, or an int on the wall clock.

        Raises:
            TypeError, ValueError: as documented in `Scheduler`.
        """
        ...

    @abstractmethod
    def begin_run(self, now: float, now_ns: int, /) -> None:
        """Called when a run starts."""
        ...

    @abstractmethod
    def skip_run(self, now: float, now_ns: int, /) -> None:
        """Called when a run is skipped because it is too late. One that was brought forward leaves the next one as it is."""
        ...

    @abstractmethod
    def next_due(self, now: float, now_ns: int, steps: int, /) -> float | SearchResult:
        """Return the next due time after a run. A search takes at most ``steps`` steps."""
        ...

    @abstractmethod
    def clock_set_back(self, now: float, now_ns: int, unseen: float, is_pending: bool, /) -> float | str | None:
        """Called when the wall clock was set back.

        Args:
            now: The present on the monotonic clock.
            now_ns: The present on the wall clock.
            unseen: How many seconds ago the clock was read before: it was set since then.
            is_pending: Whether the next run is known and has not been handed to the event loop.

        Returns:
            The new due time of the next run; or a message to log, with ``%s`` for the ID; or `None` if there is
            nothing to do.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Close the iterator, if there is one. There will be no more runs."""
        ...

    def _check(self) -> None:
        if self._missed not in get_args(MissedPolicy):
            raise ValueError(f'missed must be "latest", "all" or "skip", not {format_value(self._missed)}')
        self._skip = self._missed == "skip"
        if self._skip:
            self.skip_after = SKIP_AFTER
        self._coalesce = self._missed == "latest"
        self._max_jitter = float(seconds_from_delay(self._jitter, "jitter"))
        if self._max_jitter < 0:
            raise ValueError(f"jitter must not be negative: {format_value(self._jitter)}")

    def _draw_jitter(self) -> None:
        """Draw the offset of the next run. A run that catches up has the offset of the previous run."""
        if self._max_jitter:
            # In whole microseconds, the resolution of `datetime`.
            self._offset = round(random.uniform(0, self._max_jitter), 6)  # noqa: S311

    @property
    def _offset_ns(self) -> int:
        return round(self._offset * 1e6) * 1_000


class IntervalTrigger(Trigger):
    """Periodic due times, in elapsed time. Each is calculated as a multiple of the period, so that there is no drift.

    Args:
        period: The period, in seconds or as a `timedelta`.
        first: The first due time; see `Scheduler.schedule_every`.
        missed: What to do about missed times.
        jitter: The maximum delay of each run, in seconds.
        measured_from: Whether the period is the time between two due times, or from the end of a run to the next start.
    """

    def __init__(
        self,
        period: float | timedelta,
        first: float | timedelta | datetime | Moment | None,
        missed: MissedPolicy,
        jitter: float | timedelta,
        measured_from: MeasuredFrom = "start",
    ) -> None:
        super().__init__(missed, jitter)
        self._measured_from = measured_from
        self._is_extra: bool = False
        self._distance = period
        self._first = first
        self._period: float = 0.0
        self._origin: float = 0.0
        self._index: int = 0
        # If the first due time is a wall-clock time, its monotonic time is known only when that time has come.
        self._first_ns: int | None = None

    def first_due(self, now: float, now_ns: int) -> float:
        """Return the first due time."""
        self._check()
        if self._measured_from not in get_args(MeasuredFrom):
            raise ValueError(f'measured_from must be "start" or "end", not {format_value(self._measured_from)}')
        self._period = float(seconds_from_delay(self._distance, "period"))
        if self._period < MIN_PERIOD:
            raise ValueError(f"period must be at least 1 microsecond, not {format_value(self._distance)}")
        if self._skip:
            self.skip_after = min(SKIP_AFTER, self._period)
        if self._max_jitter >= self._period:
            raise ValueError(
                f"jitter must be less than the period, {format_value(self._distance)}, not {format_value(self._jitter)}"
            )
        first = self._period if self._first is None else self._first
        if isinstance(first, datetime) or moment_from(first) is not None:
            self._first_ns = ns_from_datetime(first)
            self._draw_jitter()
            due_ns = self._first_ns + self._offset_ns
            return due_ns if due_ns > now_ns or self._skip else now
        self._origin = now + max(float(seconds_from_delay(cast("float | timedelta", first), "first")), 0.0)
        self._draw_jitter()
        return self._origin + self._offset

    def begin_run(self, now: float, now_ns: int) -> None:
        """Called when a run starts: with ``missed="latest"``, it covers every time that is due.

        A run that was brought forward covers none: the regular run is still due.
        """
        if self._measured_from == "end":
            return  # there are no regular due times; the run has the due time that was set
        self._is_extra = self._is_before_next(now, now_ns)
        index = self._index
        self.served = None if self._is_extra else self._origin + index * self._period + self._offset
        if self._coalesce and not self._is_extra:
            self._index = max(self._index, self._latest_index(now))
        self.missed += self._index - index

    def skip_run(self, now: float, now_ns: int) -> None:
        """Called when a run is skipped."""
        self.skipped += 1
        self._is_extra = self._is_before_next(now, now_ns)

    def _is_before_next(self, now: float, now_ns: int) -> bool:
        """Return whether the next due time of the grid is still to come."""
        self._fix_origin(now, now_ns)
        return self._origin + self._index * self._period + self._offset > now + TOLERANCE

    def next_due(self, now: float, now_ns: int, steps: int) -> float:
        """Return the next due time: now, if one has been missed, and otherwise that of the next index."""
        self.missed = 0
        if self._measured_from == "end":
            self._draw_jitter()
            return now + self._period + self._offset
        self._fix_origin(now, now_ns)
        is_extra = self._is_extra
        self._is_extra = False
        following = self._index if is_extra else self._index + 1
        if self._skip:
            # The first one that is not too late. It may be in the past: `_prepare` checks again when it can start.
            index = max(following, self._latest_index(now - self.skip_after) + 1)
            self.skipped += index - following
            self._index = index
            self._draw_jitter()
            return self._origin + self._index * self._period + self._offset
        latest = self._latest_index(now) if self._coalesce else 0
        if latest >= following:
            self.missed = latest - following
            self._index = latest
        elif not is_extra:
            self._index = following
            self._draw_jitter()
        return max(self._origin + self._index * self._period + self._offset, now)

    def clock_set_back(self, now: float, now_ns: int, unseen: float, is_pending: bool) -> float | str | None:
        """Do nothing: the times are elapsed time, except the first, which is a due time of the wall clock itself."""

    def close(self) -> None:
        """Do nothing: there is no iterator."""

    def _fix_origin(self, now: float, now_ns: int) -> None:
        """Calculate the monotonic time of the first due time if that is a wall-clock time."""
        if self._first_ns is not None:
            self._origin = now - (now_ns - self._first_ns) / 1e9
            self._first_ns = None

    def _latest_index(self, now: float) -> int:
        """Return the index of the latest due time."""
        return math.floor((now - self._offset - self._origin + TOLERANCE) / self._period)


class IterableTrigger(Trigger):
    """Wall-clock due times from an iterator, which is advanced only when needed.

    Args:
        times: The due times.
        missed: What to do about missed times.
        jitter: The maximum delay of each run, in seconds.

    Attributes:
        empty: Whether there are no due times at all.
    """

    def __init__(self, times: Iterable[datetime | Moment], missed: MissedPolicy, jitter: float | timedelta) -> None:
        super().__init__(missed, jitter)
        self._times = times
        self._iterator: Iterator[datetime | Moment] = iter(())
        self.empty = False
        # In nanoseconds of UTC: the time of the current or next run; the time up to which all times are covered; the
        # latest time that was yielded, which the next one must exceed; a time that was yielded but is not used yet.
        self._time = self._covered_until = self._latest = 0
        self._peeked: int | None = None
        self._stalls = 0
        self._catching_up: bool = False
        self._is_extra: bool = False
        self._is_unordered = False
        self.follows_clock = True

    def first_due(self, now: float, now_ns: int) -> float:
        """Return the first due time: now if it is past, or if there is none."""
        self._check()
        times: object = self._times
        if not isinstance(times, Iterable) or isinstance(times, str):
            raise TypeError(
                f"times must be an iterable of datetimes, not {type(times).__name__}: {format_value(times)}; "
                "for a cron expression, pass anysched.cron.Cron(expression, timezone)"
            )
        self._iterator = iter(self._times)
        try:
            time = next(self._iterator)
        except StopIteration:
            self.empty = True
            return now
        self._time = self._latest = ns_from_datetime(time)
        self._draw_jitter()
        return self._due(now, now_ns)

    def begin_run(self, now: float, now_ns: int) -> None:
        """Called when a run starts: with ``missed="latest"``, it covers every time that is due.

        A run that was brought forward covers none: the regular run is still due.
        """
        self._catching_up = False
        passed = now_ns - self._offset_ns
        self._is_extra = self._time > passed + TOLERANCE_NS
        self.served = None if self._is_extra else self._time + self._offset_ns
        if self._is_extra:
            self._peeked = self._time
        else:
            self._covered_until = max(self._time, passed) if self._coalesce else self._time

    def skip_run(self, now: float, now_ns: int) -> None:
        """Called when a run is skipped."""
        self.skipped += 1
        self._is_extra = self._time > now_ns - self._offset_ns + TOLERANCE_NS
        if self._is_extra:
            self._peeked = self._time
        else:
            self._covered_until = self._time

    def next_due(self, now: float, now_ns: int, steps: int) -> float | SearchResult:
        """Return the next due time, unless the search takes more steps."""
        if not self._catching_up:
            self.missed = 0
        passed = now_ns - self._offset_ns
        skip_after_ns = self.skip_after * 1e9 - TOLERANCE_NS
        for _ in range(steps):
            time = self._list()
            if time is not None and time <= self._covered_until:
                continue
            if time is not None and self._coalesce and time <= passed:
                # Missed. One run at once catches up for all, with the latest of the missed times.
                self.missed += self._catching_up
                self._time = time
                self._catching_up = True
                continue
            if time is not None and now_ns - time - self._offset_ns > skip_after_ns:
                self.skipped += 1
                self._covered_until = time
                continue
            if self._catching_up:
                self._catching_up = False
                self._peeked = time
                return now
            if time is None:
                return SearchResult.EXHAUSTED
            if not (self._is_extra and time == self._time):
                self._time = time
                self._draw_jitter()
            return self._due(now, now_ns)
        return SearchResult.UNFINISHED

    def close(self) -> None:
        """Close the iterator if it is a generator. A generator cannot be closed while it is executing."""
        self._close_iterator()

    def _close_iterator(self) -> None:
        for times in (self._iterator, self._times):
            if isinstance(times, Generator):
                generator = cast("Generator[datetime | Moment, object, object]", times)
                if getattr(generator, "gi_running", False):
                    return
                generator.close()
        self._times = ()
        self._iterator = iter(())

    def clock_set_back(self, now: float, now_ns: int, unseen: float, is_pending: bool) -> float | str | None:
        """Return a warning if the clock now shows a time whose due times were already yielded."""
        if now_ns < self._covered_until - FALLBACK_NS:
            until = datetime_from_ns(self._covered_until).isoformat()
            return (
                f"The clock was set back: due times of task %s up to {until} were already used and are not run again."
            )
        return None

    def _list(self) -> int | None:
        """Return the next time of the iterator, or `None` at its end. If it does not increase, return a covered time.

        Raises:
            ValueError: if too many consecutive times do not increase.
        """
        if self._peeked is not None:
            time, self._peeked = self._peeked, None
            return time
        try:
            time = ns_from_datetime(next(self._iterator))
        except StopIteration:
            self._iterator = iter(())  # an exhausted iterator must not be used again
            return None
        if time > self._latest:
            self._latest = time
            self._stalls = 0
            return time
        if time < self._latest and not self._is_unordered:
            self._is_unordered = True
            self.warning = (
                "The times of task %s are not in order; times that are not later than the previous ones are skipped."
            )
        self._stalls += 1
        if self._stalls >= MAX_STALLS:
            latest = datetime_from_ns(self._latest).isoformat()
            raise ValueError(f"times must increase: {self._stalls} consecutive values were not later than {latest}")
        return self._covered_until

    def _due(self, now: float, now_ns: int) -> float:
        due_ns = self._time + self._offset_ns
        self.due = due_ns if due_ns > now_ns or self._skip else now
        return self.due


class FunctionTrigger(IterableTrigger):
    """Wall-clock due times from a function of the current time, which is called again when the clock was set.

    So a clock that was wrong for a while has no lasting effect: the times that it jumped over are run
    when they come. Times that came between two clock steps are not run a second time.

    Between two steps, the clock goes through a period, of which everything up to `_covered_until` has been run or left
    out. When the clock is set, this much of the period is remembered, and the function is asked for the times from
    there on, or from where the clock was set back to. Times in a remembered period are left out; the others are due, or
    were missed, as if the clock had never been set.

    Args:
        function: Returns the times after a moment (aware UTC).
        missed: What to do about missed times.
        jitter: The maximum delay of each run, in seconds.
    """

    def __init__(
        self,
        function: Callable[[datetime], Iterable[datetime | Moment]],
        missed: MissedPolicy,
        jitter: float | timedelta,
    ) -> None:
        super().__init__((), missed, jitter)
        self._function = function
        # The periods of the wall clock that are covered, without their beginnings, and the beginning of the current one.
        self._periods: list[tuple[int, int]] = []
        self._since = 0
        # The last reading of both clocks, and whether the clock was set and the function was not asked again yet.
        self._seen = 0.0, 0
        self._must_ask = False
        self._asked_from = 0

    def first_due(self, now: float, now_ns: int) -> float:
        """Return the first due time: now if it is past, or if there is none."""
        self._call_function(now_ns)
        self._seen = now, now_ns
        self._covered_until = now_ns
        self._since = now_ns - 1  # a time at this very moment is not one of the task's
        return super().first_due(now, now_ns)

    def begin_run(self, now: float, now_ns: int) -> None:
        """Called when a run starts."""
        self._read(now, now_ns)
        super().begin_run(now, now_ns)
        if not self._is_extra and self._time <= self._since:  # the clock has jumped over it
            self._remember(self._time - 1, self._time)

    def skip_run(self, now: float, now_ns: int) -> None:
        """Called when a run is skipped."""
        self._read(now, now_ns)
        super().skip_run(now, now_ns)

    def next_due(self, now: float, now_ns: int, steps: int) -> float | SearchResult:
        """Return the next due time, unless the search takes more steps."""
        self._read(now, now_ns)
        if self._must_ask and self._ask_again(now_ns - self._offset_ns):
            return now
        return super().next_due(now, now_ns, steps)

    def clock_set_back(self, now: float, now_ns: int, unseen: float, is_pending: bool) -> float | None:
        """Return the new due time of the next run. If there is none yet, only record that the clock was set."""
        self._read(now, now_ns, unseen)
        if not (self._must_ask and is_pending):
            return None
        due = self.next_due(now, now_ns, TIMES_PER_ITERATION)
        return None if isinstance(due, SearchResult) else due

    def _read(self, now: float, now_ns: int, unseen: float = math.inf) -> None:
        """Find out whether the wall clock was set since it was read last. If so, a period ends, and another begins."""
        (seen, seen_ns), self._seen = self._seen, (now, now_ns)
        elapsed = round((now - seen) * 1e9)
        if abs(now_ns - seen_ns - elapsed) <= CLOCK_STEP_NS:
            return
        self._remember(self._since, self._covered_until)
        went_back = now_ns < seen_ns + elapsed
        # When it was set back is not known. It may have shown all this in the meantime.
        start = now_ns - round(min(now - seen, unseen) * 1e9) if went_back else now_ns
        self._covered_until = min(self._covered_until, start)
        # What lies before is caught up: with "all" each time, with "skip" those that are not too late.
        reach = 0.0 if self._coalesce else self.skip_after * 1e9
        self._since = round(max(self._covered_until, start - reach))
        self._must_ask = True

    def _ask_again(self, passed: int) -> bool:
        """Ask for the times that are not covered; return whether a run is due at once for those that have passed."""
        self._call_function(self._covered_until)
        self._must_ask = self._is_extra = self._catching_up = False
        time = self._list()
        if time is None or not self._covered_until < time <= passed:
            self._peeked = time
        elif self._coalesce:
            # Found without listing all of them: the clock may have jumped over years.
            self._time = self._latest_until(passed, time)
            self.missed = 0
            self._call_function(passed)
            return True
        elif self._skip and time <= passed - round(self.skip_after * 1e9):
            self.skipped += 1
            self._covered_until = passed - round(self.skip_after * 1e9)
            self._call_function(self._covered_until)
        else:
            self._peeked = time
        return False

    def _call_function(self, from_ns: int) -> None:
        """Call the function for the times after a moment."""
        self._close_iterator()
        times: object = self._function(datetime_from_ns(from_ns))
        if not isinstance(times, Iterable) or isinstance(times, str):
            raise TypeError(
                f"times must return an iterable of datetimes, not {type(times).__name__}: {format_value(times)}"
            )
        self._times = times
        self._iterator = iter(self._times)
        self._peeked = None
        self._latest = self._stalls = 0
        self._asked_from = from_ns

    def _remember(self, start: int, end: int) -> None:
        self._periods = [*self._periods[1 - MAX_PERIODS :], (start, end)]

    def _lived_until(self, time: int) -> int | None:
        """Return the end of a covered period in which a time lies, if it lies in one."""
        return max((end for start, end in self._periods if start < time <= end), default=None)

    def _latest_until(self, until: int, known: int) -> int:
        """Return the latest time up to a moment, searching in longer and longer periods before it."""
        for seconds in (60, 3_600, 86_400, 32 * 86_400):
            listed = self._function(datetime_from_ns(max(until - seconds * SECOND_NS, known)))
            times = map(ns_from_datetime, islice(listed, TIMES_PER_ITERATION))
            missed = [time for time in times if known < time <= until and self._lived_until(time) is None]
            if missed:
                return missed[-1]
        return known

    def _list(self) -> int | None:
        """Return the next time of the iterator, or a covered time if it was due in an earlier period."""
        time = super()._list()
        lived_until = None if time is None else self._lived_until(time)
        if lived_until is None:
            return time
        if lived_until > self._asked_from:
            self._call_function(lived_until)  # instead of each time in it
        return self._covered_until
