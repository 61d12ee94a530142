"""Reading time: the event loop's monotonic clock, the wall clock, and when to read them again.

A monotonic due time is a float in seconds on the loop's clock; a wall due time is an integer in nanoseconds of UTC
since 1970, so that comparing two of them never rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

from anysched.abc import Clock

from .backends import Backend

__all__ = [
    "MAX_DELAY",
    "RECHECK_INTERVAL",
    "TOLERANCE",
    "TOLERANCE_NS",
    "SystemClock",
    "bind_clock",
    "bound_clock",
    "clock_of",
    "datetime_from_ns",
    "due_after",
    "due_at",
    "ns_from_datetime",
    "seconds_from_delay",
    "wake_time",
]

RECHECK_INTERVAL = 30.0
"""The longest time between two readings of the wall clock while a task waits for it, in seconds."""

TOLERANCE = 1e-6
TOLERANCE_NS = 1_000
"""A task is due less than this before its due time, so that rounding of floats does not make the dispatcher spin."""

MAX_DELAY = 1e12
"""The limit of delays, in seconds: more than a `datetime` can express."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_NS = 253_402_300_799_999_999_000
"""The latest time that a `datetime` can express."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The monotonic clock of the event loop and the wall clock of the machine."""

    # Fields, not methods: both clocks are read in every scheduling call.
    monotonic: Callable[[], float]
    time_ns: Callable[[], int] = time.time_ns
    recheck_interval: float = RECHECK_INTERVAL

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: programs are not told when the machine's clock is set. The re-check finds out."""
        return lambda: None


_bound: WeakKeyDictionary[object, Clock] = WeakKeyDictionary()


def bind_clock(time_source: object, clock: Clock) -> None:
    """Bind a clock to an event loop: every scheduler that is entered on it from now on reads ``clock``.

    Args:
        time_source: The asyncio event loop, or trio's clock (see `Backend.time_source`).
        clock: The clock to read.
    """
    _bound[time_source] = clock


def bound_clock(time_source: object) -> Clock | None:
    """Return the clock that was bound to an asyncio event loop or to trio's clock, if any."""
    return _bound.get(time_source)


def clock_of(backend: Backend) -> Clock:
    """Return the clock of the running event loop: the one bound to it, or the system's."""
    bound = bound_clock(backend.time_source)
    return SystemClock(backend.monotonic) if bound is None else bound


def wake_time(clock: Clock, now: float, now_ns: int, due: float | None, due_ns: int | None) -> float:
    """Return the monotonic time at which to read the clocks again.

    That is the earlier of the next monotonic and the next wall due time, but no later than the re-check interval from
    now while a task waits for the wall clock: programs are not told when it is set or when the machine was suspended.

    Args:
        clock: The clock that was read.
        now: Its monotonic time.
        now_ns: Its wall time.
        due: The next monotonic due time, if any.
        due_ns: The next wall due time, if any.
    """
    wake = math.inf if due is None else due
    if due_ns is not None:
        wake = min(wake, now + min((due_ns - now_ns) / 1e9, clock.recheck_interval))
    return wake


def due_after(clock: Clock, delay: float | timedelta) -> float:
    """Return the monotonic due time of a delay; zero or less means now.

    Raises:
        TypeError, ValueError: as `seconds_from_delay`.
    """
    seconds = seconds_from_delay(delay)
    return clock.monotonic() + (seconds if seconds > 0 else 0.0)


def due_at(clock: Clock, time: datetime) -> float:
    """Return the due time of a time of the wall clock: a wall due time, or the monotonic now if it is past.

    Raises:
        TypeError: as `ns_from_datetime`.
    """
    due_ns = ns_from_datetime(time)
    return due_ns if due_ns > clock.time_ns() else clock.monotonic()


def seconds_from_delay(delay: float | timedelta, name: str = "delay") -> float:
    """Return a delay in seconds.

    Args:
        delay: In seconds, or a `timedelta`.
        name: What the errors call it.

    Raises:
        TypeError: if it is neither a number nor a `timedelta`.
        ValueError: if it is NaN or infinite.
    """
    if isinstance(delay, (int, float)) and -MAX_DELAY < delay < MAX_DELAY:
        return delay  # the usual case first: this is on the path of every scheduling call
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    # Any real number is accepted (NumPy's, Decimal, Fraction), but not a string, which float() would accept.
    if not hasattr(delay, "__float__") and not hasattr(delay, "__index__"):
        raise TypeError(f"{name} must be a number of seconds or a timedelta, not {type(delay).__name__}: {delay!r}")
    try:
        seconds = float(delay)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError(f"{name} must be a finite number of seconds, not {delay!r}")
    return seconds


def ns_from_datetime(moment: datetime) -> int:
    """Return a time as nanoseconds of UTC since 1970; a naive time is taken as UTC.

    Raises:
        TypeError: if it is not a `datetime`.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"time must be a datetime, not {type(moment).__name__}: {moment!r}")
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=UTC)
    # Between two different zones datetime subtracts UTC instants; within one zone it ignores DST. EPOCH is in UTC,
    # which has no DST.
    since = moment - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def datetime_from_ns(ns: int) -> datetime:
    """Return nanoseconds of UTC since 1970 as an aware `datetime`, or the latest possible one if that is earlier."""
    return EPOCH + timedelta(microseconds=min(ns, MAX_NS) // 1_000)
