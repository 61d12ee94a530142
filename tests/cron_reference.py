"""A reference for `anysched.cron`: the main loop of Debian's cron, minute by minute, and its parsing of the five fields."""

from __future__ import annotations

import zoneinfo
from calendar import monthrange
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import resources
from pathlib import Path

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1)
LIMIT = 3 * 60
"""In minutes; ``3*MINUTE_COUNT`` in its source."""

LOWEST = (0, 0, 1, 1, 0)
HIGHEST = (59, 23, 31, 12, 7)

# With and without a star, more and less often than hourly, around the hours at which clocks are changed anywhere.
EXPRESSIONS = (
    "* 0-3 * * *", "*/7 * * * *", "* 2 * * *", "*/30 2 * * *", "*/20 1-3 * * *", "*/15 0 * * *", "*/45 */2 * * 0",
    "0 * * * *", "30 * * * *", "45 * * * *", "15,45 * * 3,4,9-11 *", "0 */2 * * *", "0 */3 * * *", "30 */2 * * *",
    "0 */12 * * *", "5 */8 * * 0", "59 */6 * * *", "0 0 * * *", "1 0 * * *", "30 0 * * *", "59 23 * * *",
    "0 1 * * *", "30 1 * * *", "45 1 * * *", "30 5 * * *", "0 2 * * *", "15 2 * * *", "29 2 * * *", "30 2 * * *",
    "31 2 * * *", "45 2 * * *", "59 2 * * *", "0 3 * * *", "30 3 * * *", "44 3 * * *", "45 3 * * *", "0 12 * * *",
    "0 0,12 * * *", "0 1,2,3 * * *", "0,30 2 * * *", "10-50/10 1-3 * * 0", "30 2 * * 7", "0 2 * * 6", "30 2 31 * *",
    "30 2 1 1 *", "0 0 29 2 *", "0 1 1-7 * 0", "15 2 */2 * *", "45 2 8-14 3 *", "0 4 10 10 5",
)  # fmt: skip


def wall_minutes(expression: str, start: datetime, end: datetime) -> Iterator[int]:
    """Yield the wall-clock minutes, counted from 1970, that match an expression."""
    parts = expression.split()
    minutes, hours, days, months, weekdays = (_numbers(i, part) for i, part in enumerate(parts))
    both = parts[2].startswith("*") or parts[4].startswith("*")
    day = start.replace(hour=0, minute=0)
    while day < end:
        of_month = day.day in days
        of_week = bool({day.weekday() + 1, (day.weekday() + 1) % 7} & weekdays)
        if day.month in months and (of_month and of_week if both else of_month or of_week):
            first = (day - EPOCH) // MINUTE
            yield from (first + hour * 60 + minute for hour in sorted(hours) for minute in sorted(minutes))
        day += timedelta(days=1)


def _numbers(index: int, field: str) -> set[int]:
    numbers: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        low, _, high = span.partition("-")
        if low == "*":
            low, high = str(LOWEST[index]), str(HIGHEST[index])
        numbers |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return numbers


class Clock:
    """For each minute of the wall clock, when cron looks for jobs of that minute.

    Attributes:
        with_star: For expressions whose minute or hour begins with a star: the UTC minutes by the wall minute.
        without: For the others.
    """

    def __init__(self, zone: tzinfo, start: datetime, end: datetime) -> None:
        self.with_star: dict[int, list[int]] = {}
        self.without: dict[int, list[int]] = {}
        begin = (start.replace(tzinfo=None) - EPOCH) // MINUTE
        virtual = begin + offset(zone, start) - 1
        for index in range((end - start) // MINUTE):
            time = begin + index
            running = time + offset(zone, start + index * MINUTE)
            difference = running - virtual
            if difference == 1 or not -LIMIT < difference <= LIMIT:
                virtual = running
                self._find(self.with_star, [running], time)
                self._find(self.without, [running], time)
            elif difference > 5:
                self._find(self.with_star, [running], time)
                self._find(self.without, range(virtual + 1, running + 1), time)
                virtual = running
            else:
                assert difference <= 0
                self._find(self.with_star, [running], time)

    def _find(self, found: dict[int, list[int]], walls: list[int] | range, time: int) -> None:
        for wall in walls:
            found.setdefault(wall, []).append(time)

    def times(self, expression: str, walls: list[int]) -> list[int]:
        """Return the UTC minutes at which an expression with these wall minutes is due."""
        minute, hour = expression.split()[:2]
        found = self.with_star if minute.startswith("*") or hour.startswith("*") else self.without
        return sorted({time for wall in walls for time in found.get(wall, ())})


def offset(zone: tzinfo, time: datetime) -> int:
    """Return the offset of a zone in minutes."""
    offset = time.astimezone(zone).utcoffset()
    assert offset is not None
    return offset // MINUTE


def changes(zone: tzinfo, start: datetime, end: datetime) -> tuple[tuple[datetime, int], ...]:
    """Return the offset at the start, and each minute at which it changes, with the new one."""
    found = [(start, offset(zone, start))]
    step = timedelta(hours=6)
    time = start
    while time < end:
        if offset(zone, time + step) != found[-1][1]:
            low, high = time, time + step
            while high - low > MINUTE:
                middle = low + (high - low) // MINUTE // 2 * MINUTE
                low, high = (middle, high) if offset(zone, middle) == found[-1][1] else (low, middle)
            found.append((high, offset(zone, high)))
        time += step
    return tuple(found)


def month_of(year: int, month: int) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a month, in UTC."""
    first = datetime(year, month, 1, tzinfo=UTC)
    return first, first + timedelta(days=monthrange(year, month)[1])


def zone_file(name: str) -> Path:
    """Return the file with the data of a zone."""
    places = [Path(place) for place in zoneinfo.TZPATH]
    with suppress(ImportError):
        places.append(Path(str(resources.files("tzdata"))) / "zoneinfo")
    return next(file for place in places if (file := place / name).is_file())
