"""The cost of a pending task, counted and not timed, does not depend on the number of other tasks."""

import gc
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from heapq import heappop
from typing import Any

import anyio
import pytest

from anysched import Scheduler
from anysched._core import timer_queue as timer_queue_module
from anysched._core.registry import TaskRegistry
from support import Gate, dispatcher_of, forever, nothing, settle, until

SIZES = 1_000, 100_000
HOUR = 3600.0


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def entries(scheduler: Scheduler) -> int:
    """Return the number of entries in the heaps, including stale ones."""
    return dispatcher_of(scheduler).queue_entries


async def measure(size: int, work: Callable[[], Any]) -> list[float]:
    """Count the objects that the collector tracks, and the entries, per ID."""
    counts: list[float] = []
    async with Scheduler("test") as scheduler:
        before = objects()

        def count() -> None:
            counts.append(round((objects() - before) / size, 2))
            counts.append(round(entries(scheduler) / size, 2))

        for number in range(size):
            scheduler.schedule_later(HOUR + number * 7919 % 1000, number, work())
        count()
        for hour in range(1, 4):
            for number in range(size):
                scheduler.reschedule_later(HOUR * (hour + 1), number)
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
    # cancelled: half of it, with at most as many stale entries. Scheduled again and replaced: the same. All cancelled:
    # nothing.
    most = [each, 1, each, 1, each / 2, 1, each, 2, 0, 0]
    for figures in (small, large):
        assert all(figure <= limit + 0.1 for figure, limit in zip(figures, most, strict=True)), figures
    assert all(many <= few + 0.1 for few, many in zip(small, large, strict=True)), (small, large)


# Frequent calls: few function calls for each


