"""The handle of a durable task: a snapshot of what the store knows about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, final

from .operations import STATE_NAMES, DurableStatus, Entry
from .values import TaskId, decode_args, decode_id, moment

__all__ = ["DurableTask"]


@final
class DurableTask:
    """A task of a `DurableScheduler`, as it was when the handle was returned.

    The handle does not change; call `DurableScheduler.get` for a new one. It can be used for as long as its scheduler
    is running, even after another task has taken over the ID.
    """

    __slots__ = ("_entry", "_wait")

    def __init__(self, entry: Entry, wait: Callable[[int, str], Awaitable[None]]) -> None:
        self._entry = entry
        self._wait = wait

    @property
    def task_id(self) -> TaskId:
        """The ID under which it was scheduled."""
        return decode_id(self._entry.task_id)

    @property
    def generation(self) -> int:
        """The number of the task in the store. It is never reused for another task."""
        return self._entry.generation

    @property
    def due(self) -> datetime:
        """When the next run is due, or, during a run, when that run was due (aware UTC)."""
        return moment(self._entry.due)

    @property
    def handler(self) -> str:
        """The name of the handler."""
        return self._entry.handler

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments for the handler."""
        return decode_args(self._entry.args)

    @property
    def status(self) -> DurableStatus:
        """The status of the task.

        ``"pending"``: it is waiting for its due time. ``"running"``: its handler is running. ``"parked"``: it cannot
        run, for the reason in `problem`, and waits for `DurableScheduler.retry`. ``"unknown"``: it is waiting for its
        handler to be registered.
        """
        return STATE_NAMES[self._entry.state]

    @property
    def paused(self) -> bool:
        """Whether the task is paused."""
        return self._entry.paused

    @property
    def recurs(self) -> bool:
        """Whether the task is recurring."""
        return self._entry.recurrence is not None

    @property
    def run_count(self) -> int:
        """How many of its runs have ended."""
        return self._entry.run_count

    @property
    def attempts(self) -> int:
        """How many times the current run has been started; more than once if it was interrupted."""
        return self._entry.attempts

    @property
    def problem(self) -> str | None:
        """Why the task is parked."""
        return self._entry.problem

    async def wait(self) -> None:
        """Wait until the task has ended, no matter how.

        Raises:
            RuntimeError: if the caller is the task itself or the one that it must follow, or if the scheduler is closed
                before the task has ended.
        """
        await self._wait(self._entry.generation, self._entry.task_id)

    def __repr__(self) -> str:
        return f"<DurableTask {self.status} {self.task_id!r}>"
