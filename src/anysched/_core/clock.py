"""The clocks: the event loop's monotonic clock, the wall clock, and when to read them again.

A monotonic due time is a float in seconds on the loop's clock; a wall due time is an integer in nanoseconds of UTC
since 1970, so that comparing two of them never rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from anysched._moments import EPOCH, Moment, duration_from, moment_from
from anysched.abc import Clock

from .backends import Backend
from .texts import format_value

__all__ = [
    "CLOCK_STEP_NS",
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
    "exact_clock",
    "ns_from_datetime",
    "seconds_from_delay",
    "wake_time",
]

RECHECK_INTERVAL = 30.0
"""The longest time between two readings of the wall clock while a task waits for it, in seconds."""

TOLERANCE = 1e-6
TOLERANCE_NS = 1_000
"""A task may start this much before its due time, so that rounding of floats does not make the dispatcher spin."""

MAX_DELAY = 1e12
"""The limit of delays, in seconds: more than a `datetime` can express."""

CLOCK_RESOLUTION = 1e-3
"""Clocks that differ by less than this, in seconds, are considered equal: some have a resolution of milliseconds."""

CLOCK_STEP_NS = 1_000_000_000
"""If the wall clock deviates from the monotonic clock by more than this, in nanoseconds, it was set."""

MAX_NS = 253_402_300_799_999_999_000
"""The latest time that a `datetime` can express."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The monotonic clock of the event loop and the wall clock of the machine."""

    # Fields, not methods: both clocks are read in every scheduling call.
    monotonic: Callable[[], float]
    # Looked up when a scheduler is entered, since test tools patch it.
    time_ns: Callable[[], int] = field(default_factory=lambda: time.time_ns)
    recheck_interval: float = RECHECK_INTERVAL
    exact: Callable[[], float] | None = None
    """The monotonic clock at a finer resolution, where that of the event loop is coarse."""

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: programs are not told when the machine's clock is set. The re-check detects it."""
        return lambda: None


class LoopClock:
    """A wall clock that follows the monotonic clock of an event loop whose time has been replaced.

    Test tools replace it: trio's `MockClock`, and others for asyncio. Wall time starts with the machine's when a
    scheduler is first entered on the loop, and moves with the loop's time from then on.

    A clock that shows the machine's time at the start may in fact be the machine's clock, as in event loops of GUI
    toolkits. Then the wall clock is the machine's, until the loop's time deviates from the machine's.

    Args:
        monotonic: The monotonic clock of the event loop.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._wall_ns = time.time_ns
        self._start = monotonic()
        # Whole microseconds, as in `datetime`, so that rounding does not turn noon into 11:59:59.999999.
        self._start_ns = self._wall_ns() // 1_000 * 1_000
        self._is_machine_time = _shows_machine_time(monotonic)
        # Otherwise the wall clock cannot be stepped.
        self.recheck_interval = RECHECK_INTERVAL if self._is_machine_time else math.inf

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds of UTC since 1970."""
        if self._is_machine_time and _shows_machine_time(self.monotonic):
            return self._wall_ns()
        return self._start_ns + round((self.monotonic() - self._start) * 1e6) * 1_000

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Do nothing: steps are not announced."""
        return lambda: None


def _shows_machine_time(clock: Callable[[], float], machine: Callable[[], float] = time.monotonic) -> bool:
    # The default is bound at import, so that patches of `time.monotonic` do not affect it. The process may be
    # interrupted between two calls, so the clock is compared with a reading before and one after.
    before = machine()
    now = clock()
    return before - CLOCK_RESOLUTION <= now <= machine() + CLOCK_RESOLUTION


_bound: WeakKeyDictionary[object, Clock] = WeakKeyDictionary()
_loop_clocks: WeakKeyDictionary[object, LoopClock] = WeakKeyDictionary()


def bind_clock(time_source: object, clock: Clock) -> None:
    """Bind a clock to an event loop: every scheduler that is entered on it from now on reads ``clock``.

    Args:
        time_source: The asyncio event loop, or trio's clock (see `Backend.time_source`).
        clock: The clock to read.
    """
    _bound[time_source] = clock


def bound_clock(time_source: object) -> Clock | None:
    """Return the clock that was bound to an asyncio event loop or to trio's clock, if any."""
    try:
        return _bound.get(time_source)
    except TypeError:  # it is not hashable or cannot be weakly referenced, like some clocks of test tools
        return None


def clock_of(backend: Backend) -> Clock:
    """Return the clock of the running event loop: the one bound to it, the system's, or one that follows the loop's time."""
    bound = bound_clock(backend.time_source)
    if bound is not None:
        return bound
    if not backend.is_replaced:
        clock = SystemClock(backend.monotonic)
        return clock if backend.exact is None else replace(clock, exact=backend.exact)
    try:
        follower = _loop_clocks.get(backend.time_source)
    except TypeError:
        return LoopClock(backend.monotonic)
    # All schedulers on an event loop show the same time, unless its clock was replaced again.
    if follower is None or follower.monotonic != backend.monotonic:
        follower = _loop_clocks[backend.time_source] = LoopClock(backend.monotonic)
    return follower


