"""The public API of a durable scheduler, which checks the arguments and calls the engine."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, cast, final, get_args

import anyio
from anyio.abc import TaskStatus

from anysched import (
    ConflictPolicy,
    DuplicateTaskError,
    MeasuredFrom,
    MissedPolicy,
    RunningPolicy,
    Scheduler,
    SchedulerState,
    create_task,
)
from anysched.abc import Instrument

from .engine import Engine, Participation, Role, Unknown, put_off
from .handlers import Handlers
from .listing import Pages, TaskIterator
from .operations import (
    Cancel,
    CancelAll,
    Count,
    DurableStatistics,
    Entry,
    Find,
    Move,
    Pause,
    Put,
    Resume,
    Retry,
    Status,
)
from .recurrence import Calendar, CalendarTimes, Interval, Recurrence, Times
from .store import Store
from .task import DurableTask
from .values import (
    MAX_DUE,
    Moment,
    TaskId,
    check_text,
    encode_args,
    encode_id,
    id_ranges,
    microseconds_from_datetime,
    microseconds_from_duration,
    moment,
    moment_from,
)
from .window import WINDOW

__all__ = ["DurableScheduler"]

HandlerT = TypeVar("HandlerT", bound=Callable[..., Coroutine[Any, Any, object]])
Ts = TypeVarTuple("Ts")


@final
class DurableScheduler:
    """Schedules functions under IDs, now or in the future, and keeps them in a store, so that they survive a restart.

    It has the methods of `anysched.Scheduler`, but here they are ``async``, because they return once the change is
    stored::

        reminders = DurableScheduler("reminders", SQLiteStore("bot.db"))

        @reminders.handler("remind")
        async def remind(channel: int, text: str) -> None: ...

        async with reminders:
            month = timedelta(days=30)
            await reminders.schedule_later(month, ("reminder", 7), remind, 42, "pay the rent")

    IDs are strings, integers, and tuples of these. A function is stored as the name under which it is registered as a
    handler, and its arguments as JSON.

    On entry, overdue tasks start in the order of their due times, and tasks that were interrupted by the end of the
    process run again. On exit, running tasks are cancelled, and all tasks stay in the store. A scheduler can be
    entered only once.

    A task is acknowledged when the call returns. From then on, it runs at least once, whatever happens to the process.
    It runs again only if it was interrupted, or if the process ended before its end was stored. A handler should
    therefore be safe to run twice, or use `current_run`. An ID never has two runs at the same time.

    Times are wall-clock times: a delay is converted to a time when it is stored.

    Args:
        name: Names the logger, ``anysched.<name>``, and prefixes the names of tasks, as in `anysched.Scheduler`.
        store: The store, such as an `SQLiteStore`, which no other scheduler may have open, or an
            `anysched.durable.postgres.PostgresStore`, which several processes can have open.
        max_running: How many tasks may run at once.
        instruments: Instruments; see `anysched.abc.Instrument`. They are called for the tasks in memory, which are the
            tasks that are due next. To an instrument, each run is a separate task.
        unknown: What to do on entry if there are tasks whose handlers are not registered. ``"keep"``: they keep their
            IDs and wait for their handlers to be registered, and a WARNING is logged. ``"error"``:
            `UnknownHandlerError` is raised.
        participate: For a store that several processes can have open, such as an
            `anysched.durable.postgres.PostgresStore`. ``"run"``: this process runs the tasks, or stands by to take over.
            ``"verbs"``: it never runs tasks. It only calls the methods, to schedule, cancel and wait for tasks that another
            process runs.

    Raises:
        TypeError: if the name is not a string, or ``max_running`` is not an integer.
        ValueError: if ``max_running`` is less than one, the name contains a NUL character or a lone surrogate, or if
            ``unknown`` or ``participate`` is not one of the values above or not supported by the store.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        *,
        max_running: int | None = None,
        instruments: Iterable[Instrument] = (),
        unknown: Unknown = "keep",
        participate: Participation = "run",
    ) -> None:
        if unknown not in get_args(Unknown):
            raise ValueError(f'unknown must be "keep" or "error", not {unknown!r}')
        if participate not in get_args(Participation):
            raise ValueError(f'participate must be "run" or "verbs", not {participate!r}')
        if isinstance(name, str):  # the core refuses others
            check_text(name, "the name of a durable scheduler")
        self._handlers = Handlers(name)
        self._engine = Engine(name, store, self._handlers, max_running, instruments, unknown, WINDOW, participate)
        self._store = store
        self._log = logging.getLogger(f"anysched.{name}")

    def __repr__(self) -> str:
        return f"<DurableScheduler {self.name!r} {self.state}, {self._store!r}>"

    @property
    def name(self) -> str:
        """The name of the scheduler."""
        return self._engine.name

    @property
    def state(self) -> SchedulerState:
        """The state of the scheduler, one of ``"new"``, ``"running"``, ``"closing"`` and ``"closed"``."""
        return self._engine.state

    @property
    def role(self) -> Role:
        """What this process does, one of ``"owner"``, ``"standby"`` and ``"verbs"``.

        The owner of a store runs its tasks. If several processes can have the store open, the others stand by, and one
        of them takes over when the owner has ended; those with ``participate="verbs"`` do not.
        """
        return self._engine.role

    @property
    def in_process(self) -> Scheduler:
        """The in-process scheduler, which has the running tasks and the tasks that are due next.

        It is meant for inspection, as by instruments and web pages. Changes made through it are not stored; use the
        methods of the durable scheduler instead.
        """
        return self._engine.core

    def now(self) -> datetime:
        """Return the time of the wall clock (aware UTC), or the virtual time in tests with virtual time."""
        return moment(self._engine.now())

    def handler(self, name: str) -> Callable[[HandlerT], HandlerT]:
        """Register a function as a handler.

        Register all handlers before the scheduler is entered. If a handler is registered later, the tasks that were
        waiting for it are started.

        Args:
            name: The name to store. Keep it when you move or rename the function.

        Returns:
            A decorator, which returns the function itself.

        Raises:
            TypeError: if the name is not a string; from the decorator, if it is not applied to a function.
            ValueError: if the name contains a NUL character or a lone surrogate; from the decorator, if the name or the
                function is already registered.
        """
        if not isinstance(name, str):
            raise TypeError(f'a handler needs a name: @scheduler.handler("name"), not {name!r}')
        check_text(name, "the name of a handler")

        def register(function: HandlerT) -> HandlerT:
            self._handlers.add(name, function)
            self._engine.adopt(name)
            return function

        return register

    # Scheduling

    async def schedule(
        self,
        task_id: TaskId,
        handler: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        expires: float | timedelta | None = None,
        on_conflict: ConflictPolicy = "keep",
        connection: object = None,
    ) -> DurableTask:
        """Start a handler soon.

        Args:
            task_id: The ID: a string, an integer, or a tuple of these. It is held until the task ends or is cancelled.
            handler: A function that was registered with `handler`.
            args: Its positional arguments, which must come back from JSON as they are.
            expires: How late the task may start, in seconds or as a `timedelta`. After that, it is skipped, which is
                logged at INFO. This is for work that is not worth doing late, for instance after the program was down
                for an hour. An interrupted run is run again no matter how late it is.
            on_conflict: What to do if the ID is held, as in `anysched.Scheduler.schedule`. With ``"follow"``, a holder
                that was interrupted by the end of the process also finishes before the new task starts.
            connection: With an `anysched.durable.postgres.PostgresStore`: a connection of psycopg or SQLAlchemy to the
                same database, blocking or not, that has a transaction. The call becomes part of the transaction: it
                takes effect when the transaction is committed, not if it is rolled back. Errors of the connection are
                raised unchanged.

        Returns:
            The handle of the task that holds the ID.

        Raises:
            DuplicateTaskError: if the ID is held and ``on_conflict`` is ``"error"``.
            RuntimeError: if the scheduler is not running, or this is not the thread of its event loop.
            StoreError: if the store fails. Unless it is an `UncertainCommitError`, nothing has changed.
            TypeError: if the ID or the arguments cannot be stored, or the handler does not accept the arguments.
            UnknownHandlerError: if the handler is not registered.
            ValueError: if ``on_conflict`` is unknown, or the ID contains a lone surrogate, is too long or is nested more
                than 50 levels deep.
        """
        return await self._put(self._engine.now(), task_id, handler, args, expires, on_conflict, connection)

    async def schedule_later(
        self,
        delay: float | timedelta,
        task_id: TaskId,
        handler: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        expires: float | timedelta | None = None,
        on_conflict: ConflictPolicy = "keep",
        connection: object = None,
    ) -> DurableTask:
        """Start a handler after a delay; see `schedule` for the other parameters.

        The delay is stored as a wall-clock time, because other clocks do not survive a restart of the machine.

        Args:
            delay: In seconds, or a `timedelta`; zero or less means now.
            task_id: The ID.
            handler: The handler.
            args: Its arguments.
            expires: How late the task may start.
            on_conflict: What to do if the ID is held.
            connection: A connection in whose transaction this is done.

        Raises:
            TypeError: as `schedule`, and if the delay is neither a number nor a `timedelta`.
            ValueError: as `schedule`, and if the delay is NaN or infinite.
        """
        return await self._put(self._after(delay), task_id, handler, args, expires, on_conflict, connection)

    async def schedule_at(
        self,
        time: datetime | Moment,
        task_id: TaskId,
        handler: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        expires: float | timedelta | None = None,
        on_conflict: ConflictPolicy = "keep",
        connection: object = None,
    ) -> DurableTask:
        """Start a handler at a wall-clock time; see `schedule` for the other parameters.

        Args:
            time: When to start, as in `anysched.Scheduler.schedule_at`, also a time of another library. A naive time is
                interpreted as UTC; a time in the past means now.
            task_id: The ID.
            handler: The handler.
            args: Its arguments.
            expires: How late the task may start.
            on_conflict: What to do if the ID is held.
            connection: A connection in whose transaction this is done.

        Raises:
            TypeError: as `schedule`, and if the time is not a `datetime`.
        """
        return await self._put(
            microseconds_from_datetime(time), task_id, handler, args, expires, on_conflict, connection
        )

    async def schedule_every(
        self,
        period: float | timedelta,
        task_id: TaskId,
        handler: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        first: float | timedelta | datetime | Moment | None = None,
        measured_from: MeasuredFrom = "start",
        missed: MissedPolicy = "latest",
        jitter: float | timedelta = 0.0,
        expires: float | timedelta | None = None,
        on_conflict: ConflictPolicy = "keep",
        connection: object = None,
    ) -> DurableTask:
        """Run a handler repeatedly until the task is cancelled; see `anysched.Scheduler.schedule_every`.

        The periods follow the wall clock, including the time when the program is not running.

        Args:
            period: In seconds, or a `timedelta`; at least a microsecond.
            task_id: The ID, which is held until the task is cancelled.
            handler: The handler.
            args: Its arguments.
            first: When the first run is due: a delay or a `datetime`; by default, after one period.
            measured_from: Whether the period is the time between due times (``"start"``), or the time from the end of
                a run to the next one (``"end"``).
            missed: What to do about runs that could not start when they were due, because the program was down or the
                previous run took too long. ``"latest"``: one run replaces all of them. ``"all"``: every missed run is
                executed, one after another. ``"skip"``: a run that could not start within a minute of its due time, or
                within the period if that is shorter, is skipped and logged at INFO.
            jitter: The maximum of the random delay that is added to each due time. It must be less than the period.
            expires: How late each run may start. Missed times that are too late are skipped; what ``missed`` says holds
                for the others.
            on_conflict: What to do if the ID is held.
            connection: A connection in whose transaction this is done.

        Raises:
            TypeError: as `schedule`, and if a duration or time is not one.
            ValueError: as `schedule`, and if the period is less than a microsecond, the jitter is negative or not less
                than the period, or a policy is unknown.
        """
        microseconds = microseconds_from_duration(period, "period")
        if microseconds < 1:
            raise ValueError(f"period must be at least 1 microsecond, not {period!r}")
        if measured_from not in get_args(MeasuredFrom):
            raise ValueError(f'measured_from must be "start" or "end", not {measured_from!r}')
        recurrence = _recurrence(Interval(microseconds, measured_from), missed, jitter)
        if recurrence.jitter >= microseconds:
            raise ValueError(f"jitter must be less than the period, {period!r}, not {jitter!r}")
        first = period if first is None else first
        if isinstance(first, datetime) or moment_from(first) is not None:
            time = microseconds_from_datetime(cast("datetime", first), "first")
        else:
            time = self._after(cast("float | timedelta", first), "first")
        return await self._put(time, task_id, handler, args, expires, on_conflict, connection, recurrence)

    async def schedule_at_times(
        self,
        times: Iterable[datetime | Moment] | Calendar,
        task_id: TaskId,
        handler: Callable[[*Ts], Coroutine[Any, Any, object]],
        *args: *Ts,
        missed: MissedPolicy = "latest",
        jitter: float | timedelta = 0.0,
        expires: float | timedelta | None = None,
        on_conflict: ConflictPolicy = "keep",
        connection: object = None,
    ) -> DurableTask:
        """Run a handler at several times; see `anysched.Scheduler.schedule_at_times`.

        Args:
            times: When to run: an `anysched.cron.Cron`, which is stored as its expression and time zone, or a list or
                tuple of times. (A generator cannot be stored.)
            task_id: The ID, which is held until the task is cancelled or the times are exhausted.
            handler: The handler.
            args: Its arguments.
            missed: As in `schedule_every`.
            jitter: As in `schedule_every`, but it may be of any length.
            expires: How late each run may start. Missed times that are too late are skipped; what ``missed`` says holds
                for the others.
            on_conflict: What to do if the ID is held.
            connection: A connection in whose transaction this is done.

        Raises:
            TypeError: as `schedule`, and if the times cannot be stored.
            ValueError: as `schedule_every`, and if ``times`` is empty.
        """
        rule: Times | CalendarTimes
        if isinstance(times, Calendar):
            rule = CalendarTimes(times)
        elif isinstance(times, (list, tuple, set, frozenset)):
            rule = Times(tuple(sorted({microseconds_from_datetime(time) for time in times})))
        else:
            raise TypeError(
                f"times must be a Cron or a list of datetimes, which can be stored, not {type(times).__name__}: {times!r}"
            )
        recurrence = _recurrence(rule, missed, jitter)
        if isinstance(rule, CalendarTimes):
            _check_stored(rule, recurrence)
        first = rule.first_after(-MAX_DUE, self._engine.now() if isinstance(rule, CalendarTimes) else -MAX_DUE - 1)
        if first is None:
            raise ValueError(f"times has no time to run at: {times!r}")
        return await self._put(first, task_id, handler, args, expires, on_conflict, connection, recurrence)

    async def reschedule_later(self, delay: float | timedelta, task_id: TaskId, *, connection: object = None) -> bool:
        """Make a pending task due after a delay from now. If the task is recurring, only its next run is moved.

        Args:
            delay: In seconds, or a `timedelta`; zero or less means now.
            task_id: The ID.
            connection: A connection in whose transaction this is done; see `schedule`.

        Returns:
            Whether there was a task with this ID that was not running.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored, or the delay is neither a number nor a `timedelta`.
            ValueError: if the delay is NaN or infinite.
        """
        return await self._engine.place(Move(encode_id(task_id), self._after(delay)), connection)

    async def reschedule_at(self, time: datetime | Moment, task_id: TaskId, *, connection: object = None) -> bool:
        """Make a pending task due at a wall-clock time; see `reschedule_later`.

        Args:
            time: As in `schedule_at`.
            task_id: The ID.
            connection: A connection in whose transaction this is done; see `schedule`.

        Raises:
            TypeError: if the ID cannot be stored, or the time is not a `datetime`.
        """
        return await self._engine.place(Move(encode_id(task_id), max(microseconds_from_datetime(time), 0)), connection)

    # Cancelling and pausing

    async def cancel(self, task_id: TaskId, *, running: RunningPolicy = "cancel", connection: object = None) -> bool:
        """Cancel the task that holds an ID, and release the ID.

        Once this returns, a pending task will never run, not even after a restart. A running task is cancelled and
        does not run again, but if it calls this itself, it is left to finish. If the ID is not held, a WARNING is
        logged.

        Args:
            task_id: The ID.
            running: With ``"leave"``, a running task is left to finish. If it is interrupted, it runs again.
            connection: A connection in whose transaction this is done; see `schedule`.

        Returns:
            Whether there was such a task.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
            ValueError: if ``running`` is unknown.
        """
        found = await self._engine.cancel(Cancel(encode_id(task_id), _leaves(running)), connection)
        if not found:
            self._log.warning("Failed to unschedule %r (no task found).", task_id, extra=self._log_fields(task_id))
        return found

    async def cancel_all(self, *, running: RunningPolicy = "cancel") -> None:
        """Cancel all tasks that hold an ID, as `cancel` does.

        Args:
            running: What to do with running tasks.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            ValueError: if ``running`` is unknown.
        """
        await self._engine.cancel_all(CancelAll(_leaves(running)))

    async def pause(self, task_id: TaskId, *, connection: object = None) -> bool:
        """Pause a task: it keeps its ID and its due time but does not start until it is resumed, even after a restart.

        A recurring task can also be paused while it is running.

        Args:
            task_id: The ID.
            connection: A connection in whose transaction this is done; see `schedule`.

        Returns:
            Whether there was a task that could be paused and was not already paused.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
        """
        return await self._engine.place(Pause(encode_id(task_id)), connection)

    async def resume(self, task_id: TaskId, *, connection: object = None) -> bool:
        """Resume a paused task.

        If it became due in the meantime, it starts now; for a recurring task, ``missed`` decides.

        Args:
            task_id: The ID.
            connection: A connection in whose transaction this is done; see `schedule`.

        Returns:
            Whether there was a paused task with this ID.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
        """
        return await self._engine.place(Resume(encode_id(task_id)), connection)

    async def retry(self, task_id: TaskId, *, connection: object = None) -> bool:
        """Let a parked task run again, when it is due, or now if it is overdue.

        A task is parked, and an ERROR is logged, when its handler does not accept its arguments, or when the process
        has ended during five attempts to run it.

        Args:
            task_id: The ID.
            connection: A connection in whose transaction this is done; see `schedule`.

        Returns:
            Whether there was a parked task with this ID.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
        """
        return await self._engine.place(Retry(encode_id(task_id)), connection)

    # Inspecting

    async def holds(self, task_id: TaskId) -> bool:
        """Return whether the ID is held.

        Args:
            task_id: The ID.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
        """
        return await self._engine.submit(Find(encode_id(task_id))) is not None

    async def get(self, task_id: TaskId) -> DurableTask | None:
        """Return the handle of the task that holds an ID; `None` if it is not held.

        Args:
            task_id: The ID.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the ID cannot be stored.
        """
        entry = await self._engine.submit(Find(encode_id(task_id)))
        return None if entry is None else self._handle(entry)

    def tasks(self, prefix: TaskId | None = None, *, status: Status | None = None) -> AsyncIterator[DurableTask]:
        """Iterate over the tasks that hold an ID, sorted by the stored text of their IDs.

        The tasks are read in pages, so the result may or may not include tasks that are added or cancelled in the
        meantime.

        Args:
            prefix: The first elements of tuple IDs, as a tuple, or the beginning of string IDs.
            status: If given, only tasks with this status: a status of the handle, or ``"paused"``. Paused tasks do not
                count as ``"pending"`` here.

        Raises:
            RuntimeError, StoreError: as `schedule`.
            TypeError: if the prefix is neither a tuple nor a string.
            ValueError: if the status is unknown.
        """
        if status is not None and status not in get_args(Status):
            raise ValueError(f"status must be one of {sorted(get_args(Status))}, not {status!r}")
        return TaskIterator(Pages(id_ranges(prefix), status), self._engine.submit, self._handle)

    async def statistics(self) -> DurableStatistics:
        """Return how many tasks are pending, paused, running, parked, or waiting for a handler.

        The tasks are counted in the store, which delays other calls by about 30 milliseconds for a million tasks.

        Raises:
            RuntimeError, StoreError: as `schedule`.
        """
        return await self._engine.submit(Count())

    # Entering and closing

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._engine.leave(exc_type, exc_value, traceback)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Host the scheduler in the current task until that task is cancelled or the scheduler is closed.

        Use it where setup and teardown happen in different tasks: ``await task_group.start(scheduler.run)``.

        Raises:
            StoreError, UnknownHandlerError: if the store cannot be opened.
        """
        async with self:
            task_status.started()
            await self._engine.wait_closed()

    async def start(self) -> None:
        """Host the scheduler in a new task until `close` is called (asyncio only).

        Raises:
            RuntimeError: on trio, where a task needs a nursery: ``await nursery.start(scheduler.run)``.
            StoreError, UnknownHandlerError: if the store cannot be opened.
        """
        opened = _Opened()
        try:
            hosting = create_task(opened.host(self))
        except RuntimeError as error:
            raise RuntimeError(
                "start() needs asyncio; on trio, host the scheduler in a nursery: await nursery.start(scheduler.run)"
            ) from error
        try:
            await opened.event.wait()
        except BaseException:
            hosting.cancel()
            raise
        if opened.failure is not None:
            raise opened.failure

    async def join(self) -> None:
        """Wait until no ID is held and no task is running, or the scheduler is closed. Parked tasks hold their IDs.

        Raises:
            RuntimeError: if called from a task of the scheduler, or it is not running.
        """
        await self._engine.join()

    async def close(self, grace: float | timedelta = 0) -> list[DurableTask]:
        """Start no more tasks, wait for the running ones, and close the store, which keeps all tasks that have not ended.

        Args:
            grace: How long the running tasks may take, in seconds or as a `timedelta`; `math.inf` for no limit. Tasks
                that have not ended by then are cancelled, and run again when the store is next opened. Until then,
                calls from the running tasks are still stored.

        Returns:
            The tasks that were interrupted.

        Raises:
            RuntimeError: if called from a task of the scheduler.
            TypeError: if the grace is neither a number nor a `timedelta`.
            ValueError: if it is NaN or negative.
        """
        seconds = math.inf if grace == math.inf else microseconds_from_duration(grace, "grace") / 1e6
        if seconds < 0:
            raise ValueError(f"grace must not be negative: {grace!r}")
        return [self._handle(entry) for entry in await self._engine.close(seconds)]

    # Internals

    def _after(self, delay: float | timedelta, name: str = "delay") -> int:
        return min(self._engine.now() + max(microseconds_from_duration(delay, name), 0), MAX_DUE)

    def _handle(self, entry: Entry) -> DurableTask:
        return DurableTask(entry, self._engine.wait)

    async def _put(
        self,
        time: int,
        task_id: TaskId,
        handler: Callable[..., Coroutine[Any, Any, object]],
        args: tuple[Any, ...],
        expires: float | timedelta | None,
        on_conflict: ConflictPolicy,
        connection: object,
        recurrence: Recurrence | None = None,
    ) -> DurableTask:
        name = self._handlers.name_of(handler)
        self._handlers.check_args(name, args)
        if on_conflict not in get_args(ConflictPolicy):
            raise ValueError(f"on_conflict must be one of {sorted(get_args(ConflictPolicy))}, not {on_conflict!r}")
        limit = None if expires is None else microseconds_from_duration(expires, "expires")
        if limit is not None and limit < 0:
            raise ValueError(f"expires must not be negative: {expires!r}")
        due = time if recurrence is None else put_off(time, recurrence.jitter)
        encoded, encoded_args = encode_id(task_id), encode_args(args)
        caller = self._engine.inside(encoded)
        result = await self._engine.put(
            Put(
                task_id=encoded,
                due=max(due, 0),
                time=time,
                handler=name,
                args=encoded_args,
                recurrence=None if recurrence is None else recurrence.encode(),
                expires=limit,
                on_conflict=on_conflict,
                caller=caller,
            ),
            connection,
        )
        if not result.added:
            if on_conflict == "error":
                raise DuplicateTaskError(self.name, task_id)
            self._log_kept(task_id, from_inside=caller == result.entry.generation)
        return self._handle(result.entry)

    def _log_fields(self, task_id: TaskId) -> dict[str, object]:
        return {"scheduler": self.name, "task_id": task_id}

    def _log_kept(self, task_id: TaskId, *, from_inside: bool) -> None:
        fields = self._log_fields(task_id)
        if from_inside:
            self._log.warning(
                "Task %r scheduled its own ID, which it still holds: nothing was scheduled. "
                'Pass on_conflict="follow" to run it after this one.',
                task_id,
                extra=fields,
            )
        else:
            self._log.debug("Did not schedule task %r; its ID is already held.", task_id, extra=fields)


class _Opened:
    """Lets one task wait until another one has opened a scheduler or failed to."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.failure: BaseException | None = None

    async def host(self, scheduler: DurableScheduler) -> None:
        try:
            await scheduler.run(task_status=self)
        except BaseException as failure:
            if self.event.is_set():
                raise
            self.failure = failure
            self.event.set()

    def started(self, value: None = None) -> None:
        self.event.set()


def _recurrence(rule: Interval | Times | CalendarTimes, missed: MissedPolicy, jitter: float | timedelta) -> Recurrence:
    if missed not in get_args(MissedPolicy):
        raise ValueError(f'missed must be "latest", "all" or "skip", not {missed!r}')
    microseconds = microseconds_from_duration(jitter, "jitter")
    if microseconds < 0:
        raise ValueError(f"jitter must not be negative: {jitter!r}")
    return Recurrence(rule, missed, microseconds)


def _check_stored(rule: CalendarTimes, recurrence: Recurrence) -> None:
    try:
        same = Recurrence.decode(recurrence.encode()) == recurrence
    except ValueError:
        same = False
    if not same:
        raise TypeError(f"times must be a Cron whose time zone can be found by its name, not {rule.calendar!r}")


def _leaves(running: RunningPolicy) -> bool:
    if running not in get_args(RunningPolicy):
        raise ValueError(f'running must be "cancel" or "leave", not {running!r}')
    return running == "leave"
