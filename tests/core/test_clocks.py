"""Two clocks: elapsed time, and the wall clock. Their steps are in `test_time`."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
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
    LoopClock,
    SystemClock,
    bind_clock,
    bound_clock,
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
    """A stopped wall clock."""

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


async def test_no_task_is_early_by_the_loops_clock_or_by_the_machines(anyio_backend: Any, scheduler: Scheduler) -> None:
    """uvloop's clock has a resolution of milliseconds: a delay that is counted from it ends up to a millisecond early."""
    early: list[float] = []

    async def start(delay: float, called: float, loop_called: float) -> None:
        early.append(delay - (time.monotonic() - called))
        early.append(delay - (anyio.current_time() - loop_called))

    async def beat(delay: float, called: float, loop_called: float, ran: anyio.Event) -> None:
        await start(delay, called, loop_called)
        scheduler.cancel("every")
        ran.set()

    for number in range(60):
        delay = 0.0005 + number % 10 * 0.00037
        await scheduler.schedule_later(delay, "id", start, delay, time.monotonic(), anyio.current_time())
        ran = anyio.Event()
        scheduler.schedule_every(delay, "every", beat, delay, time.monotonic(), anyio.current_time(), ran)
        await ran.wait()
    assert max(early) < 2 * TOLERANCE


async def test_what_is_due_already_starts_without_waiting_for_the_clock(scheduler: Scheduler) -> None:
    """This holds even if the loop's clock shows the next time a millisecond later."""
    for _ in range(20):
        scheduler.schedule_later(3600, "later", nothing)
        scheduler.reschedule_later(0, "later")
        scheduler.schedule_every(3600, "every", nothing, first=0)
        begin = time.perf_counter()
        await settle()
        if time.perf_counter() - begin < 0.001:
            assert scheduler.tasks["every"].run_count == 1
            assert "later" not in scheduler
        scheduler.cancel_all()


# Clocks that test tools put in place of the real ones


class MockedLoop(asyncio.SelectorEventLoop):
    """An event loop like those of test tools, whose time jumps instead of waiting."""

    def __init__(self, begin: float) -> None:
        self.jumped = begin
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            ready = select(0)
            if not ready and timeout is not None:
                self.jumped += timeout
            return ready

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)


class LoopOfAnotherClass(MockedLoop):
    def time(self) -> float:
        return self.jumped


def loop_with_an_attribute() -> MockedLoop:
    loop = MockedLoop(0.0)
    loop.time = lambda: loop.jumped  # type: ignore[method-assign]
    return loop


def loop_that_starts_in_real_time() -> MockedLoop:
    """Its time is the machine's, and what it has jumped."""
    loop = MockedLoop(0.0)
    loop.time = lambda: time.monotonic() + loop.jumped  # type: ignore[method-assign]
    return loop


async def wall_time_follows() -> None:
    begin = datetime.now(UTC)
    starts: dict[str, tuple[datetime, float]] = {}

    async with Scheduler("test") as scheduler:
        start = anyio.current_time()

        async def note(name: str) -> None:
            starts[name] = scheduler.now(), anyio.current_time() - start

        assert timedelta(0) <= scheduler.now() - begin + timedelta(seconds=1) < timedelta(seconds=30)
        at = scheduler.now() + timedelta(days=30)
        scheduler.schedule_at(at, "at", note, "at")
        scheduler.schedule_later(3600, "later", note, "later")
        await scheduler.join()

    moment, elapsed = starts["later"]
    assert abs(elapsed - 3600) < 0.5
    assert abs(moment - begin - timedelta(hours=1)) < timedelta(seconds=30)
    moment, elapsed = starts["at"]
    assert abs(elapsed - 30 * 86_400) < 30
    assert at <= moment < at + timedelta(seconds=0.5)
    async with Scheduler("another") as scheduler:  # it continues from there
        assert abs(scheduler.now() - at) < timedelta(seconds=0.5)


