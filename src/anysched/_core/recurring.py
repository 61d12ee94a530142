"""Recurring tasks: one ID and one handle for a sequence of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from datetime import datetime
from typing import Any, Protocol, cast, final

from .clock import TOLERANCE, datetime_from_ns
from .coroutines import Target, is_coroutine
from .failures import is_fatal
from .task import Owner, ScheduledTask, Status
from .triggers import TIMES_PER_ITERATION, TIMES_PER_RUN, SearchResult, Trigger

__all__ = ["RecurringTask"]


class RecurringOwner(Owner, Protocol):
    """The interface of a registry to the recurring tasks that it holds."""

    @property
    def is_closing(self) -> bool:
        """Whether no more tasks will start."""
        ...

    def now(self) -> tuple[float, int]:
        """Read the monotonic and the wall clock."""
        ...

    def add(self, task: ScheduledTask[Any], when: float, /) -> None:
        """Queue a pending task that is not queued."""
        ...

    def task_started(self, task: ScheduledTask[Any], /) -> None:
        """Called when a task starts, before its first step."""
        ...

    def run_finished(
        self, task: ScheduledTask[Any], status: Status, outcome: object, failure: BaseException | None, /
    ) -> None:
        """Called when a run has ended."""
        ...

    def finish(self, task: ScheduledTask[Any], status: Status, outcome: object = None, /) -> None:
        """End a task."""
        ...

    def reschedule(self, task: ScheduledTask[Any], when: float, /) -> None:
        """Change the due time of a pending task."""
        ...

    def unfollow_clock(self, task: ScheduledTask[Any], /) -> None:
        """Stop calling a task when the wall clock is set back."""
        ...

    def warn(self, task: ScheduledTask[Any], message: str, /) -> None:
        """Log a message about a task at WARNING."""
        ...

    def free_slot(self, task: ScheduledTask[Any], /) -> None:
        """Give the slot of a task, if it has one, to the next task that waits for one."""
        ...

    def log_skipped(self, task: ScheduledTask[Any], count: int, /) -> None:
        """Log that missed runs were skipped."""
        ...

    def log_failure(self, task: ScheduledTask[Any], failure: BaseException, /) -> None:
        """Log a failure."""
        ...


@final
class RecurringTask(ScheduledTask[None]):
    """A task that becomes pending again when its coroutine has ended, as long as it holds its ID and has due times.

    Args:
        trigger: The due times.
        owner: The registry that holds the task.
        task_id: The ID.
        target: The function to run.
        args: Its arguments.
        context: The context, of which each run gets a copy.
    """

    __slots__ = ("_call", "_last_started_ns", "_last_status", "_run_count", "_search_due", "_trigger")

    def __init__(
        self,
        trigger: Trigger,
        owner: Owner,
        task_id: Hashable,
        target: Target,
        args: tuple[Any, ...],
        context: Context,
        when: float,
    ) -> None:
        super().__init__(owner, task_id, target, args, context.copy(), when)
        self._trigger = trigger
        self._call: tuple[Target, tuple[Any, ...], Context] | None = (target, args, context)
        self._run_count = 0
        self._last_started_ns: int | None = None
        self._last_status: Status | None = None
        # While the search for the next due time continues, the task is queued under this due time, as if for a run.
        self._search_due: float | None = None

    @property
    def _registry(self) -> RecurringOwner:
        return cast("RecurringOwner", self._owner)

    @property
    def run_count(self) -> int:
        """How often the task has been started."""
        return self._run_count

    @property
    def recurs(self) -> bool:
        """Whether the task is recurring."""
        return True

    @property
    def function(self) -> Callable[..., Coroutine[Any, Any, Any]] | None:
        """The scheduled function, until the task ends, and after it was dropped."""
        call = self._call  # read once: a signal handler may end the task
        target = super().function if call is None else call[0]
        return None if target is None or is_coroutine(target) else target

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments of the function, as long as `function` is not `None`."""
        call = self._call
        return super().args if call is None else call[1]

    @property
    def last_started(self) -> datetime | None:
        """When the last run started (aware UTC); `None` before the first."""
        return None if self._last_started_ns is None else datetime_from_ns(self._last_started_ns)

    @property
    def last_status(self) -> Status | None:
        """How the last run ended; `None` before the first has ended."""
        return self._last_status

    def _prepare(self, next_index: Callable[[], int]) -> bool:
        """Return whether the task can start. If not, it was too late or still searching, and requeued itself."""
        super()._prepare(next_index)
        # By identity: a task that was rescheduled in the meantime has another due time, and starts.
        registry = self._registry
        searching = self._when is self._search_due
        if registry.is_closing or not (searching or self._is_too_late()):
            return True
        if not searching:
            self._trigger.skip_run(*registry.now())
            registry.free_slot(self)  # it may have waited for a slot for too long
        found = self._find_next(steps=TIMES_PER_ITERATION)
        if self._dispatch_index:  # otherwise `times` has cancelled or rescheduled the task
            self._advance(found, None)
        return False

    def _is_too_late(self) -> bool:
        """Return whether the task is so late that it must skip this due time."""
        when, skip_after = self._when, self._trigger.skip_after
        if skip_after == math.inf or when is None:
            return False
        now, now_ns = self._registry.now()
        if isinstance(when, float):
            return now - when > skip_after - TOLERANCE
        return (now_ns - when) / 1e9 > skip_after - TOLERANCE

    def _start(self) -> Coroutine[Any, Any, None]:
        """Count a run, and return the coroutine to await."""
        self._begin_run()
        return super()._start()

    def _begin_run(self) -> None:
        now, now_ns = self._registry.now()
        self._search_due = None
        self._run_count += 1
        self._last_started_ns = now_ns
        self._trigger.begin_run(now, now_ns)

    def _served_due(self, when: float) -> tuple[float, int]:
        """Return the due time of a run, and how many other due times it covers."""
        served = self._trigger.served
        return when if served is None else served, self._trigger.missed

    def _start_cancelled(self) -> None:
        """Called when the event loop has cancelled a run before its first step: treat it like a later cancellation."""
        registry = self._registry
        registry.guard.held = True
        if self._run is None:  # dropped or rescheduled by a signal handler
            registry.guard.release()
            return
        registry.task_started(self)
        self._begin_run()
        registry.run_finished(self, Status.CANCELLED, None, None)

    def _find_next(
        self, status: Status | None = None, steps: int = TIMES_PER_RUN
    ) -> float | SearchResult | BaseException:
        """Return the next due time. It is searched for in a copy of the context in which the task was scheduled.

        The search may call the user's code, so the operation of the caller is suspended.

        Args:
            status: How a run has ended, if one has.
            steps: How many times may be read from an iterator.
        """
        self._last_status = status or self._last_status
        assert self._call is not None
        _, _, context = self._call
        guard = self._registry.guard
        guard.release()
        try:
            return context.copy().run(self._trigger.next_due, *self._registry.now(), steps)
        except BaseException as failure:
            return failure
        finally:
            if self._is_done():
                self._close_trigger()  # which was not possible while the search was running
            guard.held = True

    def _advance(self, found: float | SearchResult | BaseException, failure: BaseException | None) -> None:
        """Finish a run: reschedule the task, or complete it if there is no next due time. Then log failures.

        This ends the operation of the caller.

        Args:
            found: What `_find_next` has returned.
            failure: The failure of the run, if it must be logged.
        """
        registry = self._registry
        failed = found if isinstance(found, BaseException) else None
        if failed is not None or found is SearchResult.EXHAUSTED:
            self._set_due(None)
            self._set_not_due()
            registry.finish(self, Status.FINISHED if failed is None else Status.FAILED, failed)
        else:
            assert self._call is not None
            target, args, context = self._call
            self._rearm(target, args, context.copy())  # not all event loops make their own copy
            searching = found is SearchResult.UNFINISHED
            registry.add(self, registry.now()[0] if searching else cast("float", found))
            # The very object: `add` may have rounded it.
            self._search_due, self._trigger.due = (self._when, None) if searching else (None, self._when)
        registry.guard.release()
        skipped, self._trigger.skipped = self._trigger.skipped, 0
        if skipped:
            registry.log_skipped(self, skipped)
        self._warn()
        # This must be the last step, since a log handler may cancel the task.
        if failure is not None:
            registry.log_failure(self, failure)
        if failed is not None:
            if is_fatal(failed):
                raise failed
            registry.log_failure(self, failed)

    def _warn(self) -> None:
        warning, self._trigger.warning = self._trigger.warning, None
        if warning is not None:
            self._registry.warn(self, warning)

    def _clock_set_back(self, unseen: float) -> None:
        """Called when the wall clock was set back: the next run may be due at another time, unless it was rescheduled."""
        trigger, registry, when = self._trigger, self._registry, self._when
        is_regular = when == trigger.due
        is_pending = self._status is Status.PENDING and self._run is None and when is not self._search_due
        assert self._call is not None
        _, _, context = self._call
        try:
            found = context.copy().run(trigger.clock_set_back, *registry.now(), unseen, is_pending)
        except Exception as failure:
            registry.log_failure(self, failure)
            return
        finally:
            if self._is_done():
                self._close_trigger()  # which was not possible while the function was called
        if self._is_done():
            return
        if isinstance(found, str):
            registry.warn(self, found)
        elif found is not None:
            registry.guard.held = True
            # `times` may have rescheduled it, and a signal handler may have done anything.
            if is_regular and self._when is when and self._status is Status.PENDING:
                registry.reschedule(self, found)
                trigger.due = self._when
            registry.guard.release()

    def _finish_without_runs(self) -> None:
        """Complete a pending task that has no due times at all. This ends the operation of the caller."""
        self._leave_queue()
        self._advance(SearchResult.EXHAUSTED, None)

    def _complete(self, status: Status, outcome: object) -> Callable[[], object]:
        """Enter the final status. The return value of the last run is discarded, like those of all runs."""
        if self._run is not None:
            self._last_status = status
        self._call = None
        self._registry.unfollow_clock(self)
        super()._complete(status, None if status is Status.FINISHED else outcome)
        return self._close_trigger

    def _close_trigger(self) -> None:
        try:
            self._trigger.close()
        except Exception as failure:
            self._registry.log_failure(self, failure)
