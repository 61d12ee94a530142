"""A program that hangs in real time raises an error in virtual time."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

from anysched import Scheduler
from anysched._virtual import timeline as timeline_module
from anysched._virtual.blocked import describe
from anysched.testing import DeadlockError, VirtualClock
from support import forever, nothing, settle, timeline_of

pytestmark = pytest.mark.anyio

LONG = 3600.0
SOON = 0.05


def run(clock: VirtualClock, backend: Any, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    name, options = clock.backend(backend)
    return anyio.run(function, *args, backend=name, backend_options=options)


def sole(error: BaseException) -> BaseException:
    """Return the only exception in nested groups, with which task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


def deadlock(clock: VirtualClock, backend: Any, function: Callable[..., Coroutine[Any, Any, Any]]) -> DeadlockError:
    """Run a function that must end with a deadlock, and return the error."""
    with pytest.raises((DeadlockError, ExceptionGroup)) as caught:
        run(clock, backend, function)
    error = sole(caught.value)
    assert isinstance(error, DeadlockError)
    return error


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


# Nothing is going to happen: at once


def test_the_error_names_the_blocked_tasks_and_where_they_are(backend: Any) -> None:
    async def wait_for_the_bus(event: anyio.Event) -> None:
        await event.wait()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(wait_for_the_bus, anyio.Event(), name=f"passenger {number}")
            await anyio.sleep(60)
            await anyio.Event().wait()

    clock = VirtualClock(idle_timeout=LONG)
    began = time.perf_counter()
    error = deadlock(clock, backend, main)
    assert time.perf_counter() - began < 60
    assert clock.monotonic() == 60
    assert (error.real_seconds, error.next_timer) == (0, math.inf)
    assert str(error).startswith("deadlock: every task is blocked, no timer is set, and nothing else can wake them.")
    main_task, *others = error.tasks
    assert main_task.endswith(
        f"main at {__file__}:{line_of(main, 'Event().wait')} in {main.__qualname__}".partition(" at ")[2]
    )
    line = line_of(wait_for_the_bus, "event.wait")
    assert others == [
        f"'passenger {number}' at {__file__}:{line} in {wait_for_the_bus.__qualname__}" for number in range(2)
    ]
    assert all(task in str(error) for task in error.tasks)


def line_of(function: Callable[..., object], text: str) -> int:
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_of_many_blocked_tasks_ten_are_named(backend: Any) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(anyio.sleep_forever, name=f"{number}")

    error = deadlock(VirtualClock(), backend, main)
    assert len(error.tasks) == 31
    assert str(error).endswith("and 21 more")


def test_it_is_raised_where_the_main_task_is_blocked(backend: Any) -> None:
    async def main() -> str:
        for _ in range(3):
            with pytest.raises(DeadlockError):
                await anyio.Event().wait()
        return "done"

    assert run(VirtualClock(), backend, main) == "done"


def test_the_tasks_of_a_task_group_are_cancelled(backend: Any) -> None:
    cancelled: list[int] = []

    async def member(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(member, number)

    deadlock(VirtualClock(), backend, main)
    assert sorted(cancelled) == [0, 1, 2]


def test_in_task_groups_in_task_groups(backend: Any) -> None:
    async def inner() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(inner)
            group.start_soon(inner)

    deadlock(VirtualClock(), backend, main)


def test_a_task_that_cannot_be_cancelled_gets_the_error(backend: Any) -> None:
    """On leaving, the group cancels its tasks, one of which is shielded: everything is blocked for a second time."""
    seen: list[str] = []

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            try:
                await anyio.Event().wait()
            except DeadlockError:
                seen.append("stubborn")
                raise

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stubborn)

    with pytest.raises(ExceptionGroup) as caught:
        run(VirtualClock(), backend, main)
    assert caught.group_contains(DeadlockError)
    assert seen == ["stubborn"]


async def leave_asyncios_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(forever())


async def await_a_task() -> None:
    await asyncio.create_task(forever())


async def await_a_task_in_its_task_group() -> None:
    await asyncio.create_task(leave_asyncios_task_group())


async def await_gather() -> None:
    await asyncio.gather(forever(), forever())


async def await_asyncios_wait() -> None:
    await asyncio.wait([asyncio.ensure_future(forever())])


async def await_a_queue() -> None:
    await asyncio.Queue[int]().get()


