"""Everything that is specific to asyncio or to trio, because anyio does not offer it on both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio

if TYPE_CHECKING:
    import asyncio

__all__ = ["Backend", "Scope", "Startable", "Starter", "current_backend", "current_task_is_inside"]


_Time = tuple[Callable[[], float], Callable[[], float] | None, bool]


class Scope(Protocol):
    """A cancel scope, anyio's or trio's."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...

    def cancel(self) -> None:
        """Cancel everything inside."""
        ...


class Startable(Protocol):
    """What a starter starts: one run of a task.

    Attributes:
        native_task: Set by the starter, where it knows the native task.
    """

    native_task: object

    def main(self) -> Coroutine[Any, Any, None]:
        """Return the coroutine of the native task."""
        ...

    def native_task_cancelled(self) -> None:
        """Called when the native task was cancelled, possibly before its first step."""
        ...


class Starter(AbstractAsyncContextManager["Starter"], Protocol):
    """Starts tasks that belong to a task group. It is entered, and left, in a task of this group.

    Leaving waits for the tasks; the group cancels them.

    Attributes:
        fatal_exceptions: Requests to end the process that have left a task, where the task group does not raise them.
    """

    fatal_exceptions: list[BaseException]

    @property
    def new_scope(self) -> Callable[[], Scope]:
        """Makes a cancel scope for a task."""
        ...

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        ...

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Hand a run to the event loop.

        Raises:
            Exception: if the event loop refuses.
        """
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What the running event loop offers.

    Attributes:
        name: Which one it is.
        monotonic: The loop's monotonic clock in seconds, as `anyio.current_time` without the look-up of the loop.
        exact: The same clock at a finer resolution, where the loop's own is coarse (uvloop's shows milliseconds).
        is_replaced: Whether the loop's clock is not the one that it comes with. Test tools replace it.
        time_source: The object that keeps this time: the asyncio event loop, or trio's clock. Unlike trio's run, it
            exists before the loop runs, so that a virtual clock can be bound to it.
        current_task: Returns the native task that is running.
        is_done: Returns whether a native task has ended. One that trio still knows has not.
        cancelled_exc_class: The exception class of cancellations.
        starts_per_iteration: How many tasks may be started before the dispatcher yields to the event loop. asyncio runs what becomes
            runnable in order, so this only has to be small enough for the other tasks. trio shuffles what becomes
            runnable in one iteration, so that each start needs an iteration of its own if the order is to hold. An
            event loop in virtual time with a seed does the same.
        has_pending_cancellation: Returns whether a native task has been cancelled and not been told yet. On asyncio it would be
            told when it ends, and its task group be cancelled with it.
    """

    name: Literal["asyncio", "trio"]
    monotonic: Callable[[], float]
    exact: Callable[[], float] | None
    is_replaced: bool
    time_source: object
    current_task: Callable[[], Any]
    is_done: Callable[[Any], bool]
    cancelled_exc_class: type[BaseException]
    starts_per_iteration: int
    has_pending_cancellation: Callable[[Any], bool]


def current_backend() -> Backend:
    """Return what the running event loop offers.

    Raises:
        anyio.NoEventLoopError: if none is running in this thread.
    """
    cancelled = anyio.get_cancelled_exc_class()
    if cancelled.__module__.partition(".")[0] == "trio":
        from trio import lowlevel

        clock = lowlevel.current_clock()
        return Backend(
            "trio",
            clock.current_time,
            None,
            type(clock).__module__ != "trio._core._run",  # of the clock with which trio runs by default
            clock,
            lowlevel.current_task,
            lambda _: False,
            cancelled,
            1,
            lambda _: False,
        )

    import asyncio

    loop = asyncio.get_running_loop()
    monotonic, exact, is_replaced = _asyncio_time(loop)
    # A private attribute, as anyio reads it: there is no other way to know. A test fails when it goes.
    return Backend(
        "asyncio",
        monotonic,
        exact,
        is_replaced,
        loop,
        asyncio.current_task,
        lambda task: task.done(),
        cancelled,
        1 if getattr(loop, "shuffles_tasks", False) else 16,
        lambda task: getattr(task, "_must_cancel", False),
    )


def _asyncio_time(loop: asyncio.AbstractEventLoop, machine: Callable[[], float] = time.monotonic) -> _Time:
    # The default is bound at import: what replaces the function in modules does not reach it.
    import asyncio

    if "time" in getattr(loop, "__dict__", ()):
        return loop.time, None, True
    method = type(loop).time
    if method is asyncio.BaseEventLoop.time:
        # The function behind asyncio's own method, which is not written in C: it is called for every task.
        return time.monotonic, None, time.monotonic is not machine
    if isinstance(method, FunctionType):
        return loop.time, None, True
    # uvloop's own method, written in C, shows the machine's time in milliseconds.
    exact = machine if 0 <= machine() - loop.time() < 1 else None
    return loop.time, exact, False


def current_task_is_inside(native_task: object) -> bool:
    """Return whether the running task is the native task ``native_task``, or a descendant of it in task groups."""
    parents = {info.id: info.parent_id for info in anyio.get_running_tasks()}
    task: int | None = anyio.get_current_task().id
    while task is not None and task != id(native_task):
        task = parents.get(task)
    return task is not None
