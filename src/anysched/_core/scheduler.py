"""The `Scheduler`: its public methods, their checks, and its lifecycle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from inspect import CO_COROUTINE
from logging import DEBUG, WARNING
from threading import get_ident
from types import FunctionType, MappingProxyType, TracebackType
from typing import Any, Literal, NoReturn, Self, TypeVar, TypeVarTuple, cast, final, get_args, overload

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from anysched._moments import Moment
from anysched.abc import Clock, Instrument

from .backends import HostTask
from .backends.current import current_backend
from .clock import datetime_from_ns, due_after, due_at, exact_clock, seconds_from_delay
from .coroutines import LazyCoroutine, Target, check_target, close_unstarted, is_coroutine
from .debug import call_site, check_call
from .dispatcher import Dispatcher
from .exceptions import DuplicateTaskError
from .failures import exit_exception
from .guard import Guard
from .held_up import HeldUpReports
from .recurring import RecurringTask
from .registry import SchedulerState, TaskRegistry, cancel_runs
from .task import RunningPolicy, ScheduledTask, Status, current_scheduled_task, due_times
from .texts import format_value, printable
from .triggers import FunctionTrigger, IntervalTrigger, IterableTrigger, MeasuredFrom, MissedPolicy, Trigger

__all__ = ["ConflictPolicy", "Scheduler", "SchedulerState", "SchedulerStatistics"]

WhenT = TypeVar("WhenT")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ConflictPolicy = Literal["keep", "replace", "follow", "error"]
"""What to do when the ID is held; see `Scheduler.schedule`."""

DROPS_PER_ITERATION = 500
"""How many tasks are dropped on closing before the scheduler yields to the event loop."""

NAMES_SHOWN = 5
"""The maximum number of tasks that a warning names."""

_HANDLES: tuple[type, ...] = (ScheduledTask,)
_CONFLICT_POLICIES = frozenset(get_args(ConflictPolicy))
_RUNNING_POLICIES = frozenset(get_args(RunningPolicy))


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """Statistics of a scheduler; its children have their own.

    Each run of a recurring task counts as one started, finished or failed task. A pending recurring task, and one that
    is cancelled before a run starts, counts once.

    Attributes:
        pending: How many tasks hold an ID and have not started.
        running: How many tasks are running, including those that no longer hold their ID.
        next_due: When the next pending task is due (aware UTC), or `None`.
        started: How many tasks have started since entry.
        finished: How many have returned since entry.
        failed: How many have failed since entry.
        cancelled: How many have been cancelled since entry, before or after their start.
    """

    pending: int
    running: int
    next_due: datetime | None
    started: int
    finished: int
    failed: int
    cancelled: int


@final
class Scheduler:
    """Schedules coroutines under IDs, now or in the future, on asyncio and on trio.

    Use it as an async context manager. When the block exits, normally or by an exception, all tasks are cancelled and
    awaited::

        async with Scheduler("reminders") as scheduler:
            scheduler.schedule_later(30 * 60, reminder.id, send(reminder))

    If set-up and tear-down happen in different tasks, use `run` or `start`, and `child`. A scheduler can be entered
    only once.

    The scheduler owns the coroutines that it is given: whatever happens, they are awaited or closed, even if the call
    raises. The only exception is a coroutine that was already started, which is refused and left alone.

    Any exception in a task is logged when the task ends, at ERROR with traceback; the other tasks continue. The records
    have the attributes ``scheduler`` and ``task_id``.

    All methods belong to the thread of the event loop; from a worker thread call them with
    `anyio.from_thread.run_sync`.

    Args:
        name: The name of the logger is ``anysched.<name>``, and the names of the tasks are ``<name>_<id>``.
        max_running: How many tasks may run at once. Tasks that are due while all slots are taken stay pending and are
            started in due order.
        suppressed_exceptions: Exceptions that are not logged, in tasks of this scheduler and its children.
        instruments: Objects that are called when something happens to a task; see `anysched.abc.Instrument`.

    Raises:
        TypeError: if the name is not a string, the limit is not an integer, or an instrument is not an
            `anysched.abc.Instrument`.
        ValueError: if the name is empty, or the limit is less than one.
    """

    def __init__(
        self,
        name: str,
        *,
        max_running: int | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
        instruments: Iterable[Instrument] = (),
    ) -> None:
        self._set_up(name, max_running, suppressed_exceptions, instruments, None)

    def _set_up(
        self,
        name: str,
        max_running: int | None,
        suppressed_exceptions: tuple[type[BaseException], ...],
        instruments: Iterable[Instrument],
        parent: TaskRegistry | None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {type(name).__name__}: {format_value(name)}")
        if not name:
            raise ValueError("name must not be empty: it names the logger and the tasks")
        if max_running is not None and (isinstance(max_running, bool) or not isinstance(max_running, int)):
            raise TypeError(f"max_running must be an integer or None, not {type(max_running).__name__}")
        if max_running is not None and max_running < 1:
            raise ValueError(f"max_running must be at least 1, not {max_running}")
        self._name = name if parent is None else f"{parent.name}.{name}"
        # The registry has the mutable state: the state of the scheduler, and which task holds which ID.
        suppressed = _exception_types(suppressed_exceptions)
        self._registry = registry = TaskRegistry(self._name, max_running, self._cancel_by_handle, suppressed, parent)
        registry.scheduler = self
        self._tasks = registry.tasks
        self._tasks_view = MappingProxyType(registry.tasks)
        self._log = registry.log
        self._entered = self._left = False
        self._hosted: HostTask | None = None
        registry.add_instruments(instruments)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, since the tasks belong to this scheduler."""
        raise TypeError(
            "a Scheduler cannot be copied or pickled; to store its tasks, see the values that close() returns"
        )

    @property
    def name(self) -> str:
        """The name of the scheduler; a child's begins with its parent's."""
        return self._name

    @property
    def state(self) -> SchedulerState:
        """The state of the scheduler, one of ``"new"``, ``"running"``, ``"closing"`` and ``"closed"``."""
        return self._registry.state

    def now(self) -> datetime:
        """Return the time of the scheduler's wall clock (aware UTC).

        This is the machine's clock, or the virtual clock in tests with virtual time. Before the scheduler is entered,
        it is always the machine's. When the scheduler has been closed, the time no longer changes.
        """
        dispatcher = self._registry.dispatcher
        return datetime_from_ns(time.time_ns() if dispatcher is None else dispatcher.now()[1])

    @property
    def tasks(self) -> Mapping[Hashable, ScheduledTask[Any]]:
        """A live, read-only view of the tasks that hold an ID, by ID."""
        return self._tasks_view

    def busy_descendants(self) -> list[Scheduler]:
        """Return the descendants that hold tasks, in the order in which they were created.

        A scheduler does not keep track of idle children.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
        """
        self._check_thread()
        registries = self._registry.busy_members()
        return [registry.scheduler for registry in registries if registry is not self._registry]

    def __contains__(self, task_id: Hashable) -> bool:
        """Return whether the ID is held by a pending or running task."""
        return self._find(task_id) is not None

    def __repr__(self) -> str:
        return f"<Scheduler {self._name!r} {self._registry.state}, {len(self._tasks)} tasks>"

    def statistics(self) -> SchedulerStatistics:
        """Return statistics about the current state, like the ``statistics()`` methods of anyio.

        This takes a fraction of a millisecond, however many tasks are pending. The first call after many tasks were
        cancelled or postponed also tidies the queue, which takes a fraction of the time of those calls.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
        """
        self._check_thread()
        registry = self._registry
        return SchedulerStatistics(
            pending=registry.pending,
            running=registry.running,
            next_due=registry.next_due(),
            started=registry.started,
            finished=registry.finished,
            failed=registry.failed,
            cancelled=registry.cancelled,
        )

    def seconds_until_due(self, tasks: Iterable[ScheduledTask[Any]]) -> list[float | None]:
        """Return for each task the number of seconds until it is due, or `None` if it has started.

        The number is negative if the task is overdue. The clocks are read only once, so that a million tasks can be
        sorted by their due times; `ScheduledTask.due` reads them each time.

        Args:
            tasks: Tasks of this scheduler, of its children or of its parents.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
        """
        self._check_thread()
        whens = due_times(tasks)
        if not whens:
            return []
        now, now_ns = self._registry.now()
        return [
            None if when is None else when - now if isinstance(when, float) else (when - now_ns) / 1e9  # type: ignore[redundant-expr]
            for when in whens
        ]

    # Scheduling

    @overload
    def schedule(
        self,
        task_id: Hashable,
        coroutine: Coroutine[Any, Any, T],
        *,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    @overload
    def schedule(
        self,
        task_id: Hashable,
        coroutine: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    def schedule(  # type: ignore[misc]  # mypy does not see that `*args: Any` takes `*args: *Ts`
        self,
        task_id: Hashable,
        coroutine: Target,
        *args: Any,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[Any]:
        """Start a coroutine soon, but not before this call has returned.

        Args:
            task_id: The ID, any hashable object that does not change. It is held until the task ends or is cancelled.
            coroutine: A coroutine that has not started, or a function that returns one. The function is called when the
                task starts; until then it takes less memory than a coroutine, and there is nothing to close.
            args: The positional arguments for the function.
            on_conflict: What to do if the ID is held. ``"keep"``: the holder stays, the new coroutine is closed, and
                the holder's handle is returned, so that two callers can await one result. ``"replace"``: a pending
                holder is dropped, a running one is cancelled. ``"follow"``: a pending holder is dropped, a running one
                is left to finish. ``"error"``: `DuplicateTaskError` is raised. One ID never runs twice at once: a task
                that takes over an ID starts when its predecessor has ended. From inside the holder, ``"replace"`` means
                ``"follow"``.
            context: The context to copy for the task, instead of the caller's.
            suppressed_exceptions: Exceptions of the task that are not logged, in addition to those of the scheduler.

        Returns:
            The handle of the task that holds the ID.

        Raises:
            DuplicateTaskError: if the ID is held and ``on_conflict`` is ``"error"``.
            RuntimeError: if the scheduler is not running, or if called from another thread than the event loop's.
            TypeError: if the ID is not hashable, or ``coroutine`` is neither a coroutine nor a function.
            ValueError: if the coroutine was already started, or is already scheduled under this ID, or ``on_conflict``
                is unknown.
        """
        return self._schedule(due_after, 0, task_id, coroutine, args, on_conflict, context, suppressed_exceptions)

    @overload
    def schedule_later(
        self,
        delay: float | timedelta,
        task_id: Hashable,
        coroutine: Coroutine[Any, Any, T],
        *,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    @overload
    def schedule_later(
        self,
        delay: float | timedelta,
        task_id: Hashable,
        coroutine: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    def schedule_later(  # type: ignore[misc]  # as above
        self,
        delay: float | timedelta,
        task_id: Hashable,
        coroutine: Target,
        *args: Any,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[Any]:
        """Start a coroutine after a delay of elapsed (monotonic) time; see `schedule` for the rest.

        Args:
            delay: In seconds, or a `timedelta`; zero or less means now.
            task_id: The ID.
            coroutine: A coroutine, or a function.
            args: The arguments for the function.
            on_conflict: What to do if the ID is held.
            context: The context to copy.
            suppressed_exceptions: Exceptions that are not logged.

        Raises:
            TypeError: as `schedule`, and if the delay is neither a number nor a `timedelta`.
            ValueError: as `schedule`, and if the delay is NaN or infinite.
        """
        return self._schedule(due_after, delay, task_id, coroutine, args, on_conflict, context, suppressed_exceptions)

    @overload
    def schedule_at(
        self,
        time: datetime | Moment,
        task_id: Hashable,
        coroutine: Coroutine[Any, Any, T],
        *,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    @overload
    def schedule_at(
        self,
        time: datetime | Moment,
        task_id: Hashable,
        coroutine: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[T]: ...

    def schedule_at(  # type: ignore[misc]  # as above
        self,
        time: datetime | Moment,
        task_id: Hashable,
        coroutine: Target,
        *args: Any,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[Any]:
        """Start a coroutine at a wall-clock time; see `schedule` for the rest.

        The time is an instant in UTC, so a DST change in between is taken into account. The task never starts before
        the wall clock shows the time. If the clock is set forward or the machine sleeps, it starts at most half a
        minute late.

        Args:
            time: When to start. A naive time is interpreted as UTC; a time in the past means now. As in pydis_core,
                times of other libraries are accepted if they have a ``datetime`` attribute (Arrow) or a
                ``timestamp()`` method (pandas, pendulum, whenever).
            task_id: The ID.
            coroutine: A coroutine, or a function.
            args: The arguments for the function.
            on_conflict: What to do if the ID is held.
            context: The context to copy.
            suppressed_exceptions: Exceptions that are not logged.

        Raises:
            TypeError: as `schedule`, and if the time is not a `datetime`.
        """
        return self._schedule(due_at, time, task_id, coroutine, args, on_conflict, context, suppressed_exceptions)

    def schedule_every(
        self,
        period: float | timedelta,
        task_id: Hashable,
        func: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        first: float | timedelta | datetime | Moment | None = None,
        measured_from: MeasuredFrom = "start",
        missed: MissedPolicy = "latest",
        jitter: float | timedelta = 0.0,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[None]:
        """Run a function repeatedly, once per period of elapsed (monotonic) time, until it is cancelled.

        Run number n (0, 1, ...) is due at ``first + n * period``, so the schedule does not drift, however long the runs
        take. One ID and one handle represent all runs: the task is pending between runs and running during a run, and
        runs never overlap. A failing run is logged, and the next one takes place. Return values are discarded.

        `cancel` ends the task at once. If it is called from inside a run, it frees the ID, and the task ends with this
        run and its outcome. The same applies if another call takes over the ID by ``on_conflict``. `reschedule_later`
        and `reschedule_at` move only the next run: a run that was brought forward does not replace the regular one, and
        a run that was postponed covers those that became due in the meantime. Everything else is as in `schedule`.

        Args:
            period: In seconds, or a `timedelta`; at least a microsecond.
            task_id: The ID, which is held until the task is cancelled.
            func: A function that returns a coroutine, called for each run. (A coroutine could run only once.)
            args: The positional arguments for the function.
            first: When the first run is due: after one period, if not given; after a delay, as in `schedule_later`; or
                at a time, as in `schedule_at`. After the first run the others are due by elapsed time, regardless of changes
                to the wall clock. If the clock is set before that, the first run still waits until it shows the time,
                and the periods count from that time as the clock shows it when the first run starts.
            measured_from: ``"start"``: the period is the time between two due times. ``"end"``: a run is due one
                period after the end of the previous run, however that ended; then no run is ever missed.
            missed: What to do about runs that could not start when they were due, because the previous run took
                too long, the event loop was blocked, or all slots were taken. ``"latest"``: a run covers all due times
                until it starts; if others become due during the run, one run catches up for them at once. ``"all"``:
                every missed run is executed, one after another. ``"skip"``: a run that could not start within a minute
                of its due time, or within the period if that is shorter, is skipped and logged at INFO. A ``first`` in
                the past counts as missed.
            jitter: Each run is delayed by a random time of up to this, in seconds or as a `timedelta`; it must be less
                than the period. The delays do not add up. The random numbers are from the module `random`.
            on_conflict: What to do if the ID is held.
            context: The context to copy for each run, instead of the caller's. Changes in one run are not visible in
                the next.
            suppressed_exceptions: Exceptions of the runs that are not logged.

        Returns:
            The handle of the task that holds the ID. `ScheduledTask.due` is the time of the next run,
            `ScheduledTask.run_count` counts the runs, and awaiting the handle waits for the end of the recurrence.

        Raises:
            TypeError: as `schedule`, and if ``func`` is a coroutine (which is closed), or a duration or time has the
                wrong type.
            ValueError: as `schedule`, and if the period is not positive and finite, the jitter is negative or
                not less than the period, or ``missed`` is unknown.
        """
        trigger = IntervalTrigger(period, first, missed, jitter, measured_from)
        return self._schedule_recurring(trigger, task_id, func, args, on_conflict, context, suppressed_exceptions)

    def schedule_at_times(
        self,
        times: Iterable[datetime | Moment] | Callable[[datetime], Iterable[datetime | Moment]],
        task_id: Hashable,
        func: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        missed: MissedPolicy = "latest",
        jitter: float | timedelta = 0.0,
        on_conflict: ConflictPolicy = "keep",
        context: Context | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
    ) -> ScheduledTask[None]:
        """Run a function at each of a series of wall-clock times; see `schedule_every` for the rest.

        ``times`` is a list, a generator, ``cronsim.CronSim(...)``, a rule of ``dateutil`` or any other iterable, finite or
        infinite; or a function, such as `anysched.cron.Cron`, that takes the current time and returns an iterable. Each
        time is due as in `schedule_at`. When there are no more times, the task ends as finished and its ID is free. If
        there are none at all, this has happened when the call returns, after a holder of the ID was handled by
        ``on_conflict``.

        A function is called again when the wall clock was set. So if a wrong clock jumped over some times for a while,
        these are run when they come. An iterable cannot be restarted: if the clock is set back by more than a minute
        behind the times that were already yielded, a WARNING says until when nothing will be run.

        The first time is requested in this call, and each other time when the previous run has ended (one more if some
        were missed). This happens on the event loop, which the iterable must not hold up. If it raises, the failure is
        logged and the task ends as failed. A generator is closed when the task ends, and if the call is refused or the
        holder is kept.

        A time that is not later than the previous one is skipped, so that no time is run twice, whatever the iterator
        or the wall clock does. After 100 of these in a row the task ends as failed.

        Args:
            times: When to run, as an iterable, or as a function that takes the current time (aware UTC) and returns an
                iterable of the times after it. A naive time is interpreted as UTC. Times in the past count as missed;
                to avoid catching up, start from the current time (``CronSim(expression, now)``, ``rule.xafter(now)``).
            task_id: The ID, which is held until the task ends or is cancelled.
            func: A function that returns a coroutine, called for each run.
            args: The positional arguments for the function.
            missed: As in `schedule_every`. A time is also missed while the machine sleeps, and when the clock is set
                forward.
            jitter: As in `schedule_every`, but not limited.
            on_conflict: What to do if the ID is held.
            context: The context to copy for each run. ``times`` is also called or iterated in a copy of it.
            suppressed_exceptions: Exceptions that are not logged.

        Raises:
            TypeError: as `schedule_every`, and if ``times`` is not iterable, or the first time is not a `datetime`.
            ValueError: as `schedule_every`.
            Exception: any exception that ``times`` raises when the first time is requested.
        """
        function = times if callable(times) and not isinstance(times, Iterable) else None
        trigger: Trigger
        if function is None:
            trigger = IterableTrigger(cast("Iterable[datetime | Moment]", times), missed, jitter)
        else:
            trigger = FunctionTrigger(function, missed, jitter)
        return self._schedule_recurring(trigger, task_id, func, args, on_conflict, context, suppressed_exceptions)

    def reschedule_later(self, delay: float | timedelta, task_id: Hashable) -> bool:
        """Make a pending task due after a delay from now. It keeps its coroutine and its handle.

        Args:
            delay: In seconds of elapsed time, or a `timedelta`; zero or less means now.
            task_id: The ID.

        Returns:
            Whether there was a pending task with this ID.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if the delay is neither a number nor a `timedelta`.
            ValueError: if the delay is NaN or infinite.
        """
        return self._registry.reschedule_if_pending(due_after, delay, self._find(task_id))

    def reschedule_at(self, time: datetime | Moment, task_id: Hashable) -> bool:
        """Make a pending task due at a time of the wall clock. It keeps its coroutine and its handle.

        Args:
            time: As in `schedule_at`.
            task_id: The ID.

        Returns:
            Whether there was a pending task with this ID.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if the time is not a `datetime`.
        """
        return self._registry.reschedule_if_pending(due_at, time, self._find(task_id))

    def _schedule(
        self,
        due: Callable[[Clock, WhenT], float],
        moment: WhenT,
        task_id: Hashable,
        target: Target,
        args: tuple[Any, ...],
        on_conflict: ConflictPolicy,
        context: Context | None,
        suppressed_exceptions: tuple[type[BaseException], ...],
        make: Callable[
            [TaskRegistry, Hashable, Target, tuple[Any, ...], Context, float], ScheduledTask[Any]
        ] = ScheduledTask,
    ) -> ScheduledTask[Any]:
        # Bad input is refused before anything changes.
        holder: ScheduledTask[Any] | None = None
        same = False  # whether the same coroutine is already scheduled under this ID
        registry = self._registry
        guard = registry.guard
        is_own = False  # whether this call has begun an operation, as opposed to coming in the middle of another one
        try:
            # A coroutine function needs no check. This is inline to save a call.
            if type(target) is not FunctionType or not target.__code__.co_flags & CO_COROUTINE:
                check_target(target, args)
            dispatcher = registry.family.dispatcher
            collector = None
            state = registry._state or registry.state  # a property, which is as slow as a call; a child asks its parent
            if state != "running" or dispatcher is None or dispatcher.thread != get_ident():
                dispatcher = self._running_dispatcher()
                collector = registry.collector
            scheduled_at = None
            if dispatcher.debug:
                check_call(target, args)
                scheduled_at = call_site()
            when = due(dispatcher.clock, moment)
            if dispatcher.is_coarse:  # asked here to save a call
                when = dispatcher.by_loop_time(when)
            if on_conflict not in _CONFLICT_POLICIES:
                raise ValueError(
                    f"on_conflict must be one of {sorted(_CONFLICT_POLICIES)}, not {format_value(on_conflict)}"
                )
            if context is None:
                context = copy_context()
            elif isinstance(context, Context):
                context = context.copy()
            else:
                raise TypeError(f"context must be a contextvars.Context, not {type(context).__name__}")
            suppressed = _exception_types(suppressed_exceptions) if suppressed_exceptions else ()
            # As `_find`, without a call for it.
            try:
                if guard.held:
                    holder = registry.holder(task_id)
                else:
                    guard.held = is_own = True
                    holder = self._tasks.get(task_id)
            except TypeError:
                _check_id(task_id)
                raise
            if registry.predecessors:
                registry.predecessors.get(task_id)  # if the IDs cannot be compared, this fails here, not when it is due
            if holder is None:
                if isinstance(task_id, _HANDLES):
                    _check_id(task_id)
            else:
                same = holder._target is target
                if same and is_coroutine(target):
                    raise ValueError(
                        f"this coroutine is already scheduled as {format_value(task_id)}: {format_value(target)}"
                    )
                if on_conflict == "error":
                    raise DuplicateTaskError(self._name, task_id)
        except BaseException:
            if is_own:
                guard.release()
            if not same:
                close_unstarted(target)
            raise
        if holder is not None and on_conflict == "keep":
            if is_own:
                guard.release()
            self._keep(holder, target)
            return holder
        task = make(registry, task_id, target, args, context, when)
        if suppressed:
            registry.suppress(task, suppressed)
        if scheduled_at is not None:
            registry.set_call_site(task, scheduled_at)
        if collector is not None:
            collect = partial(self._collect, task, collector)
            if is_own:
                collect()
            else:
                registry.defer(collect)
            return task
        if not is_own:
            guard.holders[registry, task_id] = task
            registry.defer(partial(self._schedule_deferred, task, when, on_conflict))
            return task
        try:
            if holder is None and self._tasks:
                self._tasks[task_id] = task  # as `hold`, without a call for it
            else:
                registry.hold(task_id, task, holder)
            dispatcher.enqueue(task, when, registry)
            if holder is not None:
                # Only now, since closing a coroutine may run finalizers, and these may try to take the ID.
                registry.displace(holder, on_conflict == "replace")
        finally:
            guard.held = False
            if guard.deferred:
                guard.complete()
        if self._log.is_enabled_for(DEBUG):
            self._debug("Scheduled task %s.", task_id)
        if registry.family.instruments_version and registry.instruments is not None:
            registry.instruments.task_scheduled(task)
        return task

    def _schedule_deferred(self, task: ScheduledTask[Any], when: float, on_conflict: ConflictPolicy) -> None:
        """Complete a call that came in the middle of an operation; see `Guard`."""
        registry, task_id = self._registry, task.task_id
        dispatcher, guard = registry.dispatcher, registry.guard
        assert dispatcher is not None
        guard.held = True
        try:
            holder = self._tasks.get(task_id)
            # The operation may have given the ID to another task, or may be closing the scheduler.
            is_refused = registry.state != "running" or (holder is not None and on_conflict in ("keep", "error"))
            if not is_refused:
                registry.hold(task_id, task, holder)
                dispatcher.enqueue(task, when, registry)
                if holder is not None:
                    registry.displace(holder, on_conflict == "replace")
        finally:
            guard.release()
        self._debug("Scheduled task %s.", task_id)
        registry.notify("task_scheduled", task)
        if is_refused:
            registry.drop_unscheduled(task)

    def _keep(self, holder: ScheduledTask[Any], target: Target) -> None:
        """Close the target of a call that keeps the holder of the ID."""
        registry = self._registry
        close_unstarted(target)
        self._log_kept(holder)
        if registry.family.instruments_version:
            registry.notify("task_kept", holder)

    def _collect(self, task: ScheduledTask[Any], collector: list[ScheduledTask[Any]]) -> None:
        """Drop a task that was scheduled while the scheduler is being closed."""
        self._registry.drop_unscheduled(task)
        collector.append(task)
        self._debug("Dropped task %s, because the scheduler is being closed.", task.task_id)

    def _schedule_recurring(
        self,
        trigger: Trigger,
        task_id: Hashable,
        func: Target,
        args: tuple[Any, ...],
        on_conflict: ConflictPolicy,
        context: Context | None,
        suppressed_exceptions: tuple[type[BaseException], ...],
    ) -> ScheduledTask[None]:
        try:
            if is_coroutine(func):
                check_target(func, ())
                close_unstarted(func)
                raise TypeError(
                    "a coroutine runs only once: pass the function and its arguments instead, as in "
                    f"(..., {format_value(task_id)}, func, *args), not {format_value(func)}"
                )
            make = partial(RecurringTask, trigger)
            task = self._schedule(
                _first_due, trigger, task_id, func, args, on_conflict, context, suppressed_exceptions, make
            )
        except BaseException:
            trigger.close()
            raise
        if isinstance(task, RecurringTask) and task._trigger is trigger:
            if trigger.follows_clock and task.status is Status.PENDING:
                self._registry.follow_clock(task)
            if trigger.empty:
                self._finish_without_runs(task)
        else:
            trigger.close()  # the holder was kept
        return task

    def _finish_without_runs(self, task: RecurringTask) -> None:
        """Complete a task that has no due times at all, unless an instrument or signal handler has cancelled it."""
        registry = self._registry
        guard = registry.guard
        if guard.held:
            registry.defer(partial(self._finish_without_runs, task))
            return
        guard.held = True
        if task.status is Status.PENDING:
            task._finish_without_runs()
        guard.release()

    def pause(self, task_id: Hashable) -> bool:
        """Pause a task: it keeps its ID, its handle and its due time, but does not start until it is resumed.

        If a recurring task is paused during a run, the run continues, but the next one does not start. A paused task
        can be rescheduled and cancelled. `join` waits for it.

        Args:
            task_id: The ID.

        Returns:
            Whether a task was paused by this call.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if the ID is not hashable.
        """
        self._check_thread()
        task = self._find(task_id)
        return task is not None and self._registry.pause(task)

    def resume(self, task_id: Hashable) -> bool:
        """Resume a paused task.

        If it became due in the meantime, it starts at once; missed runs of a recurring task are handled by ``missed``.

        Args:
            task_id: The ID.

        Returns:
            Whether there was a paused task with this ID.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if the ID is not hashable.
        """
        self._check_thread()
        task = self._find(task_id)
        return task is not None and self._registry.resume(task)

    def _running_dispatcher(self) -> Dispatcher:
        registry = self._registry
        dispatcher = registry.dispatcher
        state = registry.state
        # While `close` waits for the running tasks, tasks that these schedule are dropped, but the calls succeed.
        is_collected = state == "closing" and registry.collector is not None and current_scheduled_task() is not None
        if dispatcher is None or not (state == "running" or is_collected):
            name, root = self._name, registry
            while root.parent is not None and root.state == state:
                root = root.parent
            if root is not registry and root.state == state:
                advice = f"its parent {root.name!r} is {state}"
                if state == "new":
                    advice = f"enter its parent {root.name!r} first: `async with {root.name}:`"
            else:
                advice = {
                    "new": "enter it first: `async with scheduler:`, or `await task_group.start(scheduler.run)`",
                    "closing": "it accepts no more tasks",
                    "closed": "it cannot be entered again: create a new one",
                }[state]
            raise RuntimeError(f"the scheduler {name!r} is not running ({state}); {advice}")
        dispatcher.check_thread()
        return dispatcher

    def _find(self, task_id: Hashable) -> ScheduledTask[Any] | None:
        """Return the task that holds an ID, or `None`.

        Raises:
            TypeError: if it cannot be an ID.
        """
        registry = self._registry
        try:
            task = registry.holder(task_id) if registry.guard.held else self._tasks.get(task_id)
        except TypeError:
            _check_id(task_id)
            raise
        if task is None and isinstance(task_id, _HANDLES):
            _check_id(task_id)
        return task

    def _check_thread(self) -> None:
        self._registry.check_thread()

    # Cancelling

    def cancel(self, task_id: Hashable, *, running: RunningPolicy = "cancel") -> bool:
        """Cancel the task that holds an ID, and free the ID at once.

        A pending task is dropped: its coroutine is closed and never runs. A running task is cancelled, unless it
        (or a child task of it) calls this itself: then it is left to finish. If the ID is not held, a WARNING is
        logged.

        Args:
            task_id: The ID.
            running: What to do if the task is running: ``"cancel"`` it, or ``"leave"`` it to finish, as pydis_core does
                with delayed tasks. A recurring task that is left ends after the current run.

        Returns:
            Whether the ID was held.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if the ID is not hashable.
            ValueError: if ``running`` is unknown.
        """
        if running != "cancel":
            _check_running_policy(running)
        registry = self._registry
        dispatcher = registry.family.dispatcher
        if dispatcher is not None and dispatcher.thread != get_ident():
            dispatcher.check_thread()
        guard = registry.guard
        if guard.held:
            task = self._find(task_id)
            if task is not None:
                self._cancel_by_handle(task, running)
                return True
        else:
            guard.held = True
            try:
                try:
                    task = self._tasks.pop(task_id, None)
                except TypeError:
                    _check_id(task_id)
                    raise
                if task is not None:
                    registry.displace(task, running == "cancel")
            finally:
                guard.held = False
                if guard.deferred:
                    guard.complete()
        if task is None:
            _check_id(task_id)
            self._log.log(WARNING, "Failed to unschedule %s (no task found).", task_id)
            return False
        if self._log.is_enabled_for(DEBUG):
            self._debug("Unscheduled task %s.", task_id)
        return True

    def cancel_all(self, *, running: RunningPolicy = "cancel") -> None:
        """Cancel all tasks that hold an ID, as `cancel` does. Tasks of children are not affected.

        This takes about a second for a million tasks and holds up the event loop; `close` does not.

        Args:
            running: What to do with running tasks, as in `cancel`.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            ValueError: if ``running`` is unknown.
        """
        self._check_thread()
        _check_running_policy(running)
        for task in self._registry.holders():
            self._cancel_by_handle(task, running)

    def _cancel_by_handle(self, task: ScheduledTask[Any], running: RunningPolicy) -> None:
        self._check_thread()
        _check_running_policy(running)
        task_id, registry = task.task_id, self._registry
        guard = registry.guard
        if guard.held:
            if registry.holder(task_id) is task:
                guard.holders[registry, task_id] = None
            registry.defer(partial(self._cancel_by_handle, task, running))
            return
        guard.held = True
        try:
            is_holder = registry.remove(task)
            if is_holder:
                registry.displace(task, running == "cancel")
            elif running == "cancel":
                registry.cancel_run(task)
        finally:
            guard.release()
        if is_holder and self._log.is_enabled_for(DEBUG):
            self._debug("Unscheduled task %s.", task_id)

    # Logging

    def _debug(self, message: str, task_id: Hashable) -> None:
        # Callers on the fast paths check first whether it is enabled, which halves the cost.
        self._log.log(DEBUG, message, task_id)

    def _log_kept(self, holder: ScheduledTask[Any]) -> None:
        task_id = holder.task_id
        if self._registry.is_caller(holder):
            self._log.log(
                WARNING,
                "Task %s scheduled its own ID, which it still holds: the new coroutine was closed and will not run. "
                'Pass on_conflict="follow" to run it after this one.',
                task_id,
            )
        elif self._log.is_enabled_for(DEBUG):
            self._debug("Did not schedule task %s; its ID is already held.", task_id)

    # Instruments

    def add_instrument(self, instrument: Instrument) -> None:
        """Call an instrument from now on when something happens to a task of this scheduler or its children.

        Do nothing if the instrument has already been added.

        Args:
            instrument: The instrument.

        Raises:
            RuntimeError: if called from another thread than the event loop's.
            TypeError: if it is not an `anysched.abc.Instrument`, or one of its methods is a coroutine function.
        """
        self._check_thread()
        self._registry.add_instruments([instrument])

    def remove_instrument(self, instrument: Instrument) -> None:
        """Stop calling an instrument that was added to this scheduler.

        Args:
            instrument: The instrument.

        Raises:
            KeyError: if this scheduler does not have it, perhaps because it was removed after it raised an exception.
            RuntimeError: if called from another thread than the event loop's.
        """
        self._check_thread()
        if not self._registry.discard_instrument(instrument):
            raise KeyError(instrument)

    # Lifecycle

    def child(
        self,
        name: str,
        *,
        max_running: int | None = None,
        suppressed_exceptions: tuple[type[BaseException], ...] = (),
        instruments: Iterable[Instrument] = (),
    ) -> Scheduler:
        """Create a child: a scheduler with its own IDs, name and limit that runs on this one's task group and queue.

        A child can be created anywhere, even in a synchronous function, and runs as long as its parent does. It closes
        with its parent, or earlier by `close`. Use one hosted root for a program, and a child for each of its
        components.

        Args:
            name: Appended to the parent's name: ``<parent>.<name>``.
            max_running: How many of its tasks may run at once. They do not count towards the parent's limit.
            suppressed_exceptions: Exceptions of its tasks that are not logged, in addition to those of the parent.
            instruments: Instruments for its tasks and those of its children, in addition to the parent's instruments.

        Raises:
            RuntimeError: if the parent is closing or closed, or if called from another thread than the event loop's.
            TypeError, ValueError: as `Scheduler`.
        """
        self._check_thread()
        if self._registry.state in ("closing", "closed"):
            raise RuntimeError(f"the scheduler {self._name!r} is {self._registry.state}: it can have no more children")
        child = Scheduler.__new__(Scheduler)
        child._set_up(name, max_running, suppressed_exceptions, instruments, self._registry)
        return child

    def start(self) -> None:
        """Host the scheduler in a separate task, from synchronous code on a running asyncio event loop.

        Tasks can be scheduled at once. ``await close()``, from any task, ends it. Use this in programs whose set-up and
        tear-down happen in different tasks or in callbacks, such as bots and their components, or fixtures of unittest
        and pytest-asyncio. A child is not started: it runs with its parent.

        Raises:
            RuntimeError: if no event loop is running, or it is trio, where a task needs a nursery:
                ``await nursery.start(scheduler.run)``; or if the scheduler was entered before, or is a child.
        """
        registry = self._registry
        if registry.parent is not None:
            raise RuntimeError(f"the scheduler {self._name!r} is a child: it runs with its parent and is not started")
        self._check_enterable()
        try:
            backend = current_backend()
        except anyio.NoEventLoopError:
            raise RuntimeError(
                "start() needs a running asyncio event loop: call it in an async function or in a callback of the loop"
            ) from None
        if backend.create_task is None:
            raise RuntimeError(
                "start() is for asyncio; on trio, a task needs a nursery: await nursery.start(scheduler.run)"
            )
        registry.family.dispatcher = Dispatcher(self._drop_when_stopped, self._abandon, backend, registry.guard)
        registry.state = "running"
        self._hosted = backend.create_task(self.run(), f"anysched {printable(self._name)}", self._host_ended)

    def _host_ended(self) -> None:
        if not self._entered:  # the event loop cancelled the task before its first step
            self._stop_accepting()
            raised = self._mark_closed()
            if raised:
                raise raised[0]  # from a callback, asyncio does not let a group out

    def _check_enterable(self) -> None:
        if self._entered or self._hosted is not None or self._registry.state in ("closing", "closed"):
            raise RuntimeError(f"the scheduler {self._name!r} can be entered only once")

    def _check_leavable(self) -> Dispatcher:
        """Return the dispatcher of a scheduler that has been entered and not left, in the thread of its event loop."""
        dispatcher = self._registry.dispatcher
        if dispatcher is None or not self._entered or self._left:
            which = "has already been left" if self._left else "has not been entered"
            raise RuntimeError(f"the scheduler {self._name!r} cannot be left: it {which}")
        dispatcher.check_thread()
        return dispatcher

    async def __aenter__(self) -> Self:
        registry = self._registry
        is_started_host = self._hosted is not None and self._hosted.is_current()
        if self._entered or not is_started_host:
            self._check_enterable()
        if registry.parent is None:
            dispatcher = registry.dispatcher or Dispatcher(
                self._drop_when_stopped, self._abandon, current_backend(), registry.guard
            )
            dispatcher.backend.protect(
                (Scheduler, TaskRegistry, Dispatcher, Guard, ScheduledTask, RecurringTask, LazyCoroutine)
            )
            self._entered = True
            await dispatcher.enter()
            registry.family.dispatcher = dispatcher
            registry.state = "running"
        else:
            self._running_dispatcher()
            self._check_not_inside("async with", registry.busy_members())
            self._entered = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        registry = self._registry
        dispatcher = self._check_leavable()
        self._left = True
        is_root = registry.parent is None
        raised: list[BaseException] = []
        left_elsewhere = is_root and dispatcher.is_left_elsewhere()
        self._stop_accepting()
        if is_root:
            dispatcher.cancel()
        try:
            dropped: list[tuple[TaskRegistry, ScheduledTask[Any]]] = []
            await self._shielded(self._drop_pending, raised, dropped, raised)
            if is_root:
                await self._shielded(self._report_until_ended, raised)
                raised += await dispatcher.leave()
                raised += registry.family.raised
            else:
                await self._shielded(self._cancel_and_wait, raised)
        finally:
            raised += self._mark_closed()
        if left_elsewhere:
            raised = [_left_elsewhere(self._name, raised)]
        leaving = exit_exception(exc_value, raised, dispatcher.backend.cancelled_exc_class)
        if leaving is not None:
            raise leaving

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Host the scheduler in the current task, until the task is cancelled or the scheduler is closed.

        Use this if set-up and tear-down happen in different tasks, so that ``async with`` cannot be used:
        ``await task_group.start(scheduler.run)``, or ``asyncio.create_task(scheduler.run())``.

        Raises:
            RuntimeError: if the scheduler was entered before.
        """
        async with self:
            registry = self._registry
            closed = registry.family.hosts[registry] = anyio.Event()
            try:
                task_status.started()
                await closed.wait()
            finally:
                del registry.family.hosts[registry]

    async def join(self) -> None:
        """Wait until no ID is held and no cancelled task is unwinding.

        Raises:
            RuntimeError: if called from one of the scheduler's own tasks. (Longer cycles are not detected.)
        """
        self._check_not_inside("join()", [self._registry])
        await checkpoint()
        await self._registry.wait_idle()

    async def close(self, grace: float | timedelta = 0) -> list[ScheduledTask[Any]]:
        """Close the scheduler and its children: refuse new tasks, drop the pending ones, and wait for the running ones.

        Tasks that a running task schedules before it ends are also dropped: the call returns a handle that is already
        cancelled. All other scheduling calls are refused.

        Args:
            grace: How long the running tasks may take, in seconds or as a `timedelta`; `math.inf` for no limit. Tasks
                that have not ended by then are cancelled and awaited. If this call is cancelled, they are cancelled at
                once.

        Returns:
            The tasks that did not finish, so that they can be stored: the dropped tasks, with their due times, and
            the cancelled tasks, except those that finished nevertheless.

        Raises:
            RuntimeError: if called from one of the tasks that it would wait for.
            TypeError: if the grace is neither a number nor a `timedelta`.
            ValueError: if it is NaN or negative.
        """
        seconds = math.inf if _is_unlimited(grace) else seconds_from_delay(grace, "grace")
        if seconds < 0:
            raise ValueError(f"grace must not be negative: {format_value(grace)}")
        self._check_not_inside("close()", self._registry.busy_members())
        deadline = anyio.current_time() + seconds
        registry = self._registry
        self._stop_accepting()
        if registry.collected is None:
            registry.collected = []
        running = self._running_tasks()
        dropped: list[tuple[TaskRegistry, ScheduledTask[Any]]] = list(registry.family.dropped)
        raised: list[BaseException] = []
        try:
            await self._drop_pending(dropped, raised)
            _raise_all(raised)
            with anyio.CancelScope(deadline=deadline):
                await self._wait_all_idle()
            late = [task for task in running if task.status is Status.RUNNING]
            cancel_runs(late)
            await self._wait_all_idle()
        finally:
            cancel_runs(running)  # if this call was cancelled, it cannot wait, but it leaves no task running
            collected, registry.collected = registry.collected, None
            _raise_all(self._mark_closed())
        if self._hosted is not None:
            await self._hosted.wait()
        cancelled = [
            task
            for task in running
            if task.status is Status.CANCELLED or (task in late and task.status is not Status.FINISHED)
        ]
        return [*(task for owner, task in dropped if owner.is_within(registry)), *(collected or ()), *cancelled]

    def _stop_accepting(self) -> None:
        """Stop accepting and starting tasks."""
        if self._registry.state != "closed":
            self._registry.state = "closing"

    async def _shielded(
        self, step: Callable[[*Ts], Coroutine[Any, Any, object]], raised: list[BaseException], *args: *Ts
    ) -> None:
        """Complete a step of leaving even if asyncio cancels the caller natively; append what it raised to ``raised``."""
        assert self._registry.dispatcher is not None
        cancelled = self._registry.dispatcher.backend.cancelled_exc_class
        with anyio.CancelScope(shield=True):
            while True:
                try:
                    await step(*args)
                except cancelled as exception:
                    raised.append(exception)
                except (KeyboardInterrupt, SystemExit) as exception:
                    raised.append(exception)
                    break
                else:
                    break

    async def _drop_pending(
        self, dropped: list[tuple[TaskRegistry, ScheduledTask[Any]]], raised: list[BaseException]
    ) -> None:
        """Drop the pending tasks and append them to ``dropped``, yielding to the event loop in between.

        If an instrument raises a request to end the process, the others are still dropped. The request is appended to
        ``raised``, for the caller to raise.
        """
        count = 0
        for registry in self._registry.busy_members():
            for task in list(registry.tasks.values()):
                if task.status is Status.PENDING:  # it may have been cancelled in the meantime
                    _drop(task, registry, raised)
                    dropped.append((registry, task))
                    count += 1
                    if count % DROPS_PER_ITERATION == 0:
                        await cancel_shielded_checkpoint()

    async def _drop_when_stopped(self) -> None:
        """Called when the dispatcher has stopped for any reason: drop the pending tasks, which will never start."""
        self._stop_accepting()
        family = self._registry.family
        await self._shielded(self._drop_pending, family.raised, family.dropped, family.raised)

    async def _cancel_and_wait(self) -> None:
        cancel_runs(self._running_tasks())
        await self._wait_all_idle()

    def _abandon(self) -> None:
        for registry in self._registry.busy_members():
            self._registry.family.raised += registry.abandon()

    def _mark_closed(self) -> list[BaseException]:
        """Enter the final state. Return the exceptions that instruments raised."""
        raised: list[BaseException] = []
        for registry in self._registry.busy_members():
            # No task is pending now, unless for example a `KeyboardInterrupt` came in between.
            for task in [task for task in registry.tasks.values() if task.status is Status.PENDING]:
                _drop(task, registry, raised)
        family = self._registry.family
        if self._registry.parent is None:
            family.dropped = []
        self._registry.state = "closed"
        for registry, closed in family.hosts.items():
            if registry.is_within(self._registry):
                closed.set()
        return raised

    def _running_tasks(self) -> list[ScheduledTask[Any]]:
        """Return the running tasks of the scheduler and its descendants, without those that have been cancelled."""
        return [task for registry in self._registry.busy_members() for task in registry.running_tasks()]

    async def _wait_all_idle(self) -> None:
        """Wait until the scheduler and its descendants hold no IDs and no cancelled task is unwinding."""
        await checkpoint()
        own = self._registry
        family = own.family
        for registry in list(family.hosts):
            if registry not in family.busy:
                self._end_host(registry)
        reports = HeldUpReports(self._report_held_up)
        # Those that were made last come first. None becomes busy again in the meantime: no tasks are accepted.
        while busy := own.busy_members():
            for registry in reversed(busy):
                while registry in family.busy:
                    await reports.wait(registry.wait_idle)
                self._end_host(registry)

    def _end_host(self, registry: TaskRegistry) -> None:
        """End the host of a descendant, if it has one: it may be hosted by a task of its parent, which ends then."""
        closed = self._registry.family.hosts.get(registry)
        if closed is not None and registry is not self._registry and registry.is_within(self._registry):
            closed.set()

    async def _report_until_ended(self) -> None:
        """Wait until the tasks have ended, and report which of them hold up leaving. After the last report, the group waits."""
        dispatcher, reports = self._registry.dispatcher, HeldUpReports(self._report_held_up)
        assert dispatcher is not None
        while dispatcher.is_running() and not reports.are_over:
            await reports.wait(dispatcher.wait_ended)

    def _report_held_up(self) -> None:
        """Log which tasks hold up closing or leaving."""
        names = [
            task.name
            for registry in self._registry.busy_members()
            for table in (registry.predecessors, registry.tasks)
            for task in table.values()
        ]
        shown = ", ".join(printable(name) for name in names[:NAMES_SHOWN])
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        self._log.warn("Closing is held up by %s%s.", shown, more)

    def _check_not_inside(self, method: str, registries: list[TaskRegistry]) -> None:
        """Raise `RuntimeError` if the caller would wait for itself, or if this is another thread."""
        self._check_thread()
        for registry in registries:
            caller = registry.calling_task()
            if caller is not None:
                raise RuntimeError(
                    f"{method} was called in the task {caller.name!r}, for which it would wait forever; "
                    "call it in a task that the scheduler does not run"
                )


def _is_unlimited(grace: object) -> bool:
    try:
        return bool(grace == math.inf)
    except Exception:  # a signaling NaN of `decimal`, an array of NumPy
        return False


def _check_running_policy(running: RunningPolicy) -> None:
    """Check a policy for running tasks.

    Raises:
        ValueError: if it is unknown.
    """
    if running not in _RUNNING_POLICIES:
        raise ValueError(f'running must be "cancel" or "leave", not {format_value(running)}')


def _exception_types(exceptions: object) -> tuple[type[BaseException], ...]:
    """Check and return the types of exceptions that are not logged.

    Raises:
        TypeError: if they are not a tuple of exception types.
    """
    given = exceptions
    if isinstance(exceptions, tuple):
        types = cast("tuple[object, ...]", exceptions)
        found = tuple(each for each in types if isinstance(each, type) and issubclass(each, BaseException))
        if len(found) == len(types):
            return found
    raise TypeError(f"suppressed_exceptions must be a tuple of exception types, not {format_value(given)}")


def _check_id(task_id: Hashable) -> None:
    """Check an ID; called if the lookup failed or found nothing.

    Raises:
        TypeError: if it is the handle of a task, or not hashable.
    """
    if isinstance(task_id, ScheduledTask):
        raise TypeError(
            "task_id must be an ID, not the handle of a task: pass handle.task_id, or call a method of the handle"
        )
    try:
        hash(task_id)
    except TypeError:
        raise TypeError(
            f"task_id is unhashable, a {type(task_id).__name__}: {format_value(task_id)}; use a string, a number or a tuple of these"
        ) from None


def _drop(task: ScheduledTask[Any], registry: TaskRegistry, raised: list[BaseException]) -> None:
    """Drop a pending task. An exception is logged or, if it is a request to end the process, appended to ``raised``."""
    try:
        registry.release_id(task)
    except BaseException as failure:
        raised.append(failure)


def _raise_all(raised: list[BaseException]) -> None:
    """Raise the requests to end the process that were raised by instruments."""
    failure = exit_exception(None, raised, GeneratorExit)
    if failure is not None:
        raise failure


def _left_elsewhere(name: str, raised: list[BaseException]) -> RuntimeError:
    error = RuntimeError(
        f"the scheduler {name!r} was entered in one task and left in another; its tasks have been cancelled. If set-up "
        "and tear-down happen in different tasks, call scheduler.start() or host it with scheduler.run, and use "
        "scheduler.child(...) for each component"
    )
    error.__cause__ = raised[0] if raised else None
    return error


def _first_due(clock: Clock, trigger: Trigger) -> float:
    return trigger.first_due(exact_clock(clock)(), clock.time_ns())
