"""Starting tasks with anyio's own function, which works on any event loop and with any task factory."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Generic, Self, TypeVar, final

import anyio
from anyio.abc import TaskGroup

from anysched._core.coroutines import LazyCoroutine

from . import Startable, StartableT

__all__ = ["GroupStarter", "NestedStarter"]

GroupT = TypeVar("GroupT")


class NestedStarter(Generic[GroupT]):
    """Starts tasks in a separate group, for which it waits when it is left.

    Args:
        manager: Opens the group: a task group of anyio, or a nursery of trio.
    """

    def __init__(self, manager: AbstractAsyncContextManager[GroupT]) -> None:
        self.fatal_exceptions: list[BaseException] = []
        self._manager = manager
        self._inner: GroupT | None = None

    async def __aenter__(self) -> Self:
        self._inner = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the tasks, which have already been cancelled.

        A cancellation is not suppressed, even if the group was cancelled by one of its tasks: the outer group must be
        cancelled as well.
        """
        try:
            await self._manager.__aexit__(exc_type, exc_value, traceback)
        except BaseExceptionGroup as group:
            fatal = group.split(anyio.get_cancelled_exc_class())[1]
            self.fatal_exceptions = [] if fatal is None else [*fatal.exceptions]
            raise  # it cancels the outer task group


@final
class GroupStarter(NestedStarter[TaskGroup]):
    """Starts tasks with `anyio.abc.TaskGroup.create_task`.

    A start costs three times as much as a native one, because of a handle that is not used and of looking up the
    backend at every step.
    """

    exchanges_runs = False

    def __init__(self) -> None:
        super().__init__(anyio.create_task_group())

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        return anyio.current_effective_deadline() == -math.inf

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Hand a run to the event loop."""
        assert self._inner is not None
        run.scope = anyio.CancelScope()
        self._inner.create_task(LazyCoroutine(run.main), name=name, context=context)

    def take(self, run: StartableT) -> StartableT:
        """Return the run itself: there is one for each native task."""
        return run

    def finishing(self, native_task: object) -> None:
        """Do nothing: the group does it."""