def exact_clock(clock: Clock) -> Callable[[], float]:
    """Return the monotonic clock from which delays count.

    uvloop's clock is coarse: a delay that is counted from its time would elapse up to a millisecond early. So
    delays are counted from the exact time and elapse by the loop's clock, which is never ahead.
    """
    exact: Callable[[], float] | None = getattr(clock, "exact", None)
    return clock.monotonic if exact is None else exact


def wake_time(clock: Clock, now: float, now_ns: int, due: float | None, due_ns: int | None) -> float:
    """Return the monotonic time at which to read the clocks again.

    This is the earlier of the next monotonic and the next wall due time. While a task waits for the wall clock, it is
    at most the re-check interval from now, since programs are not told when it is set or when the machine was
    suspended.

    Args:
        clock: The clock that was read.
        now: Its monotonic time.
        now_ns: Its wall time.
        due: The next monotonic due time, if any.
        due_ns: The next wall due time, if any.
    """
    wake = math.inf if due is None else due
    if due_ns is not None:
        wall_wake = now + min((due_ns - now_ns) / 1e9, clock.recheck_interval)
        if wall_wake <= now and due_ns - now_ns >= TOLERANCE_NS:
            # Past 2**33 s, 272 years, neighbouring floats are more than a microsecond apart. The dispatcher must not
            # wake before time has moved.
            wall_wake = math.nextafter(now, math.inf)
        wake = min(wake, wall_wake)
    return wake


def due_after(clock: Clock, delay: float | timedelta) -> float:
    """Return the monotonic due time of a delay; zero or less means now.

    Raises:
        TypeError, ValueError: as `seconds_from_delay`.
    """
    if isinstance(delay, (int, float)) and -MAX_DELAY < delay < MAX_DELAY:
        seconds: float = delay  # the usual case without a call: this is on the path of every scheduling call
    else:
        seconds = seconds_from_delay(delay)
    if seconds > 0:
        exact: Callable[[], float] | None = getattr(clock, "exact", None)  # as in `exact_clock`
        return (clock.monotonic() if exact is None else exact()) + seconds
    return clock.monotonic()


def due_at(clock: Clock, time: datetime | Moment) -> float:
    """Return the due time of a wall-clock time: a wall due time, or the current monotonic time if it is in the past.

    Raises:
        TypeError: as `ns_from_datetime`.
    """
    due_ns = ns_from_datetime(time)
    return due_ns if due_ns > clock.time_ns() else clock.monotonic()


def seconds_from_delay(delay: float | timedelta, name: str = "delay") -> float:
    """Return a delay in seconds.

    Args:
        delay: In seconds, or a `timedelta`.
        name: The name of the argument, for error messages.

    Raises:
        TypeError: if it is neither a number nor a `timedelta`.
        ValueError: if it is NaN or infinite.
    """
    if isinstance(delay, (int, float)) and -MAX_DELAY < delay < MAX_DELAY:
        return delay
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    duration = duration_from(delay)
    if duration is not None:
        return duration.total_seconds()
    # Any real number is accepted (NumPy's, Decimal, Fraction), but not a string, which float() would accept.
    if not hasattr(delay, "__float__") and not hasattr(delay, "__index__"):
        raise TypeError(
            f"{name} must be a number of seconds or a timedelta, not {type(delay).__name__}: {format_value(delay)}"
        )
    try:
        seconds = float(delay)
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError):  # NumPy's NaT, a signaling NaN of `decimal`
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{name} must be a finite number of seconds, not {format_value(delay)}")
    return seconds


def ns_from_datetime(moment: Any) -> int:
    """Return a time as nanoseconds of UTC since 1970; a naive time is interpreted as UTC.

    Args:
        moment: A `datetime`, or a moment of another library; see `moment_from`.

    Raises:
        TypeError: if it is neither.
    """
    time: datetime | None = moment if isinstance(moment, datetime) else moment_from(moment)
    # pandas' NaT is a datetime, and not equal to itself.
    if time is None or time != time:
        raise TypeError(f"time must be a datetime, not {type(moment).__name__}: {format_value(moment)}")
    if time.utcoffset() is None:
        time = time.replace(tzinfo=UTC)
    # Between two different zones datetime subtracts UTC instants; within one zone it ignores DST. EPOCH is in UTC,
    # which has no DST.
    since = time - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def datetime_from_ns(ns: int) -> datetime:
    """Return nanoseconds of UTC since 1970 as an aware `datetime`, or the latest possible one if that is earlier."""
    return EPOCH + timedelta(microseconds=min(ns, MAX_NS) // 1_000)
