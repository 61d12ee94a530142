"""The engine: the store is authoritative, and the in-process scheduler only wakes tasks up.

Every call, start and end is an operation in the queue of the `Writer`. Once it is committed, it is applied to the
in-process scheduler here, in the same order. A cancellation that has returned therefore precedes any later start, and
every task that was acknowledged and has not ended has a row, whenever the process ends.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from random import randint
from threading import get_ident
from types import TracebackType
from typing import Any, Literal, TypeVar, final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from anysched import ScheduledTask, Scheduler, SchedulerState, current_scheduled_task
from anysched.abc import Instrument

from .errors import UnknownHandlerError
from .handlers import Handlers
from .operations import (
    Adopt,
    Cancel,
    CancelAll,
    CancelResult,
    Claim,
    End,
    EndResult,
    Entry,
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
)
from .recurrence import Recurrence, Run, find_next, skip_after
from .run import DurableRun, running
from .store import Store
from .values import decode_args, decode_id, microseconds_from_datetime, moment
from .window import NOTHING, Window
from .writer import StoppedError, Writer

__all__ = ["MAX_KILLS", "Engine", "Unknown"]

R = TypeVar("R")

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
    ) -> None:
        self._core = Scheduler(name, max_running=max_running, instruments=instruments)
        self._log = logging.getLogger(f"anysched.{name}")
        self._writer = Writer(store, self._log, self._see)
        self._handlers = handlers
        self._unknown: Unknown = unknown
        self._window_size = window
        self._window: Window
        self._group: TaskGroup
        self._state: SchedulerState = "new"
        self._entered = False
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
        self._thread = get_ident()
        self._window = Window(self._core, self._run, copy_context(), self._window_size)
        await self._writer.open()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._writer.run, name=f"{self.name} writer")
        await self._core.__aenter__()
        try:
            known = self._handlers.names
            recovered = await self._writer.submit(Recover(known, MAX_KILLS))
            self._check_recovered(recovered)
            self._state = "running"
            self._check_clock(recovered.seen)
            self._refill()
            for handler in self._handlers.names - known:  # registered in the meantime
                self.adopt(handler)
        except BaseException as error:
            await self.leave(type(error), error, error.__traceback__)
            raise

    async def leave(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel the running tasks and close the store, which keeps the tasks that have not ended."""
        self._state = "closing"
        self._writer.give_up_at(-math.inf)
        try:
            await self._core.__aexit__(exc_type, exc_value, traceback)
        finally:
            self._writer.stop()
            try:
                # The exception of the body is not passed to the group, which would wrap it.
                await self._group.__aexit__(None, None, None)
            finally:
                self._mark_closed()

    async def close(self, grace: float | timedelta) -> list[Entry]:
        """Start no more tasks, give the running ones time to finish, and close the store.

        Returns:
            The tasks whose runs were interrupted. They are pending in the store.
        """
        self._check_not_inside("close()")
        if self._state == "new":
            self._entered = True
            self._mark_closed()
        if self._state != "running":
            if self._state == "closing":
                await self._writer.closed.wait()
            await checkpoint()
            return []
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
        self._state = "closing"
        self._writer.give_up_at(anyio.current_time() + seconds)
        try:
            await self._core.close(grace)
        finally:
            self._writer.stop()
            with anyio.CancelScope(shield=True):
                await self._writer.closed.wait()
            self._mark_closed()
        return list(self._interrupted.values())

    async def wait_closed(self) -> None:
        """Wait until the store has been closed."""
        await self._writer.closed.wait()

    async def join(self) -> None:
        """Wait until the store is empty or the scheduler is closed."""
        self._check_not_inside("join()")
        self._check_running()
        while self._state == "running":
            self._changed = changed = self._changed or anyio.Event()
            try:
                if await self._writer.submit(IsEmpty(), internal=True) and not self._live:
                    return
            except StoppedError:
                return
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
        """Return the generation of the task in whose run this is called."""
        run = running.get(None)
        return run.generation if run is not None and run.owner is self and run.generation in self._live else None

    def was_cancelled(self, generation: int) -> bool:
        """Return whether a call has removed a running task from the store."""
        return generation in self._gone

    async def put(self, operation: Put) -> PutResult:
        """Add a task."""

        def apply(result: PutResult) -> Awaitable[None] | None:
            if result.removed is not None:
                self._drop(result.removed)
            if result.added:
                entry = result.entry
                self._window.arm(Placed(entry.generation, entry.task_id, entry.due, result.ready))
            return self._fit_window()

        return await self.submit(operation, apply)

    async def cancel(self, operation: Cancel) -> bool:
        """Cancel a task, and return whether there was one."""
        caller = self.caller()

        def apply(result: CancelResult | None) -> Awaitable[None] | None:
            if result is not None and result.removed:
                self._drop(result.generation, caller)
            return self._fit_window()

        return await self.submit(operation, apply) is not None

    async def cancel_all(self, operation: CancelAll) -> None:
        """Cancel all tasks."""
        caller = self.caller()

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

    async def place(self, operation: Operation[Placed | None]) -> bool:
        """Perform an operation that affects when a task starts, and return whether there was such a task."""

        def apply(placed: Placed | None) -> Awaitable[None] | None:
            if placed is not None:
                self._window.arm(placed)
            return self._fit_window()

        return await self.submit(operation, apply) is not None

    async def wait(self, generation: int, task_id: str) -> None:
        """Wait until a task has ended.

        Raises:
            RuntimeError: if it is the caller's own task, or the scheduler is closed before the task has ended.
        """
        if self.caller() == generation:
            raise RuntimeError(f"deadlock: task {decode_id(task_id)!r} awaits itself")

        def apply(entry: Entry | None) -> None:
            if (entry is not None or generation in self._live) and generation not in self._waiting:
                self._waiting[generation] = anyio.Event()

        await self.submit(Find(generation=generation), apply)
        event = self._waiting.get(generation)
        if event is not None:
            await event.wait()
            if generation in self._waiting:
                raise RuntimeError(
                    f"the scheduler {self.name!r} was closed before task {decode_id(task_id)!r} had ended; it is stored"
                )

    def adopt(self, handler: str) -> None:
        """Start the tasks that waited for a handler."""

        def apply(adopted: int) -> None:
            if adopted:
                # They may be due at any time.
                self._window.horizon = NOTHING
                self._load(self._window.size + len(self._window) + len(self._live))

        if self._state == "running":
            self._writer.post(Adopt(handler), apply)

    def _check_not_inside(self, method: str) -> None:
        if self.caller() is not None:
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
        if self._window.is_low and not self._loading and self._claiming < MAX_CLAIMING:
            self._loading = True
            self._load(min(self._window.size, LOADED))

    def _load(self, limit: int) -> None:
        async def arm_all(loaded: list[Placed]) -> None:
            await self._window.arm_all(loaded, limit, self._live.__contains__)
            self._loading = False
            self._refill()

        if self._state == "running" and self._core.state == "running":
            self._writer.post(Load(*self._window.horizon, limit), arm_all)

    def _see(self) -> Seen | None:
        now = self.now()
        if now - self._seen < SEEN_INTERVAL:
            return None
        self._seen = now
        return Seen(now)

    # A run

    async def _run(self, generation: int) -> None:
        """Claim a task that is due, run it, and store its end. Called by the in-process scheduler."""
        task = current_scheduled_task()
        due = self._window.take(generation)
        assert task is not None
        self._live[generation] = task
        self._claiming += 1
        self._refill()
        try:
            claim = Claim(generation, due)
            give_back = partial(self._give_back, generation)
            try:
                entry = await self._writer.submit(claim, internal=True, alone=True, abandoned=give_back)
            finally:
                self._claiming -= 1
                self._refill()
            if entry is not None:  # else it has been cancelled, moved or paused in the meantime
                await self._run_claimed(entry)
        except StoppedError:
            pass  # closed before its start was stored
        finally:
            del self._live[generation]
            if generation in self._gone:
                self._gone.remove(generation)
                self._removed(generation)
            self._note_change()
            self._refill()

    def _give_back(self, generation: int, entry: Entry | None) -> None:
        """Undo a claim whose run does not begin."""
        if entry is not None:
            self._writer.post(Release(generation, begun=False))

    async def _run_claimed(self, entry: Entry) -> None:
        generation = entry.generation
        if self._state != "running":
            self._give_back(generation, entry)
            return
        try:
            args = decode_args(entry.args)
            self._handlers.check_args(entry.handler, args)
            recurrence = None if entry.recurrence is None else Recurrence.decode(entry.recurrence)
        except Exception as error:
            await self._park(entry, error)
            return
        started = self.now()
        if entry.attempts == 1 and _is_too_late(entry, recurrence, started):
            self._log_left_out(entry.task_id)
            await self._end(entry, recurrence, started, ran=False)
            return
        run = DurableRun(
            task_id=decode_id(entry.task_id),
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
                # Cancelled from outside: after a call, its row has been removed; after closing, it stays and runs again.
                if begun and generation not in self._gone:
                    self._interrupted[generation] = entry
                self._writer.post(Release(generation, begun))
            else:
                # It failed, or it raised a cancellation that was not requested. The core logs both.
                await self._end(entry, recurrence, started)
            raise
        await self._end(entry, recurrence, started)

    async def _end(self, entry: Entry, recurrence: Recurrence | None, started: int, *, ran: bool = True) -> None:
        """Store the end of a run and the due time of the next one."""
        operation = End(entry.generation, ran)
        if recurrence is not None:
            try:
                following = find_next(recurrence, Run(entry.time, entry.due, started), self.now())
            except Exception as error:
                await self._park(entry, error)
                return
            if following.skipped:
                self._log_left_out(entry.task_id)
            if following.time is not None:
                operation = End(entry.generation, ran, put_off(following.time, recurrence.jitter), following.time)
        await self._submit_end(entry.task_id, operation)

    async def _park(self, entry: Entry, error: Exception) -> None:
        """Park a task that cannot run."""
        problem = f"{type(error).__name__}: {error}"
        self._log.error(
            "Parked task %r, which cannot run: %s. retry() makes it run again.",
            decode_id(entry.task_id),
            problem,
            extra=self._log_fields(entry.task_id),
        )
        await self._submit_end(entry.task_id, Park(entry.generation, problem))

    async def _submit_end(self, task_id: str, operation: End | Park) -> None:
        def apply(result: EndResult) -> None:
            if result.removed:
                self._removed(operation.generation)
            if result.next is not None:
                self._window.arm(result.next)

        # Shielded: the run has ended, even if it is cancelled now.
        with anyio.CancelScope(shield=True):
            try:
                await self._writer.submit(operation, apply, internal=True)
            except StoppedError:
                self._log.error(
                    "The end of a run of task %r could not be stored before closing: it runs again.",
                    decode_id(task_id),
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
