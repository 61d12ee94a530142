"""Recurring tasks: one ID and one handle for a sequence of runs, each of which is a start of its own."""

from __future__ import annotations

from collections.abc import Coroutine, Hashable
from contextvars import Context
from typing import Any, cast, final

from .coroutines import Work
from .task import Owner, ScheduledTask, Status, is_fatal
from .triggers import TIMES_PER_RUN, TIMES_PER_TURN, DueTimes, Search

__all__ = ["RecurringTask"]


# The one exception: for users the handle is final.
@final
class RecurringTask(ScheduledTask[None]):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A task that is pending once more when its coroutine has ended, as long as it holds its ID and has due times.

    Args:
        due_times: When to run.
        owner: Who scheduled it.
        task_id: The ID.
        work: The function to run.
        args: Its arguments.
        context: The context, of which each run gets a copy.
    """

    __slots__ = ("_due_times", "_job", "_runs", "_search")

    def __init__(
        self,
        due_times: DueTimes,
        owner: Owner,
        task_id: Hashable,
        work: Work,
        args: tuple[Any, ...],
        context: Context,
    ) -> None:
        super().__init__(owner, task_id, work, args, context.copy())
        self._due_times = due_times
        self._job: tuple[Work, tuple[Any, ...], Context] | None = (work, args, context)
        self._runs = 0
        # The due time under which the search for the next one goes on, in the queue as if it were a run.
        self._search: float | None = None

    @property
    def run_count(self) -> int:
        """How often the task has been started."""
        return self._runs

    def _ready(self) -> bool:
        """Go on with the search for the next due time, if that is what the task waited for."""
        # By identity: a task that was rescheduled meanwhile has another due time, and starts.
        if self._when is not self._search or self._owner.closing:
            return True
        found = self._ask(TIMES_PER_TURN)
        if self._turn:  # else what was asked has cancelled or rescheduled it
            self._go_on(found, None)
        return False

    def _begin(self) -> Coroutine[Any, Any, None]:
        """Take note that a run starts, and return the coroutine to run."""
        self._begin_run()
        return super()._begin()

    def _begin_run(self) -> None:
        self._search = None
        self._runs += 1
        self._due_times.begin_run(*self._owner.now())

    def _forsake(self) -> None:
        """Take note of a run that the event loop has cancelled before its first step: it ends as one that was later."""
        self._owner.begun(self)
        self._begin_run()
        self._end_run(Status.CANCELLED, None, None)

    def _end_run(self, status: Status, outcome: object, failure: BaseException | None) -> None:
        """Take note of the end of a run: the task is pending once more, or has ended, too."""
        owner = self._owner
        fatal = status is Status.FAILED and failure is None
        found = None if fatal or not owner.holds(self) else self._ask(TIMES_PER_RUN)
        if found is None or not owner.holds(self):  # what was asked may have cancelled the task
            # What the runs return is nobody's: the type of the handle says None.
            super()._end_run(status, None if status is Status.FINISHED else outcome, failure)
            self._close()
        else:
            owner.run_ended(self, status)
            self._go_on(found, failure)

    def _drop(self, status: Status, outcome: object) -> None:
        """Take note that the task will never start again."""
        super()._drop(status, outcome)
        self._close()

    def _end(self, status: Status, outcome: object) -> None:
        """Take note of what came of the task."""
        super()._end(status, outcome)
        self._release()
        self._job = None

    def _finish(self) -> None:
        """End a task that waits in vain, because there are no due times at all."""
        self.leave_queue()
        self._go_on(Search.EXHAUSTED, None)

    def _ask(self, steps: int) -> float | Search | BaseException:
        """Ask for the next due time, in a copy of the context of the call that scheduled the task."""
        assert self._job is not None
        _, _, context = self._job
        try:
            return context.copy().run(self._due_times.next, *self._owner.now(), steps)
        except BaseException as failure:
            return failure
        finally:
            if self._is_over():
                self._close()  # which could not be done while it was asked

    def _go_on(self, found: float | Search | BaseException, failure: BaseException | None) -> None:
        """Wait for the next run, or end if there is none; then log what has failed."""
        owner = self._owner
        failed = found if isinstance(found, BaseException) else None
        if failed is not None or found is Search.EXHAUSTED:
            self._when = None
            self._end(Status.FINISHED if failed is None else Status.FAILED, failed)
            owner.free(self)
            self._close()
        else:
            self._arm()
            self._search = owner.now()[0] if found is Search.UNFINISHED else None
            owner.add(self, cast("float", found) if self._search is None else self._search)
        if failure is not None:
            owner.report(self, failure)
        if failed is not None:
            if is_fatal(failed):
                raise failed
            owner.report(self, failed)

    def _arm(self) -> None:
        """Be pending, as before the first run."""
        assert self._job is not None
        self._work, self._args, context = self._job
        self._context = context.copy()  # whether the event loop makes a copy, too, is its own affair
        self._status = Status.PENDING
        self._run = None
        self._turn = 0

    def _close(self) -> None:
        """Let go of what lists the times: the last thing to do, because it may run finalizers."""
        try:
            self._due_times.close()
        except Exception as failure:
            self._owner.report(self, failure)
