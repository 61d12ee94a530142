"""Virtual time itself: the time, its waiters, and when it may move. Independent of event loops.

An event loop calls `Timeline.idle` whenever no task can run and no I/O is ready. Time moves only there, so it never
moves while a task can run.
"""

from __future__ import annotations

import math
import time
from bisect import insort
from collections.abc import Callable, Iterable
from typing import final

from anysched._core.clock import RECHECK_INTERVAL, TOLERANCE

from .blocked import OtherThreads, Outside

__all__ = ["DeadlockError", "NeverIdleError", "Timeline", "Waiter"]

MAX_NAMED_TASKS = 10


@final
class NeverIdleError(RuntimeError):
    """Raised when virtual time cannot move because a task keeps yielding, so that the event loop is never idle.

    Attributes:
        iterations: After how many iterations of the event loop this was raised.
        tasks: The names of the tasks that kept yielding, as far as known.
    """

    def __init__(self, iterations: int, tasks: tuple[str, ...]) -> None:
        super().__init__(iterations, tasks)
        self.iterations = iterations
        self.tasks = tasks

    def __str__(self) -> str:
        who = ", ".join(map(repr, self.tasks)) or "unknown"
        return (
            f"virtual time cannot move: in {self.iterations} iterations the event loop was never idle. A task seems to yield "
            f"in a loop, as in `while not done: await anyio.sleep(0)` (running: {who}). Make it wait for an event, or sleep "
            "for a positive time; if it waits for real I/O, do this inside `with clock.hold():`; if it is just busy, pass "
            "a higher busy_limit to VirtualClock"
        )


@final
class DeadlockError(RuntimeError):
    """Raised when every task is blocked and nothing is going to wake one, so that the program would hang.

    It is raised where the main task (or the test) is blocked.

    Attributes:
        tasks: The blocked tasks, each with its name and the place where it is blocked.
        real_seconds: How long nothing has happened, in real seconds.
        next_timer: When the next timer is due, in virtual seconds from now; infinity if there is none. If there is one,
            ``autojump`` is off and no task is left that could move time.
    """

    def __init__(self, tasks: tuple[str, ...], real_seconds: float, next_timer: float) -> None:
        super().__init__(tasks, real_seconds, next_timer)
        self.tasks = tasks
        self.real_seconds = real_seconds
        self.next_timer = next_timer

    def __str__(self) -> str:
        since = f" for {self.real_seconds:g} real seconds" if self.real_seconds else ""
        if self.next_timer < math.inf:
            reason = (
                f"virtual time stands still: autojump is off, and every task has been blocked{since}, so that no task can "
                f"move time to the next timer, in {self.next_timer:g} s. Call `await clock.advance(...)` in a task that is "
                "not blocked, or set clock.autojump = True."
            )
        else:
            reason = f"deadlock: every task is blocked{since}, no timer is set, and nothing else can wake them."
        tasks = list(self.tasks[:MAX_NAMED_TASKS])
        if len(self.tasks) > MAX_NAMED_TASKS:
            tasks.append(f"and {len(self.tasks) - MAX_NAMED_TASKS} more")
        return f"{reason} If they wait for real I/O, do this inside `with clock.hold():`. Blocked tasks: {', '.join(tasks)}"


class Waiter:
    """Waits until virtual time has reached a moment and everything due by then is done.

    Args:
        target: The moment, on the monotonic clock; -inf to wait only until the event loop is idle.
        wake: Called once, when the moment has come.

    Attributes:
        error: Why the wait has failed, if it has.
    """

    __slots__ = ("error", "target", "wake")

    def __init__(self, target: float, wake: Callable[[], object]) -> None:
        self.target = target
        self.wake = wake
        self.error: NeverIdleError | None = None


