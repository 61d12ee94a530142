"""The next time of a recurrence, compared with a slow and obvious way to find it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anysched.durable.recurrence import (
    Calendar,
    CalendarTimes,
    Interval,
    Next,
    Recurrence,
    Run,
    Times,
    find_next,
    skip_after,
)
from anysched.durable.values import MAX_DUE, microseconds_from_datetime, moment

SECOND = 1_000_000


@dataclass(frozen=True)
class Every:
    """A calendar: the multiples of some seconds."""

    expression: str
    timezone: tzinfo = UTC

    def __call__(self, now: datetime) -> Iterator[datetime]:
        period = int(self.expression) * SECOND
        first = microseconds_from_datetime(now) // period + 1
        return (moment(number * period) for number in count(first))


def listed(rule: Any, start: int, end: int) -> list[int]:
    """Return the times of a rule from one to another."""
    if isinstance(rule, Interval):
        return list(range(start, end, rule.period))
    times = rule.times if isinstance(rule, Times) else range(0, end, int(rule.calendar.expression) * SECOND)
    return [time for time in times if start <= time < end]


RULES = st.one_of(
    st.builds(Interval, st.integers(1, 200).map(lambda seconds: seconds * SECOND)),
    st.builds(Times, st.sets(st.integers(0, 1_000)).map(lambda times: tuple(sorted(time * SECOND for time in times)))),
    st.builds(CalendarTimes, st.integers(1, 200).map(lambda seconds: Every(str(seconds)))),
)
FEW = st.integers(0, 300).map(lambda seconds: seconds * SECOND)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(RULES, st.sampled_from(["latest", "all", "skip"]), FEW, st.integers(-300, 300), FEW, FEW)
def test_the_next_time_is_the_obvious_one(
    rule: Any, missed: Any, time: int, moved: int, late: int, duration: int
) -> None:
    if not isinstance(rule, Interval):
        time = next(iter(listed(rule, time, 2_000 * SECOND)), 0)
    recurrence = Recurrence(rule, missed)
    due = max(time + moved * SECOND, 0)
    started = due + late
    now = started + duration
    found = find_next(recurrence, Run(time, due, started), now)

    # Later than the times that the run covers, which are none after its start.
    served = started if missed == "latest" else min(time, due)
    rest = [other for other in listed(rule, time, now + 2_000 * SECOND) if other > served]
    if missed == "latest" and rest and rest[0] <= now:
        rest = [max(other for other in rest if other <= now)]
    if missed == "skip":
        soon_enough = [other for other in rest if other >= now - skip_after(recurrence)]
        assert found.skipped == (bool(rest) and rest[0] < now - skip_after(recurrence))
        rest = soon_enough
    assert found.time == (rest[0] if rest else None)


@given(RULES, st.sampled_from(["latest", "all", "skip"]), st.integers(0, 100))
def test_a_recurrence_is_stored(rule: Any, missed: Any, jitter: int) -> None:
    recurrence = Recurrence(rule, missed, jitter)
    if not isinstance(rule, CalendarTimes):
        assert Recurrence.decode(recurrence.encode()) == recurrence


def test_a_year_of_missed_minutes_is_found_at_once() -> None:
    class Counted(Every):
        asked = 0

        def __call__(self, now: datetime) -> Iterator[datetime]:
            for time in super().__call__(now):
                Counted.asked += 1
                yield time

    now = int(timedelta(days=365).total_seconds()) * SECOND + 1
    recurrence = Recurrence(CalendarTimes(Counted("60")))
    assert find_next(recurrence, Run(0, 0, 0), now) == Next(now - 1)
    assert Counted.asked < 10
    assert isinstance(Every("60"), Calendar)


def test_a_calendar_may_come_to_an_end() -> None:
    class Once(Every):
        def __call__(self, now: datetime) -> Iterator[datetime]:
            return (time for time in [moment(10 * SECOND)] if time > now)

    recurrence = Recurrence(CalendarTimes(Once("")))
    assert find_next(recurrence, Run(0, 0, 0), 5 * SECOND) == Next(10 * SECOND)
    assert find_next(recurrence, Run(0, 0, 0), 500 * SECOND) == Next(10 * SECOND)
    assert find_next(recurrence, Run(10 * SECOND, 0, 10 * SECOND), 20 * SECOND) == Next(None)


def test_a_period_from_the_end() -> None:
    recurrence = Recurrence(Interval(SECOND, "end"))
    assert find_next(recurrence, Run(0, 0, 5), 10) == Next(10 + SECOND)


def test_beyond_the_calendar_there_is_no_next_time() -> None:
    assert find_next(Recurrence(Interval(MAX_DUE)), Run(SECOND, SECOND, SECOND), SECOND) == Next(None)


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
def test_missed_times_that_are_too_late_are_skipped_and_later_ones_are_not(missed: Any) -> None:
    recurrence = Recurrence(Interval(60 * SECOND), missed)
    now = 365 * 86_400 * SECOND + 5 * SECOND
    expired = Run(0, 0, now, ran=False)
    assert find_next(recurrence, expired, now, 10 * SECOND).time == now - 5 * SECOND
    assert find_next(recurrence, expired, now, 3 * SECOND).time == now + 55 * SECOND
    # After a long run.
    expected = now + 55 * SECOND if missed == "latest" else now - 65 * SECOND if missed == "all" else now - 5 * SECOND
    assert find_next(recurrence, Run(0, 0, 0 if missed != "latest" else now), now, 80 * SECOND).time == expected
    # Jitter may make the run due later.
    jitter = Recurrence(Interval(60 * SECOND), missed, 4 * SECOND)
    assert find_next(jitter, expired, now, 3 * SECOND).time == now - 5 * SECOND


def test_a_list_of_times_that_are_all_too_late_has_an_end() -> None:
    assert find_next(Recurrence(Times((1, 2, 3)), "all"), Run(1, 1, 90, ran=False), 100, 5) == Next(None, skipped=True)


def test_a_run_that_was_moved_and_has_expired_does_not_use_up_its_time() -> None:
    recurrence = Recurrence(Interval(60 * SECOND))
    assert (
        find_next(recurrence, Run(60 * SECOND, 5 * SECOND, 30 * SECOND, ran=False), 30 * SECOND, SECOND).time
        == 60 * SECOND
    )
