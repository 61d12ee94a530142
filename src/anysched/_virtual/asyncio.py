"""An asyncio event loop in virtual time: its selector moves time instead of waiting. All asyncio specifics are here."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, final
from weakref import WeakSet

from anyio._backends._asyncio import WorkerThread

from .asyncio_blocked import blocked_tasks, raise_in
from .asyncio_shuffle import Shuffler
from .blocked import Outside, describe, waits_for_portal
from .timeline import Timeline

__all__ = ["VirtualEventLoop"]


class VirtualSelector(selectors.DefaultSelector):
    """A selector that does not wait, but calls back."""

    busy: Callable[[], object]
    """Called when the event loop has something to do."""
    idle: Callable[[], float]
    """Called when there is nothing to do. Returns how many real seconds to wait for I/O."""
    before_run: Callable[[], object] | None = None
    """Called before the event loop runs ready callbacks."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the I/O that is ready. The timeout is virtual and only shows whether the event loop is idle."""
        ready = self._select_or_idle(timeout)
        if self.before_run is not None:
            self.before_run()
        return ready

    # Not `_select`: the selector that is the default on Windows has a method of this name.
    def _select_or_idle(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            seconds = self.idle()
            if seconds:
                ready = super().select(None if seconds == math.inf else seconds)
            if not ready:
                return ready
        self.busy()
        return ready


@final
class VirtualEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual.

    Args:
        timeline: The time to use. It is reset.

    Attributes:
        shuffles_tasks: Whether ready tasks run in random order.
    """

    def __init__(self, timeline: Timeline) -> None:
        myself = weakref.ref(self)

        def is_running() -> bool:
            loop = myself()
            return loop is not None and loop.is_running()

        self._timeline = timeline
        self._executor_jobs = 0
        self._failed_groups: WeakSet[object] = WeakSet()
        self._shuffler = None if timeline.seed is None else Shuffler(timeline.seed)
        self.shuffles_tasks = self._shuffler is not None
        selector = VirtualSelector()
        selector.busy = self._busy
        selector.idle = self._idle
        super().__init__(selector)
        if self._shuffler is not None:
            selector.before_run = partial(self._shuffler.shuffle, vars(self)["_ready"])
        try:
            timeline.begin(is_running)
        except RuntimeError:
            self.close()
            raise
        self._update_clock_resolution()

    def time(self) -> float:
        """Return the virtual monotonic time, in seconds."""
        return self._timeline.monotonic()

    def create_task(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Create a task."""
        task = super().create_task(*args, **kwargs)
        if self._shuffler is not None:
            self._shuffler.add(task)
        return task

    def run_in_executor(  # type: ignore[override]  # typed as loosely as it is called
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread and count it: time stands still until it ends."""
        future = super().run_in_executor(executor, func, *args)
        self._executor_jobs += 1
        future.add_done_callback(self._end_job)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the executor's threads. This takes real time, so virtual time must not jump to its timeout."""
        self._timeline.holds.append(None)
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._timeline.holds.remove(None)

    def _end_job(self, _: object) -> None:
        self._executor_jobs -= 1

    def _busy(self) -> None:
        if self._timeline.note_busy_iteration(self._threads):
            error = self._timeline.report_never_idle(self._runnable())
            if error is not None:
                # Raised here, it ends the run of the event loop. asyncio has no way to raise it in the busy task.
                raise error

    def _idle(self) -> float:
        seconds = self._timeline.idle(self._deadline(), self._threads(), self._outside)
        self._update_clock_resolution()
        if seconds is None:
            self._report_deadlock()
            return 0.0
        return seconds

    def _threads(self) -> int:
        """Return the number of busy worker threads: those of executors and of anyio."""
        jobs = self._executor_jobs
        if threading.active_count() > 1:
            # anyio manages its threads itself. A limiter counts only the threads that use it.
            for thread in threading.enumerate():
                if isinstance(thread, WorkerThread) and thread.loop is self:
                    jobs += not thread.stopping and thread not in thread.idle_workers
        return jobs

    # Deadlocks

    def _outside(self) -> Outside:
        """Return what might wake a task when all are blocked."""
        if any(waits_for_portal(task.get_coro()) for task in blocked_tasks(self)[:1]):
            return "portal"
        if self._watches_io():
            return "something"
        pool = self._pool()
        others = (thread for thread in self._timeline.other_threads if not isinstance(thread, WorkerThread))
        return "something" if any(thread not in pool for thread in others) else "nothing"

    def _report_deadlock(self) -> None:
        """Raise an error where the main task is blocked, or else in another task."""
        tasks = blocked_tasks(self)
        names = [describe(task.get_name(), task.get_coro()) for task in tasks]
        error = self._timeline.deadlock(self._deadline(), names)
        if not any(raise_in(task, error, self._failed_groups) for task in tasks):
            raise error

    # Access to private parts of asyncio

    def _watches_io(self) -> bool:
        """Return whether the event loop watches a file, other than the socket that wakes it, or a signal."""
        private = vars(self)
        return len(private["_selector"].get_map()) > 1 or bool(private.get("_signal_handlers"))

    def _pool(self) -> set[threading.Thread]:
        """Return the threads of the default executor; those that are busy are counted."""
        pool: set[threading.Thread] = getattr(vars(self)["_default_executor"], "_threads", set())
        return pool

    def _deadline(self) -> float:
        """Return when the next timer is due, or infinity.

        The selector's timeout is a difference of floats. Added to the time, it does not always give the deadline.
        """
        scheduled: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        return scheduled[0].when() if scheduled else math.inf

    def _update_clock_resolution(self) -> None:
        """Set the resolution of the clock to one step of a float, where the event loop assumes a nanosecond.

        Past 2**24 s, 194 days, two neighbouring floats are more than a nanosecond apart. Adding one to the time would
        not change it and the event loop would spin, as on a machine with such an uptime (CPython gh-145703).
        """
        self._clock_resolution = math.ulp(self._timeline.monotonic())

    def _runnable(self) -> tuple[str, ...]:
        """Return the names of the tasks that are not blocked."""
        return tuple(task.get_name() for task in asyncio.all_tasks(self) if getattr(task, "_fut_waiter", None) is None)
