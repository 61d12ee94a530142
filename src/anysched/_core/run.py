"""One start of a task: from the moment at which it is handed to the event loop, to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, final

from anyio.lowlevel import cancel_shielded_checkpoint

from .backends import Backend, Scope, current_task_is_inside
from .failures import is_fatal, split_failure
from .task import ScheduledTask, Status

__all__ = ["RunOwner", "TaskRun"]


class RunOwner(Protocol):
    """What a run asks of the registry that holds its task."""

    def accepts(self, task: ScheduledTask[Any], run: TaskRun, /) -> bool:
        """Return whether a run is still that of a task which may start."""
        ...

    def cancel(self, task: ScheduledTask[Any], /) -> None:
        """Cancel a task that has not ended."""
        ...

    def task_started(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task starts, before its first step."""
        ...

    def run_finished(
        self, task: ScheduledTask[Any], status: Status, outcome: object, failure: BaseException | None, /
    ) -> None:
        """Called when a run has ended.

        Args:
            task: The task.
            status: The status of the run.
            outcome: The return value, or the exception.
            failure: The exception, if it is to be logged.
        """
        ...

    def native_task_cancelled(self, task: ScheduledTask[Any], run: TaskRun, /) -> None:
        """Called when the native task of a run was cancelled, possibly before its first step."""
        ...


@final
class TaskRun:
    """One start of a task.

    Args:
        task: The task.
        owner: The registry that holds it.
        backend: What the event loop offers.
        scope: The cancel scope in which the task will run.
        is_cancelled: Returns whether the task group has been cancelled, or a scope around it.

    Attributes:
        native_task: The native task, from its first step on at the latest.
    """

    __slots__ = ("_backend", "_is_cancelled", "_owner", "_scope", "_task", "native_task")

    def __init__(
        self,
        task: ScheduledTask[Any],
        owner: RunOwner,
        backend: Backend,
        scope: Scope,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._task = task
        self._owner = owner
        self._backend = backend
        self._scope = scope
        self._is_cancelled = is_cancelled
        self.native_task: object = None

    def cancel(self) -> None:
        """Cancel the cancel scope in which the task runs."""
        self._scope.cancel()

    def contains_current_task(self) -> bool:
        """Return whether the caller is this run, or a child task of it."""
        return current_task_is_inside(self.native_task)

    def native_task_cancelled(self) -> None:
        """Called when the native task was cancelled, possibly before its first step."""
        self._owner.native_task_cancelled(self._task, self)

    async def main(self) -> None:
        """Run the task to its end. Nothing that it raises leaves from here, except a request to end the process."""
        task, owner, backend = self._task, self._owner, self._backend
        if not owner.accepts(task, self):
            return  # dropped or postponed after it was handed over, or about to be dropped: it has not started
        if self._is_cancelled():
            owner.cancel(task)  # cancelled from outside of the scheduler before its first step: neither
            return
        if self.native_task is None:
            self.native_task = backend.current_task()
        owner.task_started(task)
        status: Status = Status.FAILED
        outcome: object = None
        failure: BaseException | None = None
        try:
            with self._scope:
                try:
                    outcome = await task._start()
                    status = Status.FINISHED
                except BaseException as exception:
                    failure, cancelled = split_failure(exception, backend.cancelled_exc_class)
                    if is_fatal(exception):
                        outcome = exception
                        failure = None  # it leaves the event loop, which reports it
                        raise
                    # A cancellation that nothing asked for (a cancelled future, `asyncio.current_task().cancel()`)
                    # would cancel the whole group if it left from here. One that was asked for has done its work. Both
                    # end here.
                    status = Status.CANCELLED if cancelled else Status.FAILED
                    outcome = failure
                if backend.has_pending_cancellation(self.native_task):
                    with suppress(backend.cancelled_exc_class):
                        await cancel_shielded_checkpoint()
                    if status is Status.FINISHED:
                        status, outcome = Status.CANCELLED, None
        except Exception as exception:  # from the scope: the task has entered another one, and never left it
            status, outcome = Status.FAILED, exception
            failure = exception
        finally:
            owner.run_finished(task, status, outcome, failure)
            # An exception refers to this frame: the frame must not refer to the exception.
            del task, owner, self, outcome, failure
