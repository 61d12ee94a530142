"""One start of a task: from the moment at which it is handed to the event loop, to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, final

from anyio.lowlevel import cancel_shielded_checkpoint

from .backends import Backend, inside_task
from .task import ScheduledTask, Status, is_fatal, split_failure

__all__ = ["Scope", "TaskRun"]


class Scope(Protocol):
    """A cancel scope, anyio's or trio's."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...

    def cancel(self) -> None:
        """Cancel what runs in it."""
        ...


@final
class TaskRun:
    """One start of a task.

    Args:
        task: The task.
        backend: What the event loop offers.
        scope: The cancel scope in which the task will run.
        is_cancelled: Tells whether what the task runs in has been cancelled.

    Attributes:
        host: The native task, from its first step on at the latest.
    """

    __slots__ = ("_backend", "_is_cancelled", "_scope", "_task", "host")

    def __init__(
        self, task: ScheduledTask[Any], backend: Backend, scope: Scope, is_cancelled: Callable[[], bool]
    ) -> None:
        self._task = task
        self._backend = backend
        self._scope = scope
        self._is_cancelled = is_cancelled
        self.host: object = None

    def cancel(self) -> None:
        """Cancel the cancel scope in which the task runs."""
        self._scope.cancel()

    def is_caller(self) -> bool:
        """Tell whether the caller is this run, or a child task of it."""
        return inside_task(self.host)

    def forsake(self) -> None:
        """Take note that the event loop has let go of the native task, which may have been before its first step."""
        if self._task._run is self and self._task._status is Status.PENDING:
            self._task._forsake()

    async def main(self) -> None:
        """Run the task to its end. Nothing that it raises leaves from here, unless it is to end the process."""
        task, backend = self._task, self._backend
        if task._run is not self or task._owner.closing:
            return  # dropped or postponed after it was handed over, or about to be dropped: it has not started
        if self._is_cancelled():
            task.cancel()  # cancelled from outside of the scheduler before its first step: neither
            return
        if self.host is None:
            self.host = backend.current_task()
        task._owner.begun(task)
        status: Status = Status.FAILED
        outcome: object = None
        failure: BaseException | None = None
        try:
            with self._scope:
                try:
                    outcome = await task._begin()
                    status = Status.FINISHED
                except BaseException as exception:
                    failure, cancelled = split_failure(exception, backend.cancelled)
                    if is_fatal(exception):
                        outcome = exception
                        failure = None  # whoever ends the process reports it
                        raise
                    # A cancellation that nobody asked for (a cancelled future, `asyncio.current_task().cancel()`) would
                    # cancel the whole group if it left from here. One that was asked for has done its work. Both end
                    # here.
                    status = Status.CANCELLED if cancelled else Status.FAILED
                    outcome = failure
                if backend.cancellation_left(self.host):
                    with suppress(backend.cancelled):
                        await cancel_shielded_checkpoint()
                    if status is Status.FINISHED:
                        status, outcome = Status.CANCELLED, None
        except Exception as exception:  # from the scope: the task has entered another one, and never left it
            status, outcome = Status.FAILED, exception
            failure = exception
        finally:
            task._end_run(status, outcome, failure)
            # An exception refers to this frame: the frame must not refer to the exception.
            del task, self, outcome, failure
