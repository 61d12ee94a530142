"""Memory use depends on the pending tasks, not on those that have ended."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anysched import Scheduler
from anysched._core.timer_queue import SEGMENT_SIZE, Timer, TimerQueue
from anysched.testing import VirtualClock
from support import dispatcher_of, nothing, value

HOUR = 3600.0


class Plain(Timer):
    __slots__ = ()

    def __init__(self) -> None:
        self._segment = None


def take_all(queue: TimerQueue[Plain], until: int) -> int:
    """Remove the due timers, as the dispatcher does."""
    taken = 0
    while queue.prune_top(1 << 60) and queue:
        timer = queue.peek()
        assert timer is not None
        if timer._key >> 48 > until:
            break
        queue.pop()
        taken += 1
    return taken


def size_of_queue(work: Callable[[TimerQueue[Plain]], object]) -> tuple[float, int]:
    """Return how many bytes a queue has taken after some work, without its timers, and how many timers are left."""
    gc.collect()
    tracemalloc.start()
    queue: TimerQueue[Plain] = TimerQueue()
    keep = work(queue)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del keep
    return size, len(queue)


def long_and_short(queue: TimerQueue[Plain]) -> list[Plain]:
    """One timer in a thousand stays; the others are removed soon."""
    now = 0
    for number in range(1, 200_001):
        now += 1
        stays = number % 1000 == 0
        queue.push(Plain(), now + (10**9 if stays else 500), number)
        if number % 100 == 0:
            take_all(queue, now)
    take_all(queue, now + 1000)
    return []


def one_stays(queue: TimerQueue[Plain]) -> list[Plain]:
    """Of a full segment and more, one stays."""
    for number in range(1, SEGMENT_SIZE * 3):
        queue.push(Plain(), number if number != 5 else 10**9, number)
    take_all(queue, 10**6)
    return []


def far_ones_are_cancelled(queue: TimerQueue[Plain]) -> list[Plain]:
    """Segments of timers that are due in a year are filled and emptied repeatedly."""
    timers: list[Plain] = []
    for number in range(1, 100 * SEGMENT_SIZE):
        timers.append(Plain())
        queue.push(timers[-1], 10**9 + number, number)
        if len(timers) == 2 * SEGMENT_SIZE:
            for timer in timers[:-1]:
                timer._leave_queue()
            timers.clear()
    return timers


@pytest.mark.slow
@pytest.mark.parametrize("work", [long_and_short, one_stays, far_ones_are_cancelled])
def test_the_queue_holds_memory_for_what_it_contains(work: Callable[[TimerQueue[Plain]], object]) -> None:
    size, count = size_of_queue(work)
    assert count
    assert size < 4_000 + 350 * count, (size, count)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_many_short_tasks_leave_no_memory_behind(backend: Any) -> None:
    """One in a thousand stays and takes at most a kilobyte, plus the memory of the scheduler."""
    clock = VirtualClock()
    name, options = clock.backend(backend)

    async def main() -> tuple[int, int]:
        async with Scheduler("test") as scheduler:
            gc.collect()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for number in range(100_000 if backend == "asyncio" else 20_000):
                delay = 1e6 if number % 1000 == 0 else 0.5 + number % 7
                scheduler.schedule_later(delay, number, nothing)
                if number % 500 == 0:
                    await clock.advance(1)
            await clock.advance(10)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert await scheduler.schedule("id", value(1)) == 1
            return after - before, len(scheduler.tasks)

    size, pending = anyio.run(main, backend=name, backend_options=options)
    assert size < 60_000 + 1_000 * pending, (size, pending)


async def cancel_a_burst() -> tuple[int, int]:
    async with Scheduler("test") as scheduler:
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(50_000):
            scheduler.schedule_later(HOUR, number, nothing)
        for number in range(49_990):
            scheduler.cancel(number)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert list(scheduler.tasks) == list(range(49_990, 50_000))
        assert dispatcher_of(scheduler).queue_entries < 40
        return after - before, len(scheduler.tasks)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_burst_that_is_cancelled_leaves_no_memory_behind(backend: str) -> None:
    size, pending = anyio.run(cancel_a_burst, backend=backend)
    assert size < 60_000 + 1_000 * pending, (size, pending)
