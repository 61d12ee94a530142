"""The trio backend: starts tasks in a nursery inside anyio's task group, without anyio's handle for each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextvars import Context
from functools import cache
from types import FunctionType
from typing import Any, final

import trio

from anysched._core.failures import split_failure

from . import Scope, Startable, StartableT
from .group import NestedStarter

__all__ = ["TrioStarter", "ancestors", "current_task", "leave_nurseries", "protect"]


def current_task() -> trio.lowlevel.Task | None:
    """Return the running task, or `None` in a callback of the event loop."""
    try:
        return trio.lowlevel.current_task()
    except RuntimeError:
        return None


def ancestors() -> Iterator[trio.lowlevel.Task]:
    """Yield the running task, the task in whose nursery it was started, and so on."""
    task = current_task()
    while task is not None:
        yield task
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task


async def leave_nurseries(_: Scope) -> BaseException | None:
    """Leave the nurseries that the running task has opened and not left, as cancelled; return what their tasks raised.

    Otherwise trio would report them when the task ends, which would end the scheduler.
    """
    failure: BaseException | None = None
    for nursery in reversed(trio.lowlevel.current_task().child_nurseries):
        nursery.cancel_scope.cancel()
        # This is how its context manager leaves it. There is no public way without that.
        leave: Any = getattr(nursery, "_nested_child_finished")  # noqa: B009  # it is private
        failure = await leave(failure)
    return None if failure is None else split_failure(failure, trio.Cancelled)[0]


@cache
def protect(classes: tuple[type, ...]) -> None:
    """Keep SIGINT from raising `KeyboardInterrupt` in the methods of some classes and the functions that they call.

    Otherwise it could be raised between any two instructions of the running task, such as between taking a task
    from a queue and handing it to the event loop.
    """
    for cls in classes:
        for member in vars(cls).values():
            if isinstance(member, FunctionType):
                trio.lowlevel.enable_ki_protection(member)


@final
class TrioStarter(NestedStarter[trio.Nursery]):
    """Starts tasks in its own nursery."""

    exchanges_runs = True

    def __init__(self) -> None:
        super().__init__(trio.open_nursery(strict_exception_groups=True))
        # The runs that were passed to the event loop and have not begun, with their names.
        self._waiting: deque[tuple[Any, str]] = deque()

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        # Public is `trio.current_effective_deadline`, which looks through all scopes, several times. Each start asks.
        status = getattr(self._inner, "_cancel_status", None)
        cancelled = getattr(status, "effectively_cancelled", None)
        if cancelled is None:
            return trio.current_effective_deadline() == -math.inf
        return bool(cancelled)

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Hand a run to the event loop."""
        run.scope = trio.CancelScope()
        context.run(self._start, run, name)

    def _start(self, run: Startable, name: str) -> None:
        assert self._inner is not None
        self._inner.start_soon(run.main, name=name)
        self._waiting.append((run, name))

    def take(self, run: StartableT) -> StartableT:
        """Return the run that is due first, since trio shuffles the tasks that become runnable in one iteration.

        Native tasks that are created in one iteration differ only in their names, so each can execute any of the runs.
        """
        first, name = self._waiting.popleft()
        if first is not run:
            trio.lowlevel.current_task().name = name
        taken: StartableT = first
        return taken

    def finishing(self, native_task: object) -> None:
        """Do nothing: the nursery handles the end of the task."""
