"""What a pending task costs, counted and not timed: the same with a thousand others and with a hundred thousand."""

import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anysched import Scheduler
from support import dispatcher_of, nothing

SIZES = 1_000, 100_000
HOUR = 3600.0


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def entries(scheduler: Scheduler) -> int:
    """How many entries stand in the heaps, dead ones included."""
    return dispatcher_of(scheduler).queue_entries


async def measure(size: int, work: Callable[[], Any]) -> list[float]:
    """Count what there is for each ID: objects that the collector tracks, and entries."""
    counts: list[float] = []
    async with Scheduler("test") as scheduler:
        before = objects()

        def count() -> None:
            counts.append(round((objects() - before) / size, 2))
            counts.append(round(entries(scheduler) / size, 2))

        for number in range(size):
            scheduler.schedule_later(HOUR + number * 7919 % 1000, number, work())
        count()
        for turn in range(1, 4):
            for number in range(size):
                scheduler.reschedule_later(HOUR * (turn + 1), number)
        count()
        for number in range(0, size, 2):
            scheduler.cancel(number)
        count()
        for number in range(0, size, 2):
            scheduler.schedule_later(HOUR, number, work(), on_conflict="error")
        for number in range(size):
            scheduler.schedule_later(HOUR, number, work(), on_conflict="replace")
        count()
        scheduler.cancel_all()
        count()
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "work", "each"), [("asyncio", lambda: nothing, 2), ("trio", nothing, 3)])
def test_the_cost_of_an_id_does_not_depend_on_their_number(backend: str, work: Callable[[], Any], each: int) -> None:
    small, large = (anyio.run(measure, size, work, backend=backend) for size in SIZES)
    # Pending: the task, its context, and perhaps a coroutine; its entry is an integer. Postponed: the same. Half of them
    # cancelled: half of it, with as many dead entries at the most. Scheduled again and replaced: the same. All cancelled:
    # nothing.
    most = [each, 1, each, 1, each / 2, 1, each, 2, 0, 0]
    for figures in (small, large):
        assert all(figure <= limit + 0.1 for figure, limit in zip(figures, most, strict=True)), figures
    assert all(many <= few + 0.1 for few, many in zip(small, large, strict=True)), (small, large)
