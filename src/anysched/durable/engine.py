"""The engine: the store is authoritative, and the in-process scheduler only wakes tasks up.

Every call, start and end is an operation in the queue of the `Writer`. Once it is committed, it is applied to the
in-process scheduler here, in the same order. A cancellation that has returned therefore precedes any later start, and
every task that was acknowledged and has not ended has a row, whenever the process ends.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from random import randint
from threading import get_ident
from types import TracebackType
from typing import Any, Literal, TypeVar, cast, final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from anysched import ScheduledTask, Scheduler, SchedulerState, current_scheduled_task
from anysched.abc import Instrument

from .errors import OwnershipLostError, StoreError, UncertainCommitError, UnknownHandlerError
from .handlers import Handlers
from .membership import Membership
from .operations import (
    Adopt,
    Cancel,
    CancelAll,
    CancelResult,
    Claim,
    End,
    EndResult,
    Entry,
    Existing,
    Find,
    IsEmpty,
    Load,
    Operation,
    Park,
    Placed,
    Put,
    PutResult,
    Recover,
    RecoverResult,
    Release,
    Seen,
    Shelve,
)
from .recurrence import Recurrence, Run, find_next, skip_after
from .run import DurableRun, running
from .shared import Beat, News, Notices, SharedStore, TakeNotices, TransactionalStore, Watch
from .store import Store
from .values import TaskId, decode_args, decode_id, encode_id, microseconds_from_datetime, moment, storable
from .window import NOTHING, Window
from .writer import StoppedError, Writer

__all__ = ["MAX_KILLS", "Engine", "Participation", "Role", "Unknown"]

R = TypeVar("R")

Participation = Literal["run", "verbs"]
"""What a process does with a shared store; see `DurableScheduler`."""

Role = Literal["owner", "standby", "verbs"]
"""The current role of a process in a shared store; see `DurableScheduler.role`."""

Unknown = Literal["keep", "error"]
"""What to do about tasks whose handlers are not registered; see `DurableScheduler`."""

MAX_KILLS = 5
"""A task is parked after the process has ended this many times during its run."""

DROPPED_PER_ITERATION = 100
"""How many tasks are dropped before yielding to the event loop."""

LOADED = 500
"""How many tasks are loaded at once."""

MAX_CLAIMING = 100
"""No more tasks are loaded while this many wait for their claims, so that not all overdue tasks are in memory at once."""

JOIN_POLL = 1.0
"""How often a process that is not the owner checks whether the store is empty, in seconds."""

EXISTING = 1_000
"""How many tasks are looked up at once."""

SEEN_INTERVAL = 60_000_000
"""How often the current time is stored, in microseconds, while there are commits."""


@final
class Engine:
    """Runs the tasks of one store.

    Args:
        name: The name of the scheduler.
        store: The store.
        handlers: The handlers.
        max_running: How many tasks may run at once.
        instruments: The instruments of the in-process scheduler.
        unknown: What to do about tasks whose handlers are not registered.
        window: How many tasks are armed.
        participate: Whether this process may run the tasks of a shared store.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        handlers: Handlers,
        max_running: int | None,
        instruments: Iterable[Instrument],
        unknown: Unknown,
        window: int,
        participate: Participation = "run",
    ) -> None:
        if participate != "run" and not isinstance(store, SharedStore):
            raise ValueError(
                f'participate="{participate}" needs a store that several processes can have open, not {store!r}'
            )
        self._core = Scheduler(name, max_running=max_running, instruments=instruments)
        self._log = logging.getLogger(f"anysched.{name}")
        self._writer = Writer(store, self._log, self._see, self._commit_failed)
        self._store = store
        self._contends = participate == "run"
        self._membership: Membership | None = None
        # Whether the tasks are run here, and how often this has ended: what began before is not stored afterwards.
        self._owner = False
        self._term = 0
        self._joined = False
        self._refused = False
        self._taking = self._more_notices = False
        self._handlers = handlers
        self._unknown: Unknown = unknown
        self._window_size = window
        self._window: Window
        self._group: TaskGroup
        self._state: SchedulerState = "new"
        self._entered = False
        self._opened: anyio.Event | None = None  # set when it has been opened, or that has failed
        self._thread = 0
        self._identity = ""
        self._seen = 0
        self._loading = False
        self._claiming = 0  # how many tasks have started and wait for their claims
        # By generation: the tasks that have started, from before the claim until the end; those of them that have been
        # removed from the store; the interrupted runs; the events that `wait` waits for.
        self._live: dict[int, ScheduledTask[Any]] = {}
        self._gone: set[int] = set()
        self._interrupted: dict[int, Entry] = {}
        self._waiting: dict[int, anyio.Event] = {}
        self._changed: anyio.Event | None = None

    @property
    def name(self) -> str:
        """The name of the scheduler."""
        return self._core.name

    @property
    def state(self) -> SchedulerState:
        """The state of the scheduler."""
        return self._state

    @property
    def role(self) -> Role:
        """What this process does; see `DurableScheduler.role`."""
        if self._owner or not isinstance(self._store, SharedStore):
            return "owner"
        return "standby" if self._contends else "verbs"

    @property
    def core(self) -> Scheduler:
        """The in-process scheduler."""
        return self._core

    def now(self) -> int:
        """Return the time of the wall clock, in microseconds since 1970 (UTC)."""
        return microseconds_from_datetime(self._core.now())

    # Opening and closing

    async def open(self) -> None:
        """Open the store and start the tasks that are due.

        Raises:
            RuntimeError: if it was opened before.
            StoreError: if the store cannot be opened.
            UnknownHandlerError: if there are tasks for handlers that are not registered, and that is an error.
        """
        if self._entered:
            raise RuntimeError(f"the scheduler {self.name!r} can be entered only once: create a new one")
        self._entered = True
        self._opened = anyio.Event()
        try:
            await self._open()
        except BaseException:
            self._mark_closed()
            raise
        finally:
            self._opened.set()

    async def _open(self) -> None:
        self._thread = get_ident()
        self._context = copy_context()
        self._window = self._new_window()
        store, writer = self._store, self._writer
        membership: Membership | None = None
        if isinstance(store, SharedStore):
            membership = Membership(store, self, self._log, writer.limiter, writer.until_idle)
            self._membership = membership
            await self._writer.open(partial(store.join, self.name))
        else:
            await self._writer.open(store.open)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._writer.run, name=f"{self.name} writer")
        await self._core.__aenter__()
        try:
            if membership is None or await membership.open(contend=self._contends):
                await self._take_over()
            self._state = "running"
            if membership is not None:
                self._joined = True
                self._group.start_soon(membership.run, self._contends, self._owner, name=f"{self.name} membership")
        except BaseException as error:
            await self.leave(type(error), error, error.__traceback__)
            raise

    def _new_window(self) -> Window:
        return Window(self._core, self._run, self._context, self._window_size)

    async def _take_over(self) -> None:
        """Begin to run the tasks of the store."""
        self._owner = True
        known = self._handlers.names
        recovered = await self._writer.submit(Recover(known, MAX_KILLS), internal=self._state == "running")
        self._check_recovered(recovered)
        if self._state == "new":
            self._state = "running"
        self._check_clock(recovered.seen)
        self._refill()
        for handler in self._handlers.names - known:  # registered in the meantime
            self.adopt(handler)

    async def leave(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel the running tasks and close the store, which keeps the tasks that have not ended."""
        self._state = "closing"
        self._writer.give_up_at(-math.inf)
        try:
            await self._core.__aexit__(exc_type, exc_value, traceback)
        finally:
            await self._stop_membership()
            self._writer.stop()
            try:
                # The exception of the body is not passed to the group, which would wrap it.
                await self._group.__aexit__(None, None, None)
            finally:
                self._mark_closed()

    async def close(self, grace: float) -> list[Entry]:
        """Start no more tasks, give the running ones time to finish, and close the store.

        Args:
            grace: How long the running tasks may take, in seconds.

        Returns:
            The tasks whose runs were interrupted. They are pending in the store.
        """
        self._check_not_inside("close()")
        if self._opened is not None:
            await self._opened.wait()
        if self._state == "new":
            self._entered = True
            self._mark_closed()
        if self._state != "running":
            if self._state == "closing":
                await self._writer.closed.wait()
            await checkpoint()
            return []
        self._state = "closing"
        self._writer.give_up_at(anyio.current_time() + grace)
        try:
            await self._core.close(grace)
        finally:
            await self._stop_membership()
            self._writer.stop()
            with anyio.CancelScope(shield=True):
                await self._writer.closed.wait()
            self._mark_closed()
        return list(self._interrupted.values())

    async def _stop_membership(self) -> None:
        if self._membership is not None and self._joined:
            await self._membership.stop()

    async def wait_closed(self) -> None:
        """Wait until the store has been closed."""
        await self._writer.closed.wait()

    async def join(self) -> None:
        """Wait until the store is empty or the scheduler is closed."""
        self._check_not_inside("join()")
        self._check_running()
        while self._state == "running":
            self._changed = changed = self._changed or anyio.Event()
            with suppress(StoppedError):
                if await self._writer.submit(IsEmpty(), internal=True) and not self._live:
                    return
            # What the owner does is not announced to others.
            with anyio.move_on_after(math.inf if self._owner else JOIN_POLL):
                await changed.wait()

    def _mark_closed(self) -> None:
        self._state = "closed"
        self._note_change()
        for event in self._waiting.values():
            event.set()

    def _check_recovered(self, recovered: RecoverResult) -> None:
        self._identity = recovered.identity
        if recovered.unknown and self._unknown == "error":
            raise UnknownHandlerError(self.name, map(repr, recovered.unknown))
        if recovered.unknown:
            counts = ", ".join(f"{handler!r} ({count})" for handler, count in recovered.unknown.items())
            self._log.warning("Some tasks wait until their handlers are registered: %s.", counts)
        for task_id in recovered.parked:
            self._log.error(
                "Parked task %r: the process has ended during %d attempts to run it. retry() makes it run again.",
                decode_id(task_id),
                MAX_KILLS,
                extra=self._log_fields(task_id),
            )
        if recovered.interrupted:
            self._log.info("Interrupted tasks that run again: %d.", recovered.interrupted)

    def _check_clock(self, seen: int) -> None:
        now = self.now()
        if now < seen:
            self._log.warning(
                "The wall clock shows %s, but the store was used at %s: is it wrong? Tasks start when it shows their times.",
                moment(now),
                moment(seen),
            )

    # The calls

    async def submit(self, operation: Operation[R], apply: Callable[[R], Awaitable[None] | None] | None = None) -> R:
        """Perform the operation of a call.

        Raises:
            RuntimeError: if the scheduler is not running, or this is not the thread of its event loop.
            StoreError: if the store fails.
        """
        self._check_running()
        return await self._writer.submit(operation, apply)

    def _check_running(self) -> None:
        if self._entered and self._thread != get_ident():
            raise RuntimeError(
                f"the scheduler {self.name!r} was called from another thread than its event loop's; "
                "call it with anyio.from_thread.run"
            )
        # While the scheduler is closing, calls from runs that may still finish are stored.
        if self._state != "running" and not (self._state == "closing" and self.caller() is not None):
            advice = {"new": "enter it first: `async with scheduler:`", "closing": "it takes no more calls"}
            raise RuntimeError(
                f"the scheduler {self.name!r} is not running ({self._state}); "
                f"{advice.get(self._state, 'it cannot be entered again: create a new one')}"
            )

    def caller(self) -> int | None:
        """Return the generation of the task in whose run this is called, or in a context that was copied there."""
        run = running.get(None)
        return run.generation if run is not None and run.owner is self and run.generation in self._live else None

    def inside(self, task_id: str | None = None) -> int | None:
        """Return the generation of the task inside whose run this is called; see `ScheduledTask.is_current`.

        Args:
            task_id: If given, only a task with this encoded ID counts.
        """
        caller = self.caller()
        if caller is not None and self._live[caller].is_current():
            return caller if task_id is None or encode_id(running.get().task_id) == task_id else None
        # The context may be another one, such as that of a run of a scheduler that was entered inside the run.
        if task_id is not None:
            holder = self._core.tasks.get(decode_id(task_id))
            if holder is None or not holder.is_current():
                return None
        return next((generation for generation, task in self._live.items() if task.is_current()), None)

    def was_cancelled(self, generation: int) -> bool:
        """Return whether a call has removed a running task from the store."""
        return generation in self._gone

    async def submit_in(self, connection: object, operation: Operation[R]) -> R:
        """Perform the operation of a call in the transaction of a user's connection.

        What it changes is heard of like what another process changes, when it is committed.

        Raises:
            ValueError: if the store cannot take part in transactions.
        """
        self._check_running()
        if not isinstance(self._store, TransactionalStore):
            raise ValueError(  # noqa: TRY004
                f"connection= needs a store in the same database, such as a PostgresStore, not {self._store!r}"
            )
        return await self._store.perform_in(connection, operation)

    async def put(self, operation: Put, connection: object = None) -> PutResult:
        """Add a task."""
        if connection is not None:
            return await self.submit_in(connection, operation)

        def apply(result: PutResult) -> Awaitable[None] | None:
            if result.removed is not None:
                self._drop(result.removed)
            if result.added:
                entry = result.entry
                self._window.arm(Placed(entry.generation, entry.task_id, entry.due, result.ready))
            return self._fit_window()

        return await self.submit(operation, apply)

    async def cancel(self, operation: Cancel, connection: object = None) -> bool:
        """Cancel a task, and return whether there was one."""
        caller = self.inside(operation.task_id)
        if connection is not None:
            if caller is not None:
                operation = replace(operation, leave=True)  # it finishes, as if it was not by way of the database
            return await self.submit_in(connection, operation) is not None

        def apply(result: CancelResult | None) -> Awaitable[None] | None:
            if result is not None and result.removed:
                self._drop(result.generation, caller)
            return self._fit_window()

        return await self.submit(operation, apply) is not None

    async def cancel_all(self, operation: CancelAll) -> None:
        """Cancel all tasks."""
        caller = self.inside()

        async def drop(left: frozenset[int]) -> None:
            gone = [generation for generation in (*self._window, *self._live) if generation not in left]
            for number, generation in enumerate(gone, 1):
                self._drop(generation, caller)
                if number % DROPPED_PER_ITERATION == 0:
                    await checkpoint()
            # The others were only in the store.
            for generation in [generation for generation in self._waiting if generation not in left]:
                self._removed(generation)
            self._note_change()
            self._refill()

        await self.submit(operation, drop)

    async def place(self, operation: Operation[Placed | None], connection: object = None) -> bool:
        """Perform an operation that affects when a task starts, and return whether there was such a task."""
        if connection is not None:
            return await self.submit_in(connection, operation) is not None

        def apply(placed: Placed | None) -> Awaitable[None] | None:
            if placed is not None:
                self._window.arm(placed)
            return self._fit_window()

        return await self.submit(operation, apply) is not None

    # The ownership

    async def gain(self) -> bool:
        """Called when this process has become the owner; return whether it can run the tasks."""
        if self._state != "running":
            return False
        try:
            await self._take_over()
        except UnknownHandlerError as error:
            self._owner = False
            if not self._refused:
                self._refused = True
                self._log.error("This process cannot run the tasks, and stands by: %s", error)
            return False
        self._refused = False
        self._log.info("This process runs the tasks.")
        return True

    def lose(self, error: StoreError) -> None:
        """Called when the ownership is lost: cancel the running tasks."""
        assert self._membership is not None
        self._membership.end_ownership()
        if not self._owner:
            return
        self._owner = False
        self._term += 1
        live, self._live = self._live, {}
        for task in live.values():
            task.cancel()
        self._log.error(
            "Lost the ownership of the store: %s. %d running tasks are cancelled, and run again where it is owned next. "
            "This process stands by.",
            error,
            len(live),
        )
        self._writer.drop_internal()
        self._loading = self._taking = self._more_notices = False
        old, self._window = self._window, self._new_window()
        self._group.start_soon(old.clear, name=f"{self.name} window")
        for generation in self._waiting:
            self._watch(generation)

    def beat(self) -> bool:
        """Give a sign of life, if this process is the owner; return whether it is."""
        if self._owner:
            self._writer.post(Beat())
        return self._owner

    def hear(self, news: News, *, complete: bool) -> None:
        """Called with the changes that other processes announced."""
        for generation in news.removed & self._waiting.keys():
            self._removed(generation)
        if not complete and self._waiting:
            self._look_for(list(self._waiting))
        if self._owner and (news.changed or not complete):
            if self._taking:
                self._more_notices = True  # those being taken may be older
            else:
                self._take_notices()

    def _take_notices(self) -> None:
        self._taking = True
        self._more_notices = False
        self._writer.post(TakeNotices(), self._apply_notices)

    async def _apply_notices(self, notices: Notices) -> None:
        self._taking = False
        if self._more_notices:
            self._take_notices()
        for generation in notices.removed:
            self._drop(generation)
        for number, placed in enumerate(notices.placed, 1):
            self._window.arm(placed)
            if number % DROPPED_PER_ITERATION == 0:
                await checkpoint()
        if notices.all:
            self._resync()
        slow = self._fit_window()
        if slow is not None:
            await slow

    def _resync(self) -> None:
        """Bring memory into line with the store, in which anything may have changed."""
        self._look_for([*self._window, *self._live, *self._waiting])
        self._load_all()

    def _look_for(self, generations: list[int]) -> None:
        """Drop the given tasks that are no longer in the store."""
        for start in range(0, len(generations), EXISTING):
            asked = tuple(generations[start : start + EXISTING])

            def drop(existing: frozenset[int], asked: tuple[int, ...] = asked) -> None:
                for generation in asked:
                    if generation not in existing:
                        self._drop(generation)

            self._writer.post(Existing(asked), drop)

    def _watch(self, generation: int) -> None:
        """Make the store announce when another process removes a task."""

        def apply(found: bool) -> None:
            if not found:
                self._removed(generation)

        self._writer.post(Watch(generation), apply)

    def _commit_failed(self, error: StoreError) -> bool:
        """Called when a commit has failed. Return whether none of its operations may be tried again."""
        if not self._owner or not isinstance(error, OwnershipLostError | UncertainCommitError):
            return False
        if self._membership is None:
            self._resync()  # a verb may have changed something
            return False
        self.lose(error)
        return True

    async def wait(self, generation: int, task_id: str) -> None:
        """Wait until a task has ended.

        Raises:
            RuntimeError: if it is the caller's own task or its successor, or the scheduler is closed before the task has
                ended.
        """
        caller = self.inside(task_id)
        if caller == generation:
            raise RuntimeError(f"deadlock: task {decode_id(task_id)!r} awaits itself")
        is_successor = caller is not None and generation > caller

        def apply(entry: Entry | None) -> None:
            if (entry is not None or generation in self._live) and generation not in self._waiting:
                self._waiting[generation] = anyio.Event()

        if self._owner:
            await self.submit(Find(generation=generation), apply)
        else:
            # Before the store is asked: the end may be announced before its answer is here.
            self._waiting.setdefault(generation, anyio.Event())
            if not await self.submit(Watch(generation)):
                self._removed(generation)
        event = self._waiting.get(generation)
        if event is not None:
            if is_successor:
                raise RuntimeError(
                    f"deadlock: task {decode_id(task_id)!r} awaits its successor, which cannot start until it has ended"
                )
            await event.wait()
            if generation in self._waiting:
                raise RuntimeError(
                    f"the scheduler {self.name!r} was closed before task {decode_id(task_id)!r} had ended; it is stored"
                )

    def adopt(self, handler: str) -> None:
        """Start the tasks that waited for a handler."""

        def apply(adopted: int) -> None:
            if adopted:
                self._load_all()

        if self._state == "running" and self._owner:
            self._writer.post(Adopt(handler), apply)

    def _check_not_inside(self, method: str) -> None:
        if self.inside() is not None:
            raise RuntimeError(
                f"{method} was called in a task of the scheduler {self.name!r}, for which it would wait forever"
            )

    # Applying changes to the in-process scheduler

    def _drop(self, generation: int, caller: int | None = None) -> None:
        """Drop a task that has been removed from the store. If it is running and is not the caller, cancel it."""
        self._window.disarm(generation)
        task = self._live.get(generation)
        if task is not None and generation != caller:
            task.cancel()
        self._removed(generation)

    def _removed(self, generation: int) -> None:
        """Called when a task has been removed from the store."""
        if generation in self._live:
            self._gone.add(generation)  # tasks that wait for it are woken at the end of its run
            return
        event = self._waiting.pop(generation, None)
        if event is not None:
            event.set()
        self._note_change()

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _fit_window(self) -> Awaitable[None] | None:
        """Load the next tasks if the window is low. If it is too full, return an awaitable that drops the last ones."""
        self._refill()
        return self._window.trim() if self._window.is_over_full else None

    def _refill(self) -> None:
        """Load the next tasks if the window is low."""
        if self._owner and self._window.is_low and not self._loading and self._claiming < MAX_CLAIMING:
            self._loading = True
            self._load(min(self._window.size, LOADED))

    def _load_all(self) -> None:
        """Load again, since there may be tasks that are due at any time and not armed."""
        self._window.horizon = NOTHING
        self._load(self._window.size + len(self._window) + len(self._live))

    def _load(self, limit: int) -> None:
        async def arm_all(loaded: list[Placed]) -> None:
            await self._window.arm_all(loaded, limit, self._live.__contains__)
            self._loading = False
            self._refill()

        if self._state == "running" and self._core.state == "running":
            self._writer.post(Load(*self._window.horizon, limit), arm_all)

    def _see(self) -> Seen | None:
        now = self.now()
        if not self._owner or now - self._seen < SEEN_INTERVAL:
            return None
        self._seen = now
        return Seen(now)

    # A run

    async def _run(self, generation: int) -> None:
        """Claim a task that is due, run it, and store its end. Called by the in-process scheduler."""
        task = current_scheduled_task()
        due = self._window.take(generation)
        assert task is not None
        if due is None:
            return  # the ownership was lost, and the task is armed where it is owned next
        term = self._term
        self._live[generation] = task
        self._claiming += 1
        self._refill()
        try:
            claim = Claim(generation, due)
            give_back = partial(self._give_back, generation, term)
            try:
                entry = await self._writer.submit(claim, internal=True, alone=True, abandoned=give_back)
            finally:
                self._claiming -= 1
                self._refill()
            if entry is not None:  # else it has been cancelled, moved or paused in the meantime
                await self._run_claimed(entry, cast("TaskId", task.task_id), term)
        except StoppedError:
            pass  # closed, or the ownership was lost, before its start was stored
        finally:
            if self._live.get(generation) is task:
                del self._live[generation]
            if generation in self._gone:
                self._gone.remove(generation)
                self._removed(generation)
            self._note_change()
            self._refill()

    def _give_back(self, generation: int, term: int, entry: Entry | None) -> None:
        """Undo a claim whose run does not begin."""
        if entry is not None:
            self._release(generation, term, begun=False)

    def _release(self, generation: int, term: int, *, begun: bool) -> None:
        """Make a task whose run was interrupted pending. If the ownership was lost, its next owner does that."""
        if term == self._term:
            self._writer.post(Release(generation, begun))

    async def _run_claimed(self, entry: Entry, task_id: TaskId, term: int) -> None:
        generation = entry.generation
        if self._state != "running":
            self._give_back(generation, term, entry)
            return
        if entry.handler not in self._handlers:
            # It was retried, or another process, of another version, has scheduled it.
            self._writer.post(Shelve(generation))
            self._log.warning(
                "Task %r waits until its handler %r is registered.",
                decode_id(entry.task_id),
                entry.handler,
                extra=self._log_fields(entry.task_id),
            )
            return
        try:
            args = decode_args(entry.args)
            self._handlers.check_args(entry.handler, args)
            recurrence = None if entry.recurrence is None else Recurrence.decode(entry.recurrence)
        except Exception as error:
            await self._park(entry, error, term)
            return
        started = self.now()
        if entry.attempts == 1 and _is_too_late(entry, recurrence, started):
            self._log_left_out(entry.task_id)
            await self._end(entry, recurrence, started, term, ran=False)
            return
        run = DurableRun(
            task_id=task_id,
            due=moment(entry.due),
            attempt=entry.attempts,
            key=f"{self._identity}-{generation}-{entry.run_count}",
            generation=generation,
            owner=self,
        )
        running.set(run)
        begun = False
        try:
            # If it was cancelled after its claim was applied, it must not begin.
            await checkpoint_if_cancelled()
            begun = True
            await self._handlers.function(entry.handler)(*args)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise  # the process is ending, or the event loop was closed: the task runs again
        except BaseException:
            if anyio.current_effective_deadline() == -math.inf:
                # Cancelled from outside: after a call, its row has been removed; after closing, it stays and runs
                # again.
                if begun and generation not in self._gone:
                    self._interrupted[generation] = entry
                self._release(generation, term, begun=begun)
            else:
                # It failed, or it raised a cancellation that was not requested. The core logs both.
                await self._end(entry, recurrence, started, term)
            raise
        await self._end(entry, recurrence, started, term)

    async def _end(
        self, entry: Entry, recurrence: Recurrence | None, started: int, term: int, *, ran: bool = True
    ) -> None:
        """Store the end of a run and the due time of the next one."""
        operation = End(entry.generation, ran, task_id=entry.task_id)
        if recurrence is not None:
            try:
                run = Run(entry.time, entry.due, started, ran)
                following = find_next(recurrence, run, self.now(), entry.expires)
            except Exception as error:
                await self._park(entry, error, term)
                return
            if following.skipped and ran:
                self._log_left_out(entry.task_id)
            if following.time is not None:
                due = put_off(following.time, recurrence.jitter)
                operation = End(entry.generation, ran, due, following.time, entry.task_id)
        await self._submit_end(entry.task_id, operation, term)

    async def _park(self, entry: Entry, error: Exception, term: int) -> None:
        """Park a task that cannot run."""
        problem = storable(f"{type(error).__name__}: {error}")
        self._log.error(
            "Parked task %r, which cannot run: %s. retry() makes it run again.",
            decode_id(entry.task_id),
            problem,
            extra=self._log_fields(entry.task_id),
        )
        await self._submit_end(entry.task_id, Park(entry.generation, problem, entry.task_id), term)

    async def _submit_end(self, task_id: str, operation: End | Park, term: int) -> None:
        def apply(result: EndResult) -> None:
            if result.removed:
                self._removed(operation.generation)
            if result.next is not None:
                self._window.arm(result.next)

        # Shielded: the run has ended, even if it is cancelled now.
        with anyio.CancelScope(shield=True):
            with suppress(StoppedError):
                if term == self._term:
                    await self._writer.submit(operation, apply, internal=True)
                    return
        self._log.error(
            "The end of a run of task %r could not be stored before %s: it runs again.",
            decode_id(task_id),
            "closing" if term == self._term else "the ownership was lost",
            extra=self._log_fields(task_id),
        )

    # Logging

    def _log_left_out(self, task_id: str) -> None:
        self._log.info("Skipped missed runs of task %r.", decode_id(task_id), extra=self._log_fields(task_id))

    def _log_fields(self, task_id: str) -> dict[str, object]:
        return {"scheduler": self.name, "task_id": decode_id(task_id)}


def put_off(time: int, jitter: int) -> int:
    """Return the due time for a time: delayed by a random part of the jitter."""
    return time + randint(0, jitter) if jitter else time  # noqa: S311


def _is_too_late(entry: Entry, recurrence: Recurrence | None, started: int) -> bool:
    late = started - entry.due
    if entry.expires is not None and late > entry.expires:
        return True
    return recurrence is not None and recurrence.missed == "skip" and late > skip_after(recurrence)
