"""A graph of tasks that wait for other tasks, which finds deadlocks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, final

from .task import ScheduledTask, owner_of

__all__ = ["WaitGraph"]

Alternatives = Collection[ScheduledTask[Any]]
"""Tasks of which one must end."""


@final
class WaitGraph:
    """The tasks of a scheduler and its children that wait, inside their runs, for other tasks."""

    __slots__ = ("_awaited",)

    def __init__(self) -> None:
        # A task may wait for several tasks at once, in its child tasks.
        self._awaited: dict[ScheduledTask[Any], list[ScheduledTask[Any]]] = {}

    def add(self, waiting: ScheduledTask[Any], awaited: ScheduledTask[Any]) -> None:
        """Record that a task waits for another task."""
        self._awaited.setdefault(waiting, []).append(awaited)

    def remove(self, waiting: ScheduledTask[Any], awaited: ScheduledTask[Any]) -> None:
        """Record that a task no longer waits for another task."""
        tasks = self._awaited[waiting]
        tasks.remove(awaited)
        if not tasks:
            del self._awaited[waiting]

    def deadlock(self, waiting: ScheduledTask[Any]) -> list[ScheduledTask[Any]]:
        """Return the tasks of a deadlock, beginning with the waiting task; an empty list if it is not in a deadlock.

        A cancellation could end any of the waits, but this is not considered. Cancelled tasks are not counted.

        Args:
            waiting: The task.
        """
        # First collect the tasks on which its end depends, unless they can continue by themselves.
        needs: dict[ScheduledTask[Any], list[Alternatives]] = {}
        found = [waiting]
        while found:
            task = found.pop()
            if task not in needs:
                blocked = [
                    each for each in self._needs(task, waiting) if all(self._needs(other, waiting) for other in each)
                ]
                needs[task] = blocked
                found += [other for alternatives in blocked for other in alternatives]
        # Then remove the tasks that can end, and those that can end when these have ended.
        stuck = dict.fromkeys(needs)
        count = 0
        while count != len(stuck):
            count = len(stuck)
            for task in reversed(list(stuck)):
                if all(any(other not in stuck for other in alternatives) for alternatives in needs[task]):
                    del stuck[task]
        return list(stuck) if waiting in stuck else []

    def _needs(self, task: ScheduledTask[Any], waiting: ScheduledTask[Any]) -> list[Alternatives]:
        """Return what a task waits for: one task of each collection must end before it can end."""
        if task.status is task.Status.PENDING:
            return owner_of(task).needs(task)
        if task.status is not task.Status.RUNNING and task is not waiting:
            return []
        return [[awaited] for awaited in self._awaited.get(task, ())]
