"""One run of a task, from the moment when it is handed to the event loop to its end."""

from __future__ import annotations

from typing import Any, Protocol, final

from anyio.lowlevel import cancel_shielded_checkpoint

from .backends import Backend, Scope, Starter
from .failures import is_fatal, split_failure
from .guard import Guard
from .task import CANCELLED, FAILED, FINISHED, RUNNING, ScheduledTask, Status

__all__ = ["RunHost", "RunOwner", "TaskRun"]


class RunOwner(Protocol):
    """The interface of a registry to the runs of its tasks."""

    @property
    def guard(self) -> Guard:
        """The guard of the operations."""
        ...

    def accepts(self, task: ScheduledTask[Any], run: TaskRun, /) -> bool:
        """Return whether a run is still the current run of its task, which may start."""
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
            failure: The exception, if it must be logged.
        """
        ...

    def log_stray_cancellation(self, task: ScheduledTask[Any], cancellation: BaseException, /) -> None:
        """Log that a task was cancelled neither by the scheduler nor by a scope around it."""
        ...

    def native_task_ended(self, task: ScheduledTask[Any], run: TaskRun, /, *, cancelled: bool) -> None:
        """Called when the native task of a run has ended, possibly before its first step."""
        ...


class RunHost(Protocol):
    """The interface of the dispatcher to the runs that it starts."""

    @property
    def backend(self) -> Backend:
        """The interface to the event loop."""
        ...

    @property
    def starter(self) -> Starter:
        """The starter of native tasks."""
        ...

    def is_stopping(self) -> bool:
        """Return whether all tasks are being cancelled."""
        ...


@final
class TaskRun:
    """One run of a task.

    Args:
        task: The task.
        owner: The registry that holds it.
        host: The dispatcher that starts it.

    Attributes:
        owner: The registry that holds it.
        host: The dispatcher that starts it.
        task: The task until the run has ended, `None` afterwards. A context that was copied during the run keeps this
            object alive, and must not keep the outcome alive.
        native_task: The native task, at the latest from its first step, until the run has ended.
        scope: The scope that cancels it, from the moment when it is passed to the event loop until it has ended.
        due: The due time of the run, set at the start.
        missed: How many other due times it covers.
    """

    __slots__ = ("due", "host", "missed", "native_task", "owner", "scope", "task")

    def __init__(self, task: ScheduledTask[Any], owner: RunOwner, host: RunHost) -> None:
        self.task: ScheduledTask[Any] | None = task
        self.owner = owner
        self.host = host
        self.scope: Scope | None = None
        self.native_task: Any = None
        self.due: float | None = None
        self.missed = 0

    def cancel(self) -> None:
        """Cancel the cancel scope in which the task runs."""
        if self.scope is not None:
            self.scope.cancel()

    def contains_current_task(self) -> bool:
        """Return whether this is called in the run's native task, or in a task of a task group opened inside it."""
        native_task = self.native_task
        return native_task is not None and any(task is native_task for task in self.host.backend.ancestors())

    def native_task_ended(self, *, cancelled: bool) -> None:
        """Called when the native task has ended, possibly before its first step."""
        if self.task is not None:
            self.owner.native_task_ended(self.task, self, cancelled=cancelled)
        self._clear()

    async def main(self) -> None:
        """Run the task to its end. Of its exceptions, only requests to end the process propagate."""
        run = self.host.starter.take(self)
        del self
        task, scope, owner, host = run.task, run.scope, run.owner, run.host
        assert task is not None
        assert scope is not None
        backend, starter, guard = host.backend, host.starter, owner.guard
        guard.held = True
        if not owner.accepts(task, run):
            guard.release()
            run._clear()
            return  # it was dropped or postponed after it was passed to the event loop, or is about to be dropped
        if starter.is_cancelled():
            guard.release()
            owner.cancel(task)  # cancelled from outside of the scheduler before its first step: it has not started
            run._clear()
            return
        native_task = run.native_task
        if native_task is None:
            native_task = run.native_task = backend.current_task()
        owner.task_started(task)
        status: Status = FAILED
        outcome: object = None
        failure: BaseException | None = None
        stray: BaseException | None = None
        try:
            with scope:
                try:
                    outcome = await task._start()
                    status = FINISHED
                except BaseException as exception:
                    outcome, cancelled = split_failure(exception, backend.cancelled_exc_class)
                    if is_fatal(exception):
                        outcome = exception  # not logged, since it leaves the event loop, which reports it
                        raise
                    # An unrequested cancellation (a cancelled future, `asyncio.current_task().cancel()`) would cancel
                    # the whole group if it propagated. A requested one has ended the run. Neither propagates further.
                    status = CANCELLED if cancelled else FAILED
                    failure = outcome
                    if failure is None and not isinstance(exception, GeneratorExit) and run._is_stray():
                        outcome = stray = exception
                if backend.has_pending_cancellation(native_task):
                    try:
                        await cancel_shielded_checkpoint()
                    except backend.cancelled_exc_class as exception:
                        if status is FINISHED:
                            status = CANCELLED
                            outcome = stray = exception if run._is_stray() else None
        except Exception as exception:  # from the scope: the task has entered another one and never left it
            status, outcome, failure, stray = FAILED, exception, exception, None
            exception.__context__ = await backend.leave_scopes(scope) or exception.__context__
        finally:
            owner.run_finished(task, status, outcome, failure)
            if stray is not None:
                owner.log_stray_cancellation(task, stray)
            run._clear()
            # An exception refers to this frame, so the frame must not refer to the exception.
            del task, scope, owner, host, run, outcome, failure, stray
        starter.finishing(native_task)
        del native_task  # an exception may refer to this frame, and be kept

    def _is_stray(self) -> bool:
        """Return whether a cancellation was requested neither by the scheduler nor by a scope around it."""
        task = self.task
        return task is not None and task.status is RUNNING and not self.host.is_stopping()

    def _clear(self) -> None:
        """Release all references, because contexts that were copied during the run keep this object alive."""
        self.task = self.scope = self.native_task = None
