"""The due times of a cron expression, in any time zone. Requires the extra ``anysched[cron]``.

`cronsim <https://github.com/cuu508/cronsim>`_ parses the expression and finds the matching wall-clock times. This
module decides when they occur on days with a DST change, by the rules of Debian's cron, because cronsim assumes that
clocks change by whole hours, on the hour.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final, final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

try:
    from cronsim import CronSim, CronSimError
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError("anysched.cron needs cronsim: pip install 'anysched[cron]'", name="cronsim") from _error

__all__ = ["Cron"]

NAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

MAX_CHANGE: Final = timedelta(hours=3)
"""By the rules of cron, a larger change is not a DST change: the clock was set, and no time is run twice or late."""

SHOWN_CHARACTERS: Final = 80


@final
@dataclass(frozen=True, slots=True, init=False, repr=False)
class Cron:
    """The times at which a cron expression is due, as a function of the current time.

    Instances are values: hashable, picklable, and equal if they have the same expression and zone.

    DST changes of up to three hours are handled by the rules of Debian's cron. If neither the minute nor the
    hour of the expression begins with ``*``, each of its times is due once: a time that is skipped is due when the
    clock is changed, and a time that occurs twice is due at the first occurrence. Other expressions are due whenever
    the clock shows one of their times.

    Args:
        expression: Five fields (minute, hour, day of the month, month, day of the week), as cronsim reads them, or one
            of ``@hourly``, ``@daily``, ``@midnight``, ``@weekly``, ``@monthly``, ``@yearly`` and ``@annually``.
        timezone: The zone of the clock: a name of the IANA database such as ``"Europe/Paris"``, a
            ``zoneinfo.ZoneInfo``, or a ``datetime.timezone``.

    Attributes:
        expression: The expression, with single spaces between its fields.
        timezone: The zone; `str` returns its name.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if cronsim cannot parse the expression, or if the zone is unknown.
    """

    expression: str
    timezone: tzinfo

    def __init__(self, expression: str, timezone: str | tzinfo = "UTC") -> None:
        object.__setattr__(self, "expression", _checked_expression(expression))
        object.__setattr__(self, "timezone", _zone(timezone))

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {str(self.timezone)!r})"

    def __call__(self, now: datetime) -> Iterator[datetime]:
        """Return an iterator of the due times after ``now``: aware, in the zone, strictly increasing.

        The iterator ends if there is no further time within 50 years, or at the year 10000.

        Args:
            now: An aware time.

        Raises:
            TypeError: if ``now`` is not a `datetime`.
            ValueError: if ``now`` is naive.
        """
        if not isinstance(now, datetime):
            raise TypeError(f"now must be a datetime, not {type(now).__name__}: {now!r}")
        if now.utcoffset() is None:
            raise ValueError(f"now must be aware, such as datetime.now(UTC), not naive: {now!r}")
        return self._times(now)

    def _times(self, now: datetime) -> Iterator[datetime]:
        latest = now
        try:
            for time in self._instants(now):
                if time > latest:
                    latest = time
                    yield time.astimezone(self.timezone)
        except (OverflowError, ValueError):  # beyond the years of datetime
            return

    def _instants(self, now: datetime) -> Iterator[datetime]:
        """Yield all due times after ``now`` in UTC, in order; a few may repeat, or be earlier than ``now``."""
        # Second occurrences of repeated times: all first occurrences come before them.
        second: deque[datetime] = deque()
        for wall in CronSim(_fields(self.expression), self._wall_before(now)):
            first, *others = self._occurrences(wall) or (None,)
            while second and first is not None and second[0] < first:
                yield second.popleft()
            if first is not None:
                yield first
            second += others
        yield from second

    def _wall_before(self, now: datetime) -> datetime:
        """Return a naive wall time such that all due times after ``now`` result from later wall times."""
        local = now.astimezone(self.timezone)
        before, after = _offsets(local.replace(tzinfo=None), self.timezone)
        wall = local.replace(tzinfo=None, fold=0)
        # At the first occurrence of a repeated time, second occurrences of earlier ones are still to come.
        return wall - max(before - after, timedelta(0))

    def _occurrences(self, wall: datetime) -> tuple[datetime, ...]:
        """Return the instants at which a wall time is due, in UTC: none, one or two."""
        before, after = _offsets(wall, self.timezone)
        instant = wall.replace(tzinfo=UTC)
        minute, hour = _fields(self.expression).split()[:2]
        follows_clock = minute.startswith("*") or hour.startswith("*")
        if before < after:  # skipped
            late = not follows_clock and after - before < MAX_CHANGE
            return (_change(instant - after, instant - before, self.timezone),) if late else ()
        if before > after and (follows_clock or before - after > MAX_CHANGE):
            return instant - before, instant - after
        return (instant - before,)


def _fields(expression: str) -> str:
    return NAMES.get(expression, expression)


def _offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """Return the offsets of a naive wall time for the clock before and after a change; equal if there is none."""
    before = wall.replace(tzinfo=zone, fold=0).utcoffset()
    after = wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert before is not None
    assert after is not None
    return before, after


def _change(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """Return the instant, to the second, after `low` and up to `high` at which the clock of a zone is changed."""
    offset = low.astimezone(zone).utcoffset()
    seconds = int((high - low).total_seconds())
    changed_after = 0  # the change is in (changed_after, seconds]
    while seconds - changed_after > 1:
        middle = (changed_after + seconds) // 2
        if (low + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            changed_after = middle
        else:
            seconds = middle
    return low + timedelta(seconds=seconds)


def _checked_expression(expression: str) -> str:
    if not isinstance(expression, str):
        raise TypeError(f"expression must be a string, not {type(expression).__name__}: {expression!r}")
    expression = " ".join(expression.split())
    shown = repr(expression[:SHOWN_CHARACTERS])
    if expression.startswith("@"):
        if expression not in NAMES:
            raise ValueError(f"unknown name {shown}: the names are {', '.join(NAMES)}")
        return expression
    count = len(expression.split())
    if count != 5:  # cronsim also supports a field for seconds, for which cron has no rules
        raise ValueError(f"expected five fields or a name such as @daily, not {count} fields: {shown}")
    try:
        CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001  # a wall time
    except CronSimError as error:
        reason = str(error)
        raise ValueError(f"{reason[:1].lower()}{reason[1:]} in {shown}{_advice(expression)}") from None
    except ValueError:  # a number with thousands of digits
        raise ValueError(f"a number is too long in {shown}") from None
    return expression


def _advice(expression: str) -> str:
    """Return a correction for a range of days that ends with Sunday as if it were the last day."""
    found = re.search(rf"\b({'|'.join(DAYS[1:])}|[1-6])-(sun|0)\b", expression.split()[4].lower())
    if not found:
        return ""
    first = found[1] if found[1].isdigit() else DAYS.index(found[1])
    return f": a range must not end before it begins, write {first}-7 instead of {found[0]}"


def _zone(zone: str | tzinfo) -> tzinfo:
    if isinstance(zone, ZoneInfo) and zone.key:
        zone = zone.key
    if isinstance(zone, str):
        if zone in ("UTC", "Etc/UTC"):
            return UTC
        try:
            return ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory, or a name too long
            raise ValueError(
                f"unknown time zone {zone!r} (if the name is correct, install the package tzdata)"
            ) from None
    if isinstance(zone, (ZoneInfo, timezone)):
        return zone
    # Zones of other libraries need not follow PEP 495: those of pytz would silently give wrong times.
    raise TypeError(
        f"timezone must be a name such as 'Europe/Paris', a ZoneInfo or a datetime.timezone, "
        f"not {type(zone).__name__}: {zone!r}"
    )