@pytest.mark.parametrize(
    "new_loop", [lambda: LoopOfAnotherClass(5.0), loop_with_an_attribute, loop_that_starts_in_real_time]
)
def test_on_a_mocked_loop_wall_time_follows_the_loops(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    began = time.monotonic()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(wall_time_follows())
    assert time.monotonic() - began < 60


def run_on_trio(function: Callable[[], Awaitable[None]]) -> None:
    import trio
    from trio.testing import MockClock

    trio.run(function, clock=MockClock(autojump_threshold=0))


def test_under_trios_mock_clock_wall_time_follows_it() -> None:
    run_on_trio(wall_time_follows)


def test_on_a_mocked_loop_a_time_is_met_to_the_microsecond() -> None:
    async def main() -> None:
        shown: list[datetime] = []

        async def note() -> None:
            shown.append(scheduler.now())

        async with Scheduler("test") as scheduler:
            # Not later than this: past 2**23 s, asyncio spins on a clock that cannot show a nanosecond.
            tomorrow = scheduler.now().replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
            noons = [tomorrow + timedelta(days=day) for day in range(90)]
            for noon in noons:
                scheduler.schedule_at(noon, noon, note)
            await scheduler.join()
        assert shown == noons

    run_on_trio(main)
    with asyncio.Runner(loop_factory=loop_with_an_attribute) as runner:
        runner.run(main())


def test_a_trio_clock_without_hash_and_weak_references() -> None:
    import trio

    class Clock(trio.abc.Clock):
        __slots__ = ("_start",)
        __hash__ = None  # type: ignore[assignment]

        def start_clock(self) -> None:
            self._start = time.monotonic()

        def current_time(self) -> float:
            return time.monotonic() - self._start

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return deadline - self.current_time()

    async def main() -> None:
        assert bound_clock(current_backend().time_source) is None
        async with Scheduler("test") as scheduler:
            assert await scheduler.schedule_at(scheduler.now() + timedelta(milliseconds=5), "id", value, 7) == 7

    trio.run(main, clock=Clock())


async def test_the_clock_that_comes_with_the_event_loop_is_the_machines(anyio_backend: Any) -> None:
    assert not current_backend().is_replaced


async def test_a_clock_that_is_replaced_again_is_followed_from_there(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("the clock of trio cannot be replaced")
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: 5.0)
        clock = clock_of(current_backend())
        assert isinstance(clock, LoopClock)
        assert clock.recheck_interval == float("inf")
        assert clock_of(current_backend()) is clock
        patch.setattr(loop, "time", lambda: 1e9)
        other = clock_of(current_backend())
        assert abs(other.time_ns() - time.time_ns()) < 30 * 10**9
    assert isinstance(clock_of(current_backend()), SystemClock)


def test_patched_functions_of_the_time_module_are_read_when_a_scheduler_is_entered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: 1_735_689_600_000_000_000)
            async with Scheduler("test") as scheduler:
                assert scheduler.now() == datetime(2025, 1, 1, tzinfo=UTC)
            # As freezegun does, for asyncio too.
            moved = 0.0
            patch.setattr(time, "monotonic", lambda: 5.0 + moved)
            clock = clock_of(current_backend())
            moved = 60.0
            assert clock.monotonic() == asyncio.get_running_loop().time() == 65.0
            assert clock.time_ns() == 1_735_689_660_000_000_000

    asyncio.run(main())


def test_a_clock_that_shows_the_machines_time_is_the_machines_until_it_is_moved() -> None:
    """Event loops of GUI toolkits have their own `time` method, and must also notice that the machine was suspended."""
    moved = 0.0

    def monotonic() -> float:
        return time.monotonic() + moved

    clock = LoopClock(monotonic)
    assert clock.recheck_interval == 30
    assert abs(clock.time_ns() - time.time_ns()) < 10**9
    moved = 3600.0
    assert abs(clock.time_ns() - time.time_ns() - 3600 * 10**9) < 10**9
    clock.subscribe(pytest.fail)()


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
    # Where a float cannot express the next microsecond, it is the next float.
    late = 2.0**36
    assert wake_time(clock, late, 100 * second, None, 100 * second + 1000) == late + 2.0**-16


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def zone(request: pytest.FixtureRequest) -> Iterator[ZoneInfo]:
    return ZoneInfo(request.param)  # type: ignore[return-value]


def test_a_dst_change_between_now_and_then_is_counted(zone: ZoneInfo) -> None:
    """datetime subtracts two times in one zone as if there were no DST."""
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
