"""Virtual time itself: where it stands, who waits for it, and when it may move. It knows no event loop.

An event loop asks it, each time when nothing can run and no I/O is ready, what to do (`Timeline.idle`). This is the
only place where time moves, so that it never moves while a task could run.
"""

from __future__ import annotations

import math
import time
from bisect import insort
from collections.abc import Callable, Iterable
from typing import final

from anysched._core.clock import RECHECK_INTERVAL, TOLERANCE

__all__ = ["NeverIdleError", "Timeline", "Waiter"]


@final
class NeverIdleError(RuntimeError):
    """Raised when virtual time is to move, but cannot, because some task keeps yielding and the event loop is never idle.

    Attributes:
        iterations: How many iterations of the event loop were waited for.
        tasks: The names of the tasks that could run all the time, as far as they are known.
    """

    def __init__(self, iterations: int, tasks: tuple[str, ...]) -> None:
        super().__init__(iterations, tasks)
        self.iterations = iterations
        self.tasks = tasks

    def __str__(self) -> str:
        who = ", ".join(map(repr, self.tasks)) or "unknown"
        return (
            f"virtual time cannot move: in {self.iterations} iterations the event loop was never idle. Some task seems to yield in a "
            f"loop, as in `while not done: await anyio.sleep(0)` (running: {who}). Let it wait for an event, or sleep for "
            "a time; if it waits for real I/O, do this inside `with clock.hold():`; if it really has so much to do, pass a "
            "higher busy_limit to VirtualClock"
        )


class Waiter:
    """Somebody who waits until virtual time has come to a moment, and all that is due by then is done.

    Args:
        target: The moment, on the monotonic clock; -inf if it only takes the event loop to be idle.
        wake: Called, once, when it has come.

    Attributes:
        error: Why it did not come, if so.
    """

    __slots__ = ("error", "target", "wake")

    def __init__(self, target: float, wake: Callable[[], object]) -> None:
        self.target = target
        self.wake = wake
        self.error: NeverIdleError | None = None


