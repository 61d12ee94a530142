"""The asyncio backend: starts native tasks inside anyio's task group. All private parts of anyio are used here.

anyio treats a task that is started here like its own tasks: it runs in the scope of the task group, is cancelled with
it and with the scopes around it, has a parent. The rest of `anyio.TaskHandle` is left out: its coroutine, its event,
and looking up the backend for each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import suppress
from contextvars import Context, copy_context
from functools import cache
from types import TracebackType
from typing import Any, Self, cast, final

from anyio._backends import _asyncio
from anyio._backends._asyncio import CancelScope, TaskState
from anyio.abc import TaskGroup

from . import Scope, Startable, StartableT
from .group import GroupStarter

__all__ = ["AsyncioStarter", "ancestors", "create_host_task", "end_worker_threads_at_exit", "leave_scopes"]

_private: Any = _asyncio
_threading: Any = threading


_LinkTasks = Callable[[asyncio.Task[Any], asyncio.Task[Any] | None], None]


def _no_call_graph(task: asyncio.Task[Any], waiter: asyncio.Task[Any] | None) -> None:
    """Do nothing: asyncio has a call graph from Python 3.14 on."""


# Add a task to the call graph below the task that waits for it, and remove it again. Without this,
# `python -m asyncio pstree` shows each task as a root.
_add_to_call_graph: _LinkTasks = getattr(asyncio, "future_add_to_awaited_by", _no_call_graph)
_discard_from_call_graph: _LinkTasks = getattr(asyncio, "future_discard_from_awaited_by", _no_call_graph)


def ancestors() -> Iterator[asyncio.Task[Any]]:
    """Yield the running task, the task in whose task group it was started, and so on.

    asyncio does not record parents. anyio records the cancel scope in which each task runs, and for each scope its
    parent scope and the task that entered it: the first scope that was entered by another task belongs to the task
    group.
    """
    task = asyncio.current_task()
    while task is not None:
        yield task
        state = _private._task_states.get(task)
        scope: Any = None if state is None else state.cancel_scope
        while scope is not None and scope._host_task is task:
            scope = scope._parent_scope
        task = None if scope is None else scope._host_task


@final
class AsyncioHostTask:
    """A native task that hosts a scheduler."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def is_current(self) -> bool:
        """Return whether it is the current task."""
        return asyncio.current_task() is self._task

    async def wait(self) -> None:
        """Wait for its end."""
        await asyncio.wait([self._task])


