"""The only writer of a store. It commits operations in groups in a worker thread, and applies them in the same order."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar, cast, final

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from .errors import ContendedError, StoreError
from .operations import Claim, Operation
from .store import Store

__all__ = ["StoppedError", "Writer"]

R = TypeVar("R")

GROUP = 256
"""The maximum number of operations in one transaction."""

APPLIED_PER_ITERATION = 64
"""How many results are applied before yielding to the event loop."""

FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""How long to wait before a commit is tried again, in seconds. The wait doubles each time."""


CONTENDED_RETRY = 0.2
"""How long to wait before an operation is tried again that must wait for a transaction of a user's, in seconds."""

PATIENCE = 3.0
"""For how long a verb waits for such a transaction, in seconds."""


class StoppedError(Exception):
    """Raised to the caller of an internal operation if the writer was stopped before it was committed."""


class _Request:
    """An operation in the queue."""

    __slots__ = (
        "abandoned", "alone", "apply", "error", "event", "internal", "operation", "patience", "result", "withdrawn",
    )  # fmt: skip

    def __init__(
        self,
        operation: Operation[Any],
        apply: Callable[[Any], Awaitable[None] | None] | None,
        *,
        internal: bool,
        alone: bool = False,
        abandoned: Callable[[Any], object] | None = None,
    ) -> None:
        self.operation = operation
        self.apply = apply
        self.internal = internal
        self.alone = alone
        self.abandoned = abandoned
        self.event = anyio.Event()
        self.result: Any = None
        self.error: Exception | None = None
        self.withdrawn = False
        self.patience: float | None = None  # until when a contended operation is tried again

    def fail(self, error: StoreError) -> None:
        self.error = StoppedError() if self.internal else error
        self.event.set()


class _Opening:
    """Opens a store in a thread, and closes it again if it is no longer wanted."""

    def __init__(self, function: Callable[[], None], store: Store) -> None:
        self._function = function
        self._store = store
        self._lock = Lock()
        self._is_open = False
        self._abandoned = False

    def run(self) -> None:
        self._function()
        with self._lock:
            self._is_open = True
            self._close_if_abandoned()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            self._close_if_abandoned()

    def _close_if_abandoned(self) -> None:
        if self._is_open and self._abandoned:
            self._store.close()


