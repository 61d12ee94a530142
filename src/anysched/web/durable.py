"""The tasks in the store of a durable scheduler.

The tasks that are due next are also in memory, in an index like those of any scheduler, if this process runs them. This
module provides what only the store has: the numbers, the tasks that do not wait for their due time, and the actions on any
task.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, cast, final

import anyio

from anysched.durable import DurableScheduler, DurableStatistics, DurableTask, TaskId

from .index import Changes

__all__ = ["DurableView", "WaitingTask", "status_of"]

Status: TypeAlias = Literal["pending", "paused", "running", "parked", "unknown"]

WAITING: Final[tuple[Status, ...]] = ("parked", "unknown", "paused")
ELSEWHERE: Final[tuple[Status, ...]] = (*WAITING, "running", "pending")
"""The statuses of tasks that are only in the store, where another process runs them."""

MAX_WAITING: Final = 500
"""How many tasks with each of these statuses are shown."""

INTERVAL: Final = 0.25
"""The minimum time between two readings of the store, in seconds."""

MAX_AGE: Final = 10.0
"""After this many seconds the store is read again even if nothing has changed in memory."""


@final
@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task that is only in the store: it is paused, parked or waits for its handler, or another process runs it.

    Attributes:
        scheduler_name: The name of its scheduler.
        task: The task.
    """

    scheduler_name: str
    task: DurableTask

    @property
    def status(self) -> str:
        """The status of the task."""
        return status_of(self.task)


def status_of(task: DurableTask) -> str:
    """Return the status of a task; ``"paused"`` if it is paused and would otherwise be pending."""
    return "paused" if task.paused and task.status == "pending" else task.status


@final
class DurableView:
    """A view of the store of a durable scheduler, which is not read too often.

    Args:
        scheduler: The scheduler.
        changes: The counter of changes.
    """

    def __init__(self, scheduler: DurableScheduler, changes: Changes) -> None:
        self._scheduler = scheduler
        self._changes = changes
        self._lock = anyio.Lock()
        self._seen: tuple[object, ...] = ()
        self._looked = -math.inf
        self._statistics: DurableStatistics | None = None
        self._waiting: list[WaitingTask] = []

    @property
    def role(self) -> str:
        """What this process does with the store; see `DurableScheduler.role`."""
        return self._scheduler.role

    async def statistics(self) -> DurableStatistics | None:
        """Return the numbers of tasks; `None` if the scheduler is not running, or the store fails."""
        await self._look()
        return self._statistics

    async def waiting(self) -> list[WaitingTask]:
        """Return the tasks that are only in the store."""
        await self._look()
        return self._waiting

    async def find(self, task_id: Hashable) -> DurableTask | None:
        """Return the task that holds an ID, or `None`.

        Raises:
            StoreError: if the store fails.
        """
        if self._scheduler.state != "running":
            return None
        return await self._scheduler.get(cast("TaskId", task_id))

    async def act(self, task: DurableTask, action: str, seconds: float) -> bool:
        """Perform an action on a task; return whether that was possible.

        Args:
            task: The task.
            action: ``"run"``, ``"postpone"``, ``"pause"``, ``"resume"``, ``"retry"`` or ``"cancel"``.
            seconds: By how many seconds to postpone it.

        Raises:
            StoreError: if the store fails.
        """
        scheduler, task_id = self._scheduler, task.task_id
        match action:
            case "run":
                done = await scheduler.reschedule_later(0, task_id)
            case "postpone":
                done = await scheduler.reschedule_at(_later(max(task.due, scheduler.now()), seconds), task_id)
            case "pause":
                done = await scheduler.pause(task_id)
            case "resume":
                done = await scheduler.resume(task_id)
            case "retry":
                done = await scheduler.retry(task_id)
            case _:
                done = await scheduler.cancel(task_id)
        self._changes.count()  # what was not in memory has changed as well
        return done

    async def _look(self) -> None:
        async with self._lock:
            age = anyio.current_time() - self._looked
            if self._seen == self._present() and age < MAX_AGE:
                return
            await anyio.sleep(max(INTERVAL - age, 0))
            self._seen = self._present()
            try:
                self._statistics = await self._scheduler.statistics()
                self._waiting = [WaitingTask(self._scheduler.name, task) for task in await self._read_waiting()]
            except RuntimeError:  # it is not running, or the store fails
                self._statistics, self._waiting = None, []
            self._looked = anyio.current_time()

    def _present(self) -> tuple[object, ...]:
        return self._changes.version, self._scheduler.state, self.role

    async def _read_waiting(self) -> list[DurableTask]:
        found: list[DurableTask] = []
        for status in WAITING if self.role == "owner" else ELSEWHERE:
            limit = len(found) + MAX_WAITING
            async for task in self._scheduler.tasks(status=status):
                found.append(task)
                if len(found) == limit:
                    break
        return found


def _later(time: datetime, seconds: float) -> datetime:
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:  # there is no later one
        return time
