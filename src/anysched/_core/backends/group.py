"""Starting tasks with anyio's own function, which works on any event loop and with any task factory."""

from __future__ import annotations

import math
from contextvars import Context
from types import TracebackType
from typing import Self, final

import anyio
from anyio.abc import TaskGroup

from anysched._core.coroutines import LazyCoroutine

from . import Startable, StartableT

__all__ = ["GroupStarter"]


@final
class GroupStarter:
    """Starts tasks with `anyio.abc.TaskGroup.create_task`.

    A start costs three times as much as a native one, because of a handle that is not used and of looking up the
    backend at every step.

    Args:
        group: The task group.
    """

    exchanges_runs = False

    def __init__(self, group: TaskGroup) -> None:
        self.fatal_exceptions: list[BaseException] = []  # the group raises them
        self._group = group

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the waiting to the group."""

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        return anyio.current_effective_deadline() == -math.inf

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Hand a run to the event loop."""
        run.scope = anyio.CancelScope()
        self._group.create_task(LazyCoroutine(run.main), name=name, context=context)

    def take(self, run: StartableT) -> StartableT:
        """Return the run itself: there is one for each native task."""
        return run

    def finishing(self, native_task: object) -> None:
        """Do nothing: the group does it."""
