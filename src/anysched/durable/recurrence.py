"""Recurrences as values that can be stored, and the pure function that computes the next time.

All times are in microseconds since 1970 (UTC).
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from anysched import MeasuredFrom, MissedPolicy

from .values import MAX_DUE, microseconds_from_datetime, moment

__all__ = ["Calendar", "Interval", "Recurrence", "Run", "Times", "find_next", "skip_after"]

SKIP_AFTER = 60_000_000
"""How late a run may start with ``missed="skip"``, as in the core."""

MINUTE = 60_000_000


@runtime_checkable
class Calendar(Protocol):
    """Times that follow a rule that can be stored: `anysched.cron.Cron`."""

    @property
    def expression(self) -> str:
        """The rule."""
        ...

    @property
    def timezone(self) -> tzinfo:
        """The time zone of the rule; `str` returns its name."""
        ...

    def __call__(self, now: datetime, /) -> Iterator[datetime]:
        """Return an iterator over the times that are later than ``now``."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Times at a fixed interval.

    Attributes:
        period: The interval.
        measured_from: Whether the period is the time between due times, or the time from the end of a run to the next
            one.
    """

    period: int
    measured_from: MeasuredFrom = "start"

    def first_after(self, time: int, covered: int) -> int:
        """Return the first of the times on the grid through ``time``, from it on, that is later than ``covered``."""
        return time if covered < time else time + ((covered - time) // self.period + 1) * self.period

    def latest(self, first: int, now: int) -> int:
        """Return the latest time until now, from one that is past."""
        return first + (now - first) // self.period * self.period


@dataclass(frozen=True, slots=True)
class Times:
    """A list of times, in increasing order."""

    times: tuple[int, ...]

    def first_after(self, time: int, covered: int) -> int | None:
        """Return the first of the times, from ``time`` on, that is later than ``covered``."""
        index = bisect_left(self.times, max(time, covered + 1))
        return self.times[index] if index < len(self.times) else None

    def latest(self, first: int, now: int) -> int:
        """Return the latest time until now, from one that is past."""
        return max(first, self.times[bisect_right(self.times, now) - 1])


@dataclass(frozen=True, slots=True)
class CalendarTimes:
    """The times of a calendar."""

    calendar: Calendar

    def first_after(self, time: int, covered: int) -> int | None:
        """Return the first of the times, from ``time`` on, that is later than ``covered``."""
        return next(self._after(max(time - 1, covered)), None)

    def latest(self, first: int, now: int) -> int:
        """Return the latest time until now, from one that is past."""
        # Search the last minute first, then further back: there may be a year of missed minutes.
        distance = MINUTE
        while now - distance > first:
            found = list(self._until(now - distance, now))
            if found:
                return found[-1]
            distance *= 4
        return [first, *self._until(first, now)][-1]

    def _after(self, time: int) -> Iterator[int]:
        return map(microseconds_from_datetime, self.calendar(moment(max(time, 0))))

    def _until(self, time: int, end: int) -> Iterator[int]:
        for found in self._after(time):
            if found > end:
                return
            yield found


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When a recurring task runs.

    Attributes:
        rule: The times.
        missed: What to do about missed times.
        jitter: The maximum delay of each run.
    """

    rule: Interval | Times | CalendarTimes
    missed: MissedPolicy = "latest"
    jitter: int = 0

    def encode(self) -> str:
        """Return the stored text."""
        rule = self.rule
        data: dict[str, Any]
        if isinstance(rule, Interval):
            data = {"every": rule.period, "from": rule.measured_from}
        elif isinstance(rule, Times):
            data = {"times": rule.times}
        else:
            data = {"cron": rule.calendar.expression, "zone": str(rule.calendar.timezone)}
        return json.dumps({**data, "missed": self.missed, "jitter": self.jitter}, separators=(",", ":"))

    @staticmethod
    @lru_cache(maxsize=1_000)
    def decode(text: str) -> Recurrence:
        """Return the recurrence from its stored text."""
        data = json.loads(text)
        rule: Interval | Times | CalendarTimes
        if "every" in data:
            rule = Interval(data["every"], data["from"])
        elif "times" in data:
            rule = Times(tuple(data["times"]))
        else:
            from anysched.cron import Cron  # needs an optional dependency

            rule = CalendarTimes(Cron(data["cron"], data["zone"]))
        return Recurrence(rule, data["missed"], data["jitter"])


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a recurrence.

    Attributes:
        time: The time of the recurrence that the run is for.
        due: When it was due: later than ``time`` by the jitter, or at any time if it was rescheduled.
        started: When it started.
        ran: Whether it ran; false if it was skipped because it would have started too late.
    """

    time: int
    due: int
    started: int
    ran: bool = True


@dataclass(frozen=True, slots=True)
class Next:
    """The next time of a recurrence.

    Attributes:
        time: The time; `None` if there is none.
        skipped: Whether earlier times were skipped.
    """

    time: int | None
    skipped: bool = False


def find_next(recurrence: Recurrence, run: Run, now: int, expires: int | None = None) -> Next:
    """Return the time of the next run; if it is in the past, the run is due at once.

    No time gets two runs, and a run that was moved to an earlier time does not count for times after its start. Times
    that are too late already are skipped here, since there may be a year of them.

    Args:
        recurrence: The recurrence.
        run: The last run.
        now: When the last run ended.
        expires: How late a run may start; `None` for no limit.
    """
    rule = recurrence.rule
    if isinstance(rule, Interval) and rule.measured_from == "end":
        return _checked(now + rule.period)
    latest = recurrence.missed == "latest"
    # A run that was skipped covers nothing: a later time may not be too late yet.
    covered = max(run.due, run.started) if latest and run.ran else min(run.due, run.time)
    time = rule.first_after(run.time, covered)
    if time is None or time > now:
        return _checked(time)
    if latest:
        time = rule.latest(time, now)
    late = time
    if recurrence.missed == "skip":
        late = now - skip_after(recurrence)
    if expires is not None:
        late = max(late, now - expires - recurrence.jitter)
    if time < late:
        return _checked(rule.first_after(time, late - 1), skipped=True)
    return _checked(time)


def skip_after(recurrence: Recurrence) -> int:
    """Return how late a run may start with ``missed="skip"``."""
    return min(SKIP_AFTER, recurrence.rule.period) if isinstance(recurrence.rule, Interval) else SKIP_AFTER


def _checked(time: int | None, *, skipped: bool = False) -> Next:
    return Next(None if time is None or time > MAX_DUE else time, skipped)
