"""Tasks start in due order, ties in the order of the calls, and other tasks run in between."""

from datetime import datetime
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anysched import Scheduler
from anysched._core.backends.current import current_backend
from support import Gate, nothing, settle

pytestmark = pytest.mark.anyio


class Recorder:
    """Records the order of first steps."""

    def __init__(self) -> None:
        self.order: list[Any] = []

    async def __call__(self, mark: Any) -> None:
        self.order.append(mark)
        await checkpoint()


async def test_tasks_scheduled_at_once_start_in_the_order_of_the_calls(scheduler: Scheduler) -> None:
    record = Recorder()
    for number in range(300):
        match number % 3:
            case 0:
                scheduler.schedule(number, record(number))
            case 1:
                scheduler.schedule_later(-number, number, record, number)
            case _:
                scheduler.schedule_at(datetime(2000, 1, 1 + number % 7), number, record, number)
    await scheduler.join()
    assert record.order == list(range(300))


async def test_a_task_that_waited_for_its_former_goes_before_those_due_later() -> None:
    record = Recorder()
    async with Scheduler("test", max_running=1) as scheduler:
        gate = Gate(stubborn=True)
        scheduler.schedule("id", gate)
        await gate.started.wait()
        scheduler.schedule("id", record, "id", on_conflict="replace")
        for number in range(5):
            scheduler.schedule(number, record, number)
        await settle()
        gate.open.set()
        await scheduler.join()
    assert record.order == ["id", 0, 1, 2, 3, 4]


async def test_the_event_loop_is_let_through(scheduler: Scheduler) -> None:
    """Between two steps of another task, at most one batch is started."""
    started = 0
    most = 0
    per_turn = current_backend().starts_per_iteration
    assert per_turn <= 16

    async def work() -> None:
        nonlocal started
        started += 1

    async def other() -> None:
        nonlocal most
        while scheduler.tasks:
            before = started
            await checkpoint()
            most = max(most, started - before)

    for number in range(1000):
        scheduler.schedule(number, work)
    await other()
    assert started == 1000
    assert 0 < most <= per_turn + 1


async def test_tidying_up_lets_the_event_loop_through(scheduler: Scheduler) -> None:
    """Postponed entries and tasks that wait for a slot are not starts, but they also take time."""
    iterations = 0

    async def other() -> None:
        nonlocal iterations
        while not done.is_set():
            iterations += 1
            await checkpoint()

    done = anyio.Event()
    async with scheduler.child("child", max_running=1) as child, anyio.create_task_group() as tg:
        gate = Gate()
        child.schedule("first", gate)
        for number in range(5000):
            child.schedule(number, nothing)
            scheduler.schedule_later(0, number, nothing)
            scheduler.reschedule_later(3600, number)
        tg.start_soon(other)
        await scheduler.schedule("last", checkpoint)
        done.set()
        child.cancel_all()
        scheduler.cancel_all()
    assert iterations >= 5000 / 500
