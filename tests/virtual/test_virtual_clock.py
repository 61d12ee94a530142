"""VirtualClock: reading time, moving it, holding it; exact on both backends."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from anysched._virtual import timeline as timeline_module
from anysched.testing import NeverIdleError, VirtualClock

pytestmark = pytest.mark.anyio

START = datetime(2025, 1, 1, tzinfo=UTC)


def run(clock: VirtualClock, backend: Any, function: Any, *args: Any) -> Any:
    name, options = clock.backend(backend)
    return anyio.run(function, *args, backend=name, backend_options=options)


def sole(error: BaseException) -> BaseException:
    """Return the only exception in a group, with which a task group wraps it."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def manual(virtual_clock: VirtualClock) -> VirtualClock:
    virtual_clock.autojump = False
    return virtual_clock


# Reading


async def test_time_begins_with_zero_and_with_the_start(virtual_clock: VirtualClock) -> None:
    assert virtual_clock.monotonic() == anyio.current_time() == 0
    assert virtual_clock.now() == virtual_clock.start == START
    assert virtual_clock.time_ns() == 1_735_689_600_000_000_000
    assert VirtualClock.current() is virtual_clock
    assert virtual_clock.recheck_interval == math.inf


@pytest.mark.parametrize(
    "start",
    [datetime(2024, 2, 29, 12), datetime(2024, 2, 29, 14, tzinfo=timezone(timedelta(hours=2)))],
    ids=["naive", "aware"],
)
def test_a_start_is_in_utc_if_it_is_naive(start: datetime) -> None:
    clock = VirtualClock(start)
    assert clock.now() == clock.start == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert repr(clock) == "<VirtualClock 2024-02-29T12:00:00+00:00 after 0.0 s>"


