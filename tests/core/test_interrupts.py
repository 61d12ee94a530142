"""Ctrl-C at an unlucky moment on trio, which raises `KeyboardInterrupt` in the running task."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio

from anysched import Scheduler
from anysched._core import run as run_module
from anysched._core import task as task_module
from anysched._core.timer_queue import Timer, TimerQueue
from support import nothing, value


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Unlucky:
    """An ID during whose n-th look-up the process is interrupted."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __hash__(self) -> int:
        self.left -= 1
        if self.left == 0:
            interrupt()
        return 5


def interrupted(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a program on trio that must end by Ctrl-C."""
    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend="trio")
    gc.collect()  # a coroutine that was never awaited is an error


class InterruptingTimers(dict[int, Any]):
    """The timers of a queue, of which the first is removed at an unlucky moment."""

    interrupted = False

    def pop(self, *args: Any) -> Any:
        timer = super().pop(*args)
        if not self.interrupted:
            self.interrupted = True
            interrupt()
        return timer


def test_while_a_task_is_taken_from_the_queue() -> None:
    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule_later(0, "id", nothing)
            scheduler.schedule_later(3600, "later", nothing)
            (segment,) = {task._segment for task in scheduler.tasks.values()}
            assert segment is not None
            segment.timers = InterruptingTimers(segment.timers)
            await anyio.sleep_forever()

    interrupted(main)


def test_a_timer_leaves_a_queue_that_has_lost_it() -> None:
    """On asyncio a second Ctrl-C cannot be kept away."""
    queue = TimerQueue[Timer]()
    timer = Timer()
    queue.push(timer, 1, 1)
    assert timer._segment is not None
    timer._segment.timers.clear()
    timer._leave_queue()
    assert timer._segment is None


def test_while_a_task_is_handed_to_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_module.TaskRun.main

    def make_and_interrupt(self: run_module.TaskRun) -> Coroutine[Any, Any, None]:
        coroutine = run(self)
        interrupt()
        return coroutine

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", value(1))
            await anyio.sleep_forever()

    monkeypatch.setattr(run_module.TaskRun, "main", make_and_interrupt)
    interrupted(main)


@pytest.mark.parametrize("where", ["task", "recurring", "body", "group"])
def test_what_users_write_is_interrupted_at_once(where: str) -> None:
    """So a task that never stops computing can be ended."""
    after: list[str] = []

    async def compute() -> None:
        interrupt()
        after.append(where)

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            if where == "task":
                scheduler.schedule("id", compute)
            elif where == "recurring":
                scheduler.schedule_every(1, "id", compute, first=0)
            elif where == "group":
                async with anyio.create_task_group() as group:
                    group.start_soon(compute)
            else:
                await compute()
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend="trio")
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, KeyboardInterrupt)
    assert after == []


def test_while_a_run_makes_its_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    make = vars(task_module)["make_coroutine"]

    def make_and_interrupt(*args: Any) -> Any:
        coroutine = make(*args)
        interrupt()
        return coroutine

    async def main() -> None:
        async with Scheduler("test") as scheduler:
            scheduler.schedule("id", nothing)
            await anyio.sleep_forever()

    monkeypatch.setattr(task_module, "make_coroutine", make_and_interrupt)
    interrupted(main)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("name", ["schedule", "replace", "cancel", "reschedule", "end"])
def test_while_the_table_of_ids_is_read_or_written(name: str, count: int) -> None:
    """In the middle of a call the scheduler's state is not consistent; after the call it is."""
    done = False

    async def main() -> None:
        nonlocal done
        task_id = Unlucky(0)
        async with Scheduler("test") as scheduler:
            if name != "schedule":
                scheduler.schedule_later(0 if name == "end" else 3600, task_id, value(1))
            task_id.left = count
            if name in ("schedule", "replace"):
                scheduler.schedule_later(3600, task_id, value(2), on_conflict="replace")
            elif name == "cancel":
                scheduler.cancel(task_id)
            elif name == "reschedule":
                scheduler.reschedule_later(60, task_id)
            elif name == "end":
                await wait_idle(scheduler)
            done = True
            missed, task_id.left = task_id.left > 0, 0
            assert scheduler.statistics().pending == len(scheduler.tasks)
            if missed:  # it is looked up less often
                interrupt()
            await anyio.sleep_forever()

    interrupted(main)
    assert done


async def wait_idle(scheduler: Scheduler) -> None:
    """Wait for the end of all tasks without being the one that is interrupted."""
    with anyio.CancelScope(shield=True):
        for _ in range(20):
            await trio.lowlevel.cancel_shielded_checkpoint()