class Timeline:
    """Virtual time, for any number of consecutive runs of event loops.

    Args:
        start_ns: The wall time at which each run begins, in nanoseconds of UTC since 1970.
        autojump: Whether time jumps to the next deadline when the event loop is idle.
        recheck_interval: The longest time between two readings of the wall clock, in virtual seconds.
        thread_timeout: How many real seconds worker threads may hold time while nothing else happens.
        idle_timeout: How many real seconds to wait for something from outside when every task is blocked.
        busy_limit: The number of iterations that the event loop may take without being idle.
        seed: A number that determines how ready tasks are shuffled, or `None` if they are not.

    Attributes:
        holds: For each current hold, the native task that called for it, or `None`.
        other_threads: The threads that have been started since the run began.
    """

    def __init__(
        self,
        start_ns: int,
        autojump: bool,
        recheck_interval: float,
        thread_timeout: float,
        idle_timeout: float,
        busy_limit: int,
        seed: int | None,
    ) -> None:
        self.start_ns = start_ns
        self.autojump = autojump
        self.recheck_interval = recheck_interval
        self.thread_timeout = thread_timeout
        self.idle_timeout = idle_timeout
        self.busy_limit = busy_limit
        self.seed = seed
        self.holds: list[object] = []
        # Called when the wall clock shows another time.
        self.listeners: list[Callable[[], object]] = []
        self._is_running: Callable[[], bool] = lambda: False
        self._reset()

    def _reset(self) -> None:
        self._now = 0.0
        self._offset_ns = 0
        # When to announce the steps of the wall clock that were not announced at once.
        self._delayed_steps: list[float] = []
        self._subscribers: list[Callable[[], object]] = []
        self._waiters: list[Waiter] = []
        self._iterations = 0
        # Since when, in real seconds, nothing has happened but worker threads running; how many of them are ignored.
        self._threads_since: float | None = None
        self._abandoned_threads = 0
        # Since when, in real seconds, every task has been blocked, if something outside might wake one.
        self._blocked_since: float | None = None
        self.other_threads = OtherThreads()

    def begin(self, is_running: Callable[[], bool]) -> None:
        """Reset time for a run of an event loop.

        Args:
            is_running: Returns whether this event loop is still running.

        Raises:
            RuntimeError: if the previous one is still running.
        """
        if self._is_running():
            raise RuntimeError(
                "a virtual clock keeps the time of one event loop at a time, and the previous one is still running; "
                "create another VirtualClock"
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
        # Rounded to microseconds, as in `datetime`. After half a year the steps of a float are coarser than a nanosecond
        # and the wall clock would show 11:59:59.999999 at noon.
        return self.start_ns + self._offset_ns + round(self._now * 1e6) * 1_000

    # Moving it

    def step_wall(self, ns: int, notify: bool) -> None:
        """Set the wall clock forward or back by nanoseconds."""
        self._offset_ns += ns
        self._follow()
        if notify:
            self._announce()
        elif self.recheck_interval == math.inf:
            # Schedulers do not re-check, so they would never find out. Those that do find out after this long at the
            # latest.
            insort(self._delayed_steps, self._now + RECHECK_INTERVAL)

    def subscribe(self, stepped: Callable[[], object]) -> Callable[[], object]:
        """Call ``stepped`` at each announced step of the wall clock. Return a function that ends this."""
        self._subscribers.append(stepped)

        def unsubscribe() -> None:
            if stepped in self._subscribers:  # unless it was subscribed in a previous run
                self._subscribers.remove(stepped)

        return unsubscribe

    @property
    def subscriber_count(self) -> int:
        """The number of subscribers to steps of the wall clock."""
        return len(self._subscribers)

    def _announce(self) -> None:
        for stepped in list(self._subscribers):
            stepped()

    def _follow(self) -> None:
        for listener in self.listeners:
            listener()

    def jump(self, moment: float) -> None:
        """Move time to a moment at once, past everything that is due on the way."""
        self._now = moment
        self._follow()
        if self._delayed_steps and self._delayed_steps[0] <= moment:
            self._delayed_steps = [late for late in self._delayed_steps if late > moment]
            self._announce()

    # Waiting for it

    def add(self, waiter: Waiter) -> None:
        """Add a waiter."""
        self._waiters.append(waiter)

    def discard(self, waiter: Waiter) -> None:
        """Remove a waiter, if it still waits."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _due_waiters(self) -> list[Waiter]:
        return [waiter for waiter in self._waiters if waiter.target <= self._now]

    def _wake(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            self._waiters.remove(waiter)
            waiter.wake()

    # Asked by the event loop

    def idle(self, deadline: float, threads: int, outside: Callable[[], Outside]) -> float | None:
        """Called when no task can run and no I/O is ready: move time or wake a waiter, if possible.

        Args:
            deadline: When the next timer of the event loop is due, later than now; or infinity.
            threads: The number of busy worker threads of the event loop.
            outside: Returns what might wake a task when all are blocked.

        Returns:
            How many real seconds to wait for I/O at most. Zero: time has moved, or a task has become runnable. `None`:
            there is nothing to wait for, and a `deadlock` must be reported.
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
            return math.inf if threads else self._wait_for_outside(deadline, outside())
        self._blocked_since = None
        stop = min(deadline, *self._delayed_steps) if self._delayed_steps else deadline
        # A deadline within a microsecond of the target is due at the target: a sum of floats is not always the number
        # that is meant.
        self.jump(stop if stop < target + TOLERANCE else target)
        return 0.0

    def _wait_for_outside(self, deadline: float, outside: Outside) -> float | None:
        """Return how many real seconds to wait for something from outside; `None` if it is hopeless."""
        if outside == "portal":
            return math.inf
        now = time.perf_counter()
        if self._blocked_since is None:
            self._blocked_since = now
        if outside == "nothing" and deadline == math.inf:
            return None
        grace = self._blocked_since + self.idle_timeout - now
        return grace if grace > 0 else None

    def deadlock(self, deadline: float, tasks: Iterable[str]) -> DeadlockError:
        """Return the error to raise when `idle` has returned `None`.

        Args:
            deadline: When the next timer of the event loop is due; or infinity.
            tasks: The blocked tasks.
        """
        since, self._blocked_since = self._blocked_since, None
        assert since is not None
        waited = time.perf_counter() - since
        return DeadlockError(tuple(tasks), round(waited, 3) if waited >= self.idle_timeout else 0, deadline - self._now)

    def _thread_grace(self, threads: int) -> float:
        """Return how many real seconds the worker threads can still hold time."""
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
        self._threads_since = self._blocked_since = None

    def note_busy_iteration(self, threads: Callable[[], int]) -> bool:
        """Count an iteration in which a task could run. Return whether there were too many consecutive ones.

        Args:
            threads: Returns the number of busy worker threads of the event loop.
        """
        self.io_happened()
        if self._abandoned_threads:
            self._abandoned_threads = min(self._abandoned_threads, threads())  # later ones are not ignored
        self._iterations += 1
        too_many = self._iterations > self.busy_limit
        # Real I/O and threads take real time, and a task may poll for them. This is also checked on the way to the
        # limit: a thread that has just ended was polled for until now.
        if (too_many or self._iterations % (self.busy_limit // 8 + 1) == 0) and (self.holds or threads()):
            self._iterations = 0
            return False
        return too_many

    def report_never_idle(self, tasks: tuple[str, ...]) -> NeverIdleError | None:
        """Report to the tasks that wait for time to move that the event loop is never idle.

        Args:
            tasks: The names of the tasks that seem to keep it busy.

        Returns:
            An error for the event loop to raise, if no task waits that could raise it.
        """
        iterations, self._iterations = self._iterations, 0
        waiters = list(self._waiters)
        for waiter in waiters:
            waiter.error = NeverIdleError(iterations, tasks)
        self._wake(waiters)
        return None if waiters else NeverIdleError(iterations, tasks)
