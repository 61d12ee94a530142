"""Two clocks: elapsed time, and the wall clock with its steps."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from anysched import Scheduler, _clock
from anysched._backend import current_backend
from anysched._clock import SystemClock, bind_clock, clock_of, datetime_from_ns, ns_from_datetime, wake_time
from support import nothing, settle, value

pytestmark = pytest.mark.anyio


class SteppedClock:
    """The system's clock, with a wall clock that can be stepped and a re-check that does not take half a minute."""

    recheck_interval = 0.02

    def __init__(self) -> None:
        self.system = SystemClock(current_backend().monotonic)
        self.offset_ns = 0
        self.reads = 0

    def monotonic(self) -> float:
        self.reads += 1
        return self.system.monotonic()

    def time_ns(self) -> int:
        return self.system.time_ns() + self.offset_ns

    def subscribe(self, stepped: Any) -> Any:
        return self.system.subscribe(stepped)

    def now(self) -> datetime:
        return datetime_from_ns(self.time_ns())


@pytest.fixture
async def clock(anyio_backend: Any) -> Any:
    clock = SteppedClock()
    bind_clock(current_backend().timekeeper, clock)  # type: ignore[arg-type]
    yield clock
    _clock._bound.clear()


@pytest.fixture
async def stepped(clock: SteppedClock) -> Any:
    async with Scheduler("test") as scheduler:
        yield scheduler


async def test_the_system_clock_is_the_default(anyio_backend: Any) -> None:
    clock = clock_of(current_backend())
    assert isinstance(clock, SystemClock)
    assert clock.recheck_interval == 30
    assert abs(clock.monotonic() - anyio.current_time()) < 1
    assert abs(datetime_from_ns(clock.time_ns()) - datetime.now(UTC)) < timedelta(seconds=1)


async def test_nothing_starts_early_after_a_backward_step(stepped: Scheduler, clock: SteppedClock) -> None:
    at = clock.now() + timedelta(milliseconds=10)
    task = stepped.schedule_at(at, "id", value(1))
    later = stepped.schedule_later(0.01, "later", value(2))
    clock.offset_ns = -60_000_000
    assert await later == 2
    await anyio.sleep(0.03)
    assert task.status.name == "PENDING"
    await task
    assert clock.now() >= at


async def test_a_forward_step_is_found_by_the_next_recheck(stepped: Scheduler, clock: SteppedClock) -> None:
    task = stepped.schedule_at(clock.now() + timedelta(hours=1), "id", value(1))
    later = stepped.schedule_later(3600, "later", value(2))
    await settle()
    clock.offset_ns = 3600 * 10**9
    start = anyio.current_time()
    assert await task == 1
    assert anyio.current_time() - start < 1
    assert later.status.name == "PENDING"


async def test_any_wake_reads_both_clocks(stepped: Scheduler, clock: SteppedClock) -> None:
    clock.recheck_interval = 3600
    task = stepped.schedule_at(clock.now() + timedelta(hours=1), "id", value(1))
    await settle()
    clock.offset_ns = 3600 * 10**9
    await settle()
    assert task.status.name == "PENDING"
    await stepped.schedule("other", nothing)
    assert await task == 1


async def test_without_a_wall_entry_there_are_no_rechecks(stepped: Scheduler, clock: SteppedClock) -> None:
    stepped.schedule_later(3600, "id", nothing)
    stepped.schedule_at(clock.now() + timedelta(hours=1), "at", nothing)
    stepped.cancel("at")
    await anyio.sleep(0.05)
    before = clock.reads
    await anyio.sleep(0.1)
    assert clock.reads == before


async def test_a_wall_entry_wakes_a_loop_that_would_sleep_past_the_recheck(
    stepped: Scheduler, clock: SteppedClock
) -> None:
    stepped.schedule_later(3600, "later", nothing)
    await settle()
    task = stepped.schedule_at(clock.now() + timedelta(hours=1), "id", value(1))
    await settle()
    clock.offset_ns = 3600 * 10**9
    assert await task == 1


async def test_less_than_a_microsecond_is_due(stepped: Scheduler, clock: SteppedClock) -> None:
    frozen = clock.time_ns()
    clock.time_ns = lambda: frozen  # type: ignore[method-assign]
    task = stepped.schedule_at(datetime_from_ns(frozen) + timedelta(microseconds=1), "id", value(1))
    with anyio.fail_after(1):
        assert frozen < ns_from_datetime(task.due or clock.now())
        assert await task == 1


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