@pytest.mark.parametrize("option", ["recheck_interval", "thread_timeout", "busy_limit"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_intervals_and_limits_are_positive(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must be positive"):
        VirtualClock(**cast("Any", {option: value}))


def test_a_start_is_a_datetime() -> None:
    with pytest.raises(TypeError, match="datetime"):
        VirtualClock(cast("Any", "2025-01-01"))


# Autojump


async def test_a_year_of_sleep_takes_no_time_and_is_exact(virtual_clock: VirtualClock) -> None:
    began = time.perf_counter()
    for _ in range(365):
        await anyio.sleep(86_400)
    assert virtual_clock.monotonic() == anyio.current_time() == 365 * 86_400
    assert virtual_clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    assert time.perf_counter() - began < 5


async def test_timeouts_are_virtual(virtual_clock: VirtualClock) -> None:
    with anyio.move_on_after(3600) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError), anyio.fail_after(60):
        await anyio.sleep(60.5)
    assert virtual_clock.monotonic() == 3660


@pytest.mark.parametrize("exponent", [20, 24, 25, 28, 33])
async def test_time_moves_exactly_however_late_it_is(virtual_clock: VirtualClock, exponent: int) -> None:
    """Past 2**24 s a nanosecond is less than the resolution of a float, and asyncio would spin (CPython gh-145703)."""
    await anyio.sleep(2.0**exponent)
    for delay in (0.1, 1 / 3, 0.7, 1e-6, 3600.25, 0.3):
        due = virtual_clock.monotonic() + delay
        with anyio.fail_after(1e6):
            await anyio.sleep(delay)
        assert virtual_clock.monotonic() == due


async def test_the_wall_clock_shows_whole_microseconds_however_late_it_is(virtual_clock: VirtualClock) -> None:
    for days in range(1, 800, 7):
        time = START + timedelta(days=days, milliseconds=days * 7)
        await virtual_clock.travel_to(time)
        assert virtual_clock.now() == time
        assert virtual_clock.time_ns() % 1_000_000 == 0


async def test_one_task_after_the_other_reads_the_time_for_which_it_was_due(virtual_clock: VirtualClock) -> None:
    seen = []

    async def sleeper(delay: float) -> None:
        await anyio.sleep(delay)
        seen.append((delay, virtual_clock.monotonic()))

    async with anyio.create_task_group() as group:
        for delay in (5, 0.5, 86_400, 60):
            group.start_soon(sleeper, delay)
    assert seen == [(0.5, 0.5), (5, 5), (60, 60), (86_400, 86_400)]


async def test_without_a_deadline_time_stands_still_and_waits_for_real_io(virtual_clock: VirtualClock) -> None:
    async with anyio.create_task_group() as group:
        event = anyio.Event()
        group.start_soon(event.wait)
        token = anyio.lowlevel.current_token()

        def set_soon() -> None:
            time.sleep(0.01)
            from_thread.run_sync(event.set, token=token)

        import threading

        thread = threading.Thread(target=set_soon)
        thread.start()
    thread.join()
    assert virtual_clock.monotonic() == 0


async def test_autojump_can_be_switched_during_a_run(virtual_clock: VirtualClock) -> None:
    await anyio.sleep(1)
    virtual_clock.autojump = False
    done = anyio.Event()

    async def sleeper() -> None:
        await anyio.sleep(1)
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await virtual_clock.settle()
        assert virtual_clock.monotonic() == 1
        assert not virtual_clock.autojump
        virtual_clock.autojump = True
        await done.wait()
    assert virtual_clock.monotonic() == 2


# Advance


@pytest.mark.parametrize("autojump", [True, False])
async def test_advance_stops_at_every_deadline_on_the_way(virtual_clock: VirtualClock, autojump: bool) -> None:
    virtual_clock.autojump = autojump
    seen = []

    async def periodic(period: float) -> None:
        while True:
            await anyio.sleep(period)
            seen.append((period, virtual_clock.monotonic()))

    async with anyio.create_task_group() as group:
        group.start_soon(periodic, 2)
        group.start_soon(periodic, 3)
        await virtual_clock.settle()
        assert seen == []
        await virtual_clock.advance(timedelta(seconds=5.5))
        assert seen == [(2, 2), (3, 3), (2, 4)]
        assert virtual_clock.monotonic() == 5.5
        await virtual_clock.advance(0.5)
        assert seen[:3] == [(2, 2), (3, 3), (2, 4)]
        assert sorted(seen[3:]) == [(2, 6), (3, 6)]
        group.cancel_scope.cancel()


async def test_eight_tenths_are_four_fifths(manual: VirtualClock) -> None:
    """Tasks that are due at the target run at it, although a sum of floats may differ from the intended number."""
    woken = anyio.Event()

    async def sleeper() -> None:
        await anyio.sleep(0.8)
        woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await manual.settle()
        for _ in range(8):
            assert not woken.is_set()
            await manual.advance(0.1)
        assert woken.is_set()
    assert manual.monotonic() == 0.8


async def test_a_sum_of_delays_is_what_one_would_write_down(virtual_clock: VirtualClock) -> None:
    await virtual_clock.advance(0.1)
    await virtual_clock.advance(0.2)
    assert virtual_clock.monotonic() == 0.3  # and not 0.30000000000000004


async def test_what_is_due_within_a_microsecond_of_the_target_is_done(manual: VirtualClock) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 1.0000005)
        await manual.settle()
        await manual.advance(1)
        assert manual.monotonic() == 1.0000005


async def test_two_tasks_can_advance_at_once(manual: VirtualClock) -> None:
    seen = []

    async def advance(delay: float) -> None:
        await manual.advance(delay)
        seen.append((delay, manual.monotonic()))

    async with anyio.create_task_group() as group:
        for delay in (30, 10, 20):
            group.start_soon(advance, delay)
    assert seen == [(10, 10), (20, 20), (30, 30)]


async def test_advance_can_be_cancelled(virtual_clock: VirtualClock) -> None:
    with anyio.move_on_after(5):
        await virtual_clock.advance(60)
    assert virtual_clock.monotonic() == 5
    await virtual_clock.advance(1)
    assert virtual_clock.monotonic() == 6


@pytest.mark.parametrize(
    ("delay", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (timedelta(-1), ValueError)],
)
async def test_advance_takes_a_delay(virtual_clock: VirtualClock, delay: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        await virtual_clock.advance(delay)
    assert virtual_clock.monotonic() == 0


async def test_travel_to_a_time(manual: VirtualClock) -> None:
    await manual.travel_to(datetime(2025, 3, 1, 12, tzinfo=UTC))
    assert manual.now() == datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert manual.monotonic() == (31 + 28) * 86_400 + 12 * 3600
    await manual.travel_to(datetime(2025, 3, 1, 12, 0, 0, 250_000))
    assert manual.now() == datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    await manual.travel_to(manual.now())
    with pytest.raises(ValueError, match="time cannot go back"):
        await manual.travel_to(START)
    with pytest.raises(TypeError, match="datetime"):
        await manual.travel_to(cast("Any", 5))


async def test_travel_arrives_also_if_the_wall_clock_is_stepped_on_the_way(manual: VirtualClock) -> None:
    async def step(delay: float, delta: float) -> None:
        await anyio.sleep(delay)
        manual.step_wall(delta)

    async with anyio.create_task_group() as group:
        group.start_soon(step, 60, -30)
        await manual.travel_to(START + timedelta(seconds=100))
        assert (manual.now(), manual.monotonic()) == (START + timedelta(seconds=100), 130)
        group.start_soon(step, 10, 1000)
        await manual.travel_to(START + timedelta(seconds=200))
        assert manual.now() == START + timedelta(seconds=1200)


# Settle


async def test_settle_returns_when_every_other_task_is_blocked(manual: VirtualClock) -> None:
    """`anyio.wait_all_tasks_blocked` sleeps for 0.1 s on asyncio: without autojump it would never return."""
    steps: list[object] = []

    async def worker() -> None:
        for step in range(100):
            await checkpoint()
            steps.append(step)
        await anyio.sleep(1)
        steps.append("late")

    async with anyio.create_task_group() as group:
        group.start_soon(worker)
        await manual.settle()
        assert steps == list(range(100))
        assert manual.monotonic() == 0
        group.cancel_scope.cancel()


async def test_settle_does_not_move_time_under_autojump(virtual_clock: VirtualClock) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 1)
        await virtual_clock.settle()
        await virtual_clock.advance(0)
        assert virtual_clock.monotonic() == 0


async def test_settle_in_two_tasks_at_once(manual: VirtualClock) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(manual.settle)
        group.start_soon(manual.settle)
        await manual.settle()


async def test_settle_waits_for_io_that_is_ready(manual: VirtualClock) -> None:
    import socket

    left, right = socket.socketpair()
    received = []

    async def receive() -> None:
        async with await anyio.abc.SocketStream.from_socket(right) as stream:
            received.append(await stream.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await manual.settle()
        left.send(b"x")
        await manual.settle()
        assert received == [b"x"]
    left.close()


async def test_trios_own_wait_goes_before_a_jump(anyio_backend_name: Any, virtual_clock: VirtualClock) -> None:
    if anyio_backend_name == "asyncio":
        pytest.skip("trio only")
    from trio.testing import wait_all_tasks_blocked

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 5)
        for cushion in (0, 0.001):
            await wait_all_tasks_blocked(cushion)
            assert virtual_clock.monotonic() == 0


# Busy loops


@pytest.mark.parametrize("method", ["settle", "advance", "travel_to"])
def test_whoever_waits_for_a_loop_that_is_never_idle_gets_an_error(backend: Any, method: str) -> None:
    clock = VirtualClock(autojump=False, busy_limit=1000)

    async def spinner() -> None:
        while True:
            await anyio.sleep(0)

    async def main() -> None:
        args = {"settle": (), "advance": (5,), "travel_to": (datetime(2026, 1, 1),)}[method]
        async with anyio.create_task_group() as group:
            group.start_soon(spinner, name="the spinner")
            with pytest.raises(NeverIdleError, match=r"virtual time cannot move.*'the spinner'.*busy_limit") as caught:
                await getattr(clock, method)(*args)
            assert caught.value.tasks == ("the spinner",)
            assert 1000 < caught.value.iterations < 1100
            group.cancel_scope.cancel()
        await clock.advance(1)

    run(clock, backend, main)


def test_with_autojump_a_loop_that_is_never_idle_ends_the_run(backend: Any) -> None:
    clock = VirtualClock(busy_limit=1000)

    async def spinner() -> None:
        while True:
            await anyio.sleep(0)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(spinner, name="the spinner")
            await anyio.sleep(5)

    with pytest.raises((NeverIdleError, ExceptionGroup)) as caught:
        run(clock, backend, main)
    error = sole(caught.value)
    assert isinstance(error, NeverIdleError)
    assert error.tasks == ("the spinner",)
    assert clock.monotonic() == 0


def test_one_of_several_is_to_blame(backend: Any) -> None:
    async def spinner() -> None:
        while True:
            await checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(spinner, name=f"spinner {number}")

    for _ in range(8):  # trio shuffles them
        with pytest.raises((NeverIdleError, ExceptionGroup)) as caught:
            run(VirtualClock(busy_limit=50), backend, main)
        error = sole(caught.value)
        assert isinstance(error, NeverIdleError)
        assert sorted(error.tasks) == [f"spinner {number}" for number in range(5)]


def test_a_sleep_too_short_to_move_time_is_a_busy_loop(backend: Any) -> None:
    clock = VirtualClock(busy_limit=1000)

    async def main() -> None:
        await anyio.sleep(1e6)
        while True:
            await anyio.sleep(1e-20)

    with pytest.raises(NeverIdleError):
        run(clock, backend, main)


def test_to_poll_the_clock_is_a_busy_loop(backend: Any) -> None:
    """It would end in real time; here it never does."""
    clock = VirtualClock(busy_limit=1000)

    async def main() -> None:
        while anyio.current_time() < 5:
            await checkpoint()

    with pytest.raises(NeverIdleError) as caught:
        run(clock, backend, main)
    assert len(caught.value.tasks) == 1


def test_real_work_may_have_many_turns_with_a_higher_limit_or_a_hold(backend: Any) -> None:
    async def main() -> None:
        for _ in range(1000):
            await checkpoint()

    run(VirtualClock(busy_limit=1100), backend, main)
    clock = VirtualClock(busy_limit=100)
    with clock.hold():
        run(clock, backend, main)


@pytest.mark.parametrize("iterations", [90, 95, 100, 105, 110])
def test_who_is_busy_for_a_while_is_not_to_blame_later(backend: Any, iterations: int) -> None:
    """On trio they are watched for some iterations after the limit, in which the loop may become idle."""
    clock = VirtualClock(busy_limit=100)

    async def main() -> None:
        for _ in range(10):
            with suppress(NeverIdleError):
                for _ in range(iterations):
                    await checkpoint()
                await anyio.sleep(60)

    if backend == "asyncio" and iterations >= 100:
        with pytest.raises(NeverIdleError):
            run(clock, backend, main)
    else:
        run(clock, backend, main)
        assert clock.monotonic() == 600


async def test_polling_for_a_worker_thread_is_no_busy_loop(anyio_backend_name: Any) -> None:
    clock = VirtualClock(busy_limit=100)

    async def main() -> None:
        done = False

        async def work() -> None:
            nonlocal done
            await to_thread.run_sync(time.sleep, 0.05)
            done = True

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            with anyio.fail_after(60):
                while not done:
                    await anyio.sleep(0)

    await to_thread.run_sync(run, clock, anyio_backend_name, main)


# Threads


async def test_time_stands_still_while_a_worker_thread_runs(virtual_clock: VirtualClock) -> None:
    with anyio.fail_after(0.001):
        await to_thread.run_sync(time.sleep, 0.02)
    assert virtual_clock.monotonic() == 0


async def test_time_stands_still_for_threads_with_a_limiter_of_their_own(virtual_clock: VirtualClock) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 1)
        await to_thread.run_sync(time.sleep, 0.02, limiter=anyio.CapacityLimiter(1))
        assert virtual_clock.monotonic() == 0


