"""Starting tasks in a task group: what it takes, and anyio's own way."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Protocol, Self, final

import anyio
from anyio.abc import TaskGroup

from anysched._core.coroutines import Deferred
from anysched._core.run import Scope, TaskRun

__all__ = ["GroupStarter", "Starter"]


class Starter(AbstractAsyncContextManager["Starter"], Protocol):
    """Starts tasks that belong to a task group. It is entered, and left, in a task of this group.

    Leaving waits for the tasks; to cancel them is the business of the group.

    Attributes:
        failures: What has left from the tasks, where the task group does not tell: requests to end the process.
    """

    failures: list[BaseException]

    @property
    def scope(self) -> Callable[[], Scope]:
        """Makes a cancel scope for a task."""
        ...

    def is_cancelled(self) -> bool:
        """Tell whether the task group has been cancelled, or what is around it."""
        ...

    def start(self, run: TaskRun, name: str, context: Context) -> None:
        """Hand a run to the event loop.

        Raises:
            Exception: if the event loop refuses.
        """
        ...


@final
class GroupStarter:
    """Starts tasks in anyio's own way: on any event loop, with any task factory.

    Each costs three times as much as in the ways below it, for a handle that is not used and for looking up the backend
    at every turn.

    Args:
        group: The task group.
    """

    scope = staticmethod(anyio.CancelScope)

    def __init__(self, group: TaskGroup) -> None:
        self.failures: list[BaseException] = []  # the group tells
        self._group = group

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the waiting to the group."""

    def is_cancelled(self) -> bool:
        """Tell whether the task group has been cancelled, or what is around it."""
        return anyio.current_effective_deadline() == -math.inf

    def start(self, run: TaskRun, name: str, context: Context) -> None:
        """Hand a run to the event loop."""
        self._group.create_task(Deferred(run.main), name=name, context=context)