@pytest.mark.parametrize(
    "main",
    [
        leave_asyncios_task_group,
        await_a_task,
        await_a_task_in_its_task_group,
        await_gather,
        await_asyncios_wait,
        await_a_queue,
    ],
)
def test_with_what_asyncio_offers(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    deadlock(VirtualClock(), "asyncio", main)


def test_without_a_main_task_the_error_ends_the_run() -> None:
    loop = VirtualClock().backend("asyncio")[1]["loop_factory"]()
    try:
        with pytest.raises(DeadlockError) as caught:
            loop.run_forever()
        assert caught.value.tasks == ()

        async def catch() -> None:
            with pytest.raises(DeadlockError):
                await anyio.Event().wait()
            loop.stop()

        task = loop.create_task(catch())
        loop.run_forever()
        assert task.done()
    finally:
        loop.close()


class FutureLike:
    """Not a future of asyncio's, but tasks accept it."""

    _asyncio_future_blocking = True

    def __init__(self) -> None:
        self._future = asyncio.get_running_loop().create_future()
        self.get_loop = self._future.get_loop
        self.add_done_callback = self._future.add_done_callback
        self.cancel = self._future.cancel

    def __await__(self) -> Any:
        yield self


async def wait_for_the_impossible() -> None:
    await FutureLike()


def test_where_no_error_can_be_raised_in_a_task_it_ends_the_run() -> None:
    deadlock(VirtualClock(), "asyncio", wait_for_the_impossible)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_trio_the_end_of_the_run_is_an_internal_error() -> None:
    from trio.lowlevel import Abort, wait_task_rescheduled

    async def main() -> None:
        await wait_task_rescheduled(lambda _: Abort.FAILED)

    with pytest.raises(BaseException) as caught:
        run(VirtualClock(), "trio", main)
    assert isinstance(caught.value.__cause__, DeadlockError)
    del caught
    gc.collect()  # remains of the run would warn


async def test_a_scheduler_that_is_joined_for_ever(virtual_clock: VirtualClock) -> None:
    """It is not the task's fault, and the task would only log the error, so it is raised in the test."""
    async with Scheduler("test") as scheduler:
        scheduler.schedule("id", forever)
        with pytest.raises(DeadlockError, match="test_a_scheduler_that_is_joined"):
            await scheduler.join()
        assert "id" in scheduler
        scheduler.cancel_all()
        await scheduler.join()


async def test_closing_that_never_ends(virtual_clock: VirtualClock) -> None:
    """It is reported less and less often, and then no more: the deadlock is found."""
    released = anyio.Event()

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await released.wait()

    async with Scheduler("test") as scheduler:
        scheduler.schedule("id", stubborn)
        began = virtual_clock.monotonic()
        await settle()
        with pytest.raises(DeadlockError, match="test_closing_that_never_ends"):
            await scheduler.close()
        assert 86_400 < virtual_clock.monotonic() - began < 7 * 86_400
        released.set()


async def test_leaving_that_never_ends(virtual_clock: VirtualClock) -> None:
    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await forever()

    began = virtual_clock.monotonic()
    with suppress(BaseExceptionGroup):  # on trio the task gets the error, as its own failure
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", stubborn)
            await settle()
    assert scheduler.state == "closed"
    assert 86_400 < virtual_clock.monotonic() - began < 7 * 86_400


async def test_waiting_for_a_paused_world_is_no_deadlock_while_a_timer_is_set(virtual_clock: VirtualClock) -> None:
    async with Scheduler("test") as scheduler:
        scheduler.schedule_later(1e9, "id", nothing)
        await scheduler.join()
    assert virtual_clock.monotonic() == 1e9


def test_a_task_without_a_frame_is_named() -> None:
    coroutine = nothing()
    coroutine.close()
    assert describe("name", coroutine) == describe("name", object()) == "'name'"


# Something from outside might wake a task: after some real seconds


@pytest.fixture
def ticking() -> Any:
    """Start threads that do nothing for an hour, and end them after the test."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start() -> None:
        thread = threading.Thread(target=stop.wait)
        threads.append(thread)
        thread.start()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def after_a_while(backend: Any, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    error = deadlock(VirtualClock(idle_timeout=SOON), backend, main)
    assert SOON <= error.real_seconds < 60
    assert "deadlock: every task is blocked for " in str(error)
    assert "clock.hold()" in str(error)


def test_a_thread_of_ones_own(backend: Any, ticking: Callable[[], None]) -> None:
    async def main() -> None:
        ticking()
        await anyio.Event().wait()

    after_a_while(backend, main)


def test_a_thread_that_was_there_before_does_not_count(backend: Any, ticking: Callable[[], None]) -> None:
    ticking()
    assert deadlock(VirtualClock(idle_timeout=LONG), backend, forever).real_seconds == 0


def test_worker_threads_that_are_idle_do_not_count(backend: Any) -> None:
    async def main() -> None:
        await to_thread.run_sync(nothing_at_all)
        if backend == "asyncio":
            await asyncio.to_thread(nothing_at_all)
        await anyio.Event().wait()

    def nothing_at_all() -> None: ...

    assert deadlock(VirtualClock(idle_timeout=LONG), backend, main).real_seconds == 0


def test_a_socket(backend: Any) -> None:
    left, right = socket.socketpair()

    async def main() -> None:
        async with await anyio.abc.SocketStream.from_socket(right) as stream:
            await stream.receive()

    with left:
        after_a_while(backend, main)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1")
def test_a_signal(backend: Any) -> None:
    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            async for _ in signals:
                pass

    after_a_while(backend, main)


async def test_what_comes_from_outside_in_time_is_waited_for(virtual_clock: VirtualClock) -> None:
    process = await anyio.open_process([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    async with process:
        assert process.stdin is not None
        await process.stdin.send(b"\n")
        assert await process.wait() == 0
    assert virtual_clock.monotonic() == 0


def test_the_time_is_counted_from_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(timeline_module, "time", SimpleNamespace(perf_counter=lambda: now))
    timeline = timeline_of(VirtualClock(idle_timeout=5))

    def idle() -> float | None:
        return timeline.idle(math.inf, 0, lambda: "something")

    assert idle() == 5
    now = 104
    assert idle() == 1
    timeline.io_happened()
    assert idle() == 5
    now = 108
    assert idle() == 1
    now = 109
    assert idle() is None
    assert timeline.deadlock(math.inf, ["a task"]).real_seconds == 5
    assert idle() == 5  # the error was raised and handled


# No error


@pytest.mark.parametrize("autojump", [False, True])
def test_a_portal_waits_for_calls_as_long_as_it_likes(backend: Any, autojump: bool) -> None:
    clock = VirtualClock(idle_timeout=0.01, autojump=autojump)
    name, options = clock.backend(backend)
    with from_thread.start_blocking_portal(name, options) as portal:
        portal.call(anyio.sleep, 0)
        time.sleep(0.1)
        portal.call(anyio.sleep, 0)


def test_a_hold_has_no_limit(backend: Any) -> None:
    clock = VirtualClock(idle_timeout=0.01)

    async def main() -> None:
        event = anyio.Event()
        token = anyio.lowlevel.current_token()
        with clock.hold():
            timer = threading.Timer(0.1, partial(from_thread.run_sync, event.set, token=token))
            timer.start()
            await event.wait()

    run(clock, backend, main)


@pytest.mark.parametrize("autojump", [False, True])
def test_a_worker_thread_has_no_limit(backend: Any, autojump: bool) -> None:
    clock = VirtualClock(idle_timeout=0.01, thread_timeout=0.01, autojump=autojump)
    run(clock, backend, partial(to_thread.run_sync, time.sleep, 0.1))


# Time that stands still


def test_with_autojump_off_and_no_task_left_to_move_time(backend: Any) -> None:
    async def main() -> None:
        await anyio.sleep(90)

    error = deadlock(VirtualClock(autojump=False, idle_timeout=SOON), backend, main)
    assert error.next_timer == 90
    assert SOON <= error.real_seconds < 60
    assert str(error).startswith("virtual time stands still: autojump is off, and every task has been blocked for ")
    assert "to the next timer, in 90 s." in str(error)
    assert len(error.tasks) == 1


def test_with_autojump_off_and_no_timer_it_is_a_deadlock(backend: Any) -> None:
    assert deadlock(VirtualClock(autojump=False, idle_timeout=LONG), backend, forever).next_timer == math.inf


def test_a_task_that_moves_time_is_enough(backend: Any) -> None:
    clock = VirtualClock(autojump=False, idle_timeout=0.001)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 60)
            await clock.advance(30)
            await clock.advance(30)

    run(clock, backend, main)
