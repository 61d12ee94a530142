"""An index of the tasks of a scheduler and its children that can be searched without holding up the event loop.

`Scheduler.tasks` cannot be iterated over in parts, because it may change in between, and copying a million tasks takes
too long. So this instrument keeps them in a thousand small tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any, final

import anyio
from anyio.lowlevel import checkpoint

from anysched import ScheduledTask, Scheduler
from anysched.abc import FinishedRun, Instrument, StartedRun

__all__ = ["Changes", "TaskIndex"]

BUCKETS = 1_024
SLICE = 0.001
"""For how many seconds tasks are searched before yielding to the event loop."""

TASKS_PER_STEP = 250

_Task = ScheduledTask[Any]


@final
class Changes:
    """Counts changes, and wakes the tasks that wait for one.

    Attributes:
        version: The number of changes.
    """

    def __init__(self) -> None:
        self.version: int = 0
        self._event: anyio.Event | None = None

    def count(self) -> None:
        """Count a change."""
        self.version += 1
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, version: int) -> None:
        """Wait until the version has changed."""
        while self.version == version:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()


@final
class TaskIndex(Instrument):
    """An index of the tasks of a scheduler and its descendants that have not ended.

    Args:
        scheduler: The scheduler, to which the index is added.
        changes: The counter of changes.

    Attributes:
        scheduler: The scheduler.
        count: The number of tasks.
        counts: The number of tasks, by the name of their scheduler.
        running: The runs that have started, by task.
    """

    def __init__(self, scheduler: Scheduler, changes: Changes) -> None:
        self.scheduler = scheduler
        self.count: int = 0
        self.counts: Counter[str] = Counter()
        self.running: dict[_Task, StartedRun] = {}
        self._changes = changes
        self._buckets: list[dict[_Task, None]] = [{} for _ in range(BUCKETS)]
        # The tasks that were already running when they were found.
        self._found_running: set[_Task] = set()
        # Usually there are no tasks yet, and none has to be found later.
        self._built = not any(other.tasks for other in family(scheduler))
        self._building = anyio.Lock()
        scheduler.add_instrument(self)

    @property
    def running_count(self) -> int:
        """The number of running tasks, including those that had started before the index was created."""
        return len(self.running) + sum(task.status is not ScheduledTask.Status.PENDING for task in self._found_running)

    async def prepare(self) -> None:
        """On the first call, find the tasks that were scheduled before the index was created."""
        async with self._building:
            schedulers = [] if self._built else list(family(self.scheduler))
            for scheduler in schedulers:
                await self._add_all(scheduler)
            self._built = True

    async def visit(self, function: Callable[[list[_Task]], object]) -> None:
        """Call a function with all tasks, a few hundred at a time.

        Tasks that are scheduled or end in the meantime may be left out.
        """
        await self.prepare()
        end = perf_counter() + SLICE
        for bucket in self._buckets:
            if bucket:
                tasks = list(bucket)
                for first in range(0, len(tasks), TASKS_PER_STEP):
                    function(tasks[first : first + TASKS_PER_STEP])
                    if perf_counter() > end:
                        await checkpoint()
                        end = perf_counter() + SLICE

    def find(self, scheduler_name: str, task_id: Hashable) -> _Task | None:
        """Return the task that was scheduled last under an ID and has not ended, or `None`."""
        for task in reversed(self._bucket(scheduler_name, task_id)):
            if task.task_id == task_id and task.scheduler_name == scheduler_name:
                return task
        return None

    # Called by the scheduler

    def task_scheduled(self, task: _Task, /) -> None:
        """Add the task."""
        self._add(task)
        self._changes.count()

    def task_rescheduled(self, task: _Task, /) -> None:
        """Count the change."""
        self._changes.count()

    def task_paused(self, task: _Task, /) -> None:
        """Count the change."""
        self._changes.count()

    def task_resumed(self, task: _Task, /) -> None:
        """Count the change."""
        self._changes.count()

    def run_started(self, task: _Task, run: StartedRun, /) -> None:
        """Add the run."""
        self.running[task] = run
        self._found_running.discard(task)
        self._changes.count()

    def run_finished(self, task: _Task, run: FinishedRun, /) -> None:
        """Remove the run."""
        self.running.pop(task, None)
        self._changes.count()

    def task_finished(self, task: _Task, /) -> None:
        """Remove the task."""
        self._found_running.discard(task)
        bucket = self._bucket(task.scheduler_name, task.task_id)
        if task in bucket:
            del bucket[task]
            self.count -= 1
            self.counts[task.scheduler_name] -= 1
            if not self.counts[task.scheduler_name]:
                del self.counts[task.scheduler_name]
        self._changes.count()

    def _bucket(self, scheduler_name: str, task_id: Hashable) -> dict[_Task, None]:
        return self._buckets[hash((scheduler_name, task_id)) % BUCKETS]

    def _add(self, task: _Task) -> None:
        bucket = self._bucket(task.scheduler_name, task.task_id)
        if task not in bucket:
            bucket[task] = None
            self.count += 1
            self.counts[task.scheduler_name] += 1

    def _add_found(self, task: _Task) -> None:
        self._add(task)
        if task.status is not ScheduledTask.Status.PENDING and task not in self.running:
            self._found_running.add(task)

    async def _add_all(self, scheduler: Scheduler) -> None:
        tasks = iter(scheduler.tasks.values())
        try:
            while some := list(islice(tasks, TASKS_PER_STEP)):
                for task in some:
                    self._add_found(task)
                await checkpoint()
        except RuntimeError:  # the table has changed, so copy it, which may take 50 ms for a million tasks
            everything = list(scheduler.tasks.values())
            for first in range(0, len(everything), TASKS_PER_STEP):
                for task in everything[first : first + TASKS_PER_STEP]:
                    if scheduler.tasks.get(task.task_id) is task:  # otherwise it has ended in the meantime
                        self._add_found(task)
                await checkpoint()


def family(scheduler: Scheduler) -> Iterator[Scheduler]:
    """Yield a scheduler and its descendants that have tasks."""
    yield scheduler
    yield from scheduler.busy_descendants()
