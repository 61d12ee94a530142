"""Running ready asyncio tasks in random order. The ready queue and the steps of tasks in it are private to asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count, groupby
from random import Random
from typing import Any, cast
from weakref import WeakKeyDictionary

__all__ = ["Shuffler"]

STEPS = frozenset({"TaskStepMethWrapper", "task_wakeup", "__step", "__wakeup"})
"""The names of the callbacks that are a step of a task, in C and in Python."""


class Shuffler:
    """Shuffles the steps of tasks that are ready to run.

    asyncio promises that callbacks are called in the order in which they were registered, but makes no promise about the
    order of tasks. So callbacks keep their places, and only tasks that follow each other are shuffled.

    Args:
        seed: Where the random numbers begin.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311
        self._next_number = count().__next__
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Number a new task."""
        self._numbers[task] = self._next_number()

    def shuffle(self, ready: deque[asyncio.Handle]) -> None:
        """Shuffle the ready queue. Other threads may append to it at any time."""
        handles = [ready.popleft() for _ in range(len(ready))]
        shuffled: list[asyncio.Handle] = []
        for is_step, group in groupby(handles, lambda handle: _task_of(handle) is not None):
            part = list(group)
            if is_step and len(part) > 1:
                # Sorted first: the order in which they became ready may depend on memory addresses, as in a set of tasks
                # that are cancelled. A seed must give the same order in each process.
                part.sort(key=self._number)
                self._random.shuffle(part)
            shuffled += part
        ready.extendleft(reversed(shuffled))

    def _number(self, handle: asyncio.Handle) -> int:
        task = _task_of(handle)
        assert task is not None
        if task not in self._numbers:  # it was not created by the event loop
            self.add(task)
        return self._numbers[task]


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task of which a handle is a step, or `None`."""
    callback: Any = getattr(handle, "_callback", None)
    owner: object = getattr(callback, "__self__", None)
    name = getattr(callback, "__name__", type(callback).__name__)
    return cast("Any", owner) if isinstance(owner, asyncio.Task) and name in STEPS else None