@final
class Writer:
    """Commits operations in the order of submission, and passes the results to callbacks in the same order.

    When a commit fails, the operations of *calls* fail too. *Internal* operations, such as starts and ends, stay in
    the queue and are tried again until the writer is stopped.

    Args:
        store: The store. It must not be open.
        log: The logger for failures.
        every_commit: Called before each commit; returns an operation to add, or `None`.
        failed: Called when a commit has failed; returns whether nothing of it must be tried again.

    Attributes:
        limiter: The limiter of the thread in which operations are committed.
    """

    def __init__(
        self,
        store: Store,
        log: logging.Logger,
        every_commit: Callable[[], Operation[Any] | None],
        failed: Callable[[StoreError], bool],
    ) -> None:
        self._store = store
        self._log = log
        self._every_commit = every_commit
        self._failed = failed
        # A separate limiter, so that other uses of worker threads in the program do not delay commits.
        self.limiter: anyio.CapacityLimiter = anyio.CapacityLimiter(1)
        self._idle: anyio.Event | None = None
        self._queue: deque[_Request] = deque()
        self._group: list[_Request] = []  # the requests that are being committed and applied
        # The requests that wait for a transaction of the user, with the times when they are tried again; and how many requests
        # of the queue are committed one by one, to find such requests.
        self._contended: list[tuple[float, _Request]] = []
        self._one_by_one = 0
        self._more = anyio.Event()
        self._stopping = False
        self._give_up_at = math.inf
        self._is_open = False
        self._failing = False
        self.closed: anyio.Event = anyio.Event()

    async def open(self, function: Callable[[], None]) -> None:
        """Open the store, by one of its methods.

        Raises:
            StoreError: if that fails.
        """
        # Shielded: opening cannot be interrupted, and the store must be closed if it succeeds.
        opening = _Opening(function, self._store)
        with anyio.CancelScope(shield=True):
            try:
                await to_thread.run_sync(opening.run, limiter=self.limiter)
            except BaseException:  # asyncio's own cancellation is not kept off
                opening.abandon()
                raise
            self._is_open = True

    async def submit(
        self,
        operation: Operation[R],
        apply: Callable[[R], Awaitable[None] | None] | None = None,
        *,
        internal: bool = False,
        alone: bool = False,
        abandoned: Callable[[R], object] | None = None,
    ) -> R:
        """Commit an operation, and return its result after it has been applied.

        If the caller is cancelled in the meantime, it does not wait, and if the commit has not begun, the operation is
        dropped.

        Args:
            operation: The operation.
            apply: Called with the result, in the order of the operations.
            internal: Whether the operation is tried again when the commit fails.
            alone: Whether the caller continues only after all operations of the same commit are applied, and before
                the next caller with ``alone``.
            abandoned: Called with the result if the caller was cancelled but the operation was committed.

        Raises:
            StoreError: if the commit failed, or the writer was stopped.
            StoppedError: if the writer was stopped before an internal operation was committed.
        """
        request = _Request(operation, apply, internal=internal, alone=alone, abandoned=abandoned)
        self._add(request)
        try:
            await request.event.wait()
        except BaseException:
            request.withdrawn = True
            if request.event.is_set() and request.error is None and abandoned is not None:
                abandoned(request.result)
            raise
        if request.error is not None:
            raise request.error
        return cast("R", request.result)

    def post(self, operation: Operation[R], apply: Callable[[R], Awaitable[None] | None] | None = None) -> None:
        """Commit an internal operation without waiting for it."""
        self._add(_Request(operation, apply, internal=True))

    async def until_idle(self) -> None:
        """Wait until nothing is being committed, and nothing is in the queue."""
        while self._group or self._queue:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    def drop_internal(self) -> None:
        """Give up the internal operations in the queue."""
        for request in (*self._queue, *(request for _, request in self._contended)):
            if request.internal:
                request.withdrawn = True
                request.fail(StoreError("the ownership has been lost"))

    async def run(self) -> None:
        """Commit operations until `stop` is called, then close the store.

        It is shielded from cancellation, because the ends of tasks that are cancelled at the same time must still be
        stored.
        """
        with anyio.CancelScope(shield=True):
            try:
                await self._commit_all()
            finally:
                self._is_open = False
                for request in (*self._group, *self._queue, *(request for _, request in self._contended)):
                    if not request.event.is_set():
                        request.fail(StoreError("the store has been closed"))
                self._queue.clear()
                await to_thread.run_sync(self._store.close, limiter=self.limiter)
                self.closed.set()

    def give_up_at(self, time: float) -> None:
        """Stop trying failed commits again at a time of the event loop's clock, because the scheduler is closing."""
        self._give_up_at = time
        self._more.set()

    def stop(self) -> None:
        """Make `run` commit the queued operations, close the store, and return."""
        self._stopping = True
        self.give_up_at(-math.inf)

    def _add(self, request: _Request) -> None:
        if self._is_open:
            self._queue.append(request)
            self._more.set()
        else:
            request.fail(StoreError("the store is closed"))

    async def _commit_all(self) -> None:
        delay = FIRST_RETRY
        while self._queue or self._contended or not self._stopping:
            self._take_up()
            self._group = group = self._take()
            if not group:
                self._more = anyio.Event()
                if self._idle is not None:
                    self._idle.set()
                    self._idle = None
                with anyio.CancelScope(deadline=min((time for time, _ in self._contended), default=math.inf)):
                    await self._more.wait()
                continue
            operations = [request.operation for request in group]
            addition = self._every_commit()
            if addition is not None:
                operations.append(addition)
            try:
                results = await to_thread.run_sync(self._store.commit, operations, limiter=self.limiter)
            except ContendedError as error:
                self._set_aside(group, error)
                continue
            except StoreError as error:
                self._commit_failed(group, error)
                self._more = anyio.Event()
                with anyio.CancelScope(deadline=min(anyio.current_time() + delay, self._give_up_at)):
                    await self._more.wait()  # a new call is tried at once: its caller is waiting
                delay = min(2 * delay, LAST_RETRY)
                continue
            delay = FIRST_RETRY
            if self._failing:
                self._failing = False
                self._log.info("The store can be written again.")
            await self._apply(group, results)

    def _take(self) -> list[_Request]:
        """Take the next group from the queue, and drop the requests whose callers are no longer waiting."""
        group: list[_Request] = []
        while self._queue and len(group) < (1 if self._one_by_one else GROUP):
            request = self._queue.popleft()
            self._one_by_one = max(self._one_by_one - 1, 0)
            if not request.withdrawn:
                group.append(request)
        return group

    def _set_aside(self, group: list[_Request], error: ContendedError) -> None:
        """Have one operation that must wait for a transaction of a user's not hold up the others."""
        self._group = []
        if len(group) > 1:
            self._queue.extendleft(reversed(group))
            self._one_by_one = len(group)
            return
        (request,) = group
        now = anyio.current_time()
        if request.patience is None:
            request.patience = math.inf if request.internal else now + PATIENCE
        if now < min(request.patience, self._give_up_at):
            self._contended.append((now + CONTENDED_RETRY, request))
        else:
            request.fail(error)

    def _take_up(self) -> None:
        """Put what was set aside back into the queue when its time has come, or when nothing is tried again."""
        now = anyio.current_time()
        ready = [request for time, request in self._contended if min(time, self._give_up_at) <= now]
        if ready:
            self._contended = [
                (time, request) for time, request in self._contended if min(time, self._give_up_at) > now
            ]
            self._queue.extendleft(reversed(ready))
            self._one_by_one = max(self._one_by_one, len(ready))

    def _commit_failed(self, group: list[_Request], error: StoreError) -> None:
        give_up = self._failed(error)  # it may add operations, after those that are tried again
        if not self._failing and not give_up:
            self._failing = True
            self._log.error(
                "The store cannot be written, and calls fail: %s. Starts and ends of tasks wait and are tried again.",
                error,
            )
        for request in group:
            if not request.internal:
                request.fail(error)
        waiting = [request for request in group if request.internal]
        if anyio.current_time() < self._give_up_at and not give_up:
            self._group = []
            for request in waiting:
                if isinstance(request.operation, Claim):
                    # Perhaps it was committed, and only the answer is missing.
                    request.operation = replace(request.operation, repeated=True)
            self._queue.extendleft(reversed(waiting))
        else:
            for request in waiting:
                request.fail(error)

    async def _apply(self, group: list[_Request], results: list[Any]) -> None:
        starts: list[_Request] = []
        for number, (request, result) in enumerate(zip(group, results, strict=False), 1):
            request.result = result
            if request.apply is not None:
                slow = request.apply(result)
                if slow is not None:
                    await slow
            if request.withdrawn and request.abandoned is not None:
                request.abandoned(result)
            if request.alone:
                starts.append(request)
            else:
                request.event.set()
            if number % APPLIED_PER_ITERATION == 0:
                await checkpoint()
        # Do this last, so that a task that was claimed and cancelled in the same commit does not begin. Set the events
        # one by one, because on trio, tasks that become ready in the same iteration run in any order.
        for request in starts:
            request.event.set()
            await checkpoint()
