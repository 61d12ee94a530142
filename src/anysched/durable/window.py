"""The tasks that are due next, as tasks of the in-process scheduler. All others are only in the store."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Any, final

from anyio.lowlevel import checkpoint

from anysched import ScheduledTask, Scheduler

from .operations import Placed
from .values import decode_id, moment

__all__ = ["NOTHING", "WINDOW", "Window"]

WINDOW = 2_500
"""How many tasks are armed. More are loaded when half are used up, and some are dropped when there are twice as many."""

ARMED_PER_ITERATION = 100
"""How many tasks are armed or disarmed before yielding to the event loop."""

NOTHING = (-1, 0)
EVERYTHING = (2**62, 2**62)
"""The horizons before and after all tasks: due times and generations are less than these."""


@dataclass(frozen=True, slots=True)
class _Armed:
    due: int
    task: ScheduledTask[None]


@final
class Window:
    """Holds the tasks that are armed: pending in the in-process scheduler.

    Args:
        scheduler: The in-process scheduler.
        run: The function that it runs, with the generation.
        context: The context of the tasks.
        size: How many tasks to arm.

    Attributes:
        size: How many tasks to arm.
        horizon: The due time and generation up to which every ready task is armed.
    """

    def __init__(
        self, scheduler: Scheduler, run: Callable[[int], Coroutine[Any, Any, None]], context: Context, size: int
    ) -> None:
        self._scheduler = scheduler
        self._run = run
        self._context = context
        self.size = size
        self._armed: dict[int, _Armed] = {}
        self._trim_at = 2 * size
        self.horizon: tuple[int, int] = NOTHING

    def __len__(self) -> int:
        return len(self._armed)

    def __iter__(self) -> Iterator[int]:
        return iter(self._armed)

    @property
    def is_low(self) -> bool:
        """Whether more tasks should be loaded: half of the window is used up, and there are more in the store."""
        return self.horizon != EVERYTHING and len(self._armed) <= self.size // 2

    @property
    def is_over_full(self) -> bool:
        """Whether some tasks should be dropped because there are too many."""
        return len(self._armed) > self._trim_at

    def arm(self, placed: Placed) -> None:
        """Make a task pending in the in-process scheduler, or move it there, if it is ready and due before the horizon."""
        if not placed.ready or (placed.due, placed.generation) > self.horizon:
            self.disarm(placed.generation)
            return
        if self._scheduler.state != "running":
            return  # it is closing: the task stays in the store
        # If another task holds the ID there, it is still running, and this one starts after it has ended.
        task = self._scheduler.schedule_at(
            moment(placed.due),
            decode_id(placed.task_id),
            self._run,
            placed.generation,
            on_conflict="follow",
            context=self._context,
        )
        self._armed[placed.generation] = _Armed(placed.due, task)

    def disarm(self, generation: int) -> None:
        """Drop a task from the in-process scheduler, if it is pending there."""
        armed = self._armed.pop(generation, None)
        if armed is not None:
            armed.task.cancel()

    def take(self, generation: int) -> int | None:
        """Remove a task that has started, and return the due time for which it was armed; `None` if it was not armed."""
        armed = self._armed.pop(generation, None)
        return None if armed is None else armed.due

    async def clear(self) -> None:
        """Drop all tasks."""
        for number, generation in enumerate(list(self._armed), 1):
            self.disarm(generation)
            if number % ARMED_PER_ITERATION == 0:
                await checkpoint()

    async def arm_all(self, loaded: list[Placed], limit: int, live: Callable[[int], bool]) -> None:
        """Arm tasks that were loaded from the store.

        Args:
            loaded: The tasks, in the order of due times.
            limit: How many were requested.
            live: Returns whether a task has started.
        """
        self.horizon = (loaded[-1].due, loaded[-1].generation) if len(loaded) == limit else EVERYTHING
        for number, placed in enumerate(loaded, 1):
            if placed.generation not in self._armed and not live(placed.generation):
                self.arm(placed)
            if number % ARMED_PER_ITERATION == 0:
                await checkpoint()

    async def trim(self) -> None:
        """Drop the tasks that are due last."""
        # Only due times are compared, and all tasks with the same due time are kept, because sorting takes most of the
        # time.
        last = sorted([armed.due for armed in self._armed.values()])[self.size - 1]
        self.horizon = min(self.horizon, (last, EVERYTHING[1]))
        late = [generation for generation, armed in self._armed.items() if armed.due > last]
        for number, generation in enumerate(late, 1):
            self.disarm(generation)
            if number % ARMED_PER_ITERATION == 0:
                await checkpoint()
        self._trim_at = 2 * max(self.size, len(self._armed))
