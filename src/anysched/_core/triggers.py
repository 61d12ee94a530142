"""The due times of a recurring task: a grid of elapsed time, or what an iterator lists. No calendar arithmetic here."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, Protocol, cast, get_args

from .clock import TOLERANCE, TOLERANCE_NS, datetime_from_ns, ns_from_datetime, seconds_from_delay

__all__ = [
    "TIMES_PER_ITERATION",
    "TIMES_PER_RUN",
    "IntervalTrigger",
    "IterableTrigger",
    "MissedPolicy",
    "SearchResult",
    "Trigger",
]

MissedPolicy = Literal["latest", "all", "skip"]
"""What to do about the due times that a recurring task has missed; see `Scheduler.schedule_every`."""

SKIP_AFTER = 60.0
"""With ``missed="skip"``, how late a run may start, in seconds, before it is left out."""

MIN_PERIOD = 1e-6
"""The shortest period, in seconds: the least that a `timedelta` can express."""

TIMES_PER_ITERATION = 100
"""How many times an iterator is asked for in a search before the event loop is yielded to."""

TIMES_PER_RUN = 5
"""How many times it is asked for when a run has ended. One will do, as a rule, and many runs may end in one iteration."""

MAX_STALLS = 100
"""How many times in a row an iterator may fail to advance: each costs a step, and none of them is ever run."""


class SearchResult(Enum):
    """The result of the search for the next due time, if there is none."""

    UNFINISHED = "unfinished"
    """It takes longer: ask again, in another iteration of the event loop."""
    EXHAUSTED = "exhausted"
    """There are no more."""


class Trigger(Protocol):
    """What a recurring task asks of its due times. All moments are the present ones, on both clocks."""

    @property
    def empty(self) -> bool:
        """Whether it has turned out that there is not a single one."""
        ...

    def first_due(self, now: float, now_ns: int, /) -> float:
        """Check the arguments, and return the first due time: a float on the monotonic clock, or an int on the wall clock.

        Raises:
            TypeError, ValueError: as the calls of `Scheduler` say.
        """
        ...

    def begin_run(self, now: float, now_ns: int, /) -> None:
        """Called when a run starts, which serves what is due."""
        ...

    def next_due(self, now: float, now_ns: int, steps: int, /) -> float | SearchResult:
        """Return the next due time after a run; in so many steps, if it has to be searched for."""
        ...

    skip_after: float
    """How late a run may start, in seconds; infinity unless missed times are skipped."""

    skipped: int
    """How many due times have been skipped and not been logged yet."""

    def close(self) -> None:
        """Release what was handed over; there will be no more runs."""
        ...


class _BaseTrigger:
    """What both kinds of due times have in common: what happens to missed times, and the jitter."""

    # Nothing is checked before `first_due`: what was handed over is to be closed, also if something else is refused.
    def __init__(self, missed: MissedPolicy, jitter: float | timedelta) -> None:
        self._missed = missed
        self._jitter = jitter
        self._coalesce = True
        self._skip = False
        self.skip_after = math.inf
        self.skipped = 0
        self._max_jitter = self._offset = 0.0

    def _check(self) -> None:
        if self._missed not in get_args(MissedPolicy):
            raise ValueError(f'missed must be "latest", "all" or "skip", not {self._missed!r}')
        self._skip = self._missed == "skip"
        if self._skip:
            self.skip_after = SKIP_AFTER
        self._coalesce = self._missed == "latest"
        self._max_jitter = float(seconds_from_delay(self._jitter, "jitter"))
        if self._max_jitter < 0:
            raise ValueError(f"jitter must not be negative: {self._jitter!r}")

    def _draw_jitter(self) -> None:
        """Draw the offset of the next run. One that catches up has the offset of the run before."""
        if self._max_jitter:
            # In whole microseconds, which is what a `datetime` can express.
            self._offset = round(random.uniform(0, self._max_jitter), 6)  # noqa: S311

    @property
    def _offset_ns(self) -> int:
        return round(self._offset * 1e6) * 1_000


class IntervalTrigger(_BaseTrigger):
    """Due times at equal distances of elapsed time. Each is a multiple of the period, so that nothing adds up.

    Args:
        period: The distance, in seconds or as a `timedelta`.
        first: When the grid begins; see `Scheduler.schedule_every`.
        missed: What to do about missed times.
        jitter: The most seconds by which to put off each run.
    """

    empty = False

    def __init__(
        self,
        period: float | timedelta,
        first: float | timedelta | datetime | None,
        missed: MissedPolicy,
        jitter: float | timedelta,
    ) -> None:
        super().__init__(missed, jitter)
        self._distance = period
        self._first = first
        self._period = self._origin = 0.0
        self._index = 0
        # If it begins at a time of the wall clock, its place in elapsed time is known when that time has come.
        self._first_ns: int | None = None

    def first_due(self, now: float, now_ns: int) -> float:
        """Return the first due time."""
        self._check()
        self._period = float(seconds_from_delay(self._distance, "period"))
        if self._period < MIN_PERIOD:
            raise ValueError(f"period must be at least 1 microsecond, not {self._distance!r}")
        if self._skip:
            self.skip_after = min(SKIP_AFTER, self._period)
        if self._max_jitter >= self._period:
            raise ValueError(f"jitter must be less than the period, {self._distance!r}, not {self._jitter!r}")
        first = self._period if self._first is None else self._first
        if isinstance(first, datetime):
            self._first_ns = ns_from_datetime(first)
            self._draw_jitter()
            due_ns = self._first_ns + self._offset_ns
            return due_ns if due_ns > now_ns or self._skip else now
        self._origin = now + max(float(seconds_from_delay(first, "first")), 0.0)
        self._draw_jitter()
        return self._origin + self._offset

    def begin_run(self, now: float, now_ns: int) -> None:
        """Called when a run starts: unless each missed time is run, it serves every time that is due."""
        self._fix_origin(now, now_ns)
        if self._coalesce:
            self._index = max(self._index, self._latest_index(now))

    def next_due(self, now: float, now_ns: int, steps: int) -> float:
        """Return the next due time: if one has been missed, now, and else that of the next index."""
        self._fix_origin(now, now_ns)
        if self._skip:
            # The first one that is not too late. It may be past: `_prepare` looks again when it can start.
            index = max(self._index + 1, self._latest_index(now - self.skip_after) + 1)
            self.skipped += index - self._index - 1
            self._index = index
            self._draw_jitter()
            return self._origin + self._index * self._period + self._offset
        latest = self._latest_index(now) if self._coalesce else 0
        if latest > self._index:
            self._index = latest
        else:
            self._index += 1
            self._draw_jitter()
        return max(self._origin + self._index * self._period + self._offset, now)

    def close(self) -> None:
        """Nothing was handed over."""

    def _fix_origin(self, now: float, now_ns: int) -> None:
        """Find the place in elapsed time of a grid that begins at a time of the wall clock."""
        if self._first_ns is not None:
            self._origin = now - (now_ns - self._first_ns) / 1e9
            self._first_ns = None

    def _latest_index(self, now: float) -> int:
        """Return the index of the latest due time, however many there have been since the last one."""
        return math.floor((now - self._offset - self._origin + TOLERANCE) / self._period)


class IterableTrigger(_BaseTrigger):
    """Due times of the wall clock, as an iterator lists them. It is asked for one more only when needed.

    Args:
        times: What lists them.
        missed: What to do about missed times.
        jitter: The most seconds by which to put off each run.

    Attributes:
        empty: Whether there is not a single one.
    """

    def __init__(self, times: Iterable[datetime], missed: MissedPolicy, jitter: float | timedelta) -> None:
        super().__init__(missed, jitter)
        self._times = times
        self._iterator: Iterator[datetime] = iter(())
        self.empty = False
        # In nanoseconds of UTC: the time of the present or next run; up to when all is served; the latest time that was
        # listed, which tells whether the next one advances; one that was listed, and whose turn comes later.
        self._time = self._covered_until = self._latest = 0
        self._peeked: int | None = None
        self._stalls = 0
        self._catching_up = False

    def first_due(self, now: float, now_ns: int) -> float:
        """Return the first due time: now if it is past, or if there is none."""
        self._check()
        times: object = self._times
        if not isinstance(times, Iterable) or isinstance(times, str):
            raise TypeError(
                f"times must be an iterable of datetimes, not {type(times).__name__}: {times!r}; "
                "for a cron expression, pass cronsim.CronSim(expression, now)"
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
        """Called when a run starts: unless each missed time is run, it serves every time that is due."""
        self._covered_until = max(self._time, now_ns - self._offset_ns) if self._coalesce else self._time
        self._catching_up = False

    def next_due(self, now: float, now_ns: int, steps: int) -> float | SearchResult:
        """Return the next due time, unless it takes more steps of the iterator."""
        passed = now_ns - self._offset_ns
        skip_after_ns = self.skip_after * 1e9 - TOLERANCE_NS
        for _ in range(steps):
            time = self._list()
            if time is not None and time <= self._covered_until:
                continue
            if time is not None and self._coalesce and time <= passed:
                # Missed. Of all that were, the latest is run, at once.
                self._time = time
                self._catching_up = True
                continue
            if time is not None and now_ns - time - self._offset_ns > skip_after_ns:
                self.skipped += 1
                continue
            if self._catching_up:
                self._catching_up = False
                self._peeked = time
                return now
            if time is None:
                return SearchResult.EXHAUSTED
            self._time = time
            self._draw_jitter()
            return self._due(now, now_ns)
        return SearchResult.UNFINISHED

    def close(self) -> None:
        """Close the generator, if it is one; while it is executing, it cannot be closed."""
        for times in (self._iterator, self._times):
            if isinstance(times, Generator):
                generator = cast("Generator[datetime, object, object]", times)
                if getattr(generator, "gi_running", False):
                    return
                generator.close()
        self._times = ()
        self._iterator = iter(())

    def _list(self) -> int | None:
        """Return the next time that is listed, or if it does not advance, the one before; `None` at the end.

        Raises:
            ValueError: if the iterator does not advance at all.
        """
        if self._peeked is not None:
            time, self._peeked = self._peeked, None
            return time
        try:
            time = ns_from_datetime(next(self._iterator))
        except StopIteration:
            self._iterator = iter(())  # not to be asked again
            return None
        if time > self._latest:
            self._latest = time
            self._stalls = 0
            return time
        self._stalls += 1
        if self._stalls >= MAX_STALLS:
            latest = datetime_from_ns(self._latest).isoformat()
            raise ValueError(f"times must increase: {self._stalls} consecutive values were not later than {latest}")
        return self._covered_until

    def _due(self, now: float, now_ns: int) -> float:
        due_ns = self._time + self._offset_ns
        return due_ns if due_ns > now_ns or self._skip else now