def functions_called(call: Callable[[], Any]) -> list[str]:
    """Return the names of the Python functions that are called, in order."""
    names: list[str] = []

    def profile(frame: Any, event: str, _argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    gc.disable()  # it may have callbacks
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
        gc.enable()
    return names


@pytest.mark.parametrize("given", ["coroutine", "function"])
def test_scheduling_and_cancelling_call_few_functions(given: str) -> None:
    """A function call takes about as long as everything else that one of these does."""

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            for number in range(100):
                scheduler.schedule_later(HOUR, number, nothing)
            await settle()
            work: Any = nothing() if given == "coroutine" else nothing
            scheduling = functions_called(partial(scheduler.schedule_later, HOUR, "id", work))
            work = None
            cancelling = functions_called(partial(scheduler.cancel, "id"))
            postponing = functions_called(partial(scheduler.reschedule_later, HOUR, 5))
        # Closing a coroutine that has not started is a call of it on some versions of Python.
        cancelling = [name for name in cancelling if name != nothing.__qualname__]
        assert len(scheduling) <= 8, scheduling
        assert len(cancelling) <= 6, cancelling
        assert len(postponing) <= 9, postponing

    anyio.run(main, backend="asyncio", backend_options={"debug": False})


@pytest.mark.anyio
async def test_attributes_are_found_by_their_index(scheduler: Scheduler) -> None:
    """Python does this for slots, and for the other attributes of an object if there are fewer than about thirty."""
    for used in (scheduler, scheduler._registry, scheduler._registry.family, dispatcher_of(scheduler)):
        assert len(vars(used)) < 25


# Queries: the same cost with few other tasks and with many


def calls_in(function: Callable[[], Any]) -> int:
    """Count the calls of Python and C functions, and the steps of generators, in a function."""
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


async def pending_in_one(size: int, scheduler: Scheduler) -> None:
    """The scheduler alone holds tasks."""
    for number in range(size):
        scheduler.schedule_later(HOUR - number, number, nothing)


async def pending_in_two(size: int, scheduler: Scheduler) -> None:
    """The scheduler and a child hold tasks, and the child's are due first."""
    child = scheduler.child("child")
    for number in range(size):
        child.schedule_later(HOUR / 2 - number / 100, number, nothing)
        scheduler.schedule_later(HOUR - number / 100, number, nothing)


async def pending_in_many(size: int, scheduler: Scheduler) -> None:
    """Many children hold a task each, and the scheduler one."""
    for number in range(size):
        scheduler.child("child").schedule_later(HOUR / 2, number, nothing)
    scheduler.schedule_later(HOUR, 0, nothing)


async def pending_at_times(size: int, scheduler: Scheduler) -> None:
    """Half of the tasks wait for the wall clock."""
    now = datetime.now(UTC)
    for number in range(size):
        scheduler.schedule_at(now + timedelta(days=1, seconds=number), number, nothing)
        scheduler.schedule_later(2 * 86_400, -1 - number, nothing)


async def postponed(size: int, scheduler: Scheduler) -> None:
    """All tasks have been postponed, and the queue has been tidied since."""
    await pending_in_two(size, scheduler)
    for task in scheduler.tasks.values():
        task.reschedule_later(2 * HOUR)
    scheduler.statistics()


async def paused(size: int, scheduler: Scheduler) -> None:
    """All tasks but one are paused."""
    await pending_in_two(size, scheduler)
    for number in range(size - 1):
        scheduler.pause(number)


async def waiting_for_slots(size: int, scheduler: Scheduler) -> None:
    """All tasks of a child wait for its slots."""
    child = scheduler.child("child", max_running=1)
    for number in range(size):
        child.schedule(number, forever)
    await until(lambda: not dispatcher_of(scheduler).queue_entries and child.statistics().running)
    scheduler.schedule_later(HOUR, "id", nothing)


STATES = [pending_in_one, pending_in_two, pending_in_many, pending_at_times, postponed, paused, waiting_for_slots]


def due_first(scheduler: Scheduler) -> datetime | None:
    """Return the due time of the first task, found by looking at all."""
    dues = [task.due for task in scheduler.tasks.values() if not task.paused and task.status.name == "PENDING"]
    return min((due for due in dues if due is not None), default=None)


@pytest.mark.anyio
@pytest.mark.parametrize("fill", STATES, ids=lambda fill: fill.__name__)
async def test_what_is_asked_for_does_not_depend_on_how_much_is_pending(
    fill: Callable[[int, Scheduler], Awaitable[None]],
) -> None:
    """Read the statistics of each busy scheduler, and whether `join` may wait."""
    counts = []
    for size in (20, 2_000):
        async with Scheduler("test") as scheduler:
            await fill(size, scheduler)
            for each in (scheduler, *scheduler.busy_descendants()[:2]):
                found, expected = each.statistics().next_due, due_first(each)
                assert found is not None
                assert expected is not None
                assert abs(found - expected) < timedelta(seconds=0.1)  # a delay is converted by the current clocks
                counts.append(calls_in(each.statistics))
                counts.append(calls_in(partial(each._check_not_inside, "join()", [each._registry])))
            scheduler.cancel_all()
            for each in scheduler.busy_descendants():
                each.cancel_all()
    few, many = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    assert all(more <= less + 3 for less, more in zip(few, many, strict=True)), (few, many)


@pytest.mark.anyio
async def test_statistics_after_many_were_cancelled_tidy_the_queue_once(scheduler: Scheduler) -> None:
    """This work is part of cancelling and is not repeated."""
    size = 5_000
    child = scheduler.child("child")
    child.schedule_later(HOUR, "other", nothing)
    for number in range(size):
        scheduler.schedule_later(HOUR + number * 7919 % size, number, nothing)
    cancelling = calls_in(lambda: [scheduler.cancel(n) for n in range(size) if n * 7919 % size < size * 0.45])
    assert calls_in(scheduler.statistics) < cancelling / 2
    assert calls_in(scheduler.statistics) < 100


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", ["first", "every other", "all but the last", "random"])
async def test_a_slot_is_handed_over_in_few_steps(
    scheduler: Scheduler, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds however many of the waiting tasks have been cancelled."""
    size = 4 * timer_queue_module.SEGMENT_SIZE
    child = scheduler.child("child", max_running=1)
    gate = Gate()
    child.schedule("first", gate)
    await gate.started.wait()
    for number in range(size):
        child.schedule(number, forever)
    await until(lambda: len(child._registry._slot_queue) == size)
    for number in range(size):
        if {
            "first": number % timer_queue_module.SEGMENT_SIZE < timer_queue_module.SEGMENT_SIZE * 0.48,
            "every other": number % 2 == 0,
            "all but the last": number < size - 1,
            "random": number * 7919 % 101 < 50,
        }[pattern]:
            child.cancel(number)
    left = list(child.tasks)[1:]
    pops = 0

    def counted(heap: list[int]) -> int:
        nonlocal pops
        pops += 1
        return heappop(heap)

    with monkeypatch.context() as patch:
        patch.setattr(timer_queue_module, "heappop", counted)
        gate.open.set()
        await until(lambda: child.tasks[left[0]].status.name == "RUNNING")
    assert pops < timer_queue_module.SEGMENT_SIZE
    await settle()
    assert child.statistics().running == 1
    child.cancel_all()


async def close_while_they_end(size: int, order: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Close many children whose tasks end one after the other; return how many members are looked at for each."""
    looked = 0
    busy_members = TaskRegistry.busy_members

    def counted(registry: TaskRegistry) -> list[TaskRegistry]:
        nonlocal looked
        looked += len(registry.family.busy)
        return busy_members(registry)

    gates = [Gate(stubborn=True) for _ in range(size)]

    async def open_gates() -> None:
        await until(lambda: gates[0].cancelled)
        for gate in gates[::order]:
            gate.open.set()
            await settle(3)

    async with Scheduler("test") as scheduler, anyio.create_task_group() as group:
        for gate in gates:
            scheduler.child("child").schedule("id", gate)
        await until(lambda: all(gate.started.is_set() for gate in gates))
        group.start_soon(open_gates)
        with monkeypatch.context() as patch:
            patch.setattr(TaskRegistry, "busy_members", counted)
            await scheduler.close()
    return looked / size


@pytest.mark.anyio
@pytest.mark.parametrize("order", [1, -1])
async def test_closing_many_busy_children_takes_steps_for_each_and_not_for_each_pair(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order their tasks end."""
    few, many = [await close_while_they_end(size, order, monkeypatch) for size in (50, 300)]
    assert many <= few + 1, (few, many)