class Timeline:
    """Virtual time, for one run of an event loop after the other.

    Args:
        start_ns: The wall time at which each run begins, in nanoseconds of UTC since 1970.
        autojump: Whether time jumps to the next deadline by itself when there is nothing to do.
        recheck_interval: How long the wall clock may go unread, in seconds.
        thread_timeout: For how many real seconds, in which nothing else happens, worker threads may hold time.
        busy_limit: How many iterations the event loop may take without being idle.

    Attributes:
        holds: For each present hold, the native task that asked for it, or `None`.
    """

    def __init__(
        self, start_ns: int, autojump: bool, recheck_interval: float, thread_timeout: float, busy_limit: int
    ) -> None:
        self.start_ns = start_ns
        self.autojump = autojump
        self.recheck_interval = recheck_interval
        self.thread_timeout = thread_timeout
        self.busy_limit = busy_limit
        self.holds: list[object] = []
        # Called when the wall clock shows another time.
        self.listeners: list[Callable[[], object]] = []
        self._is_running: Callable[[], bool] = lambda: False
        self._reset()

    def _reset(self) -> None:
        self._now = 0.0
        self._offset_ns = 0
        # When steps of the wall clock are to be announced that were not announced at once.
        self._delayed_steps: list[float] = []
        self._subscribers: list[Callable[[], object]] = []
        self._waiters: list[Waiter] = []
        self._iterations = 0
        # Since when, in real seconds, nothing happens but that worker threads run; how many of them were given up.
        self._threads_since: float | None = None
        self._abandoned_threads = 0

    def begin(self, is_running: Callable[[], bool]) -> None:
        """Start time anew, for a run of an event loop.

        Args:
            is_running: Returns whether this event loop is still running.

        Raises:
            RuntimeError: if the former one is still running.
        """
        if self._is_running():
            raise RuntimeError(
                "a virtual clock keeps the time of one event loop at a time, and its former one is still running; "
                "make another VirtualClock"
            )
        self._is_running = is_running
        self._reset()
        self._follow()

    # Reading it

    def monotonic(self) -> float:
        """Return the monotonic time in seconds since the run began."""
        return self._now

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds of UTC since 1970."""
        # To the microsecond, as `datetime`. After half a year the steps of a float are coarser than a nanosecond, and
        # the wall clock would show 11:59:59.999999 at noon.
        return self.start_ns + self._offset_ns + round(self._now * 1e6) * 1_000

    # Moving it

    def step_wall(self, ns: int, notify: bool) -> None:
        """Set the wall clock forward or back by nanoseconds."""
        self._offset_ns += ns
        self._follow()
        if notify:
            self._announce()
        elif self.recheck_interval == math.inf:
            # Nobody reads the clock at intervals, so that nobody would ever find out. Where schedulers do re-check,
            # they find out after this long at the latest.
            insort(self._delayed_steps, self._now + RECHECK_INTERVAL)

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Have ``stepped`` called at each announced step of the wall clock; return what ends this."""
        self._subscribers.append(stepped)

        def unsubscribe() -> None:
            if stepped in self._subscribers:  # not those of a former run
                self._subscribers.remove(stepped)

        return unsubscribe

    @property
    def subscriber_count(self) -> int:
        """How many are told of each announced step of the wall clock."""
        return len(self._subscribers)

    def _announce(self) -> None:
        for stepped in list(self._subscribers):
            stepped()

    def _follow(self) -> None:
        for listener in self.listeners:
            listener()

    def jump(self, moment: float) -> None:
        """Move time to a moment at once, whatever is due on the way."""
        self._now = moment
        self._follow()
        if self._delayed_steps and self._delayed_steps[0] <= moment:
            self._delayed_steps = [late for late in self._delayed_steps if late > moment]
            self._announce()

    # Waiting for it

    def add(self, waiter: Waiter) -> None:
        """Let somebody wait."""
        self._waiters.append(waiter)

    def discard(self, waiter: Waiter) -> None:
        """Forget somebody who waited, or no longer does."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _due_waiters(self) -> list[Waiter]:
        return [waiter for waiter in self._waiters if waiter.target <= self._now]

    def _wake(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            self._waiters.remove(waiter)
            waiter.wake()

    # Asked by the event loop

    def idle(self, deadline: float, threads: int) -> float:
        """Do what is to be done when no task can run and no I/O is ready.

        Args:
            deadline: The next moment, later than now, for which the event loop has set itself a timer; or infinity.
            threads: How many worker threads are at work for the event loop.

        Returns:
            For how many real seconds to wait for I/O at most. Zero: time has moved, or a task has become runnable.
        """
        self._iterations = 0
        grace = self._thread_grace(threads)
        if grace > 0:
            return grace
        due = self._due_waiters()
        if due:
            self._wake(due)
            return 0.0
        if self.holds:
            return math.inf
        target = min((waiter.target for waiter in self._waiters), default=math.inf)
        if target == math.inf and (deadline == math.inf or not self.autojump):
            return math.inf
        stop = min(deadline, *self._delayed_steps) if self._delayed_steps else deadline
        # What is due within a microsecond of the target is due at it: a sum of delays is not always the sum that one
        # would write down.
        self.jump(stop if stop < target + TOLERANCE else target)
        return 0.0

    def _thread_grace(self, threads: int) -> float:
        """Return for how many real seconds the worker threads still hold time."""
        if threads > self._abandoned_threads:
            now = time.perf_counter()
            if self._threads_since is None:
                self._threads_since = now
            grace = self._threads_since + self.thread_timeout - now
            if grace > 0:
                return grace
            self._abandoned_threads = threads
        self._threads_since = None
        return 0.0

    def io_happened(self) -> None:
        """Called when the wait for I/O has ended before its time."""
        self._threads_since = None

    def note_busy_iteration(self, threads: Callable[[], int]) -> bool:
        """Count an iteration in which something could run; return whether there were too many in a row.

        Args:
            threads: Returns how many worker threads are at work for the event loop.
        """
        self.io_happened()
        if self._abandoned_threads:
            self._abandoned_threads = min(self._abandoned_threads, threads())  # who comes after them is not given up
        self._iterations += 1
        too_many = self._iterations > self.busy_limit
        # Real I/O and threads take real time, and may be polled for. They are looked for on the way, too: one that
        # ended just now has been polled for until now.
        if (too_many or self._iterations % (self.busy_limit // 8 + 1) == 0) and (self.holds or threads()):
            self._iterations = 0
            return False
        return too_many

    def report_never_idle(self, tasks: tuple[str, ...]) -> NeverIdleError | None:
        """Tell whoever waits for time to move that the event loop is never idle.

        Args:
            tasks: The names of the tasks that seem to be to blame.

        Returns:
            An error for the event loop to raise, if nobody waits who could raise it.
        """
        iterations, self._iterations = self._iterations, 0
        waiters = list(self._waiters)
        for waiter in waiters:
            waiter.error = NeverIdleError(iterations, tasks)
        self._wake(waiters)
        return None if waiters else NeverIdleError(iterations, tasks)