def create_host_task(
    coroutine: Coroutine[Any, Any, None], name: str, on_ended: Callable[[], object]
) -> AsyncioHostTask:
    """Start a native task outside of any task group."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    task.add_done_callback(lambda _: on_ended())
    return AsyncioHostTask(task)


async def leave_scopes(scope: Scope) -> BaseException | None:
    """Leave a cancel scope of the running task that could not be left, and those entered inside it and not left."""
    state = _private._task_states[asyncio.current_task()]
    outer: Any = scope.outer if isinstance(scope, LateScope) else cast("Any", scope)._parent_scope
    while state.cancel_scope is not outer:
        state.cancel_scope.__exit__(None, None, None)
    return None


@cache
def end_worker_threads_at_exit() -> None:
    """End anyio's worker threads of event loops that are closed when the interpreter exits.

    anyio ends them in a callback of the root task. But when a `SystemExit` or `KeyboardInterrupt` of a task has stopped
    the event loop, and `asyncio.run` cancels the root task, then the root task raises the same exception, which stops
    the loop again, and the callback is never called. The interpreter would wait for these threads forever.
    """
    # `atexit` is too late: its functions are called after the threads have been joined.
    _threading._register_atexit(_end_worker_threads)


def _end_worker_threads() -> None:
    threads: list[Any] = threading.enumerate()
    for thread in threads:
        if isinstance(thread, _private.WorkerThread) and thread.loop.is_closed():
            thread.stop()


@final
class LateScope:
    """The cancel scope of a run, which is created when the run is cancelled.

    To make, to enter and to leave a scope of anyio's costs as much as a native task, and most runs are never cancelled.
    Until one is, its native task is in the scope of the task group. Then a scope is put between that one and the scopes
    that the task has entered, as if it had been entered before these.

    Args:
        task: The native task.
        state: What anyio knows of it.
        outer: The scope of the task group.

    Attributes:
        outer: The scope of the task group.
    """

    __slots__ = ("_scope", "_state", "_task", "outer")

    def __init__(self, task: asyncio.Task[Any], state: TaskState, outer: Any) -> None:
        self._task = task
        self._state = state
        self.outer = outer
        self._scope: CancelScope | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._scope is not None:
            return self._scope.__exit__(exc_type, exc_value, traceback)
        if self._state.cancel_scope is not self.outer:
            raise RuntimeError("the task has entered a cancel scope and has not left it")
        return None

    def cancel(self) -> None:
        """Cancel the native task and everything in the task groups that it has opened."""
        if self._scope is None:
            self._scope = self._enter_late()
        self._scope.cancel()

    def _enter_late(self) -> CancelScope:
        """Do what `CancelScope.__enter__` would have done in the first step of the native task."""
        task, outer = self._task, self.outer
        made = CancelScope()
        scope: Any = made  # its private attributes are not typed
        scope._active = True
        scope._host_task = task
        scope._parent_scope = outer
        inner: Any = self._state.cancel_scope
        if inner is outer:
            self._state.cancel_scope = made
            scope._tasks.add(task)
            outer._tasks.discard(task)
        else:
            while inner._parent_scope is not outer:
                inner = inner._parent_scope
            inner._parent_scope = scope
            scope._child_scopes.add(inner)
            outer._child_scopes.discard(inner)
        outer._child_scopes.add(scope)
        return made


@final
class AsyncioStarter:
    """Starts native tasks in an anyio task group on asyncio.

    Args:
        group: The task group, entered.

    Raises:
        AttributeError, TypeError: if anyio has changed and this does not work.
    """

    exchanges_runs = False

    def __init__(self, group: TaskGroup) -> None:
        self.fatal_exceptions: list[BaseException] = []
        self._loop = asyncio.get_running_loop()
        scope: Any = group.cancel_scope  # its private attributes are not typed
        self._scope = scope
        self._members: set[asyncio.Task[Any]] = scope._tasks
        self._parent_id = id(scope._host_task)
        self._states: MutableMapping[asyncio.Task[Any], TaskState] = _private._task_states
        TaskState(self._parent_id, scope)  # checks that it still works, like the next line
        self.is_cancelled()
        self._fallback = GroupStarter()
        # An event loop keeps only weak references to its tasks.
        self._runs: dict[asyncio.Task[None], Startable] = {}
        # Keep one bound method, since each look-up creates a new object.
        self._callback = self._on_done
        self._context = copy_context()

    async def __aenter__(self) -> Self:
        await self._fallback.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the tasks. They have already been cancelled, unless this is called because of an error."""
        if exc_value is not None and not isinstance(exc_value, asyncio.CancelledError):
            self._scope.cancel()
        # Wait for the tasks themselves, not for their callbacks, which a `KeyboardInterrupt` may have interrupted.
        with CancelScope(shield=True):
            while tasks := [task for task in self._runs if not task.done()]:
                # Another cancellation means that the event loop is shutting down and has cancelled the tasks as well.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(tasks)
        for task in list(self._runs):
            self._on_done(task)
        try:
            await self._fallback.__aexit__(exc_type, exc_value, traceback)
        finally:
            self.fatal_exceptions += self._fallback.fatal_exceptions

    def is_cancelled(self) -> bool:
        """Return whether the task group has been cancelled, or a scope around it."""
        scope = self._scope  # as its `_effectively_cancelled`, without the calls: each start asks
        while scope is not None:
            if scope._cancel_called:
                return True
            scope = None if scope._shield else scope._parent_scope
        return False

    def start(self, run: Startable, name: str, context: Context) -> None:
        """Hand a run to the event loop."""
        if self._loop.get_task_factory() is not None:
            # A task factory may do anything, such as running the first step at once; anyio handles this.
            self._fallback.start(run, name, context)
            return
        coroutine = run.main()
        try:
            task = self._loop.create_task(coroutine, name=name, context=context)
        except BaseException:
            coroutine.close()
            raise
        state = self._states[task] = TaskState(self._parent_id, self._scope)
        self._members.add(task)
        _add_to_call_graph(task, self._scope._host_task)
        self._runs[task] = run
        run.native_task = task
        run.scope = LateScope(task, state, self._scope)
        task.add_done_callback(self._callback, context=self._context)

    def take(self, run: StartableT) -> StartableT:
        """Return the run itself, since asyncio runs native tasks in order."""
        return run

    def finishing(self, native_task: asyncio.Task[None]) -> None:
        """Do the work of the callback at the end of the last step, which saves an iteration of the event loop."""
        if native_task in self._runs:
            native_task.remove_done_callback(self._callback)
            self._forget(native_task)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        run = self._runs.get(task)
        if run is None:
            return
        # A `KeyboardInterrupt` may come in between, so each step must be harmless if it is repeated.
        run.native_task_ended(cancelled=task.cancelled())
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self.fatal_exceptions.append(failure)
            self._scope.cancel()
        self._forget(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._members.discard(task)
        _discard_from_call_graph(task, self._scope._host_task)
        del self._runs[task]