async def test_settle_and_advance_wait_for_worker_threads(manual: VirtualClock) -> None:
    done = []

    async def work() -> None:
        await to_thread.run_sync(time.sleep, 0.02)
        done.append(manual.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await manual.settle()
        assert done == [0]
        group.start_soon(work)
        await manual.advance(1)
        assert done == [0, 0]


def test_a_thread_that_waits_for_virtual_time_does_not_wait_forever(backend: Any) -> None:
    clock = VirtualClock(thread_timeout=0.05)

    def work() -> None:
        for _ in range(20):
            from_thread.run(anyio.sleep, 60)

    async def main() -> None:
        await to_thread.run_sync(work)
        assert clock.monotonic() == 1200
        # It was given up; the next one is not.
        with anyio.fail_after(0.001):
            await to_thread.run_sync(time.sleep, 0.02)
        assert clock.monotonic() == 1200

    began = time.perf_counter()
    run(clock, backend, main)
    assert time.perf_counter() - began < 0.9  # not 20 times the timeout


@pytest.mark.parametrize("abandon", [False, True], ids=["", "abandon_on_cancel"])  # trio delivers these in another way
def test_a_thread_that_calls_back_is_alive(backend: Any, abandon: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to threads in which nothing happens, not to those that take long."""
    clock = VirtualClock(thread_timeout=0.2)
    calls = 0
    # Real time advances with the calls, so that the load of the machine does not matter.
    monkeypatch.setattr(timeline_module, "time", SimpleNamespace(perf_counter=lambda: calls * 0.04))

    def called() -> None:
        nonlocal calls
        calls += 1

    def work() -> None:
        for _ in range(8):
            time.sleep(0.01)
            from_thread.run_sync(called)

    async def main() -> None:
        with anyio.fail_after(0.001):
            await to_thread.run_sync(work, abandon_on_cancel=abandon)
        assert clock.monotonic() == 0

    run(clock, backend, main)


async def test_to_wait_for_a_thread_takes_no_processor_time(virtual_clock: VirtualClock) -> None:
    with anyio.fail_after(60):
        began = time.process_time()
        await to_thread.run_sync(time.sleep, 0.3)
        assert time.process_time() - began < 0.1


async def test_time_stands_still_for_asyncios_own_threads(anyio_backend_name: Any, virtual_clock: VirtualClock) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("asyncio only")
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.02)
    assert virtual_clock.monotonic() == 0


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_the_end_of_a_run_waits_for_the_executor(seconds: float) -> None:
    """asyncio gives the threads five minutes (from Python 3.12 on), which must not be jumped over."""
    clock = VirtualClock()
    name, options = clock.backend("asyncio")
    assert name == "asyncio"

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, seconds)

    with asyncio.Runner(**options) as runner:
        runner.run(main())
    assert clock.monotonic() == 0


# Hold


async def test_hold_keeps_time(virtual_clock: VirtualClock) -> None:
    async def sleeper() -> None:
        await anyio.sleep(1)
        seen.append("woken")

    seen = []
    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        token = anyio.lowlevel.current_token()
        io = anyio.Event()
        import threading

        thread = threading.Timer(0.02, lambda: from_thread.run_sync(io.set, token=token))
        with virtual_clock.hold():
            await virtual_clock.settle()  # this does not take time
            thread.start()
            await io.wait()
            seen.append("io")
        assert virtual_clock.monotonic() == 0
    thread.join()
    assert seen == ["io", "woken"]


async def test_advance_in_another_task_waits_for_the_hold(manual: VirtualClock) -> None:
    seen = []

    async def holder(*, task_status: TaskStatus[None]) -> None:
        with manual.hold():
            task_status.started()
            await released.wait()
            seen.append(("held", manual.monotonic()))

    async def advance() -> None:
        await manual.advance(5)
        seen.append(("advanced", manual.monotonic()))

    released = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(holder)
        group.start_soon(advance)
        await manual.settle()
        assert seen == []
        released.set()
    assert seen == [("held", 0), ("advanced", 5)]


async def test_advance_inside_of_a_hold_is_an_error_and_not_a_deadlock(virtual_clock: VirtualClock) -> None:
    with virtual_clock.hold():
        with pytest.raises(RuntimeError, match="wait for it forever"):
            await virtual_clock.advance(1)
        with pytest.raises(RuntimeError, match="wait for it forever"):
            await virtual_clock.travel_to(datetime(2026, 1, 1))
    await virtual_clock.advance(1)


# Where it belongs


async def test_time_begins_anew_with_every_run(anyio_backend_name: Any) -> None:
    clock = VirtualClock()

    async def main() -> None:
        assert (clock.monotonic(), clock.now()) == (0, START)
        clock.step_wall(3600)
        clock.step_wall(3600, notify=False)
        await anyio.sleep(2.0**25)
        assert clock.monotonic() == anyio.current_time() == 2.0**25

    def runs() -> None:
        options = clock.backend(anyio_backend_name)
        for _ in range(3):
            anyio.run(main, backend=options[0], backend_options=options[1])
        run(clock, anyio_backend_name, main)

    await to_thread.run_sync(runs)
    assert clock.monotonic() == 2.0**25  # and can be read after it


async def test_one_clock_cannot_serve_two_event_loops_at_once(
    anyio_backend_name: Any, virtual_clock: VirtualClock
) -> None:
    def second() -> None:
        with pytest.raises(Exception) as caught:  # trio calls it an internal error, and names the cause
            run(virtual_clock, anyio_backend_name, checkpoint)
        error = caught.value if anyio_backend_name == "asyncio" else caught.value.__cause__
        assert isinstance(error, RuntimeError)
        assert "still running" in str(error)

    await to_thread.run_sync(second)
    await anyio.sleep(1)


def test_a_clock_serves_another_run_when_an_event_loop_was_left_open() -> None:
    clock = VirtualClock()
    factory = clock.backend("asyncio")[1]["loop_factory"]
    loop = factory()
    factory().close()
    loop.close()
    del loop
    factory().close()


async def test_a_machine_is_not_suspended_for_less_than_nothing(virtual_clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="negative"):
        virtual_clock.suspend(-1)
    for step in (virtual_clock.suspend, virtual_clock.step_wall):
        with pytest.raises(TypeError, match="delay must be a number"):
            step(cast("Any", "1"))
        with pytest.raises(ValueError, match="finite"):
            step(math.inf)
    assert virtual_clock.now() == START


@pytest.mark.parametrize("method", ["step_wall", "suspend"])
async def test_a_clock_is_not_moved_from_elsewhere(virtual_clock: VirtualClock, method: str) -> None:
    with pytest.raises(RuntimeError, match=rf"{method}\(\)|step_wall\(\).*portal"):
        await to_thread.run_sync(getattr(virtual_clock, method), 5)
    with pytest.raises(RuntimeError, match="does not keep the time"):
        getattr(VirtualClock(), method)(5)
    assert virtual_clock.now() == START


async def test_another_clock_cannot_be_waited_for(virtual_clock: VirtualClock) -> None:
    other = VirtualClock()
    for wait in (other.settle(), other.advance(1), other.travel_to(datetime(2026, 1, 1))):
        with pytest.raises(RuntimeError, match="does not keep the time"):
            await wait


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_there_is_no_current_clock_in_real_time(backend: Any) -> None:
    async def main() -> None:
        VirtualClock.current()

    with pytest.raises(RuntimeError, match="is real"):
        anyio.run(main, backend=backend)
    with pytest.raises(anyio.NoEventLoopError):
        VirtualClock.current()


def test_uvloop_cannot_be_virtual() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        VirtualClock.current()

    clock = VirtualClock()
    with pytest.raises(ValueError, match="uvloop keeps its own time"):
        clock.backend("asyncio", use_uvloop=True)
    with pytest.raises(ValueError, match="uvloop keeps its own time"):
        clock.backend(cast("Any", "uvloop"))
    with pytest.raises(ValueError, match="cannot be another one"):
        clock.backend("asyncio", loop_factory=uvloop.new_event_loop)
    with pytest.raises(RuntimeError, match="uvloop keeps its own time"):
        anyio.run(main, backend_options={"use_uvloop": True})
    with pytest.raises(RuntimeError, match=r"virtual_anyio_backend as anyio_backend.*uvloop keeps its own time"):
        VirtualClock.of_backend(("asyncio", {"use_uvloop": True}))
    with pytest.raises(RuntimeError, match="has no virtual clock"):
        VirtualClock.of_backend(("asyncio", {"loop_factory": uvloop.new_event_loop}))


def test_backends() -> None:
    clock = VirtualClock()
    name, options = clock.backend("asyncio", debug=True, use_uvloop=False)
    assert (name, sorted(options)) == ("asyncio", ["debug", "loop_factory"])
    assert VirtualClock.of_backend((name, options)) is clock
    instrument = object()
    name, options = clock.backend("trio", instruments=[instrument], strict_exception_groups=True)
    assert (name, sorted(options)) == ("trio", ["clock", "instruments", "strict_exception_groups"])
    assert options["instruments"][1] is instrument
    assert VirtualClock.of_backend((name, options)) is clock
    with pytest.raises(ValueError, match="cannot be another one"):
        clock.backend("trio", clock=None)
    with pytest.raises(ValueError, match='must be "asyncio" or "trio", not \'curio\''):
        clock.backend(cast("Any", "curio"))
    others: list[object] = ["asyncio", ("asyncio",), ("asyncio", 5), ("trio", {"clock": []}), None]
    for other in others:
        with pytest.raises(RuntimeError, match="has no virtual clock"):
            VirtualClock.of_backend(other)


# Portals


def test_a_portal_moves_time_by_hand(backend: Any) -> None:
    """Between two calls the event loop is idle: with autojump, all its timers would elapse."""
    clock = VirtualClock(autojump=False)
    name, options = clock.backend(backend)
    seen = []

    async def periodic() -> None:
        while True:
            await anyio.sleep(60)
            seen.append(clock.monotonic())

    with from_thread.start_blocking_portal(name, options) as portal:
        future = portal.start_task_soon(periodic)
        portal.call(clock.settle)
        time.sleep(0.01)
        assert seen == []
        portal.call(clock.advance, 180)
        assert seen == [60, 120, 180]
        portal.call(clock.step_wall, 3600)
        assert clock.now() == START + timedelta(hours=1, seconds=180)
        future.cancel()


# time-machine


async def test_the_rest_of_the_process_can_follow(virtual_clock: VirtualClock) -> None:
    pytest.importorskip("time_machine")
    local = time.localtime().tm_zone
    await anyio.sleep(86_400.25)
    with virtual_clock.patch_datetime():
        assert datetime.now(UTC) == datetime(2025, 1, 2, 0, 0, 0, 250_000, tzinfo=UTC)
        assert time.localtime().tm_zone == local
        await anyio.sleep(3600)
        assert datetime.now(UTC) == virtual_clock.now() == datetime(2025, 1, 2, 1, 0, 0, 250_000, tzinfo=UTC)
        assert time.time_ns() == virtual_clock.time_ns()
        virtual_clock.step_wall(timedelta(days=-30))
        assert datetime.now(UTC) == virtual_clock.now() == datetime(2024, 12, 3, 1, 0, 0, 250_000, tzinfo=UTC)
        assert time.time() == virtual_clock.now().timestamp()
    assert datetime.now(UTC) > datetime(2025, 6, 1, tzinfo=UTC)


# Private parts of other packages


def test_the_private_parts_of_asyncio_anyio_and_trio_are_still_there() -> None:
    """Each is used in only one place: `_virtual/asyncio.py` and `_virtual/trio.py`."""
    from anyio._backends._asyncio import WorkerThread
    from trio.lowlevel import Task
    from trio.testing import MockClock

    loop = asyncio.SelectorEventLoop()
    try:
        assert 0 < vars(loop)["_clock_resolution"] < 1
        timer = loop.call_later(5, lambda: None)
        assert vars(loop)["_scheduled"] == [timer]
    finally:
        loop.close()
    assert {"loop", "stopping", "idle_workers"} <= set(WorkerThread.__init__.__code__.co_names)
    assert callable(MockClock._autojump)
    assert {"_next_send", "_next_send_fn"} <= {field.name for field in Task.__attrs_attrs__}

    async def main() -> object:
        return cast("Any", asyncio.current_task())._fut_waiter

    assert asyncio.run(main()) is None
