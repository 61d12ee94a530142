"""The interfaces to asyncio and trio for what anyio does not offer in the same way on both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

__all__ = ["Backend", "HostTask", "Scope", "Startable", "StartableT", "Starter"]


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
    """A run of a task that a starter can start.

    Attributes:
        native_task: Set by the starter if it knows the native task.
        scope: Set by the starter: the scope that is entered around the coroutine, to cancel it.
    """

    native_task: Any
    scope: Scope | None

    def main(self) -> Coroutine[Any, Any, None]:
        """Return the coroutine of the native task."""
        ...

    def native_task_ended(self, *, cancelled: bool) -> None:
        """Called when the native task has ended, possibly before its first step."""
        ...


StartableT = TypeVar("StartableT", bound=Startable)


class Starter(AbstractAsyncContextManager["Starter"], Protocol):
    """Starts tasks that belong to a task group. It is entered and left in a task of this group.

    Leaving waits for the tasks; the group cancels them.

    Attributes:
        fatal_exceptions: Requests to end the process that have left a task, where the task group does not raise them.
        exchanges_runs: Whether native tasks that are started in one iteration of the event loop do their runs in the
            order of the calls, in whatever order the event loop steps them; see `take`.
    """

    fatal_exceptions: list[BaseException]

    @property
    def exchanges_runs(self) -> bool: ...

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        ...

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Pass a run to the event loop, and give it a cancel scope.

        Raises:
            Exception: if the event loop refuses.
        """
        ...

    def take(self, run: StartableT, /) -> StartableT:
        """Return the run that a native task executes. Called in its first step.

        Args:
            run: The run for which the native task was created. The result may be another one.
        """
        ...

    def finishing(self, native_task: Any) -> None:
        """Called as the last step of a native task, unless it raises an exception."""
        ...


class HostTask(Protocol):
    """A native task outside of any task group, which hosts a scheduler."""

    def is_current(self) -> bool:
        """Return whether it is the current task."""
        ...

    async def wait(self) -> None:
        """Wait for its end."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """The interface to the running event loop.

    Attributes:
        name: The name of the event loop.
        monotonic: The loop's monotonic clock in seconds, as `anyio.current_time` without looking up the loop.
        exact: The same clock at a finer resolution, if the loop's own is coarse (uvloop's has milliseconds).
        is_replaced: Whether the loop's clock is not its default. Test tools replace it.
        debug: Whether Python is in development mode or the asyncio event loop in debug mode, which enables more checks.
        time_source: The object that keeps this time: the asyncio event loop, or trio's clock. Unlike trio's run, it
            exists before the loop runs, so that a virtual clock can be bound to it.
        cancelled_exc_class: The exception class of cancellations.
        starts_per_iteration: How many tasks may be started before the dispatcher yields to the event loop, so that other
            tasks are not held up.
        keeps_order: Whether the event loop runs the tasks that become runnable in one iteration in order. asyncio does;
            trio, and an event loop in virtual time with a seed, shuffle them.
        current_task: Returns the running native task, or `None` in a callback of the event loop.
        ancestors: Yields the running native task, the task in whose task group it was started, and so on.
        is_done: Returns whether a native task has ended. On trio, always false.
        is_cancelling: Returns whether a native task has been cancelled by the event loop's own means.
        has_pending_cancellation: Returns whether a native task has been cancelled and has not received it yet. On
            asyncio it would receive it when it ends, and its task group would be cancelled with it.
        leave_scopes: Leaves a cancel scope of the running task that could not be left, and the scopes that were entered
            inside it and not left. On trio, returns what the tasks in nurseries among these raised.
        protect: Keeps SIGINT from raising `KeyboardInterrupt` in the methods of some classes and the functions that
            they call. It is raised in the main task instead, at its next checkpoint. asyncio does this itself for the
            first SIGINT, and cannot do it for a second one.
        call_soon: Calls a function in the next iteration of the event loop.
        create_task: Starts a native task outside of any task group, with a name, and calls a function when it has
            ended; `None` if each task belongs to a nursery.
        wake: Makes the event loop check for work at once if this is called from a signal handler while it sleeps.
    """

    name: Literal["asyncio", "trio"]
    monotonic: Callable[[], float]
    exact: Callable[[], float] | None
    is_replaced: bool
    debug: bool
    time_source: object
    cancelled_exc_class: type[BaseException]
    starts_per_iteration: int
    keeps_order: bool
    current_task: Callable[[], Any]
    ancestors: Callable[[], Iterator[Any]]
    is_done: Callable[[Any], bool]
    is_cancelling: Callable[[Any], bool]
    has_pending_cancellation: Callable[[Any], bool]
    leave_scopes: Callable[[Scope], Awaitable[BaseException | None]]
    protect: Callable[[tuple[type, ...]], object]
    wake: Callable[[], object]
    call_soon: Callable[[Callable[[], None]], object]
    create_task: Callable[[Coroutine[Any, Any, None], str, Callable[[], object]], HostTask] | None
