"""Two clocks: elapsed time, and the wall clock. Their steps are in `test_time`."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

import anyio
import pytest

from anysched import Scheduler
from anysched._core import clock as clock_module
from anysched._core.backends.current import current_backend
from anysched._core.clock import (
    TOLERANCE,
    SystemClock,
    bind_clock,
    clock_of,
    datetime_from_ns,
    ns_from_datetime,
    wake_time,
)
from support import nothing, settle, value

pytestmark = pytest.mark.anyio


async def test_the_system_clock_is_the_default(anyio_backend: Any) -> None:
    clock = clock_of(current_backend())
    assert isinstance(clock, SystemClock)
    assert clock.recheck_interval == 30
    assert abs(clock.monotonic() - anyio.current_time()) < 1
    assert abs(datetime_from_ns(clock.time_ns()) - datetime.now(UTC)) < timedelta(seconds=1)


# In real time: the few tests that wait for it


@pytest.mark.parametrize("delay", [0.02, timedelta(milliseconds=20)])
async def test_in_real_time_schedule_later_waits(scheduler: Scheduler, delay: Any) -> None:
    start = anyio.current_time()
    at = await scheduler.schedule_later(delay, "id", current_time)
    assert at >= start + 0.02 - TOLERANCE


async def test_in_real_time_schedule_at_waits(scheduler: Scheduler) -> None:
    time = datetime.now(UTC) + timedelta(milliseconds=20)
    task = scheduler.schedule_at(time, "id", value(7))
    assert task.due == time
    assert await task == 7
    assert datetime.now(UTC) >= time


async def test_in_real_time_an_earlier_task_wakes_the_scheduler(scheduler: Scheduler) -> None:
    late = scheduler.schedule_later(3600, "late", value(1))
    scheduler.schedule_at(datetime.now(UTC) + timedelta(hours=1), "late too", nothing)
    await settle()
    with anyio.fail_after(60):
        await scheduler.schedule_later(0.001, "soon", nothing)
        await settle()
        scheduler.reschedule_later(0.001, "late")
        assert await late == 1
    assert "late too" in scheduler


async def current_time() -> float:
    return anyio.current_time()


class FrozenClock:
    """A wall clock that stands still."""

    recheck_interval = 3600.0
    frozen = 1_735_689_600_000_000_500

    def __init__(self) -> None:
        self.system = SystemClock(current_backend().monotonic)
        self.monotonic = self.system.monotonic
        self.subscribe = self.system.subscribe

    def time_ns(self) -> int:
        return self.frozen


@pytest.mark.parametrize(("microseconds", "starts"), [(1, True), (2, False)])
async def test_less_than_a_microsecond_is_due(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: Any, microseconds: int, starts: bool
) -> None:
    clock = FrozenClock()
    monkeypatch.setattr(clock_module, "_bound", WeakKeyDictionary())
    bind_clock(current_backend().time_source, clock)
    async with Scheduler("test") as scheduler:
        time = datetime_from_ns(clock.frozen) + timedelta(microseconds=microseconds)
        assert ns_from_datetime(time) > clock.frozen
        task = scheduler.schedule_at(time, "id", value(1))
        await settle()
        assert (task.status.name == "FINISHED") is starts


# Reading time


def test_wake_time() -> None:
    clock = SystemClock(lambda: 0.0)
    second = 10**9
    assert wake_time(clock, 5.0, 100 * second, None, None) == float("inf")
    assert wake_time(clock, 5.0, 100 * second, 7.0, None) == 7.0
    assert wake_time(clock, 5.0, 100 * second, 7.0, 101 * second) == 6.0
    assert wake_time(clock, 5.0, 100 * second, None, 10**15 * second) == 35.0
    assert wake_time(clock, 5.0, 100 * second, 4e9, 10**15 * second) == 35.0
    assert wake_time(clock, 5.0, 100 * second, None, 99 * second) == 4.0


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def zone(request: pytest.FixtureRequest) -> Iterator[ZoneInfo]:
    return ZoneInfo(request.param)  # type: ignore[return-value]


def test_a_dst_change_between_now_and_then_is_counted(zone: ZoneInfo) -> None:
    """Two times in one zone are subtracted by datetime as if there were no DST."""
    spring, autumn = datetime(2025, 1, 1, 12, tzinfo=zone), datetime(2025, 7, 1, 12, tzinfo=zone)
    naive_seconds = (autumn - spring).total_seconds()
    seconds = (ns_from_datetime(autumn) - ns_from_datetime(spring)) / 1e9
    assert seconds != naive_seconds
    assert seconds == (autumn.astimezone(UTC) - spring.astimezone(UTC)).total_seconds()


def test_both_times_of_a_fold() -> None:
    first = datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert ns_from_datetime(first.replace(fold=1)) - ns_from_datetime(first) == 3600 * 10**9


@pytest.mark.parametrize("time", [datetime.min, datetime.max, datetime(1970, 1, 1), datetime(2038, 1, 19, 3, 14, 8, 1)])
def test_times_are_exact(time: datetime) -> None:
    assert datetime_from_ns(ns_from_datetime(time)) == time.replace(tzinfo=UTC)


def test_times_beyond_the_last_are_the_last() -> None:
    assert datetime_from_ns(10**30) == datetime.max.replace(tzinfo=UTC)
